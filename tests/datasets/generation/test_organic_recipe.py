"""The steps of `examples/gfn2_organic/recipe.py` that make data, on few molecules."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from mlip.datasets.generation import shards
from mlip.datasets.generation.labelling import Particles, TBLite, hessian
from mlip.datasets.generation.pack import pack
from mlip.datasets.generation.recipes import Amounts, Source
from mlip.datasets.h5_reader import H5Dataset

FOLDER = Path(__file__).parents[3] / "examples" / "gfn2_organic"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not run from a source tree")


@pytest.fixture(autouse=True)
def recipe_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("tblite")
    pytest.importorskip("rdkit")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("recipe", "hessians"):
        sys.modules.pop(name, None)


def module(name: str) -> ModuleType:
    return importlib.import_module(name)


def test_the_second_wave_is_new_and_for_training() -> None:
    recipe = module("recipe")
    first = recipe.sources(0.004)
    known = {s.name for s in first}
    second = recipe.more_sources(0.004, known)
    assert len(second) > 5
    assert not known & {s.name for s in second}
    assert {s.split for s in second} == {"train"}
    assert all(s.amounts.shifts == s.amounts.hessians == 0 for s in second if "." not in s.smiles)
    assert all(s.amounts.placed > 0 for s in second if "." in s.smiles)
    groups = {s.group: s.split for s in first}
    assert all(groups.get(s.group, "train") == "train" for s in second)


def test_a_set_of_one_wave_gets_the_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where an earlier call was stopped between the two."""
    recipe = module("recipe")
    more = recipe.more_sources
    monkeypatch.setattr(recipe, "run", lambda *_, **__: True)
    monkeypatch.setattr(recipe, "more_sources", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        recipe.label(tmp_path, workers=1, scale=0.004)
    first = shards.read_plan(tmp_path)
    assert len(shards.waves(first)) == 1
    monkeypatch.setattr(recipe, "more_sources", more)
    for _ in range(2):
        recipe.label(tmp_path, workers=1, scale=0.004)
        plan = shards.read_plan(tmp_path)
        assert len(shards.waves(plan)) == 2
        assert plan["sources"][: len(first["sources"])] == first["sources"]


def test_hessians_are_added(tmp_path: Path) -> None:
    amounts = Amounts(conformers=1, relaxation=3, thermal=1, pushes=0, shifts=0)
    sources = [
        Source(
            name=s, smiles=s, group=s, split="train", amounts=amounts if s != "CO" else Amounts(hessians=1)
        )
        for s in ("CO", "CF", "CCl")
    ]
    shards.write_plan(tmp_path, shards.make_plan(sources, seed=1, level_of_theory="GFN2-xTB"))
    shards.run(tmp_path, TBLite)
    pack(tmp_path)
    train = H5Dataset(tmp_path / "train.h5")
    had = sum(train[k].hessian is not None for k in range(len(train)))
    add = module("hessians").add_hessians
    add(tmp_path, count=4, workers=1, seed=1)
    data = H5Dataset(tmp_path / "hessians.h5")
    frames = [data[k] for k in range(len(data))]
    assert len(frames) == had + 4
    assert all(f.hessian is not None for f in frames)
    last = frames[-1]
    label = TBLite(Particles(last.atomic_numbers, last.charge, last.spin))
    label(last.positions)
    np.testing.assert_allclose(last.hessian, hessian(label, np.array(last.positions)), atol=1e-3)
    add(tmp_path, count=4, workers=1, seed=1)  # nothing is left to do
    assert len(H5Dataset(tmp_path / "hessians.h5")) == had + 4
    with pytest.raises(SystemExit, match="begun with other settings"):
        add(tmp_path, count=5, workers=1, seed=1)
