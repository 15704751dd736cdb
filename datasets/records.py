"""`RawFrame`: what a text file or database row says about one structure before its labels are recognised."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True, eq=False)
class RawFrame:
    """A structure and its named values, still in the file's own names.

    Attributes:
        positions: Å.
        atomic_numbers: Z.
        cell: Rows are lattice vectors, Å.
        pbc: Periodic directions.
        info: Values of the whole structure by name.
        arrays: Values per atom by name.
        where: Place in the file, for messages: `frame 3 (line 52) of train.xyz`.
    """

    positions: Float64[np.ndarray, "atoms 3"]
    atomic_numbers: Int64[np.ndarray, " atoms"]
    cell: Float64[np.ndarray, "3 3"]
    pbc: Bool[np.ndarray, " 3"]
    info: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)
    where: str = "the frame"


_CALCULATOR_INFO = ("energy", "free_energy", "stress")


def _results(atoms: Atoms) -> dict[str, Any]:
    """Stored results of the calculator; none if the atoms were changed after they were computed."""
    from ase.calculators.calculator import compare_atoms

    results = getattr(atoms.calc, "results", None)
    if not results:
        return {}
    of = getattr(atoms.calc, "atoms", None)
    return {} if of is not None and compare_atoms(of, atoms) else dict(results)


def record_of_atoms(atoms: Atoms, *, where: str = "the frame") -> RawFrame:
    """Everything stored with ASE atoms; results of an attached calculator if they belong to this structure.

    A bare name in `info` or `arrays` goes before the calculator's result of that name.
    """
    info = dict(atoms.info)
    arrays = {k: v for k, v in atoms.arrays.items() if k not in ("numbers", "positions")}
    results = _results(atoms)
    for name in _CALCULATOR_INFO:
        if results.get(name) is not None:
            info.setdefault(name, results[name])
    if results.get("forces") is not None:
        arrays.setdefault("forces", np.asarray(results["forces"]))
    return RawFrame(
        positions=np.array(atoms.positions, dtype=np.float64),
        atomic_numbers=np.array(atoms.numbers, dtype=np.int64),
        cell=np.array(atoms.cell.array, dtype=np.float64),
        pbc=np.array(atoms.pbc, dtype=bool),
        info=info,
        arrays=arrays,
        where=where,
    )
