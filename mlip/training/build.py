"""From the ``model`` section of a configuration to a potential with its normalisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch

from mlip.checkpoint import load_potential, read_header
from mlip.errors import InputError
from mlip.models import MODELS, Model, Polyad
from mlip.models.growing import GROWING, grow
from mlip.potential import Potential
from mlip.training.config import TrainConfig, max_weight
from mlip.training.config_file import suggest
from mlip.training.references import Statistics


def check_model(config: TrainConfig) -> type[Model]:
    """The class that the section ``model`` names.

    Raises:
        InputError: The model or one of its settings is unknown, or is set elsewhere.
    """
    settings = dict(config.model)
    name = settings.pop("name")
    if name not in MODELS:
        raise InputError(f"`model.name` is {name!r}, which is not a model" + suggest(name, list(MODELS)))
    known = [field.name for field in dataclasses.fields(MODELS[name].Config)]
    for key in settings:
        if key in ("species", "cutoff"):
            where = "`data.species`" if key == "species" else "`cutoff` at the top of the configuration"
            raise InputError(f"`model.{key}` cannot be set; use {where}")
        if key not in known:
            free = [k for k in known if k not in ("species", "cutoff")]
            raise InputError(f"unknown key `model.{key}` of model {name}" + suggest(key, free))
    return MODELS[name]


def initial_cutoff(config: TrainConfig) -> float:
    """Å; that of the model which the run starts with, or that of the configuration.

    Raises:
        InputError: Both are given and differ.
    """
    if config.init is None:
        return config.cutoff
    cutoff = float(read_header(config.init)["cutoff"])
    if "cutoff" in config.model_fields_set and config.cutoff != cutoff:
        raise InputError(f"`cutoff` is {config.cutoff} but that of `init` is {cutoff}; leave it out")
    return cutoff


def continue_potential(config: TrainConfig, species: Sequence[int]) -> Potential:
    """The potential that ``init`` names, with the head for Hessians or the size that ``model`` asks for.

    Species, E0s and normalisation stay those of ``init``. A larger model computes the same at first.

    Args:
        config: The run.
        species: Atomic numbers in the data.

    Raises:
        InputError: ``init`` is no model, is of another kind, lacks an element of the data; or ``model`` or
            ``e0s`` ask for something else than what it is.
    """
    if config.init is None:
        raise ValueError("`init` is not given")
    dtype = {"float32": torch.float32, "float64": torch.float64}[config.dtype]
    old = load_potential(config.init, dtype=dtype)
    if type(old.model) is not check_model(config):
        raise InputError(
            f"`model.name` is {config.model['name']!r} but `init` is a {type(old.model).__name__}"
        )
    if "e0s" in config.model_fields_set:
        raise InputError("`e0s` cannot be set together with `init`, whose E0s are kept; leave it out")
    missing = sorted(set(species) - set(old.species))
    if missing:
        raise InputError(
            f"the data has atomic number(s) {missing}, which `init` does not know: {old.species}"
        )
    asked = {key: value for key, value in config.model.items() if key != "name"}
    had = dataclasses.asdict(old.model.config)
    for key, value in asked.items():
        more = key in GROWING and isinstance(value, int) and value > had[key]
        if not (more or key.startswith("hessian_")) and had[key] != value:
            raise InputError(f"`model.{key}` is {value!r} but `init` has {had[key]!r}; leave it out")
    model = type(old.model).from_config(had | asked).to(dtype)
    _take_over(model, old.model)
    potential = Potential(model, old.isolated_energies(), metadata=old.metadata | config.metadata)
    if config.freeze == "backbone":
        potential.domain = old.domain  # else measured anew at the end: other features
        for name, weight in model.named_parameters():
            weight.requires_grad_(name.startswith("hessian_"))
    return potential


def check_head(config: TrainConfig, potential: Potential) -> None:
    """Refuse Hessian terms in the loss of a model without the head, and a head that would not be trained.

    Raises:
        InputError: One is there without the other.
    """
    loss = config.loss
    wanted = any(max_weight(w) > 0 for w in (loss.hessian, loss.hessian_subspace, loss.hvp))
    if wanted and not potential.has_direct_hessian:
        raise InputError(
            "`loss` has Hessian terms but the model has no head for Hessians; "
            "give it one with `model.hessian_cutoff`, for instance 7.0"
        )
    if potential.has_direct_hessian and not wanted and config.init is None:
        raise InputError(
            "`model.hessian_cutoff` gives the model a head for Hessians that nothing would train; "
            "set `loss.hessian`, or `loss.hvp` where the data have forces alone"
        )


def _take_over(model: Model, old: Model) -> None:
    """Give the weights of a trained model to one of its kind, which may be larger.

    Raises:
        InputError: It is larger, and one of the two has a head for Hessians.
    """
    large, small = cast("Polyad", model), cast("Polyad", old)
    sizes = {name: (getattr(large.config, name), getattr(small.config, name)) for name in GROWING}
    more = next((name for name, (here, there) in sizes.items() if here > there), None)
    if more is not None:
        if model.hessian_cutoff:
            here, there = sizes[more]
            raise InputError(
                f"`model.{more}` is {here} and `init` has {there}, with a head for Hessians: "
                "let a model grow before it gets the head"
            )
        grow(large, small)
        return
    lacking, surplus = model.load_state_dict(_kept(old, model), strict=False)
    if surplus or any(not name.startswith("hessian_") for name in lacking):
        raise ValueError(f"weights of `init` do not fit: {lacking} {surplus}")


def _kept(old: Model, model: Model) -> dict[str, torch.Tensor]:
    """Weights to start with: all, but those of a head of another shape."""
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    state: dict[str, torch.Tensor] = old.state_dict()
    head = {name for name in state if name.startswith("hessian_")}
    if any(shapes.get(name) != state[name].shape for name in head):
        return {name: value for name, value in state.items() if name not in head}
    return state


def make_potential(
    config: TrainConfig, *, species: Sequence[int], e0s: Mapping[int, float], statistics: Statistics
) -> Potential:
    """An untrained potential.

    Args:
        config: The run; ``model`` holds the name and the model's own settings.
        species: Atomic numbers, ascending.
        e0s: eV by atomic number.
        statistics: Of the training frames.

    Raises:
        InputError: The model or one of its settings is unknown or refused.
    """
    model_class = check_model(config)
    settings = {key: value for key, value in config.model.items() if key != "name"}
    measured: dict[str, Any] = {"species": tuple(species), "cutoff": config.cutoff, **vars(statistics)}
    try:
        model = model_class.from_config(measured | settings)
    except InputError as error:
        raise InputError(f"section `model`: {error}") from None
    potential = Potential(model, e0s, metadata=config.metadata)
    return potential.to(dtype={"float32": torch.float32, "float64": torch.float64}[config.dtype])
