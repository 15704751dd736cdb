"""The command as a whole: speed, lazy imports, exit codes, the one place that catches errors."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import typer

import mlip
from mlip.cli import COMMANDS, describe
from mlip.errors import InputError

ROOT = "from mlip.cli import main; main()"


def command(*arguments: str, code: str = ROOT) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(Path(mlip.__file__).parent.parent)}
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        env=environment,
    )


def test_help_lists_every_command() -> None:
    done = command("--help")
    assert done.returncode == 0
    for name, (_, _, text) in COMMANDS.items():
        assert re.search(rf"^ +{name} +{re.escape(text)}$", done.stdout, re.MULTILINE), name


@pytest.mark.parametrize("group", ["data", "lammps"])
def test_help_of_a_group_is_whole(group: str) -> None:
    done = command(group, "--help")
    assert done.returncode == 0
    assert "..." not in done.stdout.split("Commands:")[1]


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom mlip.cli import main\ntry:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = ('torch', 'ase', 'numpy', 'scipy', 'rich', 'lightning', 'pydantic', 'mlip.cli.relax')\n"
        "print([name for name in heavy if name in sys.modules], file=sys.stderr)"
    )
    assert command("--help", code=code).stderr.strip() == "[]"


def test_version() -> None:
    done = command("--version")
    assert (done.returncode, done.stdout) == (0, f"mlip {mlip.__version__}\n")


def test_top_level_import_is_light_and_names_resolve() -> None:
    code = "import sys, mlip; print([m for m in ('torch', 'ase', 'numpy') if m in sys.modules])"
    assert command(code=code).stdout.strip() == "[]"
    for name in mlip.__all__:
        assert getattr(mlip, name).__name__ == name
    assert set(mlip.__all__) <= set(dir(mlip))
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        mlip.nonsense  # noqa: B018


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_loads_and_explains_itself(run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0, result.stderr
    assert f"Usage: mlip {name}" in result.stdout


def test_unknown_command_is_answered_with_a_suggestion(run) -> None:
    assert run.refused("relaks") == 'error: there is no command "relaks": did you mean "relax"?\n'
    assert f"there are: {', '.join(COMMANDS)}" in run.refused("qqqq")


def test_no_command_prints_help(run) -> None:
    result = run()
    assert result.exit_code == 2
    assert "Usage: mlip" in result.stdout + result.stderr


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (InputError("two\nlines"), 2, "error: two lines\n"),
        (FileNotFoundError(2, "No such file", "a.xyz"), 2, "error: a.xyz: no such file\n"),
        (PermissionError(13, "Permission denied", "b.xyz"), 2, "error: b.xyz: permission denied\n"),
        (IsADirectoryError(21, "Is a directory", "c"), 2, "error: c: is a directory\n"),
        (FileNotFoundError("no file, says a library"), 2, "error: no file, says a library\n"),
        (KeyboardInterrupt(), 130, "interrupted\n"),
    ],
)
def test_what_the_user_caused_is_one_line(run, monkeypatch, error, status: int, message: str) -> None:
    def fail() -> None:
        raise error

    monkeypatch.setitem(COMMANDS, "doctor", ("mlip.cli.fake", "doctor", "Fails."))
    monkeypatch.setitem(sys.modules, "mlip.cli.fake", types.SimpleNamespace(doctor=fail))
    result = run("doctor")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", message)


def test_mistakes_of_ours_keep_their_traceback(run, monkeypatch) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(COMMANDS, "doctor", ("mlip.cli.fake", "doctor", "Fails."))
    monkeypatch.setitem(sys.modules, "mlip.cli.fake", types.SimpleNamespace(doctor=fail))
    assert isinstance(run("doctor").exception, ZeroDivisionError)


def test_errors_in_subcommands_are_caught_too(run, monkeypatch) -> None:
    group = typer.Typer()

    @group.command()
    def first() -> None:
        raise InputError("from below")

    @group.command()
    def second() -> None: ...

    monkeypatch.setitem(COMMANDS, "data", ("mlip.cli.fake", "app", "Group."))
    monkeypatch.setitem(sys.modules, "mlip.cli.fake", types.SimpleNamespace(app=group))
    assert run.refused("data", "first") == "error: from below\n"
    assert run("data", "second").exit_code == 0


def test_a_missing_optional_package_is_named(run, monkeypatch) -> None:
    def refuse(name: str) -> types.ModuleType:
        raise ModuleNotFoundError("No module named 'lightning'", name="lightning")

    monkeypatch.setattr(importlib, "import_module", refuse)
    message = run.refused("train", "a.yaml")
    assert message == (
        'error: `mlip train` needs the package "lightning", not installed: pip install "polyad[all]"\n'
    )


def test_describe_without_reason() -> None:
    assert describe(PermissionError("plain")) == "plain"


def test_interrupting_a_relaxation(folder, model_file) -> None:
    """A real Ctrl-C: status 130, no traceback, and the path so far on disk."""
    code = (
        # A shell that starts tests in the background has SIGINT ignored; a terminal has not.
        "import os, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "import mlip.search.relax as r\nold = r.RelaxStep\ncount = []\n"
        "def step(**values):\n    count.append(1)\n"
        "    if len(count) == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "    return old(**values)\nr.RelaxStep = step\n" + ROOT
    )
    options = ("--model", str(model_file), "--fmax", "1e-9", "--trajectory", "t.xyz")
    done = command("relax", "water.xyz", *options, code=code)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert (folder / "t.xyz").exists()
    assert not (folder / "water-relaxed.xyz").exists()


def test_stdout_of_a_real_process_is_json(folder, model_file) -> None:
    done = command("relax", "water.xyz", "--model", str(model_file), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["converged"] is True
    assert done.stderr == ""
