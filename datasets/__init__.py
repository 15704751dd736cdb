"""Reading, writing, checking and splitting of labelled structures, imported as `mlip.datasets`."""

from __future__ import annotations

if __name__ != "mlip.datasets":
    raise ImportError(
        "this folder is the package `mlip.datasets`: write `from mlip.datasets import read_frames`, "
        "not `import datasets` from the repository root"
    )

from mlip.datasets.frames import Frame
from mlip.datasets.labels import FrameList, LabelKeys, ReadReport, require_labels
from mlip.datasets.read import iter_frames, read_frames, read_isolated_atoms
from mlip.datasets.split import split_frames

__all__ = [
    "Frame",
    "FrameList",
    "LabelKeys",
    "ReadReport",
    "iter_frames",
    "read_frames",
    "read_isolated_atoms",
    "require_labels",
    "split_frames",
]
