"""Calculators that are known by name: what `--calculator NAME` means on the command line."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from ase.calculators.calculator import all_changes

from mlip.calculators.electrons import charge_of, spin_of
from mlip.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator, Calculator


@dataclass(frozen=True, kw_only=True)
class NamedCalculator:
    """A calculator of another package: where it is, how it is made, and how a user gets it.

    Attributes:
        title: What it computes, in the words of chemistry.
        module: Module of the class.
        class_name: The class, an ASE calculator.
        options: Passed to the class.
        extra: The optional part of polyad that installs it.
    """

    title: str
    module: str
    class_name: str
    options: dict[str, Any]
    extra: str


CALCULATORS: Final = {
    "tblite": NamedCalculator(
        title="GFN2-xTB",
        module="tblite.ase",
        class_name="TBLite",
        options={"method": "GFN2-xTB", "verbosity": 0},
        extra="labels",
    ),
}
"""Reference methods against which a result of a potential can be checked, by name."""


def named_calculator(name: str) -> BaseCalculator:
    """A new calculator of that name; "tblite" is GFN2-xTB. Charge and spin are those that `atoms.info` says.

    Raises:
        InputError: There is none of that name, or its package is not installed.
    """
    if name not in CALCULATORS:
        raise InputError(f'`calculator` is "{name}" but must be one of: {", ".join(CALCULATORS)}')
    entry = CALCULATORS[name]
    try:
        module = importlib.import_module(entry.module)
    except ModuleNotFoundError as error:
        raise InputError(
            f'the calculator "{name}" ({entry.title}) needs the package "{error.name}", not installed: '
            f'pip install "polyad[{entry.extra}]"'
        ) from None
    return _with_electrons(getattr(module, entry.class_name))(**entry.options)


def _with_electrons(base: type[Calculator]) -> type[Calculator]:
    """The calculator, charge and multiplicity being those of each structure it is asked for."""

    class WithElectrons(base):
        def check_state(self, atoms: Atoms, tol: float = 1e-15) -> list[str]:
            if any(self.parameters[key] != value for key, value in _electrons(atoms).items()):
                return list(all_changes)
            return list(super().check_state(atoms, tol))

        def calculate(
            self,
            atoms: Atoms | None = None,
            properties: Sequence[str] = ("energy",),
            system_changes: Sequence[str] = tuple(all_changes),
        ) -> None:
            if atoms is not None and self.set(**_electrons(atoms)):
                system_changes = list(all_changes)
            super().calculate(atoms, properties, system_changes)

    return WithElectrons


def _electrons(atoms: Atoms) -> dict[str, int | None]:
    return {"charge": charge_of(atoms), "multiplicity": spin_of(atoms) or None}
