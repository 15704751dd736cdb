"""What a data set holds, in numbers: elements, sizes, labels, their spread, and fitted atomic energies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlip.datasets.digest import data_hash
from mlip.datasets.frames import Frame
from mlip.datasets.report import LABELS
from mlip.errors import InputError


def summarise(frames: Sequence[Frame]) -> dict[str, Any]:
    """Counts and statistics as JSON-ready values; energies in eV, forces in eV/Å, stresses in eV/Å³.

    Isolated atoms are listed apart and left out of the energy statistics.
    """
    from ase.data import chemical_symbols

    sizes = np.array([len(f) for f in frames])
    atoms: Counter[int] = Counter()
    within: Counter[int] = Counter()
    for frame in frames:
        values, counts = np.unique(frame.atomic_numbers, return_counts=True)
        atoms.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
        within.update(values.tolist())
    bulk = [f for f in frames if not f.is_isolated_atom]
    return {
        "frames": len(frames),
        "atoms": int(sizes.sum()),
        "elements": {
            chemical_symbols[z]: {"atomic_number": z, "atoms": atoms[z], "frames": within[z]}
            for z in sorted(atoms)
        },
        "sizes": {"min": int(sizes.min()), "median": float(np.median(sizes)), "max": int(sizes.max())},
        "compositions": len({f.formula for f in frames}),
        **{
            name + "s": len({getattr(f, name) for f in frames} - {""})
            for name in ("group", "molecule", "reaction")
        },
        "trajectories": len({f.trajectory for f in frames} - {""}),
        "periodic": {
            name: sum(int(f.pbc.sum()) == n for f in frames)
            for n, name in enumerate(("none", "one", "two", "three"))
        },
        "labelled": {n: sum(getattr(f, n) is not None for f in frames) for n in LABELS},
        "charged": sum(f.charge != 0 for f in frames),
        "open_shell": sum(f.spin != 1 for f in frames),
        "energy_per_atom": _spread([f.energy / len(f) for f in bulk if f.energy is not None]),
        "forces": _components([f.forces for f in frames if f.forces is not None]),
        "stress": _components([f.stress for f in frames if f.stress is not None]),
        "isolated_atoms": {f.formula: f.energy for f in frames if f.is_isolated_atom},
        "least_squares_e0": _e0_summary(bulk),
        "data_hash": data_hash(frames),
    }


def least_squares_e0(frames: Sequence[Frame]) -> tuple[dict[int, float], float]:
    """Energies per element that reproduce the total energies best: minimise Σ (E − Σ_i E0[Z_i])² / n².

    Where the compositions do not determine them (one molecule, one alloy), the solution of least norm is
    returned.

    Returns:
        E0 by atomic number, eV, and the root mean square of what is left, eV/atom.

    Raises:
        InputError: No frame has an energy.
    """
    labelled = [f for f in frames if f.energy is not None]
    if not labelled:
        raise InputError("no frame has an energy, so atomic energies cannot be fitted")
    species = sorted({int(z) for f in labelled for z in f.atomic_numbers})
    counts = np.array(
        [[np.count_nonzero(f.atomic_numbers == z) for z in species] for f in labelled], dtype=float
    )
    energies = np.array([f.energy for f in labelled], dtype=np.float64)
    sizes = counts.sum(axis=1)
    solution, *_ = np.linalg.lstsq(counts / sizes[:, None], energies / sizes, rcond=1e-10)
    left = (energies - counts @ solution) / sizes
    return dict(zip(species, solution.tolist(), strict=True)), float(np.sqrt(np.mean(left**2)))


def _e0_summary(frames: Sequence[Frame]) -> dict[str, Any] | None:
    from ase.data import chemical_symbols

    if not any(f.energy is not None for f in frames):
        return None
    e0s, rms = least_squares_e0(frames)
    compositions = {tuple(np.bincount(f.atomic_numbers).tolist()) for f in frames if f.energy is not None}
    width = max(len(c) for c in compositions)
    matrix = np.array([[*c, *[0] * (width - len(c))] for c in compositions], dtype=float)
    return {
        "e0": {chemical_symbols[z]: e for z, e in e0s.items()},
        "rms_per_atom": rms,
        "determined": int(np.linalg.matrix_rank(matrix)) == len(e0s),
    }


def _spread(values: Sequence[float]) -> dict[str, float] | None:
    if not values:
        return None
    v = np.array(values)
    return {"mean": float(v.mean()), "std": float(v.std()), "min": float(v.min()), "max": float(v.max())}


def _components(arrays: Sequence[np.ndarray]) -> dict[str, float] | None:
    """Root mean square and largest magnitude over all components."""
    if not arrays:
        return None
    v = np.concatenate([a.ravel() for a in arrays])
    return {"rms": float(np.sqrt(np.mean(v**2))), "max": float(np.abs(v).max())}
