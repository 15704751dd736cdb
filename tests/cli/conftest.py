"""A model file with random weights, structures, and a way to run the command in this process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.build import bulk, molecule
from ase.io import write
from typer.testing import CliRunner, Result

from mlip.checkpoint import load_potential, save_potential
from mlip.domain import Domain
from mlip.models import Polyad
from mlip.models.polyad import PolyadConfig
from mlip.neighbors import build_graph
from mlip.potential import Potential


@pytest.fixture(scope="session")
def model_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """H, C, O and Si; repulsive at short range, so that relaxation comes to rest."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PolyadConfig(
            species=(1, 6, 8, 14),
            cutoff=4.0,
            num_channels=4,
            lmax=1,
            radial_width=4,
            energy_scale=0.1,
            zbl=True,
        )
        potential = Potential(Polyad(config), {1: -1.0, 6: -6.0, 8: -8.0, 14: -14.0}).double()
    path = tmp_path_factory.mktemp("model") / "small.safetensors"
    save_potential(
        potential, path, metadata={"level_of_theory": "none", "license": "MIT", "metrics": {"mae": 1.5}}
    )
    return path


@pytest.fixture(scope="session")
def wary_model_file(model_file: Path) -> Path:
    """The same model, trained on next to nothing: to it, all surroundings are new."""
    potential = load_potential(model_file)
    water = build_graph(molecule("H2O"), potential.cutoff)
    output = potential.model(water.atomic_numbers, water.senders, water.receivers, water.edge_vectors())
    features = output["node_features"].shape[1]
    potential.domain = Domain(len(potential.species), features).double()
    potential.domain.boundary.fill_(1e-3)
    potential.domain.whitening.copy_(torch.eye(features))
    save_potential(potential, path := model_file.with_name("wary.safetensors"))
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with water.xyz, silicon.cif and two.xyz (two frames) in it."""
    monkeypatch.chdir(tmp_path)
    water = molecule("H2O")
    water.positions *= 0.85
    write("water.xyz", water)
    silicon = bulk("Si", a=5.2, cubic=True)
    silicon.rattle(0.05, seed=1)
    write("silicon.cif", silicon)
    write("two.xyz", [water, molecule("CH4")])
    return tmp_path


class Run:
    """Runs `mlip …` in this process."""

    def __call__(self, *arguments: object) -> Result:
        from mlip.cli import app

        return CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="mlip")

    def refused(self, *arguments: object) -> str:
        """The message of a run that must end as bad input: one line on stderr, nothing on stdout, status
        2."""
        result = self(*arguments)
        assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr, result.exception)
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
        assert "Traceback" not in result.stderr
        return result.stderr


@pytest.fixture
def run() -> Run:
    """The runner."""
    return Run()
