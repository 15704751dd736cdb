"""`mlip relax … --out FILE.db`: every structure accounted for, nothing done twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.db import connect
from ase.io import write

from mlip.search.batch_relax import Batch, Outcome

NAMES = ["H2O", "CH4", "CH3OH", "H2CO", "C2H6", "CH3CHO", "C2H4", "HCOOH"]


@pytest.fixture
def many(folder: Path) -> Path:
    """A folder `many` of good and bad structures."""
    target = folder / "many"
    target.mkdir()
    for seed, name in enumerate(NAMES):
        atoms = molecule(name)
        atoms.rattle(0.1, seed=seed)
        write(target / f"{name}.xyz", atoms)
    write(target / "two.xyz", [molecule("H2O"), molecule("CH4")])
    (target / "broken.xyz").write_text("3\n\nO 0 0 0\n")
    write(target / "clash.xyz", Atoms("OH", positions=[[0, 0, 0], [0, 0, 0.2]]))
    write(target / "iron.xyz", Atoms("FeO", positions=[[0, 0, 0], [0, 0, 1.6]]))
    (target / "README.notes").write_text("no structure\n")
    return target


def rows(path: str = "results.db") -> list:
    return sorted(connect(path).select(), key=lambda row: (row.source, row.frame))


def test_one_row_for_each_structure(run, many: Path, model_file: Path) -> None:
    result = run("relax", "many", "--model", model_file, "--out", "results.db", "--fmax", 0.02)
    assert result.exit_code == 3, result.stderr
    assert result.stdout.splitlines()[-1] == "10 converged, 3 failed -> results.db"
    Path("many/deep").mkdir()
    again = run("relax", "many", "--model", model_file, "--out", "results.db", "--fmax", 0.02)
    assert "left out, no structures by their names: many/README.notes, many/deep/\n" in again.stderr
    for text in ("many/clash.xyz: failed: atoms 0 (O) and 1 (H) are 0.2000 Å apart", "iron.xyz"):
        assert text in result.stdout
    found = rows()
    assert len(found) == 13
    status = {(row.source, row.frame): row.status for row in found}
    assert status[("many/broken.xyz", 0)] == "failed"
    assert status[("many/two.xyz", 1)] == "converged"
    good = [row for row in found if row.status == "converged"]
    for row in good:
        forces = row.toatoms().get_forces()
        assert np.linalg.norm(forces, axis=1).max() <= 0.02
        assert row.reached == pytest.approx(row.fmax)
        assert row.energy <= row.initial_energy
        assert row.steps >= 0
        assert row.seconds > 0
    assert connect("results.db").metadata["mlip_relax"]["fmax"] == 0.02
    assert sorted(path.name for path in many.iterdir() if "relaxed" in path.name) == []


def entering(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Formulas of the structures that are relaxed from now on."""
    entered: list[str] = []
    enter = Batch.enter

    def note(self: Batch, place: int, atoms: Atoms) -> None:
        entered.append(atoms.get_chemical_formula())
        enter(self, place, atoms)

    monkeypatch.setattr(Batch, "enter", note)
    return entered


