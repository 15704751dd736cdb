"""Fingerprints of frames and of whole data sets, equal on every machine."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable

import numpy as np

from mlip.datasets.frames import Frame


def frame_digest(frame: Frame) -> int:
    """64-bit fingerprint of structure and labels (not of group, weight or info), bit for bit."""
    h = hashlib.blake2b(digest_size=8)
    for array, kind in (
        (frame.atomic_numbers, "<i8"),
        (frame.positions, "<f8"),
        (frame.cell, "<f8"),
        (frame.pbc, "u1"),
        (frame.forces, "<f8"),
        (frame.stress, "<f8"),
    ):
        h.update(b"-" if array is None else np.ascontiguousarray(array, dtype=kind).tobytes())
    h.update(b"-" if frame.energy is None else struct.pack("<d", frame.energy))
    h.update(struct.pack("<qq", frame.charge, frame.spin))
    return int.from_bytes(h.digest(), "little")


def data_hash(frames: Iterable[Frame]) -> str:
    """SHA-256 over the fingerprints in order, as hexadecimal: which data a model was trained on."""
    h = hashlib.sha256()
    for frame in frames:
        h.update(struct.pack("<Q", frame_digest(frame)))
    return h.hexdigest()
