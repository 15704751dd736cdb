"""`validate_frames`: everything that is wrong or odd about a data set, in one table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from mlip.datasets.checks import LARGEST_Z, has_flat_cell
from mlip.datasets.digest import frame_digest, structure_digest
from mlip.datasets.frames import Frame
from mlip.datasets.geometry import closest_pair
from mlip.datasets.suspicion import label_findings
from mlip.errors import InputError

Severity = Literal["error", "warning", "note"]
_RANK = {"error": 0, "warning": 1, "note": 2}
OVERLAP = 0.3
"""Atoms closer than this are an error, Å."""
CLOSE = 0.5
"""Atoms closer than this are a warning, Å."""
DUPLICATES = "duplicate frames"


@dataclass(frozen=True)
class Finding:
    """One line of the table.

    Attributes:
        severity: `error` (training on it would fail or go wrong), `warning` (look at it), `note`.
        check: What was checked.
        count: Number of frames concerned.
        example: The first of them, in words.
        frames: Places of all that are at fault, where it is a fault of single frames.
    """

    severity: Severity
    check: str
    count: int
    example: str
    frames: tuple[int, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready values, without the places."""
        values = asdict(self)
        del values["frames"]
        return values


def validate_frames(
    frames: Sequence[Frame],
    *,
    require: Sequence[str] = (),
    e0s: Mapping[int, float] | None = None,
) -> list[Finding]:
    """Check frames (read with `check=False`) and list what is found, worst first.

    Args:
        frames: Frames.
        require: Labels (`energy`, `forces`, `stress`) whose absence is an error.
        e0s: Energies of isolated atoms, eV, to test the energies against; by default those of the isolated
            atoms among the frames.

    Raises:
        InputError: `require` names something that is not a label.
    """
    unknown = [r for r in require if r not in ("energy", "forces", "stress")]
    if unknown:
        raise InputError(f"`require` holds {unknown[0]!r} but may hold only energy, forces, stress")
    findings: list[Finding] = []
    for check, severity, test in _PER_FRAME:
        hits = [(i, what) for i, f in enumerate(frames) if (what := test(f)) is not None]
        if hits:
            places = tuple(i for i, _ in hits)
            example = f"frame {places[0]}: {hits[0][1]}"
            findings.append(Finding(severity, check, len(hits), example, places))
    findings.extend(_overlaps(frames))
    findings.extend(_missing(frames, require))
    findings.extend(_duplicates(frames))
    sound = [
        f for f in frames if _not_finite(f) is None and _unknown_element(f) is None and not has_flat_cell(f)
    ]
    findings.extend(Finding(*fields) for fields in label_findings(sound, e0s=e0s or _own_atoms(sound)))
    return sorted(findings, key=lambda f: _RANK[f.severity])


def without_faults(frames: Sequence[Frame], findings: Sequence[Finding]) -> list[Frame]:
    """Frames that can be used: without those of any error, and of duplicates the first only.

    What is only odd (a warning or note) stays, and no label is changed: what a wrong unit or sign should have
    been is for a person to say.

    Args:
        frames: Frames.
        findings: What `validate_frames` found in them.
    """
    bad: set[int] = set()
    for finding in findings:
        if finding.severity == "error" or finding.check == DUPLICATES:
            bad.update(finding.frames)
    return [frame for i, frame in enumerate(frames) if i not in bad]


def _own_atoms(frames: Sequence[Frame]) -> dict[int, float] | None:
    """Energies of the isolated atoms among the frames, if there are any."""
    found = {
        int(f.atomic_numbers[0]): f.energy for f in frames if f.is_isolated_atom and f.energy is not None
    }
    return found or None


def _not_finite(frame: Frame) -> str | None:
    for name in ("positions", "cell", "energy", "forces", "stress", "hessian"):
        value = getattr(frame, name)
        if value is not None and not np.isfinite(value).all():
            return f"`{name}` holds NaN or infinity"
    return None


def _unknown_element(frame: Frame) -> str | None:
    bad = frame.atomic_numbers[(frame.atomic_numbers < 1) | (frame.atomic_numbers > LARGEST_Z)]
    return f"atomic number {int(bad[0])}" if len(bad) else None


def _flat_cell(frame: Frame) -> str | None:
    return "periodic, but the cell spans no volume" if has_flat_cell(frame) else None


def _partly_periodic(frame: Frame) -> str | None:
    n = int(frame.pbc.sum())
    return f"periodic along {n} of 3 lattice vectors" if 0 < n < 3 else None


def _net_force(frame: Frame) -> str | None:
    if frame.forces is None or not np.isfinite(frame.forces).all():
        return None
    net = float(np.linalg.norm(frame.forces.sum(axis=0)))
    return f"forces add up to {net:.3g} eV/Å" if net > 0.01 * len(frame) else None


