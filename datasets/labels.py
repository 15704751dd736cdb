"""Which key of a file is which label: known names, names given by a user, and the report of what was read."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from mlip.datasets.frames import Frame, Scalar
from mlip.datasets.records import RawFrame
from mlip.datasets.report import ReadReport
from mlip.errors import InputError

ENERGY_KEYS = ("REF_energy", "energy", "Energy", "y_energy", "dft_energy", "DFT_energy", "free_energy")
FORCES_KEYS = (
    "REF_forces",
    "forces",
    "force",
    "REF_force",
    "y_forces",
    "y_force",
    "dft_forces",
    "dft_force",
    "DFT_forces",
)
STRESS_KEYS = ("REF_stress", "stress", "y_stress", "dft_stress", "DFT_stress")
VIRIAL_KEYS = ("REF_virials", "REF_virial", "virials", "virial", "dft_virial", "dft_virials", "DFT_virial")
HESSIAN_KEYS = ("REF_hessian", "hessian")
GROUP_KEYS = ("group", "system_name")
MOLECULE_KEYS = ("molecule", "mol_id", "material_id")
REACTION_KEYS = ("reaction",)
TRAJECTORY_KEYS = ("trajectory",)
STEP_KEYS = ("step",)
WEIGHT_KEYS = ("config_weight",)
CHARGE_KEYS = ("REF_total_charge", "total_charge", "charge")
SPIN_KEYS = ("total_spin", "spin", "multiplicity", "mult")

_OPTION = {
    "energy": "--energy-key (`mlip train`: data.keys.energy; Python: LabelKeys(energy=...))",
    "forces": "--forces-key (`mlip train`: data.keys.forces; Python: LabelKeys(forces=...))",
    "stress": "--stress-key or --virial-key (`mlip train`: data.keys.stress or data.keys.virial; Python: "
    "LabelKeys(stress=...) or LabelKeys(virial=...))",
}


@dataclass(frozen=True)
class LabelKeys:
    """Names of the labels in a file; None tries the usual ones (`REF_*` first) and reports which it took.

    A name that is given is the only one looked for. Units are eV, eV/Å, eV/Å³ (stress, tension positive) and
    eV (virial = −stress × volume), eV/Å² (Hessian).
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    virial: str | None = None
    hessian: str | None = None
    group: str | None = None
    molecule: str | None = None
    reaction: str | None = None
    trajectory: str | None = None
    step: str | None = None
    weight: str | None = None
    charge: str | None = None
    spin: str | None = None

    def candidates(self, label: str) -> tuple[str, ...]:
        """Names to try for `label`, in order."""
        given: str | None = getattr(self, label)
        if given is not None:
            return (given,)
        if label == "virial" and self.stress is not None:
            return ()
        if label == "stress" and self.virial is not None:
            return ()
        return _DEFAULTS[label]


_DEFAULTS: dict[str, tuple[str, ...]] = {
    "energy": ENERGY_KEYS,
    "forces": FORCES_KEYS,
    "stress": STRESS_KEYS,
    "virial": VIRIAL_KEYS,
    "hessian": HESSIAN_KEYS,
    "group": GROUP_KEYS,
    "molecule": MOLECULE_KEYS,
    "reaction": REACTION_KEYS,
    "trajectory": TRAJECTORY_KEYS,
    "step": STEP_KEYS,
    "weight": WEIGHT_KEYS,
    "charge": CHARGE_KEYS,
    "spin": SPIN_KEYS,
}


class FrameList(list[Frame]):
    """A list of frames that remembers how it was read (`report`)."""

    def __init__(self, frames: Sequence[Frame] = (), *, report: ReadReport | None = None) -> None:
        super().__init__(frames)
        self.report = report if report is not None else ReadReport()


