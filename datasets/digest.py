"""Fingerprints of frames and of whole data sets, equal on every machine."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from typing import Any

import numpy as np

from mlip.datasets.frames import Frame


def structure_digest(frame: Frame) -> int:
    """64-bit fingerprint of elements, positions, cell, periodicity, charge and spin, bit for bit."""
    return _finish(_structure(frame))


def frame_digest(frame: Frame) -> int:
    """64-bit fingerprint of structure and labels (not of group, weight or info), bit for bit.

    A Hessian counts as rounded to float32, the precision that it is stored in.
    """
    h = _structure(frame)
    h.update(b"-" if frame.energy is None else struct.pack("<d", frame.energy))
    for array in (frame.forces, frame.stress):
        h.update(b"-" if array is None else np.ascontiguousarray(array, dtype="<f8").tobytes())
    if frame.hessian is not None:
        h.update(np.ascontiguousarray(frame.hessian, dtype="<f4").tobytes())
    return _finish(h)


def _structure(frame: Frame) -> Any:
    h = hashlib.blake2b(digest_size=8)
    h.update(np.ascontiguousarray(frame.atomic_numbers, dtype="<i8").tobytes())
    h.update(np.ascontiguousarray(frame.positions, dtype="<f8").tobytes())
    h.update(np.ascontiguousarray(frame.cell, dtype="<f8").tobytes())
    h.update(np.ascontiguousarray(frame.pbc, dtype="u1").tobytes())
    h.update(struct.pack("<qq", frame.charge, frame.spin))
    return h


def _finish(h: Any) -> int:
    return int.from_bytes(h.digest(), "little")


def data_hash(frames: Iterable[Frame]) -> str:
    """SHA-256 over the fingerprints in order, as hexadecimal: which data a model was trained on."""
    h = hashlib.sha256()
    for frame in frames:
        h.update(struct.pack("<Q", frame_digest(frame)))
    return h.hexdigest()
