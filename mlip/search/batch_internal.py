"""Quasi-Newton steps in redundant internal coordinates, for many structures at once.

The first Hessian is the guess of `mlip.search.internals`, later ones come from damped BFGS updates in
internal coordinates; a step is the minimum of the quadratic model within a trust radius, and bonds keep their
lengths on the way (P. Pulay and G. Fogarasi, J. Chem. Phys. 96, 2856 (1992)). With W the first stiffness and
B = ∂q/∂x everything is solved in Cartesian size: M = BᵀWB is factored once, g_q = W B M⁻¹ g is the gradient
in internal coordinates, and Bᵀ H_q B = M + Σ (Bᵀa)(Bᵀa)ᵀ − (Bᵀb)(Bᵀb)ᵀ the Hessian after updates a, b.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mlip.search.batch_frame import Frame, Memory, Stand
from mlip.search.batch_walker import by_size
from mlip.search.internals import MOST_NEIGHBOURS, find_internals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from mlip.search.batch_walker import Walker
    from mlip.search.internals import Internals

TRUST_MIN: Final = 0.02
TRUST_MAX: Final = 1.0
"""Norm of a step in internal coordinates, Å and rad: at least where the model fails, and at most."""

LONGEST_MOVE: Final = 1.0
"""Å that an atom moves in one step at most."""

LARGEST_STRAIN: Final = 0.1


SHRINK: Final = 0.25
"""Of the length of a step that gained less than a quarter of what was foreseen: the next trust radius."""

RETREAT: Final = 0.25
"""Of the length of a step that led uphill: the next trust radius."""

NOISE: Final = 2e-3
"""eV; predicted changes of energy below this are judged by the gradients instead."""

UPHILL: Final = 1e-3
"""eV by which a step may raise the energy."""

DAMPING: Final = 0.2
"""Least curvature along a step, as a fraction of that of the model (M. J. D. Powell, 1978)."""

LONGEST_MEMORY: Final = 60
"""Updates after which the Hessian begins anew."""

CHORDS: Final = 3
"""Corrections that bring the internal coordinates to where the step was to take them."""

SHIFTS: Final = 3
"""Iterations for the shift that keeps a step within its trust radius."""

RENEW_AFTER: Final = 3
"""Rejected steps in a row after which the Hessian begins anew."""

NEARLY_LINEAR: Final = np.radians(178.0)
NO_LONGER_LINEAR: Final = 0.5
"""A bend above the one, or a linear bend beyond the other (rad), asks for new coordinates."""


class InternalOptimizer:
    """Chooses the next place of each of many structures."""

    name: Final = "internal"

    def advance(self, walkers: Sequence[Walker]) -> None:
        """Move each walker from where it has been looked at last, or back and less far."""
        for group in by_size(walkers):
            self._advance(group)

    def _advance(self, walkers: list[Walker]) -> None:
        for walker in walkers:
            if walker.memory is None:
                walker.memory = Memory(coordinates_of(walker))
        frame = Frame(walkers)
        back = _learn(frame)
        for s in back:
            stand = walkers[s].memory.stand
            walkers[s].place(stand.positions, stand.cell)
            walkers[s].energy, walkers[s].objective = stand.energy, stand.objective
            walkers[s].gradient = stand.gradient
        if back:
            frame.patch(back)
        renewed = _outworn(frame)
        for s in renewed:
            walkers[s].memory = Memory(coordinates_of(walkers[s]), trust=walkers[s].memory.trust)
        if renewed:
            frame = Frame(walkers)
        _step(frame)


def coordinates_of(walker: Walker) -> Internals:
    """Coordinates that reach every motion that is left to the structure."""
    internals = find_internals(walker.atoms, cartesian=False)
    degree = np.bincount(internals.ends[:, 0], minlength=len(walker.atoms))
    complete = (
        not walker.atoms.pbc.any()
        and bool(walker.free.all())
        and not len(internals.linear)
        and degree.max(initial=0) <= MOST_NEIGHBOURS
    )
    return internals if complete else find_internals(walker.atoms, cartesian=True)


def _learn(frame: Frame) -> list[int]:
    """Update Hessians and trust radii by what the last steps brought; returns who has to go back."""
    moved = [s for s, memory in enumerate(frame.memories) if memory.stand is not None]
    if not moved:
        return []
    change, turn = np.zeros_like(frame.values), np.zeros_like(frame.values)
    for s in moved:
        stand = frame.memories[s].stand
        assert stand is not None
        n = len(stand.values)
        change[s, :n] = frame.values[s, :n] - stand.values
        turn[s, :n] = frame.slope[s, :n] - stand.slope
    if frame.scales is not None:
        _undo_strain(frame, change, moved)
    change = frame.joined.difference(change, np.zeros_like(change))
    plus, minus = frame.history()
    step = torch.from_numpy(change).unsqueeze(2)
    curved = frame.stiffness * step.squeeze(2)
    curved += (plus.mT @ (plus @ step) - minus.mT @ (minus @ step)).squeeze(2)
    bent = curved.numpy()
    expected = np.einsum("sq,sq->s", change, bent)
    found = np.einsum("sq,sq->s", change, turn)
    back = []
    for s in moved:
        memory, walker = frame.memories[s], frame.walkers[s]
        finite = bool(np.isfinite(walker.objective))
        n = len(memory.internals.stiffness)
        if finite and expected[s] > 1e-16:
            _update(memory, turn[s, :n], bent[s, :n], float(expected[s]), float(found[s]))
        if not _judge(memory, walker, change[s, :n], frame.slope[s, :n]):
            back.append(s)
    return back


def _undo_strain(frame: Frame, change: np.ndarray, moved: list[int]) -> None:
    """Cartesian coordinates count from where the strain alone would have taken them."""
    since = frame.cells.copy()
    for s in moved:
        since[s] = frame.memories[s].stand.cell  # type: ignore[union-attr]
    carried = frame.joined.values(frame.positions.reshape(-1, 3), frame.cells, since=since)
    rows = frame.joined.rows[-1]
    change.ravel()[rows] += (carried - frame.values).ravel()[rows]


def _update(memory: Memory, turn: np.ndarray, bent: np.ndarray, expected: float, found: float) -> None:
    """Damped BFGS update: H + aaᵀ − bbᵀ with a = y / √(y·s), b = Hs / √(s·Hs)."""
    if found < DAMPING * expected:
        share = (1.0 - DAMPING) * expected / (expected - found)
        turn = share * turn + (1.0 - share) * bent
        found = DAMPING * expected
    memory.plus.append(turn / found**0.5)
    memory.minus.append(bent / expected**0.5)


def _judge(memory: Memory, walker: Walker, change: np.ndarray, slope: np.ndarray) -> bool:
    """Whether the step is kept; sets the trust radius by how well it was foreseen."""
    stand = memory.stand
    assert stand is not None
    if np.isfinite(walker.objective):
        gained = walker.objective - stand.objective
        if abs(stand.predicted) < NOISE:
            gained = 0.5 * float((slope + stand.slope) @ change)
        if gained <= UPHILL:
            quality = gained / min(stand.predicted, -1e-12)
            if quality < 0.25:
                memory.trust = max(SHRINK * stand.length, TRUST_MIN)
            elif quality > 0.75 and stand.length > 0.9 * memory.trust:
                memory.trust = min(2.0 * memory.trust, TRUST_MAX)
            memory.rejected = 0
            return True
    memory.trust = RETREAT * min(memory.trust, stand.length)
    memory.rejected += 1
    if memory.rejected % RENEW_AFTER == 0:
        memory.plus.clear()
        memory.minus.clear()
    return False


def _outworn(frame: Frame) -> list[int]:
    """Who needs new coordinates: bends became linear, or linear ones bent, or the history is long."""
    values = frame.values.ravel()
    of = frame.joined.coordinates
    _, bend, _, _, linear, _ = frame.joined.rows
    straight = bend[values[bend] > NEARLY_LINEAR] // of
    bent = linear[np.abs(values[linear]) > NO_LONGER_LINEAR] // of
    long = [s for s, memory in enumerate(frame.memories) if len(memory.plus) >= LONGEST_MEMORY]
    return sorted({*straight.tolist(), *bent.tolist(), *long})


def _step(frame: Frame) -> None:
    """Take a step from where each walker stands."""
    plus, minus = frame.history()
    up, down = plus @ frame.rows, minus @ frame.rows
    hessian = frame.model + up.mT @ up - down.mT @ down
    trust = torch.tensor([memory.trust for memory in frame.memories], dtype=torch.float64)
    change = _trusted(hessian, frame.gradient, frame.rows, trust)
    wanted = (frame.rows @ change.unsqueeze(2)).squeeze(2)
    lengths = wanted.norm(dim=1).numpy()
    foreseen = (frame.gradient * change).sum(1)
    foreseen += 0.5 * (change.unsqueeze(1) @ hessian @ change.unsqueeze(2)).reshape(-1)
    positions, cells = _follow(frame, change, wanted)
    for s, (walker, memory) in enumerate(zip(frame.walkers, frame.memories, strict=True)):
        n, count = len(walker.atoms), len(memory.internals.stiffness)
        memory.stand = Stand(
            positions=walker.atoms.positions.copy(),
            cell=walker.atoms.cell.array.copy(),
            energy=walker.energy,
            objective=walker.objective,
            gradient=walker.gradient,
            values=frame.values[s, :count].copy(),
            slope=frame.slope[s, :count].copy(),
            predicted=float(foreseen[s]),
            length=float(lengths[s]),
        )
        walker.place(positions[s, :n], cells[s])


def _trusted(hessian: Tensor, gradient: Tensor, rows: Tensor, trust: Tensor) -> Tensor:
    """The lowest point of each quadratic model within its trust radius, |B dx| ≤ trust.

    The shift λ of (H + λ BᵀB) dx = −g comes from Hebden's iteration (R. Fletcher, Practical Methods of
    Optimization, 5.2.6); what is still too long is scaled down.
    """
    factor, failed = torch.linalg.cholesky_ex(hessian)
    change = -torch.cholesky_solve(gradient.unsqueeze(2), factor).squeeze(2)
    length = (rows @ change.unsqueeze(2)).squeeze(2).norm(dim=1)
    long = ((failed > 0) | ~(length <= trust)).nonzero().squeeze(1)
    if len(long):
        sub_h, sub_g, sub_b, limit = hessian[long], gradient[long], rows[long], trust[long]
        metric = sub_b.mT @ sub_b + torch.diag_embed(torch.full_like(sub_g, 1e-3))
        shift = torch.where(failed[long] > 0, 0.1, 0.0).to(sub_g.dtype)
        for _ in range(SHIFTS):
            factor, failed = torch.linalg.cholesky_ex(sub_h + shift[:, None, None] * metric)
            step = -torch.cholesky_solve(sub_g.unsqueeze(2), factor)
            image = metric @ step
            size = (step * image).sum((1, 2)).sqrt()
            slope = (image * torch.cholesky_solve(image, factor)).sum((1, 2)) / size
            better = shift + (size / limit - 1.0) * size / slope
            shift = torch.where(failed > 0, 4.0 * shift + 0.1, better.clamp(min=0.0).nan_to_num(0.1))
        factor, failed = torch.linalg.cholesky_ex(sub_h + shift[:, None, None] * metric)
        step = -torch.cholesky_solve(sub_g.unsqueeze(2), factor).squeeze(2)
        step = torch.where(((failed > 0) | ~step.isfinite().all(1))[:, None], -sub_g, step)
        size = (sub_b @ step.unsqueeze(2)).squeeze(2).norm(dim=1)
        change[long] = step * (limit / size.clamp(min=1e-12)).clamp(max=1.0)[:, None]
    return change


def _follow(frame: Frame, change: Tensor, wanted: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Positions and cells where the internal coordinates have changed as wanted, as nearly as they can.

    Chord iterations with the factor of this point; where they do not help the plain step is taken.
    """
    first = change.numpy()
    weights = frame.stiffness.sqrt().numpy()
    here = frame.displaced(first)
    missing = frame.joined.difference(wanted.numpy(), frame.travelled(*here))
    at_first = np.linalg.norm(missing * weights, axis=1)
    total = first.copy()
    for _ in range(CHORDS):
        force = frame.rows.mT @ (frame.stiffness * torch.from_numpy(missing)).unsqueeze(2)
        total += torch.cholesky_solve(force, frame.factor).squeeze(2).numpy()
        here = frame.displaced(total)
        missing = frame.joined.difference(wanted.numpy(), frame.travelled(*here))
    worse = ~(np.linalg.norm(missing * weights, axis=1) <= at_first)
    total[worse] = first[worse]
    rows = total.reshape(len(total), -1, 3)
    longest = np.linalg.norm(rows[:, :-3], axis=2).max(axis=1) / LONGEST_MOVE
    if frame.scales is not None:
        strain = np.abs(rows[:, -3:]).max(axis=(1, 2)) / frame.scales
        longest = np.maximum(longest, strain / LARGEST_STRAIN)
    return frame.displaced(total / np.maximum(longest, 1.0)[:, None])