def frame_of_record(raw: RawFrame, *, keys: LabelKeys, report: ReadReport | None = None) -> Frame:
    """Recognise the labels of one structure.

    Args:
        raw: Structure and named values.
        keys: Names to look for.
        report: Is told what was taken from where.

    Raises:
        InputError: A value has the wrong shape or is not a number.
    """
    report = report if report is not None else ReadReport()
    picked = {label: _pick(raw, label, keys, report) for label in _DEFAULTS}
    n = raw.atomic_numbers.size
    used = {key for key in picked.values() if key is not None}
    known = used.union(*_DEFAULTS.values())
    report.present.update([*raw.info, *raw.arrays])
    report.dropped.update(k for k in raw.arrays if k not in known)
    gone = used | (known - set(STEP_KEYS))

    def number(label: str, default: float) -> float:
        key = picked[label]
        return default if key is None else _number(raw, key)

    def text(label: str) -> str:
        key = picked[label]
        return "" if key is None else str(raw.info[key])

    frame = Frame(
        positions=raw.positions,
        atomic_numbers=raw.atomic_numbers,
        cell=raw.cell,
        pbc=raw.pbc,
        energy=None if picked["energy"] is None else _number(raw, picked["energy"]),
        forces=None if picked["forces"] is None else _shaped(raw, picked["forces"], (n, 3)),
        stress=_stress(raw, picked["stress"], picked["virial"], report),
        hessian=None if picked["hessian"] is None else _shaped(raw, picked["hessian"], (3 * n, 3 * n)),
        group=text("group"),
        molecule=text("molecule"),
        reaction=text("reaction"),
        trajectory=text("trajectory"),
        step=_whole(raw, picked["step"], -1),
        weight=number("weight", 1.0),
        charge=_whole(raw, picked["charge"], 0),
        spin=_whole(raw, picked["spin"], 1),
        info={k: s for k, v in raw.info.items() if k not in gone and (s := _scalar(v)) is not None},
    )
    report.count(frame)
    return frame


def _pick(raw: RawFrame, label: str, keys: LabelKeys, report: ReadReport) -> str | None:
    """Key that gives `label`: the first candidate that is present."""
    table = raw.arrays if label == "forces" else raw.info
    found = [k for k in keys.candidates(label) if k in table and not _absent(table[k])]
    if getattr(keys, label) is None and label in _ONLY_IF:
        found = [k for k in found if _ONLY_IF[label](table[k], raw.atomic_numbers.size)]
    if not found:
        return None
    first = found[0]
    if label not in ("virial", "stress"):
        report.took(label, first)
    for other in found[1:]:
        if other == "free_energy" and label == "energy":
            continue
        same = _same(table[first], table[other])
        verdict = "holds the same values" if same else "holds OTHER values"
        report.notes[f"{label}: `{first}` was used; `{other}` is there too and {verdict}"] += 1
    return first


_ONLY_IF: dict[str, Callable[[Any, int], bool]] = {
    "step": lambda value, atoms: type(value) is int and value >= 0,
    "hessian": lambda value, atoms: np.size(value) == 9 * atoms * atoms,
}
"""Names so usual that a value of another kind under them is a remark, not a label."""


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, str) or isinstance(b, str):
        return bool(a == b)
    return np.shape(a) == np.shape(b) and np.allclose(a, b)


def _absent(value: Any) -> bool:
    return value is None or (isinstance(value, str) and value.strip().lower() in ("", "none"))


def _shaped(raw: RawFrame, key: str, shape: tuple[int, ...]) -> np.ndarray:
    value = raw.arrays[key] if key in raw.arrays else raw.info[key]
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{raw.where}: `{key}` holds {value!r}, which is not numbers") from error
    if array.shape == (math.prod(shape),):
        array = array.reshape(shape)
    if array.shape != shape:
        raise InputError(f"{raw.where}: `{key}` has shape {array.shape} but must have {shape}")
    return array


def _number(raw: RawFrame, key: str) -> float:
    value = raw.info[key]
    try:
        return float(np.asarray(value, dtype=np.float64).reshape(()))
    except (TypeError, ValueError) as error:
        raise InputError(f"{raw.where}: `{key}` is {value!r} but must be one number") from error


def _whole(raw: RawFrame, key: str | None, default: int) -> int:
    if key is None:
        return default
    value = _number(raw, key)
    if not math.isfinite(value) or abs(value - round(value)) > 1e-6:
        raise InputError(f"{raw.where}: `{key}` is {value} but must be a whole number")
    return round(value)


