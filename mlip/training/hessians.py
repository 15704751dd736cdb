"""Hessians as labels: cleaned, with their low modes; and how far one is from another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor

from mlip.rigid_motions import rigid_motions
from mlip.units import INVERSE_CM, VIBRATIONAL_QUANTUM

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.datasets import Frame
    from mlip.graph import AtomGraph
    from mlip.potential import Potential

LOW_MODES: Final = 4
"""Lowest vibrations of a frame that the low-mode term of the loss looks at."""


@dataclass(frozen=True)
class HessianLabels:
    """Hessians of some structures of a batch, one after another.

    Attributes:
        structures: Which structures of the batch have one.
        matrices: One (3 atoms, 3 atoms) for each of them, eV/Å², symmetric.
        low_modes: Unit displacements (3 atoms, `LOW_MODES`) along the lowest vibrations; columns of zeros
            where there are fewer.
        num_in_step: Hessians that share this optimiser step, over all processes.
    """

    structures: Int[Tensor, " labelled"]
    matrices: list[Float[Tensor, "coordinates coordinates"]]
    low_modes: list[Float[Tensor, "coordinates modes"]]
    num_in_step: int


def clean(hessian: Float64[np.ndarray, "coordinates coordinates"]) -> Float64[np.ndarray, "rows columns"]:
    """Without what no energy can have: made symmetric, translations projected out.

    Published labels break both by up to some tenths of an eV/Å², noise of their grids.
    """
    size = len(hessian) // 3
    blocks = 0.5 * (hessian + hessian.T).reshape(size, 3, size, 3)
    blocks = blocks - blocks.mean(axis=0, keepdims=True)
    blocks = blocks - blocks.mean(axis=2, keepdims=True)
    return blocks.reshape(3 * size, 3 * size)


def labels_of(
    frame: Frame,
) -> tuple[Float64[np.ndarray, "rows columns"], Float64[np.ndarray, "rows columns"]]:
    """The cleaned Hessian of a frame that has one, and its `low_modes`."""
    assert frame.hessian is not None
    hessian = clean(frame.hessian)
    atoms = bare_atoms(frame.atomic_numbers, frame.positions, frame.cell, frame.pbc)
    _, modes = _vibrations(atoms, hessian)
    low = modes[:LOW_MODES] / np.repeat(np.sqrt(atoms.get_masses()), 3)
    low = low / np.linalg.norm(low, axis=1, keepdims=True)
    return hessian, np.pad(low, ((0, LOW_MODES - len(low)), (0, 0))).T


def bare_atoms(numbers: np.ndarray, positions: np.ndarray, cell: np.ndarray, pbc: np.ndarray) -> Atoms:
    """ASE atoms of standard masses."""
    from ase import Atoms

    return Atoms(numbers=numbers, positions=positions, cell=cell, pbc=pbc)


def _vibrations(
    atoms: Atoms, hessian: Float64[np.ndarray, "coordinates coordinates"]
) -> tuple[Float64[np.ndarray, " modes"], Float64[np.ndarray, "modes coordinates"]]:
    """Eigenvalues (eV/Å²/amu) and mass-weighted eigenvectors, rigid motions left out, ascending."""
    roots = np.repeat(np.sqrt(atoms.get_masses()), 3)
    free = rigid_motions(atoms).complement
    values, vectors = np.linalg.eigh(free @ (hessian / np.outer(roots, roots)) @ free.T)
    return values, vectors.T @ free


QUANTITIES: Final = ("hessian", "lowest_eigenvalue", "lowest_mode_overlap", "frequency", "zero_point_energy")
"""Of a Hessian against its label: eV/Å² (mean over the elements of each matrix), eV/Å²/amu, 1 - |cosine|,
cm⁻¹, eV."""


def differences(
    atoms: Atoms,
    found: Float64[np.ndarray, "coordinates coordinates"],
    label: Float64[np.ndarray, "coordinates coordinates"],
) -> list[tuple[float, float]]:
    """Mean absolute and mean square difference of each of `QUANTITIES`; NaN where there are no vibrations.

    Frequencies are compared in ascending order, imaginary ones negative; zero-point energies are sums over
    the real ones.
    """
    error = np.abs(found - label)
    values, modes = _vibrations(atoms, found)
    reference, reference_modes = _vibrations(atoms, label)
    if len(values) == 0:
        return [(float(error.mean()), float(np.square(error).mean()))] + [(np.nan, np.nan)] * 4
    mine, theirs = (np.sign(w) * np.sqrt(np.abs(w)) * VIBRATIONAL_QUANTUM for w in (values, reference))
    rest = (
        np.array([values[0] - reference[0]]),
        np.array([1 - abs(float(modes[0] @ reference_modes[0]))]),
        (mine - theirs) / INVERSE_CM,
        np.array([0.5 * (mine[mine > 0].sum() - theirs[theirs > 0].sum())]),
    )
    return [(float(np.abs(e).mean()), float(np.square(e).mean())) for e in (error, *rest)]


def split_matrices(
    flat: Float[Tensor, " numbers"], atoms: Int[Tensor, " structures"]
) -> list[Float[Tensor, "coordinates coordinates"]]:
    """Matrices that lie end to end, of structures of so many atoms."""
    sizes = (3 * atoms).tolist()
    parts = flat.split([size * size for size in sizes])
    return [part.view(size, size) for part, size in zip(parts, sizes, strict=True)]


def with_products(
    potential: Potential, graph: AtomGraph, *, generator: torch.Generator | None = None
) -> dict[str, Float[Tensor, "atoms 3"]]:
    """Random displacements, a normal number for each coordinate, and the Hessian of the energy times them.

    Args:
        potential: Its energy is differentiated; nothing is passed back to it.
        graph: Structures.
        generator: Of the random numbers; torch's own by default.
    """
    displacement = torch.randn(graph.positions.shape, generator=generator, dtype=graph.positions.dtype)
    displacement = displacement.to(graph.positions.device)
    return {"displacement": displacement, "hvp": potential.hvp(graph, displacement)}


def product_errors(
    found: Mapping[int, Float[Tensor, "coordinates coordinates"]],
    output: Mapping[str, Tensor],
    atoms: Int[Tensor, " structures"],
) -> list[Float[Tensor, " coordinates"]]:
    """For each structure the head's Hessian times the displacement, less that of the energy.

    Args:
        found: The head's Hessian of every structure.
        output: With what `with_products` returns.
        atoms: Number of atoms of each structure.
    """
    spans = zip(*(output[key].split(atoms.tolist()) for key in ("displacement", "hvp")), strict=True)
    return [found[s] @ v.reshape(-1) - product.reshape(-1) for s, (v, product) in enumerate(spans)]
