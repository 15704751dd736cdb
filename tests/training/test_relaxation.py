"""Relaxations of held-out structures during training."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from spring_molecules import springs, water

from mlip.checkpoint import read_header
from mlip.datasets import Frame
from mlip.datasets.write import write_frames
from mlip.errors import InputError
from mlip.training.config import Data, RelaxationMetrics
from mlip.training.config_file import parse_config
from mlip.training.logs import CsvLog
from mlip.training.relaxation import Relaxations, describe, means, read_relaxations
from mlip.training.run import run_training

SIDE = 1.2
"""Å; length of the springs of `springs`, so that their minimum is a triangle of this side."""


def triangle() -> Frame:
    """The minimum of three springs."""
    positions = SIDE * np.array([[0, 0, 0], [1, 0, 0], [0.5, np.sqrt(0.75), 0]])
    numbers = np.array([8, 1, 1])
    energy, forces = springs(positions, numbers)
    return Frame(positions=positions, atomic_numbers=numbers, energy=energy, forces=forces)


class Springs:
    """The reference itself in the place of a potential, as a surface; off by a constant energy."""

    def __init__(self, *, shift: float = 0.0, refuses: bool = False) -> None:
        self.shift, self.refuses = shift, refuses

    def evaluate(self, structures, *, stress: bool = False, hessian: bool = False):
        from mlip.calculators.surface import Evaluation, StructureError

        if self.refuses:
            raise StructureError("no", place=0)
        found = [springs(atoms.positions, atoms.numbers) for atoms in structures]
        return [Evaluation(energy=e + self.shift, forces=f) for e, f in found]


def path_file(folder: Path, *, steps: int = 4, count: int = 3) -> Path:
    """Trajectories from distorted triangles to the minimum, out of order, beside two minima."""
    end, frames = triangle(), []
    rng = np.random.default_rng(1)
    for k in range(count):
        start = end.positions + rng.normal(size=(3, 3)) * 0.1
        for step in reversed(range(steps)):
            share = step / (steps - 1)
            positions = share * end.positions + (1 - share) * start
            energy, _ = springs(positions, end.atomic_numbers)
            frames.append(
                replace(end, positions=positions, energy=energy, trajectory=f"t{k}", step=step, group="")
            )
    path = folder / "relaxations.xyz"
    write_frames(path, [end, *frames, replace(end, positions=end.positions + 1.0)])
    return path


def measure(path: Path, surface: Springs, **options: Any) -> dict[str, float]:
    config = RelaxationMetrics(file=path, **{"fmax": 0.001, **options})
    relaxations = read_relaxations(config, Data(train=path, valid=1))
    return means(relaxations.compare(surface, relaxations.cases).tolist())


def test_the_reference_itself_has_no_errors(tmp_path: Path) -> None:
    path = path_file(tmp_path)
    found = measure(path, Springs())
    assert (found["relax_converged"], found["relax_same"]) == (1.0, 1.0)
    assert found["relax_rmsd"] == pytest.approx(0.0, abs=1e-3)
    assert found["relax_energy"] == pytest.approx(0.0, abs=1e-6)
    assert 0 < found["relax_steps"] < 20  # two of the five are at their minimum
    assert measure(path, Springs(shift=0.3))["relax_energy"] == pytest.approx(0.1, abs=1e-6)
    assert measure(path, Springs(), steps=1)["relax_converged"] == pytest.approx(2 / 5)
    assert describe(found).startswith("100 % converged, 100 % to the minimum, RMSD ")


def test_another_minimum_and_none(tmp_path: Path) -> None:
    end = triangle()
    far = replace(end, positions=end.positions * 1.5, trajectory="t", step=1)
    path = tmp_path / "a.xyz"
    write_frames(path, [replace(end, trajectory="t", step=0), far])
    found = measure(path, Springs())
    assert (found["relax_converged"], found["relax_same"]) == (1.0, 0.0)
    assert found["relax_rmsd"] == pytest.approx(SIDE * 0.5 / np.sqrt(3), abs=1e-3)
    found = measure(path, Springs(refuses=True))
    assert found == {"relax_converged": 0.0, "relax_same": 0.0}
    assert describe(found) == "0 % converged, 0 % to the minimum"


def test_when_it_is_due() -> None:
    relaxations = Relaxations(RelaxationMetrics(file=Path("a"), every=3), [])
    assert [epoch for epoch in range(1, 9) if relaxations.due(epoch, 8)] == [3, 6, 8]


def test_refusals(tmp_path: Path) -> None:
    def refused(*frames: Frame) -> str:
        path = tmp_path / "bad.xyz"
        write_frames(path, frames)
        with pytest.raises(InputError) as caught:
            read_relaxations(RelaxationMetrics(file=path), Data(train=path, valid=1))
        return str(caught.value)

    end = replace(triangle(), trajectory="t")
    assert "ends with other atoms than it starts with" in refused(
        end, replace(end, atomic_numbers=np.array([1, 8, 1]))
    )
    boxes = [replace(end, cell=np.eye(3) * size, pbc=np.ones(3, bool)) for size in (4.0, 4.1)]
    assert "the trajectory 't' changes the cell" in refused(*boxes)
    atom = Frame(np.zeros((1, 3)), np.array([1]), energy=-1.0, info={"config_type": "IsolatedAtom"})
    assert "holds no structure to relax" in refused(atom)
    with pytest.raises(InputError, match=r"file of `relaxation_metrics` 'none\.xyz' does not exist"):
        read_relaxations(RelaxationMetrics(file=Path("none.xyz")), Data(train=Path("a"), valid=1))


def test_a_run_reports_relaxations(settings: dict[str, Any], tmp_path: Path, state_differences) -> None:
    """In log, model and report; they change nothing about the training."""
    path = path_file(tmp_path, steps=2, count=2)
    section = {"file": str(path), "every": 2, "fmax": 0.5, "steps": 5}
    plain = {**settings, "output": str(tmp_path / "plain")}
    run_training(parse_config(plain, "settings"))
    changed = {**settings, "relaxation_metrics": section, "plots": True}
    result = run_training(parse_config(changed, "settings"))
    assert state_differences(tmp_path / "plain", tmp_path / "run") == []
    rows = CsvLog(tmp_path / "run" / "log.csv").read()
    assert ["relax_converged" in row for row in rows] == [False, True, True]
    assert all(0.0 <= row["relax_converged"] <= 1.0 for row in rows[1:])
    report = json.loads((tmp_path / "run" / "report" / "metrics.json").read_text())
    assert set(report["relaxation"]) >= {"relax_converged", "relax_same"}
    assert report["units"]["relax_rmsd"] == "Å"
    assert (tmp_path / "run" / "report" / "relaxation.png").exists()
    assert result.model is not None
    assert read_header(result.model)["relaxation"] == report["relaxation"]
    strange = tmp_path / "strange.xyz"
    write_frames(strange, [replace(water(0), atomic_numbers=np.array([8, 1, 6]))])
    section = {**section, "file": str(strange)}
    with pytest.raises(InputError, match="relaxation_metrics: frame 0 contains C"):
        run_training(
            parse_config({**settings, "output": str(tmp_path / "c"), "relaxation_metrics": section}, "s")
        )
