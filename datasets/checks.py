"""What a frame must satisfy to be of any use: finite numbers, known elements, a cell where it is periodic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mlip.datasets.frames import Frame
from mlip.errors import InputError

LARGEST_Z = 118
_SMALLEST_VOLUME = 1e-6  # Å³


@dataclass(frozen=True)
class Fault:
    """Why a frame is of no use.

    Attributes:
        kind: The same for all frames with this fault.
        detail: Of this frame, and what to do.
    """

    kind: str
    detail: str


def check_frame(frame: Frame, *, where: str) -> None:
    """Refuse a frame that no potential can use.

    Args:
        frame: Frame.
        where: Its place, for the message.

    Raises:
        InputError: A coordinate or label is NaN or infinite, an atomic number is none, or a periodic cell has
            no volume.
    """
    fault = fault_of(frame)
    if fault is not None:
        raise InputError(f"{where}: {fault.detail}")


def fault_of(frame: Frame) -> Fault | None:
    """The first reason for which no potential can use a frame."""
    for name in ("positions", "cell", "energy", "forces", "stress", "hessian"):
        value = getattr(frame, name)
        finite = np.isfinite(value) if value is not None else np.True_
        if finite.all():
            continue
        at = f" of atom {int(np.argwhere(~finite)[0][0])}" if name in ("positions", "forces") else ""
        advice = "remove the frame (`mlip data validate` lists all of them)"
        return Fault(f"`{name}` NaN or infinite", f"`{name}`{at} is NaN or infinite; {advice}")
    bad = (frame.atomic_numbers < 1) | (frame.atomic_numbers > LARGEST_Z)
    if bad.any() or not len(frame):
        i = int(np.flatnonzero(bad)[0]) if len(frame) else 0
        z = frame.atomic_numbers[i] if len(frame) else "none"
        return Fault("unknown element", f"atom {i} has atomic number {z} but must have 1 to {LARGEST_Z}")
    if has_flat_cell(frame):
        axes = "".join(a for a, p in zip("abc", frame.pbc, strict=True) if p)
        return Fault(
            "periodic cell without volume",
            f"periodic along {axes}, but the cell vectors there span no volume; "
            "give a cell (`Lattice=...`) or set pbc to false",
        )
    return None


def has_flat_cell(frame: Frame) -> bool:
    """Whether the lattice vectors of the periodic directions are linearly dependent (or zero)."""
    vectors = frame.cell[frame.pbc]
    if not len(vectors) or not np.isfinite(vectors).all():
        return False
    gram = vectors @ vectors.T
    return bool(np.sqrt(max(np.linalg.det(gram), 0.0)) < _SMALLEST_VOLUME)
