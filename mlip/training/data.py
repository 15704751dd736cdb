"""From the ``data`` section of a configuration to labelled frames: reading, checking and splitting."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlip.datasets import Frame, FrameList, LabelKeys, read_frames, require_labels, split_frames
from mlip.datasets.digest import structure_digest
from mlip.datasets.split import usual_key
from mlip.datasets.weights import balance_weights
from mlip.errors import InputError
from mlip.training.config import Data, TrainConfig
from mlip.training.loss import Labels


@dataclass(frozen=True)
class TrainingFrames:
    """The frames of a run.

    Attributes:
        train: To learn from.
        valid: To choose the best weights by.
        tests: To report on, by name.
        isolated: One-atom frames that were found in the training file.
    """

    train: list[Frame]
    valid: list[Frame]
    tests: dict[str, list[Frame]]
    isolated: list[Frame]


def read_training_frames(
    config: Data, labels: Labels, say: Callable[[str], None], *, hessians_only: bool = False
) -> TrainingFrames:
    """Read, check and split the frames of a run.

    Args:
        config: The section ``data``.
        labels: Labels that the loss needs; energies and forces that the data has are read anyway.
        hessians_only: Leave out training and validation frames without a Hessian.
        say: Called with each line of what was read from which key.

    Raises:
        InputError: A file is missing or unreadable, a label is missing, or there are too few frames.
    """
    everything = _read(config.train, config, labels, say)
    isolated = [f for f in everything if f.is_isolated_atom]
    usable = FrameList([f for f in everything if not f.is_isolated_atom], report=everything.report)
    if isolated:
        say(f"  {len(isolated)} isolated atoms are left out of the training frames")
    if config.max_frames is not None and config.max_frames < len(usable):
        chosen = np.random.default_rng(config.split_seed).permutation(len(usable))[: config.max_frames]
        usable = FrameList([usable[i] for i in sorted(chosen.tolist())], report=everything.report)
    if not usable:
        raise InputError(f"{config.train}: there are no frames to train on")
    if hessians_only:
        usable = _with_hessian(usable, say)
    if labels.hessian and all(f.hessian is None for f in usable):
        raise InputError(
            f"{config.train}: no frame has a Hessian, but `loss.hessian` or `loss.hessian_subspace` is above "
            "0; learn from forces alone with `loss.hvp`, or name the Hessian with `data.keys.hessian`"
        )
    if isinstance(config.valid, Path):
        train: list[Frame] = usable
        held = _read(config.valid, config, labels, say)
        valid = _without_isolated(_with_hessian(held, say) if hessians_only else held)
    else:
        train, valid = _hold_out(usable, config, say)
    _warn_of_electrons(train, say)
    if config.weights != "file":
        train = balance_weights(train, by=config.weights)
    tests = {
        name: _without_isolated(_read(file, config, labels, say))
        for name, file in config.test_files().items()
    }
    for name, part in [("validation", valid), *tests.items()]:
        _warn_of_copies(name, part, train, say)
    return TrainingFrames(train=train, valid=valid, tests=tests, isolated=isolated)


def _warn_of_copies(
    name: str, part: Sequence[Frame], train: Sequence[Frame], say: Callable[[str], None]
) -> None:
    """Errors on frames that were trained on say nothing."""
    seen = {structure_digest(frame) for frame in train}
    copies = sum(structure_digest(frame) in seen for frame in part)
    if copies:
        say(f"  warning: {copies} of {len(part)} {name} frames are training frames, too")


def _warn_of_electrons(train: Sequence[Frame], say: Callable[[str], None]) -> None:
    """A model is told neither charge nor spin: where they differ it learns a mixture."""
    states = Counter((frame.charge, frame.spin) for frame in train)
    if len(states) > 1:
        listed = ", ".join(f"{q:+d} and {s} ({count})" for (q, s), count in states.most_common(4))
        say(
            "  warning: the training frames differ in charge and spin (2S + 1), of which the model is not "
            f"told: {listed}{', …' if len(states) > 4 else ''}; train on frames of one kind"
        )


def _with_hessian(frames: FrameList, say: Callable[[str], None]) -> FrameList:
    kept = FrameList([f for f in frames if f.hessian is not None], report=frames.report)
    if len(kept) < len(frames):
        say(f"  {len(frames) - len(kept)} of {len(frames)} frames have no Hessian and are left out")
    return kept


def _hold_out(frames: FrameList, config: Data, say: Callable[[str], None]) -> tuple[list[Frame], list[Frame]]:
    fraction = config.valid / len(frames) if isinstance(config.valid, int) else config.valid
    if not isinstance(fraction, float) or not 0 < fraction < 1:
        raise InputError(
            f"`data.valid` is {config.valid} but {config.train} has {len(frames)} frames to share; "
            "hold out fewer, or give a validation file"
        )
    by = config.split_by or usual_key(frames)
    try:
        train, valid = split_frames(frames, [1 - fraction, fraction], by=by, seed=config.split_seed)
    except InputError as error:
        raise InputError(f"{config.train}, `data.split_by: {by}`: {error}") from None
    say(f"  {len(valid)} of {len(frames)} frames held out for validation, split by {by}")
    return train, valid


def _without_isolated(frames: FrameList) -> list[Frame]:
    return [f for f in frames if not f.is_isolated_atom]


def _read(path: Path, config: Data, labels: Labels, say: Callable[[str], None]) -> FrameList:
    if not path.is_file():
        raise InputError(f"data file {str(path)!r} does not exist")
    keys = LabelKeys(**config.keys.model_dump())
    frames = read_frames(path, keys=keys, format=config.format)
    for line in frames.report.lines():
        say(line)
    require_labels(frames, energy=labels.energy, forces=labels.forces, stress=labels.stress)
    if labels.stress and not any(f.stress is not None for f in frames):
        raise InputError(
            f"{path}: no frame has a stress, but `loss.stress` is above 0; set it to 0, or name the stress "
            "with `data.keys.stress` or `data.keys.virial`"
        )
    flat = next((i for i, f in enumerate(frames) if f.volume == 0.0 and not f.is_isolated_atom), None)
    if labels.stress and flat is not None:
        raise InputError(
            f"{path}: frame {flat} has no cell and therefore no stress, but `loss.stress` is above 0; "
            "set it to 0, or leave such frames out"
        )
    return frames


def check_species(frames: Sequence[Frame], species: Sequence[int], source: str) -> None:
    """Refuse frames with an element that the model will not know.

    Raises:
        InputError: Names the element, the frame and the remedy.
    """
    from ase.data import chemical_symbols

    known = np.array(sorted(species))
    for i, frame in enumerate(frames):
        strange = np.setdiff1d(frame.atomic_numbers, known)
        if strange.size:
            symbol = chemical_symbols[strange[0]]
            have = ", ".join(chemical_symbols[z] for z in known)
            raise InputError(
                f"{source}: frame {i} contains {symbol}, but the training data only has {have}; "
                f"add training frames with {symbol}, or declare it with `data.species: [{symbol}]`"
            )


def data_hash(frames: Sequence[Frame]) -> str:
    """SHA-256 over elements, positions, cells and labels of the training frames, in order."""
    digest = hashlib.sha256()
    for frame in frames:
        for array in (
            frame.atomic_numbers,
            frame.positions,
            frame.cell,
            frame.pbc,
            frame.forces,
            frame.stress,
            *(() if frame.hessian is None else (frame.hessian,)),
        ):
            digest.update(b"-" if array is None else np.ascontiguousarray(array).tobytes())
        digest.update(repr(frame.energy).encode())
    return f"sha256:{digest.hexdigest()}"


def hash_key(config: TrainConfig) -> str:
    """Key of that number in a model's metadata: the data of a head alone have a key of their own."""
    return "hessian_data_hash" if config.freeze == "backbone" else "data_hash"
