"""Net charge and spin that a structure is said to have."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from mlip.datasets.labels import CHARGE_KEYS, SPIN_KEYS
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms


def charge_of(atoms: Atoms) -> int | None:
    """Net charge, e, by the keys of `atoms.info` that data sets are read by; None where it is not said.

    Raises:
        InputError: It is not a whole number.
    """
    return _said(atoms, CHARGE_KEYS)


def spin_of(atoms: Atoms) -> int | None:
    """Multiplicity 2S + 1, likewise.

    Raises:
        InputError: It is not a whole number.
    """
    return _said(atoms, SPIN_KEYS)


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
                "would give the numbers of what it was trained on: ask a method that does (--calculator "
                "tblite), or remove it from the file (`atoms.info`) if the model was trained on just such "
                "structures"
            )
