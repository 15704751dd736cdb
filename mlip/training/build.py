"""From the ``model`` section of a configuration to a potential with its normalisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from mlip.errors import InputError
from mlip.models import MODELS, Model
from mlip.potential import Potential
from mlip.training.config import TrainConfig
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
