"""Reading, writing, checking and splitting of labelled structures, imported as `mlip.datasets`."""

from __future__ import annotations

if __name__ != "mlip.datasets":
    raise ImportError(
        "this folder is the package `mlip.datasets`: write `from mlip.datasets import read_frames`, "
        "not `import datasets` from the repository root"
    )

from mlip.datasets.digest import data_hash, frame_digest
from mlip.datasets.frames import Frame
from mlip.datasets.h5_reader import H5Dataset
from mlip.datasets.h5_writer import H5Writer
from mlip.datasets.labels import FrameList, LabelKeys, require_labels
from mlip.datasets.read import iter_frames, read_frames, read_isolated_atoms
from mlip.datasets.report import ReadReport
from mlip.datasets.split import split_frames
from mlip.datasets.write import write_frames

__all__ = [
    "Frame",
    "FrameList",
    "H5Dataset",
    "H5Writer",
    "LabelKeys",
    "ReadReport",
    "data_hash",
    "frame_digest",
    "iter_frames",
    "read_frames",
    "read_isolated_atoms",
    "require_labels",
    "split_frames",
    "write_frames",
]
