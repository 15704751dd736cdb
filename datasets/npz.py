"""The `.npz` files of rMD17 (`nuclear_charges`, `coords`, …) and MD17 in sGDML's layout (`z`, `R`, `E`, `F`).

Sources: Christensen & von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020); Chmiela et al., Comput.
Phys. Commun. 240, 38 (2019), http://quantum-machine.org/gdml. Both are in kcal/mol and Å unless `e_unit` and
`r_unit` say otherwise; an sGDML `lattice` has the lattice vectors as columns. Hessians, which neither set
has, are read from `hessians` and `H`, (frames, 3N, 3N).
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame
from mlip.datasets.report import ReadReport
from mlip.errors import InputError
from mlip.units import BOHR, HARTREE, KCAL_PER_MOL

_LAYOUTS = (("nuclear_charges", "coords", "energies", "forces", "hessians"), ("z", "R", "E", "F", "H"))
_ENERGY_UNITS = {"kcal/mol": KCAL_PER_MOL, "ev": 1.0, "hartree": HARTREE, "ha": HARTREE, "h": HARTREE}
_LENGTH_UNITS = {"ang": 1.0, "angstrom": 1.0, "å": 1.0, "bohr": BOHR}


def iter_npz(path: Path, report: ReadReport) -> Iterator[Frame]:
    """Frames of a file, in eV and Å. Pickled objects are refused, never executed.

    Raises:
        InputError: The file is damaged, holds pickled objects, has other keys, or arrays that do not fit
            together.
    """
    arrays = _load(path)
    layout = next((names for names in _LAYOUTS if {names[0], names[1]} <= set(arrays)), None)
    if layout is None:
        raise InputError(
            f"{path}: has the keys {_some(arrays)}, but rMD17 has "
            f"{', '.join(_LAYOUTS[0][:4])} and sGDML has {', '.join(_LAYOUTS[1][:4])}"
        )
    energy_unit, e_name = _unit(arrays, "e_unit", "kcal/mol", _ENERGY_UNITS, path)
    length_unit, r_name = _unit(arrays, "r_unit", "Ang", _LENGTH_UNITS, path)
    numbers, positions = arrays[layout[0]], arrays[layout[1]]
    energies, forces, hessians = (arrays.get(name) for name in layout[2:])
    count, cell = _checked(layout, numbers, positions, energies, forces, arrays.get("lattice"), path)
    size = 3 * numbers.size
    if hessians is not None and hessians.shape != (count, size, size):
        raise InputError(
            f"{path}: `{layout[4]}` has shape {hessians.shape} but must have {(count, size, size)}"
        )
    report.present.update({k: count for k in arrays})
    if energies is not None:
        report.took("energy", f"{layout[2]} ({e_name})", count=count)
        energies = energies.reshape(count) * energy_unit
    if forces is not None:
        report.took("forces", f"{layout[3]} ({e_name}/{r_name})", count=count)
    if hessians is not None:
        report.took("hessian", f"{layout[4]} ({e_name}/{r_name}²)", count=count)
    for i in range(count):
        yield Frame(
            positions=positions[i] * length_unit,
            atomic_numbers=numbers,
            cell=cell * length_unit,
            pbc=np.full(3, bool(cell.any())),
            energy=None if energies is None else energies[i],
            forces=None if forces is None else forces[i] * (energy_unit / length_unit),
            hessian=None if hessians is None else hessians[i] * (energy_unit / length_unit**2),
        )


def _some(arrays: dict[str, Any]) -> str:
    return ", ".join(f"`{k}`" for k in list(arrays)[:6]) + (" …" if len(arrays) > 6 else "")


def _load(path: Path) -> dict[str, Any]:
    """Arrays of numbers and text; an array of pickled objects is refused by `numpy`."""
    try:
        with path.open("rb") as stream:
            file = np.load(stream, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise InputError(f"{path}: holds one bare array, not the named arrays of an .npz file")
            return {name: file[name] for name in file.files}
    except zipfile.BadZipFile as error:
        raise InputError(f"{path}: not a complete .npz file ({error})") from error
    except (ValueError, EOFError, OSError, KeyError) as error:
        if isinstance(error, InputError | FileNotFoundError | PermissionError):
            raise
        if "pickle" in str(error).lower():
            raise InputError(
                f"{path}: holds pickled objects, which are refused because loading them runs code"
            ) from error
        raise InputError(f"{path}: not a complete .npz file ({error})") from error


def _unit(
    arrays: dict[str, Any], key: str, default: str, known: dict[str, float], path: Path
) -> tuple[float, str]:
    value = arrays.get(key)
    if value is None:
        return known[default.lower()], default
    name = value.item() if isinstance(value, np.ndarray) and value.size == 1 else value
    name = name.decode() if isinstance(name, bytes) else str(name)
    if name.lower() not in known:
        raise InputError(f"{path}: `{key}` is {name!r} but must be one of {', '.join(known)}")
    return known[name.lower()], name


def _checked(
    names: tuple[str, ...], numbers: Any, positions: Any, energies: Any, forces: Any, lattice: Any, path: Path
) -> tuple[int, np.ndarray]:
    """Number of frames, and the cell."""
    n = numbers.size
    if numbers.ndim != 1 or positions.ndim != 3 or positions.shape[1:] != (n, 3):
        raise InputError(
            f"{path}: `{names[0]}` has shape {numbers.shape} and `{names[1]}` {positions.shape}, "
            "but they must be (atoms,) and (frames, atoms, 3)"
        )
    count = len(positions)
    if energies is not None and energies.size != count:
        raise InputError(
            f"{path}: `{names[2]}` has shape {energies.shape} but must have one number for {count} frames"
        )
    if forces is not None and forces.shape != positions.shape:
        raise InputError(f"{path}: `{names[3]}` has shape {forces.shape} but must have {positions.shape}")
    if lattice is not None and np.shape(lattice) != (3, 3):
        raise InputError(f"{path}: `lattice` has shape {np.shape(lattice)} but must have (3, 3)")
    return count, np.zeros((3, 3)) if lattice is None else np.asarray(lattice, dtype=np.float64).T
