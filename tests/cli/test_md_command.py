"""`mlip md`: what it writes, says and returns, and what it refuses."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.io import read, write

import mlip
from mlip.dynamics.records import read_table


@pytest.fixture(autouse=True)
def undrawn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing takes longer than most of these runs; the picture has tests of its own."""
    if request.node.name not in ("test_molecule", "test_sigterm_stops_after_the_step"):
        monkeypatch.setattr("mlip.dynamics.simulation.draw", lambda *arguments, **named: True)


SHORT = ("--steps", 6, "--interval", 2, "--temperature", 200)


def test_molecule(run, folder: Path, model_file: Path) -> None:
    before = Path("water.xyz").read_bytes()
    result = run("md", "water.xyz", "--model", model_file, *SHORT)
    assert result.exit_code == 0, result.stderr
    assert re.match(r"water\.xyz: 6 steps \(0\.003 ps, nvt\), \d+\.\d ± \d+\.\d K, drift ", result.stdout)
    assert result.stdout.endswith("ns/day -> water-md.xyz, water-md.csv, water-md.png\n")
    assert Path("water.xyz").read_bytes() == before
    assert [frame.info["step"] for frame in read("water-md.xyz", index=":")] == [0, 2, 4, 6]
    assert sorted(path.name for path in folder.glob("water*")) == [
        "water-md.checkpoint", "water-md.csv", "water-md.png", "water-md.xyz", "water.xyz"
    ]  # fmt: skip


def test_json_is_all_there_is_on_stdout(run, folder: Path, model_file: Path) -> None:
    options = ("--ensemble", "npt", "--pressure", 1, "--cell", "full", "--json")
    result = run("md", "silicon.cif", "--model", model_file, *SHORT, *options)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == ""
    report = json.loads(result.stdout)
    assert (report["command"], report["status"], report["steps"]) == ("md", "completed", 6)
    assert (report["ensemble"], report["pressure_gpa"], report["cell"]) == ("npt", 1.0, "full")
    assert report["degrees_of_freedom"] == 21
    table = read_table(Path(report["table"]))
    assert report["pressure_GPa"]["mean"] == pytest.approx(table["pressure_GPa"].mean())
    assert report["temperature_K"]["standard_deviation"] == pytest.approx(table["temperature_K"].std())
    assert len(set(table["volume_A3"])) == 4


@pytest.mark.parametrize("ensemble", [("nve",), ("nvt", "--thermostat", "langevin"), ("npt",)])
def test_resume_writes_the_bytes_of_an_uninterrupted_run(
    run, folder: Path, model_file: Path, ensemble: tuple[str, ...]
) -> None:
    """The real potential and its neighbour list, which was built at another step."""
    options = ("silicon.cif", "--model", model_file, "--temperature", 2000, "--interval", 5, "--timestep", 4)
    options = (*options, "--ensemble", *ensemble)
    assert run("md", *options, "--steps", 24, "--out", "whole.xyz").exit_code == 0
    assert run("md", *options, "--steps", 13, "--out", "part.xyz").exit_code == 0
    assert run("md", *options, "--steps", 24, "--out", "part.xyz", "--resume").exit_code == 0
    for suffix in ("xyz", "csv", "checkpoint"):
        assert Path(f"part.{suffix}").read_bytes() == Path(f"whole.{suffix}").read_bytes()


def test_runaway(run, folder: Path, model_file: Path) -> None:
    squeezed = molecule("H2O")
    squeezed.positions *= 0.5
    write("squeezed.xyz", squeezed)
    result = run("md", "squeezed.xyz", "--model", model_file, "--steps", 200, "--temperature", 200, "--json")
    assert result.exit_code == 3
    report = json.loads(result.stdout)
    assert report["status"] == "runaway"
    assert result.stderr.startswith("stopped: in step ")
    assert "squeezed-md.xyz shows the way there" in result.stderr
    assert report["message"] in result.stderr
    steps = [frame.info["step"] for frame in read("squeezed-md.xyz", index=":")]
    assert (steps[0], steps[-1]) == (0, report["steps"])


