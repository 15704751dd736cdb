"""OC20, OC22, ODAC23 and HORM: LMDB of pickled graphs."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from published_files import Hostile, WriteLmdb, tensors

from mlip.datasets import Frame, read_frames
from mlip.datasets.published.horm import ATOMS
from mlip.errors import InputError

Graph = Callable[..., bytes]


def _slab(i: int, **change: Any) -> dict[str, Any]:
    """A record as `atoms_to_graphs` makes it; the values tell the number of the record."""
    rng = np.random.default_rng(i)
    fields = {
        "pos": rng.normal(size=(4, 3)).astype(np.float32),
        "cell": np.diag([5.0, 6.0, 20.0 + i]).astype(np.float32)[None],
        "atomic_numbers": np.array([29, 29, 8, 1], dtype=np.float32),
        "natoms": 4,
        "tags": np.array([0, 1, 2, 2]),
        "fixed": np.array([1.0, 0, 0, 0], dtype=np.float32),
        "y": -float(i),
        "force": np.full((4, 3), i, dtype=np.float32),
        "sid": 1000 + i // 6,
        "fid": np.array([i % 6]),
        **change,
    }
    return tensors({k: v for k, v in fields.items() if v is not None})


def _file(write: WriteLmdb, graph: Graph, records: list[dict[str, Any]], **how: Any) -> Path:
    items = {str(i).encode(): graph(r, **how) for i, r in enumerate(records)}
    return write({**items, b"length": pickle.dumps(len(records))})


@pytest.mark.parametrize("pyg", [1, 2])
def test_shard_in_the_order_of_numbers(write_lmdb: WriteLmdb, graph: Graph, pyg: int) -> None:
    path = _file(write_lmdb, graph, [_slab(i) for i in range(12)], pyg=pyg)
    frames = read_frames(path)
    assert frames.report.format == "oc-lmdb"
    assert [f.energy for f in frames] == [-float(i) for i in range(12)]  # 10 sorts before 2 in the file
    assert [f.cell[2, 2] for f in frames] == [20.0 + i for i in range(12)]
    assert [f.step for f in frames] == [0, 1, 2, 3, 4, 5] * 2
    assert [f.trajectory for f in frames] == ["random1000"] * 6 + ["random1001"] * 6
    assert frames[7].atomic_numbers.tolist() == [29, 29, 8, 1]
    assert frames[7].forces is not None
    assert (frames[7].forces == 7.0).all()  # of the fixed atom, too
    assert frames[7].pbc.all()
    assert frames[7].group == "random1001"
    assert frames.report.sources["energy"] == {"y (eV, adsorption energy)": 12}


def test_names_of_labels_since_2024_and_total_energies(write_lmdb: WriteLmdb, graph: Graph) -> None:
    renamed = _slab(3, y=None, force=None, energy=np.float64(-5.5), forces=np.ones((4, 3)))
    total = {**_slab(4, y=torch.tensor([-900.25], dtype=torch.float64)), "oc22": 1, "nads": 1}
    odac = _slab(5, raw_y=-300.0)
    unlabelled = _slab(6, y=None, force=None)
    frames = read_frames(_file(write_lmdb, graph, [renamed, total, odac, unlabelled]))
    assert [f.energy for f in frames] == [-5.5, -900.25, -300.0, None]
    assert frames.report.sources["energy"] == {
        "energy (eV, adsorption energy)": 1,
        "y (eV, total energy)": 1,
        "raw_y (eV, total energy)": 1,
    }
    assert frames[3].forces is None
    assert frames[1].molecule == "oc22-1000"


def test_initial_and_relaxed_structures(write_lmdb: WriteLmdb, graph: Graph) -> None:
    relaxed = np.full((4, 3), 2.0, dtype=np.float32)
    record = _slab(0, y=None, force=None, fid=None, y_init=1.5, y_relaxed=-0.5, pos_relaxed=relaxed)
    first, last = read_frames(_file(write_lmdb, graph, [record]))
    assert (first.energy, last.energy) == (1.5, -0.5)
    assert (first.step, last.step) == (0, 1)
    assert (last.positions == 2.0).all()
    assert first.forces is last.forces is None


def _missing_record(items: dict[bytes, bytes]) -> None:
    del items[b"3"]
    items[b"x"] = b""


def _wrong_length(items: dict[bytes, bytes]) -> None:
    items[b"length"] = pickle.dumps(40)


def _without_positions(items: dict[bytes, bytes], graph: Graph) -> None:
    items[b"3"] = graph(_slab(3, pos=None))


def _misfit(items: dict[bytes, bytes], graph: Graph) -> None:
    items[b"3"] = graph(_slab(3, force=np.zeros((5, 3))))


def _no_graph(items: dict[bytes, bytes]) -> None:
    items[b"3"] = pickle.dumps([1, 2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_missing_record, "record 3: is missing; the file is incomplete"),
        (_wrong_length, "announces 40 records, but holds 6"),
        (_without_positions, "record 3: has no array `pos`; its fields: `cell`"),
        (_misfit, r"record 3: `force` has shape \(5, 3\) but must have \(4, 3\)"),
        (_no_graph, "record 3: is not a pickled graph"),
    ],
)
def test_damaged(write_lmdb: WriteLmdb, graph: Graph, damage: Callable[..., None], message: str) -> None:
    items = {str(i).encode(): graph(_slab(i)) for i in range(6)}
    items[b"length"] = pickle.dumps(6)
    damage(*(items, graph)[: damage.__code__.co_argcount])
    with pytest.raises(InputError, match=message):
        read_frames(write_lmdb(items))


def test_hostile_record(write_lmdb: WriteLmdb, graph: Graph, tmp_path: Path) -> None:
    items = {str(i).encode(): graph(_slab(i)) for i in range(3)}
    items[b"2"] = pickle.dumps(Hostile(tmp_path / "mark"), protocol=4)
    with pytest.raises(InputError, match=r"data\.lmdb: record 2: is a pickle that names `posix\.system`"):
        read_frames(write_lmdb(items))
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.9])
def test_truncated(write_lmdb: WriteLmdb, graph: Graph, share: float) -> None:
    path = _file(write_lmdb, graph, [_slab(i) for i in range(12)])
    data = path.read_bytes()
    path.write_bytes(data[: max(4096, int(len(data) * share))])
    with pytest.raises(InputError, match=r"data\.lmdb: not a complete LMDB file"):
        read_frames(path)


def _reactive(i: int, **change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(i)
    hessian = rng.normal(size=(9, 9)).astype(np.float32)
    fields = {
        "pos": rng.normal(size=(3, 3)).astype(np.float32),
        "energy": torch.tensor(ATOMS[8] + 2 * ATOMS[1] - 9.5, dtype=torch.float32),
        "ae": torch.tensor(-9.5, dtype=torch.float32),
        "forces": rng.normal(size=(3, 3)).astype(np.float32),
        "charges": np.array([8, 1, 1], dtype=np.int32),
        "one_hot": np.zeros((3, 5), dtype=np.float32),
        "natoms": torch.tensor(3),
        "rxn": torch.tensor(1),
        "hessian": (hessian + hessian.T).ravel(),
        **change,
    }
    return tensors({k: v for k, v in fields.items() if v is not None})


def test_hessians(write_lmdb: WriteLmdb, graph: Graph) -> None:
    records = [_reactive(0), _reactive(1, ae=None), _reactive(2, hessian=None)]
    frames = read_frames(_file(write_lmdb, graph, records))
    assert frames.report.format == "horm"
    assert frames.report.labelled["hessian"] == 2
    assert frames[0].energy == pytest.approx(ATOMS[8] + 2 * ATOMS[1] - 9.5, abs=1e-9)
    assert frames[1].energy == pytest.approx(frames[0].energy, abs=2e-4)  # float32
    assert {f.group for f in frames} == {"H2O"}
    wanted = np.asarray(records[0]["hessian"]).reshape(9, 9)
    np.testing.assert_array_equal(frames[0].hessian, wanted)
    with pytest.raises(InputError, match=r"record 0: `hessian` has shape \(8,\) but must have \(9, 9\)"):
        read_frames(_file(write_lmdb, graph, [_reactive(0, hessian=np.zeros(8))]))


def test_the_published_sample(shared_data: Path) -> None:
    """The numbers of the original are those that others extracted from it with torch."""
    folder = shared_data / "hessians"
    frames = read_frames(folder / "horm_t1x_sample_100.lmdb")
    with np.load(folder / "horm_t1x_sample_100.npz") as known:
        for i, frame in enumerate(frames):
            _assert_same(frame, {k.rsplit("_", 1)[0]: known[k] for k in known if k.endswith(f"_{i}")})
    assert len(frames) == 100


def _assert_same(frame: Frame, known: dict[str, Any]) -> None:
    np.testing.assert_array_equal(frame.atomic_numbers, known["z"])
    np.testing.assert_array_equal(frame.positions, known["pos"])
    np.testing.assert_array_equal(frame.forces, known["forces"])
    np.testing.assert_array_equal(frame.hessian, known["hessian"])
    assert frame.energy == pytest.approx(float(known["energy"]), abs=1e-3)
    assert (frame.reaction, frame.group) == ("", frame.formula)