def _large_force(frame: Frame) -> str | None:
    if frame.forces is None or not np.isfinite(frame.forces).all():
        return None
    largest = float(np.linalg.norm(frame.forces, axis=1).max())
    return f"a force of {largest:.4g} eV/Å" if largest > 50 else None


def _asymmetric_stress(frame: Frame) -> str | None:
    if frame.stress is None or not np.isfinite(frame.stress).all():
        return None
    difference = float(np.abs(frame.stress - frame.stress.T).max())
    limit = 1e-6 + 1e-3 * float(np.abs(frame.stress).max())
    return f"the stress differs from its transpose by {difference:.3g} eV/Å³" if difference > limit else None


def _molecular_stress(frame: Frame) -> str | None:
    if frame.stress is None or frame.pbc.any() or not np.abs(frame.stress).any():
        return None
    return "has a stress, but is not periodic"


def _spin_parity(frame: Frame) -> str | None:
    if (frame.charge, frame.spin) == (0, 1) or frame.pbc.any():
        return None
    electrons = int(frame.atomic_numbers.sum()) - frame.charge
    if (electrons + frame.spin) % 2 == 1 and frame.spin >= 1:
        return None
    return f"{electrons} electrons cannot have multiplicity {frame.spin} (`spin` is 2S + 1)"


_PER_FRAME: tuple[tuple[str, Severity, Callable[[Frame], str | None]], ...] = (
    ("NaN or infinity", "error", _not_finite),
    ("unknown element", "error", _unknown_element),
    ("periodic cell without volume", "error", _flat_cell),
    ("forces above 50 eV/Å", "warning", _large_force),
    ("forces do not add up to zero", "warning", _net_force),
    ("asymmetric stress", "warning", _asymmetric_stress),
    ("stress of a molecule", "warning", _molecular_stress),
    ("charge and multiplicity do not fit", "warning", _spin_parity),
    ("partly periodic", "note", _partly_periodic),
)


def _overlaps(frames: Sequence[Frame]) -> Iterator[Finding]:
    """Atoms on top of each other, and close contacts."""
    hits: dict[Severity, list[tuple[int, float, int, int]]] = {"error": [], "warning": []}
    for k, frame in enumerate(frames):
        if len(frame) < 1 or has_flat_cell(frame) or not np.isfinite(frame.positions).all():
            continue
        if not np.isfinite(frame.cell).all():
            continue
        pair = closest_pair(frame, within=CLOSE)
        if pair is not None:
            hits["error" if pair[0] < OVERLAP else "warning"].append((k, *pair))
    for severity, found in hits.items():
        if found:
            k, distance, i, j = found[0]
            name = f"atoms closer than {OVERLAP if severity == 'error' else CLOSE} Å"
            yield Finding(
                severity,
                name,
                len(found),
                f"frame {k}: atoms {i} and {j} are {distance:.4f} Å apart",
                tuple(place for place, *_ in found),
            )


def _missing(frames: Sequence[Frame], require: Sequence[str]) -> Iterator[Finding]:
    """Labels that some frames lack. Isolated atoms need no forces, molecules no stress."""
    for label in ("energy", "forces", "stress"):
        asked = [
            i
            for i, f in enumerate(frames)
            if not (label == "stress" and not f.pbc.all()) and not (label != "energy" and f.is_isolated_atom)
        ]
        lacking = [i for i in asked if getattr(frames[i], label) is None]
        if not lacking:
            continue
        everywhere = len(lacking) == len(asked)
        severity: Severity = "error" if label in require else "note" if everywhere else "warning"
        yield Finding(
            severity,
            f"no {label}",
            len(lacking),
            f"frame {lacking[0]}" + (" (and all)" if everywhere else ""),
            tuple(lacking),
        )


def _duplicates(frames: Sequence[Frame]) -> Iterator[Finding]:
    """The same frame twice, and the same structure with other labels."""
    labelled: dict[int, int] = {}
    structures: dict[int, int] = {}
    same: list[tuple[int, int]] = []
    other: list[tuple[int, int]] = []
    for i, frame in enumerate(frames):
        if (first := labelled.setdefault(frame_digest(frame), i)) != i:
            same.append((first, i))
        elif (first := structures.setdefault(structure_digest(frame), i)) != i:
            other.append((first, i))
    if other:
        yield Finding(
            "error",
            "one structure, two different labels",
            len(other),
            "frames {} and {}".format(*other[0]),
            tuple(sorted({i for pair in other for i in pair})),  # nothing says which of them is right
        )
    if same:
        example = "frames {} and {}".format(*same[0])
        yield Finding("warning", DUPLICATES, len(same), example, tuple(i for _, i in same))
