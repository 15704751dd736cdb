"""Net charge and spin that a structure is said to have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.datasets.labels import CHARGE_KEYS, SPIN_KEYS
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms


ABOUT: Final = 0.1
"""e, µB; sums of initial charges and moments that are this near to a whole number mean it."""


def charge_of(atoms: Atoms) -> int | None:
    """Net charge, e, by the keys of `atoms.info` that data sets are read by, else by the initial charges of a
    molecule; None where it is not said.

    Raises:
        InputError: It is not a whole number.
    """
    said = _said(atoms, CHARGE_KEYS)
    return _sum(atoms, "initial_charges") if said is None else said


def spin_of(atoms: Atoms) -> int | None:
    """Multiplicity 2S + 1, likewise, else by the initial magnetic moments of a molecule.

    Raises:
        InputError: It is not a whole number.
    """
    said = _said(atoms, SPIN_KEYS)
    unpaired = _sum(atoms, "initial_magmoms") if said is None else None
    return said if unpaired is None else 1 + abs(unpaired)


def multiplicity_of(atoms: Atoms) -> int:
    """Multiplicity 2S + 1 that is said, else the lowest that the number of electrons allows.

    Raises:
        InputError: What is said is not a whole number.
    """
    return spin_of(atoms) or 1 + num_electrons(atoms) % 2


def num_electrons(atoms: Atoms) -> int:
    """Electrons of all atoms, less the net charge.

    Raises:
        InputError: The charge is not a whole number.
    """
    return int(atoms.numbers.sum()) - (charge_of(atoms) or 0)


def with_spin(atoms: Atoms, spin: int) -> Atoms:
    """A copy that says to have this multiplicity."""
    copy: Atoms = atoms.copy()
    for key in SPIN_KEYS:
        copy.info.pop(key, None)
    copy.info["spin"] = spin
    return copy


def said_of(atoms: Atoms) -> dict[str, int]:
    """`charge` and `spin` where they are said, as a file of extended XYZ holds them."""
    found = {"charge": charge_of(atoms), "spin": spin_of(atoms)}
    return {name: value for name, value in found.items() if value is not None}


def _sum(atoms: Atoms, name: str) -> int | None:
    """Of a molecule's array, where it is about a whole number: partial charges of a part say nothing. In
    crystals such arrays are a guess to start from, no statement on the whole."""
    if name not in atoms.arrays or atoms.pbc.any():
        return None
    total = float(np.linalg.norm(sums)) if np.ndim(sums := atoms.arrays[name].sum(axis=0)) else float(sums)
    return round(total) if abs(total - round(total)) < ABOUT else None


def _said(atoms: Atoms, keys: Sequence[str]) -> int | None:
    key = next((key for key in keys if key in atoms.info), None)
    if key is None:
        return None
    try:
        value = float(atoms.info[key])
    except (TypeError, ValueError):
        value = math.nan
    if not value.is_integer():
        raise InputError(f"`{key}` of the structure is {atoms.info[key]!r} but must be a whole number")
    return int(value)


def require_neutral_singlet(atoms: Atoms) -> None:
    """See that a structure asks for no charge or spin, which no model of this package takes into account.

    Raises:
        InputError: It does.
    """
    charge, spin = charge_of(atoms), spin_of(atoms)
    for name, value, usual in (("charge", charge, (None, 0)), ("spin (2S + 1)", spin, (None, 0, 1))):
        if value not in usual:
            raise InputError(
                f"the structure says that its {name} is {value}, but the model takes no account of that and "
                "would give the numbers of what it was trained on: ask a method that does (GFN2-xTB: "
                "`--calculator tblite` of `mlip ts` and `mlip vibrations`), or remove it from the file "
                "(`atoms.info`, initial charges and moments) if the model was trained on just such structures"
            )
