"""What is measured on the training frames before a model is made: species, E0s, neighbours, energy scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlip.datasets import Frame, LabelKeys, read_isolated_atoms
from mlip.datasets.read import isolated_atom_energies
from mlip.errors import InputError
from mlip.training.config import ReferenceEnergies
from mlip.training.packed import PackedFrames


@dataclass(frozen=True)
class Statistics:
    """Numbers that normalise the model.

    Attributes:
        avg_num_neighbors: Mean number of neighbours of an atom within the cutoff.
        energy_scale: Root mean square force component, eV/Å; without forces, spread of energies per atom, eV.
    """

    avg_num_neighbors: float
    energy_scale: float


def collect_species(frames: Sequence[Frame], declared: Sequence[str]) -> tuple[int, ...]:
    """Atomic numbers in the training frames and those declared, ascending.

    Raises:
        InputError: A declared symbol is not an element.
    """
    found = {int(z) for frame in frames for z in np.unique(frame.atomic_numbers)}
    return tuple(sorted(found | {_atomic_number(symbol, "data.species") for symbol in declared}))


def reference_energies(
    config: ReferenceEnergies,
    species: Sequence[int],
    train: Sequence[Frame],
    isolated: Sequence[Frame],
    *,
    energy_key: str | None = None,
) -> dict[int, float]:
    """Energy of each isolated atom, eV, by atomic number.

    Args:
        config: Where they come from.
        species: Elements that need one.
        train: Training frames, for the least-squares fit.
        isolated: One-atom frames of the training file.
        energy_key: Name of the energy in the file of isolated atoms; found by the reader if None.

    Raises:
        InputError: An element has none, or two that differ; the file of isolated atoms cannot be read.
    """
    if config.method == "zero":
        return dict.fromkeys(species, 0.0)
    if config.method == "least-squares":
        return least_squares_energies(train, species)
    if config.method == "given":
        known = {_atomic_number(symbol, "e0s.values"): value for symbol, value in config.values.items()}
        source, remedy = "`e0s.values`", "add it"
    elif config.file is not None:
        known = _read_isolated_atoms(config.file, energy_key)
        source, remedy = str(config.file), "add it, or use `e0s: least-squares`"
    else:
        source = "the training file"
        known = isolated_atom_energies([f for f in isolated if f.energy is not None], where=source)
        remedy = "give a file with isolated atoms as `e0s.file`, or use `e0s: least-squares`"
    missing = [z for z in species if z not in known]
    if missing:
        from ase.data import chemical_symbols

        names = ", ".join(chemical_symbols[z] for z in missing)
        raise InputError(f"{source} has no isolated-atom energy of {names}; {remedy}")
    return {z: known[z] for z in species}


def _read_isolated_atoms(file: Path, energy_key: str | None) -> dict[int, float]:
    """Under the key of the training energies: under another one they may be of another level of theory."""
    if not file.is_file():
        raise InputError(f"`e0s.file` {str(file)!r} does not exist")
    try:
        return read_isolated_atoms(file, keys=LabelKeys(energy=energy_key))
    except InputError as error:
        if energy_key is None:
            raise
        raise InputError(
            f"{error}; `e0s.file` is read with `data.keys.energy`, which is {energy_key!r}: name the "
            "energies in it so, or write them out, as in `e0s: {H: -13.6}`"
        ) from None


def least_squares_energies(frames: Sequence[Frame], species: Sequence[int]) -> dict[int, float]:
    """E0s that fit the total energies best as a sum over atoms.

    Where the compositions do not tell elements apart, the solution of least norm is taken.
    """
    labelled = [f for f in frames if f.energy is not None]
    counts = np.array(
        [[np.count_nonzero(f.atomic_numbers == z) for z in species] for f in labelled], dtype=float
    )
    energies = np.array([f.energy for f in labelled])
    if not labelled:
        raise InputError(
            "`e0s: least-squares` needs energies, but no training frame has one; use `e0s: zero`"
        )
    solution = np.linalg.lstsq(counts, energies, rcond=None)[0]
    return {z: float(e) for z, e in zip(species, solution, strict=True)}


def measure(train: PackedFrames, e0s: dict[int, float]) -> Statistics:
    """Statistics of the packed training frames.

    Args:
        train: Training frames.
        e0s: eV by atomic number.
    """
    neighbors = float(train.edge_counts.sum()) / float(train.atom_counts.sum())
    forces = train.forces.double().numpy()
    forces = forces[np.isfinite(forces)]
    scale = float(np.sqrt(np.mean(forces**2))) if forces.size else 0.0
    if scale == 0.0:
        atomic = np.array([e0s[int(z)] for z in train.atomic_numbers])
        sums = np.add.reduceat(atomic, train.atom_starts)
        scale = float(np.std((train.energy.numpy() - sums) / train.atom_counts))
    return Statistics(avg_num_neighbors=max(neighbors, 1e-3), energy_scale=scale if scale > 1e-6 else 1.0)


def _atomic_number(symbol: str, where: str) -> int:
    from ase.data import atomic_numbers

    z = atomic_numbers.get(symbol, 0)
    if z == 0:
        raise InputError(f"`{where}`: {symbol!r} is not the symbol of an element")
    return int(z)
