from __future__ import annotations

import pytest

from mlip.errors import InputError
from mlip.models import MODELS, Model


@pytest.mark.parametrize("name", MODELS)
def test_registered(name: str) -> None:
    model = MODELS[name].from_config({"species": [1, 8], "cutoff": 4.5})
    assert isinstance(model, Model)
    assert model.config.species == (1, 8)
    assert model.config.cutoff == 4.5
    assert model.species_index[[1, 8]].tolist() == [0, 1]


@pytest.mark.parametrize("species", [[], [8, 1], [1, 1], [0, 1], [8, 119]])
@pytest.mark.parametrize("name", MODELS)
def test_species(name: str, species: list[int]) -> None:
    with pytest.raises(
        InputError, match=r"`species` is \(.*\) but must be ascending atomic numbers from 1 to 118"
    ):
        MODELS[name].from_config({"species": species})


@pytest.mark.parametrize("option", ["cutoff", "avg_num_neighbors", "energy_scale"])
@pytest.mark.parametrize("value", [0.0, -1.0, float("nan")])
def test_positive(option: str, value: float) -> None:
    with pytest.raises(InputError, match=f"`{option}` is {value} but must be positive"):
        MODELS["polyad"].from_config({"species": [1], option: value})


def test_unknown_options() -> None:
    with pytest.raises(InputError, match="model option `num_layer` is unknown; did you mean `num_layers`"):
        MODELS["polyad"].from_config({"species": [1], "num_layer": 2})
    with pytest.raises(InputError, match="model option `xyz` is unknown; it has: species, cutoff"):
        MODELS["polyad"].from_config({"species": [1], "xyz": 2})


def test_missing_option() -> None:
    with pytest.raises(InputError, match=r"model configuration: .*species"):
        MODELS["polyad"].from_config({})
