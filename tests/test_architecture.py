"""The shape of the package: imports point down one list, files stay small, names say what they hold."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import mlip

PACKAGE = Path(mlip.__file__).parent
ROOT = PACKAGE.parent

LAYERS = (
    ("errors", "units"),
    ("graph", "neighbors", "rigid_motions", "alignment"),
    ("o3",),
    ("kernels",),
    ("nn",),
    ("models",),
    ("domain",),
    ("hessian_assembly",),
    ("hessian", "potential"),
    ("checkpoint",),
    ("datasets",),
    ("calculators",),
    ("search",),
    ("dynamics",),
    ("training",),
    ("testing",),
    ("lammps_plugin",),
    ("cli",),
)
"""From the foundation up: a part may import from its own layer and those before it."""

DEPTH = {part: depth for depth, layer in enumerate(LAYERS) for part in layer}

LARGEST_FILE = 400
LARGEST_FUNCTION = 60
FORBIDDEN_NAMES = {"utils", "helpers", "tools", "util", "helper", "misc", "common"}


def sources() -> list[Path]:
    """Every Python file of the package, those behind the three symlinks included."""
    found = []
    for folder in (PACKAGE, *(link for link in PACKAGE.iterdir() if link.is_symlink())):
        found += [folder / path.relative_to(folder.resolve()) for path in folder.resolve().rglob("*.py")]
    return sorted(set(found))


def imported(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Parts of mlip that a file imports, anywhere in it, with the line."""
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import"
            module = node.module or ""
            names = [f"mlip.{alias.name}" for alias in node.names] if module == "mlip" else [module]
        for name in names:
            parts = name.split(".")
            if parts[0] == "mlip" and len(parts) > 1:
                yield parts[1], node.lineno


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function, its documentation not counted."""
    first = function.body[0]
    documentation = 0
    if ast.get_docstring(function, clean=False) is not None:
        documentation = (first.end_lineno or 0) - first.lineno + 1
    return (function.end_lineno or 0) - function.lineno + 1 - documentation


def test_the_files_are_found() -> None:
    parts = {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in sources()}
    assert {"calculators", "datasets", "lammps_plugin", "potential", "cli"} <= parts
    assert parts - {"__init__", "__main__"} <= set(DEPTH), "a new part of the package needs a place in LAYERS"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path: Path) -> None:
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    if own in ("__init__", "__main__"):
        return  # the index of public names, which imports nothing before it is asked to
    tree = ast.parse(path.read_text(encoding="utf-8"))
    wrong = [
        f"line {line}: {own} imports {part}"
        for part, line in imported(tree)
        if part in DEPTH and DEPTH[part] > DEPTH[own]
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= LARGEST_FILE
    assert path.stem not in FORBIDDEN_NAMES
    long = [
        f"{node.name} has {lines} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := lines_of(node)) > LARGEST_FUNCTION
    ]
    assert not long, "\n".join(long)


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_is_unpickled(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"\bpickle\.loads?\(|weights_only\s*=\s*False|allow_pickle\s*=\s*True", text)


@pytest.mark.parametrize("name", ["calculators", "datasets", "lammps_plugin"])
def test_links_and_guards(name: str) -> None:
    """The folder at the top is reached through the package alone."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("not run from a source tree")
    link = PACKAGE / name
    assert link.is_symlink()
    assert str(link.readlink()) == f"../{name}"
    done = subprocess.run(
        [sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert f"mlip.{name}" in done.stderr.splitlines()[-1]
    assert subprocess.run(
        [sys.executable, "-c", f"import mlip.{name}"], cwd=ROOT, capture_output=True, check=False
    ).returncode == 0  # fmt: skip


def test_import_leaves_the_process_alone() -> None:
    """No environment variable, no default dtype, no threads, no file."""
    code = (
        "import os, torch\nbefore = dict(os.environ), torch.get_default_dtype(), torch.get_num_threads()\n"
        "import mlip\nfor name in mlip.__all__: getattr(mlip, name)\n"
        "assert before == (dict(os.environ), torch.get_default_dtype(), torch.get_num_threads())"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
