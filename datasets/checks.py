"""What a frame must satisfy to be of any use: finite numbers, known elements, a cell where it is periodic."""

from __future__ import annotations

import numpy as np

from mlip.datasets.frames import Frame
from mlip.errors import InputError

LARGEST_Z = 118
_SMALLEST_VOLUME = 1e-6  # Å³


def check_frame(frame: Frame, *, where: str) -> None:
    """Refuse a frame that no potential can use.

    Args:
        frame: Frame.
        where: Its place, for the message.

    Raises:
        InputError: A coordinate or label is NaN or infinite, an atomic number is none, or a periodic cell has
            no volume.
    """
    for name in ("positions", "cell", "energy", "forces", "stress", "hessian"):
        value = getattr(frame, name)
        finite = np.isfinite(value) if value is not None else np.True_
        if finite.all():
            continue
        at = f" of atom {int(np.argwhere(~finite)[0][0])}" if name in ("positions", "forces") else ""
        raise InputError(
            f"{where}: `{name}`{at} is NaN or infinite; "
            "remove the frame (`mlip data validate` lists all of them)"
        )
    bad = (frame.atomic_numbers < 1) | (frame.atomic_numbers > LARGEST_Z)
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"{where}: atom {i} has atomic number {frame.atomic_numbers[i]} but must have 1 to {LARGEST_Z}"
        )
    if has_flat_cell(frame):
        raise InputError(
            f"{where}: periodic along {''.join(a for a, p in zip('abc', frame.pbc, strict=True) if p)}, "
            "but the cell vectors there span no volume; give a cell (`Lattice=...`) or set pbc to false"
        )


def has_flat_cell(frame: Frame) -> bool:
    """Whether the lattice vectors of the periodic directions are linearly dependent (or zero)."""
    vectors = frame.cell[frame.pbc]
    if not len(vectors) or not np.isfinite(vectors).all():
        return False
    gram = vectors @ vectors.T
    return bool(np.sqrt(max(np.linalg.det(gram), 0.0)) < _SMALLEST_VOLUME)
