"""The steps of `examples/gfn2_organic/recipe.py` that make data, on few molecules."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from scipy.optimize import approx_fprime

from mlip.calculators.surface import Evaluation, StructureError
from mlip.checkpoint import resolve_model
from mlip.datasets.frames import Frame
from mlip.datasets.generation import shards
from mlip.datasets.generation.labelling import Particles, TBLite, hessian
from mlip.datasets.generation.pack import pack
from mlip.datasets.generation.recipes import Amounts, Source
from mlip.datasets.generation.topology import Topology
from mlip.datasets.h5_reader import H5Dataset
from mlip.datasets.h5_writer import H5Writer

FOLDER = Path(__file__).parents[3] / "examples" / "gfn2_organic"

pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason="not run from a source tree")


@pytest.fixture(autouse=True)
def recipe_on_the_path(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    pytest.importorskip("tblite")
    pytest.importorskip("rdkit")
    monkeypatch.syspath_prepend(str(FOLDER))
    yield
    for name in ("recipe", "hessians", "exploring", "evaluation", "constant_energy", "dynamics", "card"):
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


@pytest.fixture
def small_set(tmp_path: Path) -> Path:
    """Three molecules, one with a Hessian."""
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
    return tmp_path


def frames_of(path: Path) -> list[Frame]:
    data = H5Dataset(path)
    return [data[k] for k in range(len(data))]


def labels_of(frame: Frame) -> TBLite:
    return TBLite(Particles(np.array(frame.atomic_numbers), frame.charge, frame.spin))


def test_reactions_are_explored_and_hessians_added(small_set: Path) -> None:
    model = resolve_model("default")
    explore = module("exploring").add_explored
    explore(small_set, model, count=6, workers=1, seed=1)
    explored = frames_of(small_set / "explored.h5")
    assert {f.molecule for f in explored} <= {"CO", "CF", "CCl"}
    assert {f.group for f in explored} <= {"CO", "CF", "CCl"}
    assert {"driven", "settled"} <= {f.info["kind"] for f in explored}
    for frame in explored[::7]:
        energy, forces = labels_of(frame)(np.array(frame.positions))
        assert frame.energy == pytest.approx(energy, abs=1e-4)
        np.testing.assert_allclose(frame.forces, forces, atol=1e-3)
    explore(small_set, model, count=6, workers=1, seed=1)  # nothing is left to do
    assert len(frames_of(small_set / "explored.h5")) == len(explored)
    with pytest.raises(SystemExit, match="begun with other settings"):
        explore(small_set, model, count=7, workers=1, seed=1)

    had = sum(f.hessian is not None for f in [*frames_of(small_set / "train.h5"), *explored])
    add = module("hessians").add_hessians
    add(small_set, count=4, workers=1, seed=1)
    frames = frames_of(small_set / "hessians.h5")
    assert len(frames) == had + 4
    assert all(f.hessian is not None for f in frames)
    last, label = frames[-1], labels_of(frames[-1])
    label(last.positions)
    np.testing.assert_allclose(last.hessian, hessian(label, np.array(last.positions)), atol=1e-3)
    add(small_set, count=4, workers=1, seed=1)
    assert len(frames_of(small_set / "hessians.h5")) == had + 4
    with pytest.raises(SystemExit, match="begun with other settings"):
        add(small_set, count=5, workers=1, seed=1)


@pytest.mark.parametrize("seed", range(8))
def test_springs_pull_with_the_slope_of_their_energy(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers = np.array([8, 8, 1, 1])
    positions = np.array([[0, 0, 0], [0, 0, 1.45], [0, 0.9, -0.3], [0.5, -0.8, 1.7]])
    topology = Topology.of_geometry(numbers, positions)
    springs = module("exploring").Springs.at_random(rng, topology, positions)
    broken = topology.adjacency[tuple(springs.pairs.T)]
    assert broken.any()
    assert not broken.all()
    moved = positions + rng.normal(scale=0.3, size=positions.shape)
    slope = approx_fprime(moved.ravel(), lambda x: springs.pull(x.reshape(-1, 3))[0], 1e-6)
    np.testing.assert_allclose(springs.pull(moved)[1].ravel(), -slope, atol=1e-4)


class Stretched:
    """Molecules whose atoms are tied to each other by springs; ammonia cannot be evaluated after a while."""

    def __init__(self) -> None:
        self.calls = 0

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        self.calls += 1
        out = []
        for place, atoms in enumerate(structures):
            if "N" in atoms.symbols and self.calls > 50:
                raise StructureError("too close", place=place)
            rest = molecule(atoms.info["name"]).get_all_distances() + np.eye(len(atoms))
            along = atoms.positions[:, None] - atoms.positions
            length = np.linalg.norm(along, axis=2) + np.eye(len(atoms))
            forces = -20.0 * ((1 - rest / length)[..., None] * along).sum(axis=1)
            out.append(Evaluation(energy=float(5.0 * ((length - rest) ** 2).sum()), forces=forces))
        return out


def test_dynamics_at_constant_energy() -> None:
    constant = module("constant_energy")
    started = [molecule(name) for name in ("CH4", "NH3", "H2O", "C2H6")]
    for atoms, name in zip(started, ("CH4", "NH3", "H2O", "C2H6"), strict=True):
        atoms.info["name"] = name
    courses = constant.constant_energy(started, Stretched(), temperature=300.0, picoseconds=1.0, seed=0)
    assert [course.exploded for course in courses] == [False, True, False, False]
    left = [course for course in courses if not course.exploded]
    assert courses[1].drift is None
    assert max(abs(course.drift) for course in left) < 1e-3
    assert not any(course.reacted for course in left)
    assert 150 < np.mean([course.temperature for course in left]) < 450


class Stopping(Stretched):
    """Stopped after so many evaluations."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return super().evaluate(structures, stress=stress, hessian=hessian)


