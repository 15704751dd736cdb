"""Calculators that are known by name: what `--calculator NAME` means on the command line."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase.calculators.calculator import BaseCalculator


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
    """A new calculator of that name; "tblite" is GFN2-xTB.

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
    return getattr(module, entry.class_name)(**entry.options)
