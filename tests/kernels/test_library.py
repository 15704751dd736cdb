from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mlip.kernels import library, self_test


def test_instruction_set_in_use(each_instruction_set: str) -> None:
    assert library.instruction_set() == each_instruction_set


@pytest.mark.usefixtures("compiled")
def test_unknown_instruction_set() -> None:
    before = library.instruction_set()
    with pytest.raises(ValueError, match=f"kernels for 'sse9' cannot run here; in use: '{before}'"):
        library.set_instruction_set("sse9")
    assert library.instruction_set() == before


@pytest.mark.usefixtures("not_compiled")
def test_not_compiled() -> None:
    assert library.load_library() is None
    assert not library.usable()
    assert library.instruction_set() == "none"
    assert self_test() == {"ok": True, "instruction_set": "none", "kernels": []}
    with pytest.raises(ValueError, match="kernels for 'generic' cannot run here; in use: 'none'"):
        library.set_instruction_set("generic")


def test_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(library.mlip.kernels, "__path__", [str(tmp_path)])
    assert library.library_path() is None


FAULTS = """
import resource, torch
from mlip.kernels.library import load_library

def work():
    kept = [torch.ones(1 << 20) for _ in range(40)]

load_library()
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.usefixtures("compiled")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="not glibc")
@pytest.mark.parametrize("settings", [{}, {"MALLOC_TRIM_THRESHOLD_": "131072"}])
def test_memory_is_kept(settings: dict[str, str], tmp_path: Path) -> None:
    """Few of the 40,960 pages of 160 MB are fetched again, unless the environment says otherwise."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    run = subprocess.run(
        [sys.executable, "-c", FAULTS],
        env=environment | settings,
        cwd=tmp_path,  # not the source tree, which has no kernels
        capture_output=True,
        text=True,
        check=True,
    )
    faults = int(run.stdout)
    assert faults > 30_000 if settings else faults < 20_000


@pytest.mark.parametrize(
    ("header", "name", "mirror"),
    [
        ("message.h", "MlipMessageShape", library.MessageShape),
        ("sphere_product.h", "MlipSphereShape", library.SphereShape),
        ("edge_basis.h", "MlipEdgeShape", library.EdgeShape),
    ],
)
def test_structures_mirror_the_headers(header: str, name: str, mirror: type[ctypes.Structure]) -> None:
    """The same fields in the same order as in C."""
    source = Path(library.__file__).parent / "src" / header
    if not source.is_file():
        pytest.skip("not run from a source tree")
    body = source.read_text().split(f"struct {name} {{", 1)[1].split("};", 1)[0]
    types = {"int64_t": ctypes.c_int64, "double": ctypes.c_double}
    declared = []
    for statement in "".join(line.split("//")[0] for line in body.splitlines()).split(";"):
        words = statement.replace("const ", "").replace("*", " * ").split(None, 1)
        for field in words[1].split(",") if words else ():
            declared.append(
                (field.replace("*", "").strip(), ctypes.c_void_p if "*" in field else types[words[0]])
            )
    assert [tuple(field) for field in mirror._fields_] == declared