def test_dynamics_that_were_stopped_go_on_exactly(tmp_path: Path) -> None:
    constant = module("constant_energy")
    started = [molecule(name) for name in ("CH4", "H2O")]
    for atoms, name in zip(started, ("CH4", "H2O"), strict=True):
        atoms.info["name"] = name
    settings = {"temperature": 300.0, "picoseconds": 6.0, "seed": 0}
    whole = constant.constant_energy(started, Stretched(), **settings)
    state = tmp_path / "state.npz"
    with pytest.raises(KeyboardInterrupt):
        constant.constant_energy(started, Stopping(left=7000), **settings, state=state)
    assert int(np.load(state)["step"]) == 5000
    assert constant.constant_energy(started, Stopping(left=7001), **settings, state=state) == whole


def test_dynamics_go_on_after_the_groups_that_were_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("CH4", "NH3", "H2O", "CH3OH", "C2H4")
    attributes = {"level_of_theory": "none", "source": "ASE", "licence": "none"}
    with H5Writer(tmp_path / "test.h5", attributes=attributes) as writer:
        for atoms in map(molecule, names):
            writer.write(
                Frame(
                    positions=atoms.positions,
                    atomic_numbers=atoms.numbers,
                    energy=0.0,
                    molecule=str(atoms.symbols),
                    info={"kind": "minimum"},
                )
            )
    dynamics, card = module("dynamics"), module("card")
    monkeypatch.setattr(dynamics, "TOGETHER", 2)
    result = tmp_path / "dynamics.json"
    options = {"model": resolve_model("default"), "count": 5, "workers": 1}
    dynamics.add_dynamics(tmp_path, result=result, picoseconds=0.3, **options)
    whole = json.loads(result.read_text())
    assert len(whole["courses"]) == 5
    assert not any(course["exploded"] or course["reacted"] for course in whole["courses"])
    assert max(abs(course["drift"]) for course in whole["courses"]) < 0.05
    assert "0.3 ps for 5 molecules, 0.5 fs a step, float32: 0 ran away, 0 made or broke" in card.dynamics(
        whole
    )

    begun = {**whole, "courses": [course for course in whole["courses"] if course["group"] != 1]}
    result.write_text(json.dumps(begun))
    dynamics.add_dynamics(tmp_path, result=result, picoseconds=0.3, **options)
    again = json.loads(result.read_text())["courses"]
    assert again == sorted(whole["courses"], key=lambda course: course["group"] == 1)

    with pytest.raises(SystemExit, match="begun with other settings"):
        dynamics.add_dynamics(tmp_path, result=result, picoseconds=0.4, **options)
    with pytest.raises(SystemExit, match="has 5 molecules, fewer than 6"):
        dynamics.chosen(H5Dataset(tmp_path / "test.h5"), 6)


def test_a_bond_that_vibrates_is_not_broken() -> None:
    constant = module("constant_energy")
    start = molecule("H2O")
    for length, broken in ((1.25, False), (2.5, True)):
        last = start.copy()
        last.set_distance(0, 1, length, fix=0)
        assert constant.other_bonds(start, last) == broken
        assert not constant.other_bonds(last, start)
