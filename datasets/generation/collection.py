"""`Collector`: the labelled frames of one source so far, and what was discarded and why."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from mlip.datasets.generation.labelling import LabelError, Labeller, hessian
from mlip.datasets.generation.relaxation import Labelled, kept
from mlip.datasets.generation.topology import Array, distances

MAX_FORCE = 30.0
"""eV/Å; frames with a larger norm of a force are discarded."""
_CLOSEST = 0.45  # Å; no two nuclei are nearer


@dataclass(frozen=True)
class Note:
    """What a frame is: kind, name and step of the trajectory it is from ("" and -1 for none), reaction."""

    kind: str
    trajectory: str = ""
    step: int = -1
    reaction: str = ""


@dataclass(eq=False)
class Collector:
    """Frames in the order they were made; Hessians (eV/Å²) by index of frame."""

    label: Labeller
    notes: list[Note] = field(default_factory=list)
    frames: list[Labelled] = field(default_factory=list)
    hessians: dict[int, Array] = field(default_factory=dict)
    discarded: Counter[str] = field(default_factory=Counter)
    _trajectories: int = 0

    def keep(self, note: Note, frame: Labelled) -> int | None:
        """Keep a labelled frame unless a force is too large; its index."""
        if np.linalg.norm(frame.forces, axis=1).max() > MAX_FORCE:
            self.discarded["force above limit"] += 1
            return None
        self.notes.append(note)
        self.frames.append(frame)
        return len(self.frames) - 1

    def add(self, note: Note, positions: Array | None) -> int | None:
        """Label and keep a geometry; its index. None is no geometry, and passed over."""
        if positions is None:
            return None
        if len(positions) > 1 and (distances(positions) + 9.0 * np.eye(len(positions))).min() < _CLOSEST:
            self.discarded["nuclei too close"] += 1
            return None
        try:
            return self.keep(note, Labelled(positions, *self.label(positions)))
        except LabelError as error:
            self.discarded[str(error)] += 1
            return None

    def add_path(
        self, path: list[Labelled], count: int, *, kinds: tuple[str, str, str], reaction: str = ""
    ) -> int | None:
        """Keep `count` structures of a trajectory; `kinds`: of the first, the ones between, the last.

        Returns:
            Index of the last one.
        """
        name = f"{kinds[1]}-{self._trajectories}"
        self._trajectories += 1
        last = None
        for k in kept(len(path), count).tolist():
            kind = kinds[2] if k == len(path) - 1 else kinds[0] if k == 0 else kinds[1]
            last = self.keep(Note(kind, name, k, reaction), path[k])
        return last

    def add_hessian(self, index: int | None) -> None:
        """Second derivatives of a kept frame."""
        if index is None or index in self.hessians:
            return
        try:
            self.hessians[index] = hessian(self.label, self.frames[index].positions)
        except LabelError as error:
            self.discarded["Hessian: " + str(error)] += 1
