"""Polyadic decomposition of small dense tensors by Levenberg–Marquardt, in NumPy float64."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from mlip.errors import InputError

Triple: TypeAlias = tuple[ndarray, ndarray, ndarray]

# Unknowns above which conjugate gradients replace the Cholesky factorisation, and how many steps they get.
_DIRECT_LIMIT = 1000
_CONJUGATE_STEPS = 400


@dataclass(frozen=True)
class PolyadicFit:
    r"""$T_{ijk} \approx \sum_r A_{ri} B_{rj} C_{rk}$.

    Attributes:
        matrices: A (R, I), B (R, J), C (R, K), each component's three vectors of equal length.
        error: Frobenius norm of the residual relative to that of the tensor.
        largest: Greatest length of any component's vectors, relative to the largest that the tensor's own
            norm calls for, $|T|^{1/3}$: large means components that diverge and cancel.
        start: Index of the random start that led here.
    """

    matrices: Triple
    error: float
    largest: float
    start: int


def fit_polyadic(
    tensor: Float[ndarray, "i j k"],
    rank: int,
    *,
    starts: int = 10,
    iterations: int = 400,
    tolerance: float = 1e-13,
    largest: float = 3.0,
    seed: int = 0,
    report: Callable[[str], None] | None = None,
) -> PolyadicFit:
    r"""Fit a decomposition of given rank from random starts; stop at the first exact, well-behaved one.

    Minimises $|T - \hat T|^2 + \lambda (|A|^2 + |B|^2 + |C|^2)$. The penalty, which keeps components from
    diverging against each other, is lowered step by step to nothing. The normal equations come from the
    Gram matrices of the factors, so a step costs one Cholesky solve of size R (I + J + K), or for many
    unknowns some hundred products of R × R matrices by conjugate gradients.

    Args:
        tensor: Target.
        rank: Number of components R.
        starts: Random starts to try at most.
        iterations: Steps per start at most.
        tolerance: Relative error taken for exact.
        largest: Bound on the length of a component's vectors (see `PolyadicFit.largest`) to be accepted.
        seed: Seed of the starts.
        report: Called with one line per start.

    Returns:
        The accepted fit, or else the one with the smallest error.

    Raises:
        InputError: If the tensor is not of order three, not finite or zero, or rank or starts not positive.

    Source: Tomasi and Bro, Comput. Stat. Data Anal. 50, 1700 (2006).
    """
    if tensor.ndim != 3 or not np.isfinite(tensor).all() or not tensor.any():
        raise InputError(f"`tensor` of shape {tensor.shape} must have three indices, be finite and not zero")
    if rank < 1 or starts < 1:
        raise InputError(f"`rank` is {rank} and `starts` is {starts} but both must be positive")
    norm = float(np.linalg.norm(tensor))
    scaled = tensor / norm
    best: PolyadicFit | None = None
    for start in range(starts):
        rng = np.random.default_rng((seed, start))
        size = rank ** (-1 / 6)
        initial = tuple(rng.standard_normal((rank, d)) * size / np.sqrt(d) for d in tensor.shape)
        matrices = balance(_descend(scaled, (initial[0], initial[1], initial[2]), iterations, tolerance))
        error = float(np.linalg.norm(scaled - compose(matrices)))
        extent = max(float(np.linalg.norm(m, axis=1).max()) for m in matrices)
        unscaled = (
            matrices[0] * norm ** (1 / 3),
            matrices[1] * norm ** (1 / 3),
            matrices[2] * norm ** (1 / 3),
        )
        candidate = PolyadicFit(unscaled, error, extent, start)
        if report is not None:
            report(f"rank {rank} start {start}: error {error:.1e}, largest component {extent:.2f}")
        if best is None or candidate.error < best.error:
            best = candidate
        if error < tolerance and extent < largest:
            return candidate
    if best is None:  # unreachable, starts >= 1
        raise InputError("no start was made")
    return best


def compose(matrices: Triple) -> Float[ndarray, "i j k"]:
    """The tensor that the three factor matrices stand for."""
    return np.einsum("ri,rj,rk->ijk", *matrices, optimize=True)


def balance(matrices: Triple) -> Triple:
    """Give the three vectors of each component equal length; the tensor stays the same."""
    lengths = np.stack([np.linalg.norm(m, axis=1) for m in matrices])
    common = lengths.prod(axis=0) ** (1 / 3)
    scale = np.divide(common, lengths, out=np.zeros_like(lengths), where=lengths > 0)
    return matrices[0] * scale[0, :, None], matrices[1] * scale[1, :, None], matrices[2] * scale[2, :, None]


def _descend(tensor: ndarray, matrices: Triple, iterations: int, tolerance: float) -> Triple:
    """Levenberg–Marquardt from one start, with a penalty lowered as the fit proceeds."""
    penalty, damping, growth = 1e-2, 1e-1, 2.0
    residual = tensor - compose(matrices)
    for _ in range(iterations):
        error = float(np.sqrt((residual**2).sum()))
        if error < min(tolerance / 10, 5e-16):
            break
        gradient = _gradient(residual, matrices, penalty)
        solve = _solver(matrices)
        cost = error**2 + penalty * _square(matrices)
        accepted = False
        for _ in range(12):
            step = solve(gradient, penalty + damping)
            trial = _shift(matrices, step)
            trial_residual = tensor - compose(trial)
            trial_cost = float((trial_residual**2).sum()) + penalty * _square(trial)
            predicted = float(step @ (gradient + damping * step))
            if predicted > 0 and trial_cost < cost:
                ratio = (cost - trial_cost) / predicted
                damping = max(damping * max(1 / 3, 1 - (2 * ratio - 1) ** 3), 1e-15)
                growth, accepted = 2.0, True
                break
            damping, growth = damping * growth, growth * 2
        if not accepted:
            if penalty == 0.0:
                break
            penalty, damping, growth = 0.0, 1e-8, 2.0
            continue
        matrices, residual = trial, trial_residual
        if (cost - trial_cost) < 0.05 * cost:  # settled at this penalty: lower it
            penalty = penalty / 4 if penalty > 1e-11 else 0.0
    return matrices


def _square(matrices: Triple) -> float:
    return float(sum((m**2).sum() for m in matrices))


def _split(vector: ndarray, matrices: Triple) -> Triple:
    """Parts of a vector of parameters in the shapes of the factors."""
    a, b, c = matrices
    first, second, third = np.split(vector, np.cumsum([a.size, b.size]))
    return first.reshape(a.shape), second.reshape(b.shape), third.reshape(c.shape)


def _shift(matrices: Triple, step: ndarray) -> Triple:
    a, b, c = _split(step, matrices)
    return matrices[0] + a, matrices[1] + b, matrices[2] + c


def _gradient(residual: ndarray, matrices: Triple, penalty: float) -> ndarray:
    """Minus half the gradient of the cost, (parameters,)."""
    a, b, c = matrices
    rc = np.tensordot(residual, c, (2, 1))  # i j r
    ra = np.tensordot(residual, a, (0, 1))  # j k r
    parts = (
        np.einsum("ijr,rj->ri", rc, b),
        np.einsum("ijr,ri->rj", rc, a),
        np.einsum("jkr,rj->rk", ra, b),
    )
    return np.concatenate([(p - penalty * m).ravel() for p, m in zip(parts, matrices, strict=True)])


def _normal_matrix(matrices: Triple) -> ndarray:
    """Jacobian transposed times Jacobian, from the Gram matrices of the factors."""
    grams = [m @ m.T for m in matrices]
    sizes = [m.size for m in matrices]
    ends = np.concatenate([[0], np.cumsum(sizes)])
    out = np.empty((ends[-1], ends[-1]))
    for p in range(3):
        for q in range(p, 3):
            rows, columns = slice(ends[p], ends[p + 1]), slice(ends[q], ends[q + 1])
            if p == q:
                others = grams[(p + 1) % 3] * grams[(p + 2) % 3]
                out[rows, columns] = np.kron(others, np.eye(matrices[p].shape[1]))
                continue
            third = grams[3 - p - q]
            # d/dA_ri against d/dB_sj is A_si B_rj (C C^T)_rs
            block = np.einsum("rs,si,rj->risj", third, matrices[p], matrices[q], optimize=True)
            out[rows, columns] = block.reshape(sizes[p], sizes[q])
            out[columns, rows] = out[rows, columns].T
    return out


def _solver(matrices: Triple) -> Callable[[ndarray, float], ndarray]:
    """Solver of the normal equations with a shift of the diagonal: direct when small, else iterative."""
    if sum(m.size for m in matrices) > _DIRECT_LIMIT:
        return functools.partial(_solve_iteratively, matrices)
    return functools.partial(_solve_directly, _normal_matrix(matrices))


def _solve_iteratively(matrices: Triple, gradient: ndarray, shift: float) -> ndarray:
    """Conjugate gradients; Gram products apply the matrix, its diagonal blocks precondition."""
    grams = [m @ m.T for m in matrices]
    others = [grams[1] * grams[2], grams[2] * grams[0], grams[0] * grams[1]]
    shift = max(shift, 1e-14 * float(np.trace(others[0])) / len(grams[0]))
    inverses = [np.linalg.inv(o + shift * np.eye(len(o))) for o in others]

    def apply(vector: ndarray) -> ndarray:
        d = _split(vector, matrices)
        parts = [o @ v + shift * v for o, v in zip(others, d, strict=True)]
        for p in range(3):
            for q in range(3):
                if p != q:
                    parts[p] += (grams[3 - p - q] * (matrices[q] @ d[q].T)) @ matrices[p]
        return np.concatenate([part.ravel() for part in parts])

    def precondition(vector: ndarray) -> ndarray:
        d = _split(vector, matrices)
        return np.concatenate([(i @ v).ravel() for i, v in zip(inverses, d, strict=True)])

    solution = np.zeros_like(gradient)
    residual = gradient.copy()
    direction = preconditioned = precondition(residual)
    product = float(residual @ preconditioned)
    target = 1e-6 * float(np.linalg.norm(gradient))
    for _ in range(_CONJUGATE_STEPS):
        image = apply(direction)
        length = product / float(direction @ image)
        solution = solution + length * direction
        residual = residual - length * image
        if np.linalg.norm(residual) < target:
            break
        preconditioned = precondition(residual)
        previous, product = product, float(residual @ preconditioned)
        direction = preconditioned + product / previous * direction
    return solution


def _solve_directly(hessian: ndarray, gradient: ndarray, shift: float) -> ndarray:
    """Cholesky; raises the shift until the matrix is positive definite."""
    shift = max(shift, 1e-15 * float(np.trace(hessian)) / len(gradient))
    while True:
        damped = hessian.copy()
        damped[np.diag_indices_from(damped)] += shift
        try:
            return cho_solve(cho_factor(damped, lower=True, overwrite_a=True, check_finite=False), gradient)
        except LinAlgError:
            shift *= 10
