"""What a Hessian should obey, and how well one does: `check_hessian`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64

from mlip.hessian import HessianMethod
from mlip.neighbors import build_graph

if TYPE_CHECKING:
    from mlip.potential import Potential


@dataclass(frozen=True, kw_only=True)
class HessianReport:
    """How well a Hessian obeys what every second derivative of an energy does.

    Attributes:
        method: How it was made.
        scale: Its largest element, eV/Å².
        symmetry: Largest element of H - Hᵀ, eV/Å².
        translation: Largest force, eV/Å², on an atom when all atoms move together.
        rotation: Largest element of H (ω x r) - ω x g, eV/Å, with g the gradient and ω along each axis: a
            turned molecule has turned forces. None for periodic structures.
        agreement: Mean absolute difference from the Hessian by each other method, eV/Å².
    """

    method: HessianMethod
    scale: float
    symmetry: float
    translation: float
    rotation: float | None
    agreement: dict[HessianMethod, float]


def check_hessian(
    potential: Potential, atoms: Atoms, *, method: HessianMethod | None = None, compare: bool = True
) -> HessianReport:
    """Measure one Hessian of `atoms`.

    A direct Hessian is exact in symmetry and translation; how far its rotation residual is from zero, and its
    agreement with the others, tell how well its head has learned. Nothing is demanded here.

    Args:
        potential: In evaluation mode.
        atoms: The structure.
        method: As for `Potential.hessian`.
        compare: Also make it by the other methods.

    Raises:
        InputError: As `Potential.hessian`.
    """
    method = potential.best_hessian_method() if method is None else method
    graph = build_graph(atoms, potential.cutoff).to(device=potential.device)
    hessian = _made(potential.hessian(graph, method=method))
    blocks = hessian.reshape(len(atoms), 3, len(atoms), 3)
    others: list[HessianMethod] = [
        other
        for other in get_args(HessianMethod)
        if compare and other != method and (other != "direct" or potential.has_direct_hessian)
    ]
    rotation = None
    if not atoms.pbc.any():
        gradient = -potential(graph)["forces"].double().cpu().numpy()
        rotation = _rotation_residual(hessian, atoms.positions, gradient)
    return HessianReport(
        method=method,
        scale=float(np.abs(hessian).max()),
        symmetry=float(np.abs(hessian - hessian.T).max()),
        translation=float(np.abs(blocks.sum(axis=2)).max()),
        rotation=rotation,
        agreement={
            other: float(np.abs(_made(potential.hessian(graph, method=other)) - hessian).mean())
            for other in others
        },
    )


def _made(hessians: list[torch.Tensor]) -> Float64[np.ndarray, "coordinates coordinates"]:
    return hessians[0].double().cpu().numpy()


def _rotation_residual(
    hessian: Float64[np.ndarray, "coordinates coordinates"],
    positions: Float64[np.ndarray, "atoms 3"],
    gradient: Float64[np.ndarray, "atoms 3"],
) -> float:
    arms = positions - positions.mean(axis=0)
    worst = 0.0
    for axis in np.eye(3):
        found = (hessian @ np.cross(axis, arms).ravel()).reshape(-1, 3)
        worst = max(worst, float(np.abs(found - np.cross(axis, gradient)).max()))
    return worst
