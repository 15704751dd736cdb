"""Splits by scaffold, recipes, shards that survive being killed, and packing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rdkit")
pytest.importorskip("tblite")

from mlip.datasets import H5Dataset
from mlip.datasets.generation import shards
from mlip.datasets.generation.force_field import Rejected
from mlip.datasets.generation.labelling import Particles, TBLite, hessian
from mlip.datasets.generation.pack import pack, read_shard
from mlip.datasets.generation.recipes import Amounts, Source, elements_of, make_frames
from mlip.datasets.generation.scaffolds import scaffold_of, split_of
from mlip.errors import InputError

FEW = Amounts(
    conformers=1, relaxation=3, rattled=1, stretched=1, twisted=1, thermal=1, pushes=0, shifts=0, images=2,
    placed=2, pulled=1,
)  # fmt: skip
SHARES = {"valid": 0.2, "test": 0.3}


def source(smiles: str, amounts: Amounts = FEW, **more: Any) -> Source:
    return Source(name=smiles, smiles=smiles, group=more.pop("group", smiles), amounts=amounts, **more)


@pytest.mark.parametrize(
    ("smiles", "scaffold"),
    [
        ("Cc1ccccc1", "c1ccccc1"),
        ("OC(=O)CCc1ccccc1C", "c1ccccc1"),
        ("CC1CCN1C(C)=O", "C1CNC1"),
        ("c1ccccc1CCC2CC2C", "c1ccc(CCC2CC2)cc1"),
        ("C[C@H](F)Cl", scaffold_of("C[C@@H](F)Cl")),
        ("CC(O)=N", scaffold_of("CC(N)=O")),  # mobile hydrogen
    ],
)
def test_scaffolds(smiles: str, scaffold: str) -> None:
    assert scaffold_of(smiles) == scaffold


def test_acyclic_molecules_go_by_constitution() -> None:
    assert scaffold_of("CCCCO").startswith("acyclic:")
    assert scaffold_of("CCCCO") != scaffold_of("CCC(C)O")


def test_split_holds_scaffolds_together_and_pairs_out_of_training() -> None:
    rings = [f"C1{'C' * n}{x}C1" for n in range(2, 6) for x in "CNOS"]
    found = {}
    for ring in rings:
        split = split_of(ring, SHARES, seed=4)
        assert split_of(ring.replace("C1", "C1(C)", 1), SHARES, seed=4) == split
        assert split is not None
        found[ring] = split
    assert set(found.values()) == {"train", "valid", "test"}
    assert split_of("CO", SHARES, seed=4) == "train"  # too small to hold out
    for ring in ("C1CN1", "C1CO1", "C1CS1", "C1CC1"):  # as small, but others share its scaffold
        assert split_of(ring, SHARES, seed=4) == split_of(f"CC{ring}", SHARES, seed=4)
    for a in rings:
        for b in rings:
            pair, parts = split_of(f"{a}.{b}", SHARES, seed=4), {found[a], found[b]}
            if "test" in parts and "valid" in parts:
                assert pair is None
            else:
                assert pair == ("test" if "test" in parts else "valid" if "valid" in parts else "train")
    held_out = next(r for r, s in found.items() if s == "test")
    common = frozenset([scaffold_of(held_out)])
    assert split_of(held_out, SHARES, seed=4, common=common) == "train"


def test_shares_are_kept() -> None:
    chains = [
        f"{'C' * n}{x}{'C' * m}" for n in range(1, 9) for m in range(n, 9) for x in ("O", "N", "S", "C(=O)")
    ]
    names = [split_of(c, {"valid": 0.1, "test": 0.2}, seed=1) for c in chains if len(c) > 4]
    assert names.count("test") / len(names) == pytest.approx(0.2, abs=0.09)
    assert names.count("valid") / len(names) == pytest.approx(0.1, abs=0.07)


def test_frames_of_a_molecule() -> None:
    amounts = Amounts(
        relaxation=4, rattled=2, stretched=2, twisted=0, thermal=2, dynamics=1, hessians=2, rounds=1
    )
    particles, made = make_frames(source("NC=O", amounts), TBLite, seed=1)
    assert sorted(particles.numbers.tolist()) == [1, 1, 1, 6, 7, 8]
    kinds = [n.kind for n in made.notes]
    assert {"minimum", "rattled", "stretched", "thermal", "dynamics", "pushed", "product", "path"} <= set(
        kinds
    )
    fresh = TBLite(particles)
    for k in (kinds.index("minimum"), kinds.index("path"), len(kinds) - 1):
        energy, forces = fresh(made.frames[k].positions)
        assert made.frames[k].energy == pytest.approx(energy, abs=1e-4)
        np.testing.assert_allclose(made.frames[k].forces, forces, atol=2e-3)
    assert np.linalg.norm(made.frames[kinds.index("minimum")].forces, axis=1).max() < 0.02
    assert len(made.hessians) == 2
    assert kinds.index("minimum") in made.hessians
    for index, matrix in made.hessians.items():
        np.testing.assert_allclose(matrix, hessian(fresh, made.frames[index].positions), atol=0.05)


def test_frames_of_structures_and_pairs() -> None:
    numbers, positions = [1, 6, 7], [[0.0, 0, -1.06], [0, 0, 0], [0, 0, 1.15]]
    other = [[0.0, 0, 2.15], [0, 0, 0], [0, 0, 1.17]]
    one = {"numbers": numbers, "positions": positions}
    pair = Source(name="hcn", structures=[one, {**one, "positions": other}], amounts=FEW)
    assert elements_of(pair) == {1, 6, 7}
    _, made = make_frames(pair, TBLite, seed=1)
    path = [n for n in made.notes if n.kind == "path"]
    assert path
    assert all(n.reaction == "hcn" for n in path)
    assert sum(n.kind == "minimum" for n in made.notes) == 2
    _, single = make_frames(Source(name="s", structures=[one], amounts=FEW), TBLite, seed=1)
    assert {"minimum", "rattled", "thermal", "stretched"} <= {n.kind for n in single.notes}


def test_molecules_that_fall_apart_are_rejected() -> None:
    with pytest.raises(Rejected, match="bonds changed"):
        make_frames(source("[H][H].[H]F"), _torn, seed=1)
    _, made = make_frames(source("O.C"), TBLite, seed=1)
    assert {"placed", "pulled", "minimum"} <= {n.kind for n in made.notes}
    assert elements_of(source("O.CF")) == {1, 6, 8, 9}


class _Repulsion:
    """Everything flies apart."""

    def __call__(self, positions: np.ndarray, *, near: bool = False) -> tuple[float, np.ndarray]:
        return 0.0, 5.0 * (positions - positions.mean(axis=0))


def _torn(particles: Particles) -> _Repulsion:
    return _Repulsion()


def plan_of(folder: Path, smiles: list[str], *, seed: int = 1, **more: Any) -> None:
    plan = shards.make_plan([source(s, **more) for s in smiles], seed=seed, level_of_theory="GFN2-xTB")
    shards.write_plan(folder, plan)


def contents(folder: Path) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for path in sorted((folder / "shards").glob("*.npz")):
        with np.load(path) as arrays:
            out |= {f"{path.name}/{k}": arrays[k] for k in arrays.files}
    return out


def assert_same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


class Flat:
    """A surface without slopes: what is left is what the random numbers decide, to the last bit."""

    def __init__(self, particles: Particles) -> None:
        self.level = -float(particles.numbers.sum())

    def __call__(self, positions: np.ndarray, *, near: bool = False) -> tuple[float, np.ndarray]:
        return self.level, np.zeros_like(positions)


MOLECULES = ["C", "N", "O", "CO", "C#N", "CF"]


def test_same_seed_same_data_in_any_number_of_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD", 3)
    for name, seed, workers in (("one", 1, 0), ("two", 1, 2), ("other", 2, 0)):
        plan_of(tmp_path / name, MOLECULES, seed=seed)
        assert shards.run(tmp_path / name, Flat, workers=workers)
    one, two, other = (contents(tmp_path / n) for n in ("one", "two", "other"))
    assert_same(one, two)
    assert any(not np.array_equal(one[k], other[k]) for k in one if k in other)


def test_the_seed_decides() -> None:
    first, again, other = (make_frames(source("CO"), Flat, seed=k)[1].frames for k in (1, 1, 2))
    assert all(np.array_equal(a.positions, b.positions) for a, b in zip(first, again, strict=True))
    assert not any(np.array_equal(a.positions, b.positions) for a, b in zip(first, other, strict=True))


def test_stopping_and_going_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shards, "SHARD", 2)
    for name in ("whole", "stopped"):
        plan_of(tmp_path / name, MOLECULES)
    assert shards.run(tmp_path / "whole", Flat)
    seen: list[shards.Progress] = []
    stopped = tmp_path / "stopped"
    assert not shards.run(stopped, Flat, on_progress=seen.append, should_stop=lambda: True)
    assert [(p.done, p.total) for p in seen] == [(1, 3)]
    assert pack(stopped)["shards"] == [1, 3]
    stale = stopped / "shards" / "00001.npz.99.tmp"
    stale.write_bytes(b"half a shard")
    first = (stopped / "shards" / "00000.npz").stat().st_mtime_ns
    assert shards.run(stopped, Flat)
    assert (stopped / "shards" / "00000.npz").stat().st_mtime_ns == first
    assert not stale.exists()
    assert_same(contents(tmp_path / "whole"), contents(stopped))


def test_killed_runs_leave_whole_shards(tmp_path: Path) -> None:
    """SIGKILL at a moment when one shard is there and the next is in work."""
    plan_of(tmp_path, MOLECULES)
    code = (
        "import sys; from pathlib import Path\n"
        "from mlip.datasets.generation import shards\n"
        "from mlip.datasets.generation.labelling import TBLite\n"
        "shards.SHARD = 1\nshards.run(Path(sys.argv[1]), TBLite)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], env=environment)
    deadline = time.monotonic() + 60
    while not list((tmp_path / "shards").glob("*.npz")) and time.monotonic() < deadline:
        time.sleep(0.01)
    running.send_signal(signal.SIGKILL)
    running.wait()
    done = sorted((tmp_path / "shards").glob("*.npz"))
    assert done
    for path in done:
        assert [len(frames) > 0 for _, frames in read_shard(path)] == [True]


def test_plans_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no molecules"):
        plan_of(tmp_path, [])
    with pytest.raises(InputError, match="'CO' is there twice"):
        plan_of(tmp_path, ["CO", "CO"])
    plan_of(tmp_path, ["CO"])
    plan_of(tmp_path, ["CO"])
    with pytest.raises(InputError, match="holds a run with other seed"):
        plan_of(tmp_path, ["CO"], seed=2)
    with pytest.raises(InputError, match="no shards yet"):
        pack(tmp_path)
    with pytest.raises(InputError, match=r"no plan\.json"):
        pack(tmp_path / "elsewhere")
    (tmp_path / "plan.json").write_text(json.dumps({"format": "other"}))
    with pytest.raises(InputError, match="is not a plan"):
        pack(tmp_path)


def test_packing(tmp_path: Path) -> None:
    amounts = Amounts(conformers=1, relaxation=3, thermal=1, pushes=0, shifts=0, hessians=2)
    sources = [
        source("CO", amounts, split="train", group="a"),
        source("CF", amounts, split="train", group="b"),
        source("CS", amounts, split="test", group="c"),
    ]
    shards.write_plan(
        tmp_path, shards.make_plan(sources, seed=1, level_of_theory="GFN2-xTB", licence="CC0-1.0")
    )
    shards.run(tmp_path, TBLite)
    summary = pack(tmp_path)
    train, test = H5Dataset(tmp_path / "train.h5"), H5Dataset(tmp_path / "test.h5")
    frames = [train[k] for k in range(len(train))]
    assert summary["parts"]["train"]["frames"] == len(train)
    assert summary["parts"]["train"]["hessians"] == sum(f.hessian is not None for f in frames) == 4
    assert {f.molecule for f in frames} == {"CO", "CF"}
    assert {test[k].molecule for k in range(len(test))} == {"CS"}
    relaxed = [f for f in frames if f.trajectory == "CO/relaxation-0"]
    assert [f.step for f in relaxed] == sorted(f.step for f in relaxed)
    assert relaxed[-1].info["kind"] == "minimum"
    with_hessian = next(f for f in frames if f.hessian is not None)
    label = TBLite(Particles(with_hessian.atomic_numbers))
    np.testing.assert_allclose(with_hessian.hessian, hessian(label, with_hessian.positions), atol=0.05)
    for name in ("CO", "CF"):
        low = min(f.energy or 0.0 for f in frames if f.molecule == name)
        assert all((f.energy or 0.0) - low <= len(f) for f in frames if f.molecule == name)
    assert summary["licence"] == "CC0-1.0"
    assert "tblite" in summary["source"]


def test_a_second_wave_leaves_the_first(tmp_path: Path) -> None:
    amounts = Amounts(conformers=1, relaxation=2, thermal=0, pushes=0, shifts=0)
    first, second = [source(s, amounts) for s in ("CO", "CF")], [source("CS", amounts)]
    plan = shards.make_plan(first, seed=1, level_of_theory="GFN2-xTB")
    shards.write_plan(tmp_path, plan)
    assert shards.run(tmp_path, TBLite)
    before = contents(tmp_path)
    shards.extend_plan(tmp_path, second)
    shards.write_plan(tmp_path / "other", plan)
    assert shards.num_shards(shards.read_plan(tmp_path)) == 2
    made: list[int] = []
    assert shards.run(tmp_path, TBLite, on_progress=lambda p: made.append(p.done))
    assert made == [2]
    after = contents(tmp_path)
    assert_same(before, {name: after[name] for name in before})
    assert len(after) > len(before)
    pack(tmp_path)
    data = H5Dataset(tmp_path / "frames.h5")
    molecules = {data[k].molecule for k in range(len(data))}
    assert molecules == {"CO", "CF", "CS"}
    with pytest.raises(InputError, match="'CF' is there twice"):
        shards.extend_plan(tmp_path, [source("CF", amounts)])
    with pytest.raises(InputError, match=r"there is no plan\.json"):
        shards.extend_plan(tmp_path / "nowhere", second)


def test_groups_in_two_parts_are_refused(tmp_path: Path) -> None:
    sources = [source("CO", split="train", group="a"), source("CF", split="test", group="a")]
    shards.write_plan(tmp_path, shards.make_plan(sources, seed=1, level_of_theory="GFN2-xTB"))
    shards.run(tmp_path, TBLite)
    with pytest.raises(InputError, match=r"1 groups are in .* and .*, for instance a"):
        pack(tmp_path)
