"""Structures as LAMMPS wants them: a right-handed cell whose first vector is x and second in the xy plane."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from jaxtyping import Float
    from numpy.typing import NDArray

_MARGIN: Final = 5.0  # Å of empty space beyond the atoms along free directions


@dataclass(frozen=True)
class Placed:
    """A structure turned into the frame of LAMMPS."""

    cell: Float[NDArray[np.float64], "3 3"]
    """Rows are lattice vectors, lower triangular, Å."""
    origin: Float[NDArray[np.float64], " 3"]
    positions: Float[NDArray[np.float64], "atoms 3"]
    rotation: Float[NDArray[np.float64], "3 3"]
    """Row vectors turn by `v @ rotation`; back by its transpose."""


def place(atoms: Atoms) -> Placed:
    """Turn a structure; free directions get a box that holds all atoms.

    Raises:
        InputError: periodic vectors that span no volume.
    """
    pbc = np.asarray(atoms.pbc, bool)
    cell = np.array(atoms.cell, dtype=float)
    cell[~pbc] = 0.0
    if not pbc.all():
        _, _, basis = np.linalg.svd(cell[pbc], full_matrices=True)
        cell[~pbc] = basis[int(pbc.sum()) :]
    if abs(np.linalg.det(cell)) < 1e-9:
        raise InputError("the periodic vectors of the cell span no volume")
    # Q R decomposition of the transposed cell: cell = lower @ turn, with a positive diagonal.
    turn, lower = np.linalg.qr(cell.T)
    signs = np.sign(np.diag(lower))
    lower, turn = (lower * signs[:, None]).T, (turn * signs).T
    positions = atoms.positions @ turn.T
    fractional = positions @ np.linalg.inv(lower)
    start = np.zeros(3)
    for axis in np.flatnonzero(~pbc):  # a unit vector, orthogonal to the periodic ones
        low, high = fractional[:, axis].min() - _MARGIN, fractional[:, axis].max() + _MARGIN
        start[axis] = low
        lower[axis] *= high - low
    return Placed(np.tril(lower), start, positions, turn.T)


def write_data(atoms: Atoms, path: Path, symbols: Sequence[str]) -> Placed:
    """Write a structure as a data file of `atom_style atomic`, its types in the order of `symbols`.

    Raises:
        InputError: an element that is not among `symbols`.
    """
    from ase.data import atomic_masses, atomic_numbers

    placed, cell = place(atoms), None
    cell, low = placed.cell, placed.origin
    types = {symbol: k + 1 for k, symbol in enumerate(symbols)}
    missing = sorted(set(atoms.get_chemical_symbols()) - set(types))
    if missing:
        raise InputError(
            f"the structure holds {', '.join(missing)}, but there are types for {', '.join(symbols)} only"
        )
    lines = ["a structure", "", f"{len(atoms)} atoms", f"{len(types)} atom types"]
    lines += [f"{low[k]:.17g} {low[k] + cell[k, k]:.17g} {a}lo {a}hi" for k, a in enumerate("xyz")]
    if np.abs(cell - np.diag(np.diag(cell))).max() > 0:
        lines.append(f"{cell[1, 0]:.17g} {cell[2, 0]:.17g} {cell[2, 1]:.17g} xy xz yz")
    lines += ["", "Masses", ""]
    lines += [f"{k} {atomic_masses[atomic_numbers[symbol]]:.6f}" for symbol, k in types.items()]
    lines += ["", "Atoms # atomic", ""]
    for number, (symbol, r) in enumerate(zip(atoms.get_chemical_symbols(), placed.positions, strict=True)):
        lines.append(f"{number + 1} {types[symbol]} {r[0]:.17g} {r[1]:.17g} {r[2]:.17g}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return placed


def boundary(atoms: Atoms) -> str:
    """Argument of the command `boundary`."""
    return " ".join("p" if periodic else "f" for periodic in atoms.pbc)
