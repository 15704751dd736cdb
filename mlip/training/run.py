"""A training run from a configuration to a model file and a report."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from mlip.errors import InputError
from mlip.potential import Potential
from mlip.training.build import check_head, check_model, continue_potential, initial_cutoff, make_potential
from mlip.training.config import TrainConfig, dump, max_weight
from mlip.training.config_file import as_started, check_same_run
from mlip.training.data import (
    TrainingFrames,
    check_species,
    data_hash,
    hash_key,
    read_training_frames,
)
from mlip.training.loss import Labels
from mlip.training.packed import PackedFrames, pack
from mlip.training.references import collect_species, measure, reference_energies
from mlip.training.relaxation import Relaxations, read_relaxations
from mlip.training.state import load_state

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Processes:
    """This process among those that ``torchrun`` started; alone without it."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int

    @classmethod
    def from_environment(cls) -> Processes:
        """As ``torchrun`` says in the environment."""
        number = {
            name: os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE")
        }
        if number["WORLD_SIZE"] is None:
            return cls(0, 0, 1, 1)
        world = int(number["WORLD_SIZE"])
        return cls(
            int(number["RANK"] or 0),
            int(number["LOCAL_RANK"] or 0),
            world,
            int(number["LOCAL_WORLD_SIZE"] or world),
        )


@dataclass(frozen=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        main: Whether this is the process that writes and speaks.
        finished: Whether all epochs are done, or the run stopped on its own terms (early stopping, time).
        reason: Why it stopped early, or empty.
        signal_number: Of the signal that stopped it, or 0.
        epoch: Complete epochs.
        model: File with the best averaged weights, where there was a validation.
        metrics: Errors of these weights on ``train``, ``valid`` and the tests; empty unless finished.
    """

    main: bool
    finished: bool
    reason: str
    signal_number: int
    epoch: int
    model: Path | None
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class PackedSets:
    """The frames with their neighbour lists."""

    train: PackedFrames
    valid: PackedFrames
    tests: dict[str, PackedFrames]


def run_training(config: TrainConfig, *, resume: bool = False) -> TrainingResult:
    """Train a potential.

    Args:
        config: The run.
        resume: Continue from ``last.ckpt`` in the output folder.

    Raises:
        InputError: Something in the configuration or the data is wrong.
    """
    from mlip.training.fit import fit

    check_model(config)
    processes = Processes.from_environment()
    say = _printer(processes)
    device = resolve_device(config.device, processes)
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    last = config.output / "last.ckpt"
    if not resume and last.exists():
        raise InputError(
            f"{config.output} already holds a run; continue it with --resume, or set another `output` folder"
        )
    state = None
    if resume:
        state, config = _resumed(config, last, say)
    frozen = config.freeze == "backbone"
    labels = Labels.of(config.loss, frozen=frozen)
    no_use = frozen and max_weight(config.loss.hvp) == 0  # of frames without a Hessian
    frames = read_training_frames(config.data, labels, say, hessians_only=no_use)
    species = collect_species(frames.train, config.data.species)
    for name, part in [("validation", frames.valid), *frames.tests.items()]:
        check_species(part, species, name)
    digest = data_hash(frames.train)
    if state is not None and state["data_hash"] != digest:
        raise InputError(
            "the training frames are not those that the run was started with (the hashes differ); "
            "restore the data, or start a new run in another `output` folder"
        )
    relaxations = _relaxations(config, species)
    packed = pack_all(frames, config, initial_cutoff(config))
    torch.manual_seed(config.seed)
    if config.init is not None:
        potential = continue_potential(config, species)
    else:
        e0s = reference_energies(
            config.e0s, species, frames.train, frames.isolated, energy_key=config.data.keys.energy
        )
        potential = make_potential(config, species=species, e0s=e0s, statistics=measure(packed.train, e0s))
    check_head(config, potential)
    say(describe(packed, potential))
    potential.metadata[hash_key(config)] = digest
    potential.to(device)
    if state is not None:
        _restore_random(last)
    if processes.rank == 0:
        _prepare_output(config)
    say(f"{sum(p.numel() for p in potential.parameters())} weights, {config.dtype}, {device}")
    return fit(
        config,
        potential,
        packed,
        state=state,
        processes=processes,
        device=device,
        say=say,
        relaxations=relaxations,
    )


def _resumed(
    config: TrainConfig, last: Path, say: Callable[[str], None]
) -> tuple[dict[str, Any], TrainConfig]:
    """State of the run to go on with, and its configuration."""
    state, started_with = load_state(last)
    config = as_started(config, started_with)
    check_same_run(config, started_with)
    if config.max_epochs != (length := started_with["max_epochs"]):
        say(f"{config.max_epochs} epochs instead of {length}; learning rate and loss weights follow")
    return state, config


def _relaxations(config: TrainConfig, species: Sequence[int]) -> Relaxations | None:
    if config.relaxation_metrics is None:
        return None
    relaxations = read_relaxations(config.relaxation_metrics, config.data)
    check_species([case.start for case in relaxations.cases], species, "relaxation_metrics")
    return relaxations


def pack_all(frames: TrainingFrames, config: TrainConfig, cutoff: float) -> PackedSets:
    """Neighbour lists of all frames."""
    dtype = DTYPES[config.dtype]
    return PackedSets(
        train=pack(frames.train, cutoff, dtype=dtype, source="training frames"),
        valid=pack(frames.valid, cutoff, dtype=dtype, source="validation frames"),
        tests={name: pack(part, cutoff, dtype=dtype, source=name) for name, part in frames.tests.items()},
    )


def describe(packed: PackedSets, potential: Potential) -> str:
    """What is learned from, in a line."""
    config = potential.model.config
    line = (
        f"{len(packed.train)} training, {len(packed.valid)} validation frames; "
        f"{config.avg_num_neighbors:.1f} neighbours; force scale {config.energy_scale:.3g} eV/Å"
    )
    hessians = [int(np.count_nonzero(part.hessian_sizes)) for part in (packed.train, packed.valid)]
    return line + (f"; Hessians of {hessians[0]} and {hessians[1]} of them" if any(hessians) else "")


def resolve_device(name: str, processes: Processes) -> torch.device:
    """The device of this process.

    Raises:
        InputError: There is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise InputError(f"`device` is {name!r} but must be auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"`device` is {name!r} but training runs on cpu and cuda")
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise InputError("`device` is cuda, but this machine or this build of torch has no usable GPU")
        index = processes.local_rank if processes.world_size > 1 else device.index or 0
        if index >= torch.cuda.device_count():
            raise InputError(f"`device` asks for GPU {index}, but there are {torch.cuda.device_count()}")
        device = torch.device("cuda", index)
    return device


def _restore_random(last: Path) -> None:
    """Making the model drew random numbers: put the generators back to where the checkpoint left them."""
    load_state(last)


def _prepare_output(config: TrainConfig) -> None:
    try:
        config.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"`output` {str(config.output)!r} cannot be made: {error.strerror}") from None
    text = yaml.safe_dump(dump(config), sort_keys=False, allow_unicode=True)
    temporary = config.output / "config.yaml.tmp"
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, config.output / "config.yaml")


def _printer(processes: Processes) -> Callable[[str], None]:
    def say(line: str) -> None:
        if processes.rank == 0:
            print(line, file=sys.stderr, flush=True)

    return say