def test_nothing_is_repeated_but_what_failed(
    run, many: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("relax", "many", "--model", model_file, "--out", "results.db", "--json")
    first = json.loads(run(*command).stdout)
    entered = entering(monkeypatch)
    again = run(*command)
    assert sorted(entered) == ["FeO", "HO"]
    assert len(rows()) == 13
    assert again.exit_code == 3
    assert json.loads(again.stdout)["structures"] == first["structures"]
    assert first["counts"] == {"converged": 10, "failed": 3}
    assert len(first["structures"]) == 13
    assert first["model_sha256"] == json.loads(again.stdout)["model_sha256"]
    assert first["level_of_theory"] == "none"


def test_what_was_mended_is_tried_again(run, folder: Path, model_file: Path) -> None:
    command = ("relax", "water.xyz", "--model", model_file, "--out", "results.db", "--json")
    water = molecule("H2O")

    def said_now() -> tuple[str, float | None]:
        write("water.xyz", water, format="extxyz")
        (found,) = json.loads(run(*command).stdout)["structures"]
        (row,) = rows()
        assert row.status == found["status"]
        return found["status"], row.get("energy")

    assert said_now()[0] == "converged"
    water.info["charge"] = 1
    assert said_now() == ("failed", None)
    (row,) = rows()
    assert "its charge is 1" in row.message
    assert "steps" not in row.key_value_pairs
    del water.info["charge"]
    status, energy = said_now()
    assert status == "converged"
    assert energy is not None
    assert "message" not in rows()[0].key_value_pairs


def test_failures_of_the_surroundings_are_tried_again(
    run, many: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a worker that was killed: nothing in the structure changes."""
    command = ("relax", "many/H2O.xyz", "many/two.xyz", "--model", model_file, "--out", "results.db")

    def killed(structures, *arguments, **options):
        for place, _ in enumerate(structures):
            yield Outcome(place=place, status="failed", message="killed", result=None, novelty=None)

    with monkeypatch.context() as patched:
        patched.setattr("mlip.search.batch_relax.relax_many", killed)
        assert run(*command).exit_code == 3
    assert [row.message for row in rows()] == ["killed"] * 3
    assert run(*command).exit_code == 0
    assert [row.status for row in rows()] == ["converged"] * 3
    entered = entering(monkeypatch)
    assert run(*command).exit_code == 0
    assert entered == []


def test_an_interruption_at_the_very_start_leaves_no_half_made_database(
    run, many: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = ("relax", "many/H2O.xyz", "--model", model_file, "--out", "results.db")

    def stop(self: object, value: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("ase.db.sqlite.SQLite3Database.metadata", property(lambda self: {}, stop))
        assert run(*command).exit_code == 130
    assert sorted(path.name for path in Path().iterdir() if "results" in path.name) == []
    assert run(*command).exit_code == 0
    assert len(rows()) == 1


def test_doubtful_structures_are_named(run, many: Path, wary_model_file: Path) -> None:
    done = run("relax", "many/H2O.xyz", "many/two.xyz", "--model", wary_model_file, "--out", "results.db")
    assert "many/H2O.xyz: unlike what the model was trained on, novelty " in done.stdout
    assert "many/two.xyz@0: unlike what the model was trained on, novelty " in done.stdout


def test_changed_and_new_structures_are_done(run, many: Path, model_file: Path) -> None:
    command = ("relax", "many/H2O.xyz", "many/CH4.xyz", "--model", model_file, "--out", "results.db")
    assert run(*command).exit_code == 0
    before = {row.source: (row.id, row.digest, row.energy) for row in rows()}
    changed = molecule("H2O")
    changed.positions *= 0.9
    write("many/H2O.xyz", changed)
    assert run(*command, "many/C2H6.xyz").exit_code == 0
    after = {row.source: (row.id, row.digest, row.energy) for row in rows()}
    assert len(after) == len(rows()) == 3
    assert after["many/CH4.xyz"] == before["many/CH4.xyz"]
    assert after["many/H2O.xyz"] != before["many/H2O.xyz"]


def test_database_as_input(run, folder: Path, model_file: Path) -> None:
    with connect("input.db") as database:
        for name in NAMES[:3]:
            atoms = molecule(name)
            atoms.info["REF_energy"] = -1.0
            database.write(atoms, source="elsewhere")
    before = Path("input.db").read_bytes()
    assert run("relax", "input.db", "--model", model_file, "--out", "results.db").exit_code == 0
    assert [(row.source, row.frame) for row in rows()] == [("input.db", k) for k in range(3)]
    assert Path("input.db").read_bytes() == before


def test_cells_and_not_converged(run, folder: Path, model_file: Path) -> None:
    write("si.xyz", [bulk("Si", a=5.2), bulk("Si", a=5.6)])
    options = ("--model", model_file, "--cell", "--pressure", 5)
    done = run("relax", "si.xyz", *options, "--out", "a.db", "--steps", 2, "--fmax", 1e-9)
    assert done.exit_code == 3
    assert "si.xyz@0: not converged (fmax" in done.stdout
    assert [row.status for row in rows("a.db")] == ["not_converged"] * 2
    assert all(row.steps == 2 for row in rows("a.db"))


def wait_for_rows(path: Path, process: subprocess.Popen, count: int) -> None:
    until = time.monotonic() + 120.0
    while time.monotonic() < until:
        assert process.poll() is None, process.communicate()
        try:
            with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as database:
                if database.execute("select count(*) from systems").fetchone()[0] >= count:
                    return
        except sqlite3.OperationalError:
            pass
        time.sleep(0.02)
    raise AssertionError("no rows were written")


def interrupted(command: list[str], number: int, count: int) -> tuple[int, str]:
    """Exit code and standard error of a run that got a signal once there were `count` rows."""
    code = (
        "import mlip.search.results_database as r, mlip.search.batch_relax as b; r.BETWEEN_COMMITS = 0.0; "
        "b.relax_many.__kwdefaults__['batch_atoms'] = 10; from mlip.cli import main; main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        text=True,
    )
    wait_for_rows(Path("results.db"), process, count)
    process.send_signal(number)
    _, error = process.communicate(timeout=120)
    return process.returncode, error


def test_interrupted_and_taken_up_again(run, folder: Path, model_file: Path) -> None:
    """Killed, then asked to end, then let go on: nothing that was written is done again."""
    frames = []
    for seed in range(48):
        atoms = molecule(NAMES[seed % len(NAMES)])
        atoms.rattle(0.1, seed=seed)
        frames.append(atoms)
    write("many.xyz", frames)
    command = ["relax", "many.xyz", "--model", str(model_file), "--out", "results.db", "--fmax", "0.02"]
    interrupted(command, signal.SIGKILL, 3)
    killed = {row.frame: row.id for row in rows()}
    assert 3 <= len(killed) < 44
    ended, error = interrupted(command, signal.SIGTERM, len(killed) + 2)
    terminated = {row.frame: row.id for row in rows()}
    assert ended == 143
    expected = f"interrupted: {len(terminated)} structures are in results.db; the same command goes on\n"
    assert error == expected
    again = run(*command, "--json")
    after = {row.frame: row.id for row in rows()}
    assert len(after) == len(rows()) == 48
    for before in (killed, terminated):
        assert all(after[frame] == number for frame, number in before.items())
    assert len(json.loads(again.stdout)["structures"]) == 48


def test_a_cluster_of_real_workers(run, many: Path, model_file: Path) -> None:
    distributed = pytest.importorskip("distributed")
    options = ("--model", model_file, "--fmax", 0.02, "--device", "cpu")
    run("relax", "many", *options, "--out", "alone.db")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None
    ) as cluster:
        address = cluster.scheduler_address
        done = run("relax", "many", *options, "--out", "results.db", "--scheduler", address, "--json")
    assert done.exit_code == 3, done.stderr
    assert json.loads(done.stdout)["counts"] == {"converged": 10, "failed": 3}
    for ours, alone in zip(rows(), rows("alone.db"), strict=True):
        assert (ours.source, ours.frame, ours.status) == (alone.source, alone.frame, alone.status)
        np.testing.assert_allclose(ours.positions, alone.positions, atol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("many",), "many: is a folder: name a database for the results, --out results.db"),
        (("many", "--out", "all.xyz"), "many: is a folder: name a database"),
        (("water.xyz", "--scheduler", "tcp://localhost:1"), "--scheduler needs a database"),
        (("many", "--out", "missing/a.db"), "missing does not exist: create it first"),
        (("nowhere", "--out", "a.db"), "nowhere: no such file or folder"),
        (("many", "--out", "a.db", "--trajectory", "b.traj"), "leave it out with --out FILE.db"),
        (("many", "--out", "a.db", "--optimizer", "bfgs"), '`optimizer` is "bfgs" but in batches must be'),
        (("many", "--out", "a.db", "--pressure", "1"), "acts on the cell, which is kept"),
        (("many", "--out", "a.db", "--model", "nonsense"), "'nonsense' is neither a file nor one of"),
        (("empty", "--out", "a.db"), "empty: the folder holds no file whose name is that of a structure"),
        (("many", "--out", "other.db"), "other.db: was not made by `mlip relax`"),
        (("many", "--out", "text.db"), "text.db: is no ASE database"),
        (("other.db", "--out", "other.db"), "other.db: is an input, which is never overwritten"),
    ],
)
def test_bad_options(run, many: Path, model_file: Path, arguments: tuple[str, ...], message: str) -> None:
    Path("empty").mkdir()
    Path("text.db").write_text("this is no database, whatever its name may say\n" * 20)
    connect("other.db").write(molecule("H2O"))
    before = Path("other.db").read_bytes()
    model = () if "--model" in arguments else ("--model", model_file)
    assert message in run.refused("relax", *arguments, *model)
    assert Path("other.db").read_bytes() == before
    assert not Path("a.db").exists()


def test_other_settings_are_refused(run, folder: Path, model_file: Path) -> None:
    command = ("relax", "water.xyz", "--model", model_file, "--out", "results.db")
    assert run(*command).exit_code == 0
    assert "holds results for fmax = 0.05, but now it is 0.01" in run.refused(*command, "--fmax", 0.01)


def test_no_scheduler(run, folder: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr("mlip.search.batch_dask.CONNECT_SECONDS", 0.3)
    command = ("relax", "water.xyz", "--model", model_file, "--out", "results.db")
    message = run.refused(*command, "--scheduler", "tcp://127.0.0.1:9")
    assert "no Dask scheduler answers at tcp://127.0.0.1:9" in message