def _tensor(raw: RawFrame, key: str) -> Float64[np.ndarray, "3 3"]:
    """A stress-like value as 3×3, from 3×3, nine numbers, or six in the order xx yy zz yz xz xy."""
    value = np.asarray(raw.info[key])
    try:
        array = value.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{raw.where}: `{key}` holds {raw.info[key]!r}, which is not numbers") from error
    if array.size == 9:
        return array.reshape(3, 3)
    if array.size == 6:
        xx, yy, zz, yz, xz, xy = array.ravel().tolist()
        return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
    raise InputError(
        f"{raw.where}: `{key}` has {array.size} numbers but must have 6 (xx yy zz yz xz xy) or 9"
    )


def _stress(
    raw: RawFrame, stress: str | None, virial: str | None, report: ReadReport
) -> Float64[np.ndarray, "3 3"] | None:
    """Stress from either key; virial = −stress × volume. `REF_virials` goes before a bare `stress`."""
    if stress is not None and virial is not None:
        if virial.startswith("REF_") and not stress.startswith("REF_"):
            report.notes[f"stress: `{virial}` was used; `{stress}` is there too"] += 1
            stress = None
        else:
            report.notes[f"stress: `{stress}` was used; `{virial}` is there too"] += 1
            virial = None
    if stress is not None:
        report.took("stress", stress)
        return _tensor(raw, stress)
    if virial is None:
        return None
    volume = float(abs(np.linalg.det(raw.cell)))
    if volume < 1e-8:
        report.notes[f"stress: `{virial}` ignored, because the cell has no volume"] += 1
        return None
    report.took("stress", f"{virial} (stress = -{virial}/volume)")
    return -_tensor(raw, virial) / volume


def _scalar(value: Any) -> Scalar | None:
    """`value` if it is one small scalar, else None."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) <= 1000):
        return value
    return None


def require_labels(
    frames: Sequence[Frame],
    *,
    energy: bool = True,
    forces: bool = True,
    stress: bool = False,
    report: ReadReport | None = None,
) -> None:
    """Refuse frames that lack a label that is asked for. Isolated atoms need no forces and no stress.

    Args:
        frames: Frames; a `FrameList` brings its own report.
        energy: Whether energies are needed.
        forces: Whether forces are needed.
        stress: Whether stresses are needed (of frames periodic in three directions).
        report: How the frames were read, to name the keys of the file.

    Raises:
        InputError: Says how many frames and which first one lack the label, which keys the file has, and what
            to do.
    """
    if report is None and isinstance(frames, FrameList):
        report = frames.report
    for label, wanted in (("energy", energy), ("forces", forces), ("stress", stress)):
        if not wanted:
            continue
        lacking = [i for i, f in enumerate(frames) if getattr(f, label) is None and not _excused(f, label)]
        if not lacking:
            continue
        where = report.path if report is not None and report.path else "the data"
        seen = (
            ", ".join(f"`{k}`" for k in sorted(report.present))
            if report is not None and report.present
            else ""
        )
        raise InputError(
            f"{where}: {len(lacking)} of {len(frames)} frames have no {label} "
            f"(the first is frame {lacking[0]}); "
            + (f"keys in the file: {seen}; " if seen else "")
            + f"name the right one with {_OPTION[label]}, or do not ask for {label}"
        )


def _excused(frame: Frame, label: str) -> bool:
    if label == "forces":
        return frame.is_isolated_atom
    return label == "stress" and not bool(frame.pbc.all())


def require_keys(keys: LabelKeys, report: ReadReport) -> None:
    """Refuse a key that the user named and that no frame has.

    Raises:
        InputError: Names the key, the file and the keys that are there.
    """
    for label in _DEFAULTS:
        name = getattr(keys, label)
        if name is not None and report.frames and not report.present[name]:
            seen = ", ".join(f"`{k}`" for k in sorted(report.present)) or "none"
            raise InputError(
                f"{report.path}: no frame has the {label} key `{name}`; keys in the file: {seen}"
            )