def test_ctrl_c_stops_after_the_step(run, folder: Path, model_file: Path, monkeypatch) -> None:
    """The second of two signals in a row is an echo of the first; the handlers are given back."""
    from mlip.dynamics.integrators import Integrator

    step, old = Integrator.step, signal.getsignal(signal.SIGINT)

    def interrupted(self) -> None:
        step(self)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Integrator, "step", interrupted)
    result = run("md", "water.xyz", "--model", model_file, *SHORT)
    assert result.exit_code == 128 + signal.SIGINT
    assert "stopped: 1 of 6 steps done; go on with the same command and --resume" in result.stderr
    assert signal.getsignal(signal.SIGINT) is old
    monkeypatch.setattr(Integrator, "step", step)
    result = run("md", "water.xyz", "--model", model_file, *SHORT, "--resume", "--json")
    assert (result.exit_code, json.loads(result.stdout)["steps"]) == (0, 6)


def test_sigterm_stops_after_the_step(folder: Path, model_file: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(mlip.__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    code = "from mlip.cli import main; main()"
    options = ("--steps", "100000000", "--interval", "1", "--temperature", "100", "--model", str(model_file))
    process = subprocess.Popen(
        [sys.executable, "-c", code, "md", "water.xyz", *options],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (Path("water-md.csv").exists() and Path("water-md.csv").read_text().count("\n") > 5):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.stderr
        time.sleep(0.05)
    process.terminate()
    output, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGTERM
    assert re.search(
        r"stopped: \d+ of 100000000 steps done; go on with the same command and --resume", errors
    )
    assert "Traceback" not in errors
    done = int(re.search(r": (\d+) of", output)[1])
    frames = read("water-md.xyz", index=":")
    assert len(frames) == done + 1
    np.testing.assert_array_equal(read_table(Path("water-md.csv"))["step"], range(done + 1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), 'the ensemble "nvt" needs a temperature in K: give --temperature'),
        (("--temperature", "0"), "`temperature` is 0.0 but must be positive, K"),
        (
            ("--temperature", "9", "--ensemble", "npt"),
            'the ensemble "npt" changes the cell, but the structure',
        ),
        (("--temperature", "9", "--ensemble", "mu"), '`ensemble` is "mu" but must be one of: nve, nvt, npt'),
        (("--temperature", "9", "--pressure", "1"), "`pressure_gpa` is 1.0 but has no meaning"),
        (("--temperature", "9", "--timestep", "-1"), "`timestep` is -1.0 but must be a positive time"),
        (("--temperature", "9", "--interval", "0"), "`interval` is 0 but must be 1 or more"),
        (("--temperature", "9", "--out", "a.traj"), "the trajectory a.traj has an unknown ending"),
        (("--temperature", "9", "--out", "missing/a.xyz"), "missing, does not exist: create it first"),
        (("--temperature", "9", "--out", "water.xyz"), "water.xyz: is an input, which is never overwritten"),
        (("--temperature", "9", "--resume"), "nothing to resume: water-md.checkpoint does not exist"),
        (("--temperature", "9", "--dtype", "half"), '`dtype` is "half" but must be'),
        (("--temperature", "9", "--model", "none"), "'none' is neither a file nor one of"),
    ],
)
def test_bad_options(run, folder: Path, model_file: Path, options: tuple[str, ...], message: str) -> None:
    assert message in run.refused("md", "water.xyz", "--model", model_file, "--steps", 2, *options)
    assert not list(folder.glob("water-md*"))


def test_bad_structures(run, folder: Path, model_file: Path) -> None:
    model = ("--model", model_file, *SHORT)
    assert "two.xyz: holds 2 structures, but one is to be simulated" in run.refused("md", "two.xyz", *model)
    assert "nowhere.xyz" in run.refused("md", "nowhere.xyz", *model)
    write("ammonia.xyz", molecule("NH3"))
    assert "element(s) N are unknown to this model" in run.refused("md", "ammonia.xyz", *model)
    assert not list(folder.glob("ammonia-md*"))
    assert run("md", "water.xyz", "--model", model_file, "--temperature", 3).exit_code == 2


def test_a_run_is_replaced_only_by_force(run, folder: Path, model_file: Path) -> None:
    model = ("--model", model_file, *SHORT)
    assert run("md", "water.xyz", *model).exit_code == 0
    assert "water-md.xyz exists already" in run.refused("md", "water.xyz", *model)
    assert "started with `seed` 0, now it is 1" in run.refused(
        "md", "water.xyz", *model, "--resume", "--seed", 1
    )
    single = run.refused("md", "water.xyz", *model, "--resume", "--dtype", "float32")
    assert "started with `dtype` float64, now it is float32" in single
    assert run("md", "water.xyz", *model, "--force", "--seed", 1).exit_code == 0
