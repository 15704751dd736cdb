"""`ReadReport`: what was read from which key of which file, what was passed over, and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from mlip.datasets.frames import Frame

LABELS = ("energy", "forces", "stress", "hessian")
_NAMES = ("group", "molecule", "reaction", "trajectory", "step", "weight", "charge", "spin")


@dataclass
class ReadReport:
    """What was read from which key of which file.

    Attributes:
        path: File.
        format: Format it was read as.
        frames: Number of frames.
        labelled: Frames with each of `energy`, `forces`, `stress`, `hessian`.
        sources: For each label, the key (with its unit or conversion) and the number of frames that it gave.
        present: Every key seen in the file, with the number of frames that have it.
        dropped: Per-atom arrays that a `Frame` does not keep.
        notes: Remarks, such as a second key that was passed over.
        skipped: Records that gave no frame, by reason.
    """

    path: str = ""
    format: str = ""
    frames: int = 0
    labelled: Counter[str] = field(default_factory=Counter)
    sources: dict[str, Counter[str]] = field(default_factory=dict)
    present: Counter[str] = field(default_factory=Counter)
    dropped: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)

    def took(self, label: str, source: str, *, count: int = 1) -> None:
        """Record that `count` frames got `label` from `source`."""
        self.sources.setdefault(label, Counter())[source] += count

    def count(self, frame: Frame) -> None:
        """Record one frame and the labels that it ended up with."""
        self.frames += 1
        for label in LABELS:
            if getattr(frame, label) is not None:
                self.labelled[label] += 1

    def lines(self) -> list[str]:
        """The report in words, one line per label."""
        out = [f"{self.path}: {self.frames} frames ({self.format})"]
        for label in LABELS:
            if label == "hessian" and not self.labelled[label]:
                continue
            got = ", ".join(f"`{k}` ({n})" for k, n in self.sources.get(label, Counter()).items())
            out.append(
                f"  {label}: {self.labelled[label]} of {self.frames} frames"
                + (f", read from {got}" if got else "")
            )
        for label in _NAMES:
            got = ", ".join(f"`{k}` ({n})" for k, n in self.sources.get(label, Counter()).items())
            if got:
                out.append(f"  {label}: read from {got}")
        out.extend(f"  note: {note} ({n} frames)" for note, n in self.notes.items())
        out.extend(f"  skipped: {reason} ({n} records)" for reason, n in self.skipped.items())
        return out

    def as_dict(self) -> dict[str, Any]:
        """The report as JSON-ready values."""
        return {
            "path": self.path,
            "format": self.format,
            "frames": self.frames,
            "labelled": {k: self.labelled[k] for k in LABELS},
            "sources": {k: dict(v) for k, v in self.sources.items()},
            "present": dict(self.present),
            "dropped": dict(self.dropped),
            "notes": dict(self.notes),
            "skipped": dict(self.skipped),
        }
