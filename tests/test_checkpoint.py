from __future__ import annotations

import json
import os
import stat
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase.build import molecule
from safetensors.torch import load_file, save_file

import mlip.checkpoint
from mlip.checkpoint import BUNDLED, load_potential, read_header, resolve_model, save_potential
from mlip.errors import InputError
from mlip.models.polyad import Polyad, PolyadConfig
from mlip.neighbors import build_graph
from mlip.potential import Potential

E0S = {1: -13.600000000000001, 8: -2041.8395 + 1e-13}


def make(**options: Any) -> Potential:
    torch.manual_seed(0)
    config = PolyadConfig(
        species=(1, 8),
        cutoff=4.0,
        num_channels=4,
        lmax=2,
        num_knots=8,
        radial_width=8,
        energy_scale=0.1,
        **options,
    )
    return Potential(Polyad(config), E0S, metadata={"level_of_theory": "PBE", "mine": [1, {"two": 3.5}]})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "water.safetensors"
    save_potential(make(), path)
    return path


def header_of(path: Path) -> dict[str, Any]:
    raw = path.read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    return json.loads(raw[8 : 8 + size])


def rewrite(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """The same weights under a changed header."""
    metadata = json.loads(header_of(path)["__metadata__"]["polyad"])
    change(metadata)
    save_file(load_file(path), path, metadata={"polyad": json.dumps(metadata)})


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "options",
    [{}, {"product": "cg", "radial": "spline"}, {"product": "quadrature", "zbl": True}, {"lmax_hidden": 2}],
    ids=str,
)
def test_round_trip(options: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    """Bit for bit: weights, reference energies, configuration, results."""
    before = make(**options).to(dtype=dtype)
    path = tmp_path / "model.safetensors"
    save_potential(before, path, metadata={"license": "MIT", "metrics": {"energy": 0.001}})
    after = load_potential(path)
    assert after.dtype == dtype
    assert (after.species, after.cutoff) == (before.species, before.cutoff)
    assert after.model.config == before.model.config
    assert after.isolated_energies() == E0S
    old, new = before.state_dict(), after.state_dict()
    assert old.keys() == new.keys()
    assert all(torch.equal(old[name], new[name]) for name in old)
    graph = build_graph(molecule("H2O"), 4.0)
    for key, value in before.eval().requires_grad_(False)(graph).items():
        assert torch.equal(after(graph)[key], value), key
    assert after.metadata["level_of_theory"] == "PBE"
    assert after.metadata["mine"] == [1, {"two": 3.5}]
    assert after.metadata["license"] == "MIT"
    assert after.metadata["metrics"] == {"energy": 0.001}
    again = tmp_path / "again.safetensors"
    save_potential(after, again)
    first, second = read_header(path), read_header(again)
    assert first == second
    assert load_file(path).keys() == load_file(again).keys()


def test_ready_to_use(file: Path) -> None:
    potential = load_potential(file)
    assert not potential.training
    assert not any(p.requires_grad for p in potential.parameters())
    assert load_potential(file, dtype=torch.float64).dtype == torch.float64
    assert load_potential(str(file), device="cpu").device == torch.device("cpu")


def test_loading_leaves_random_numbers_alone(file: Path) -> None:
    before = torch.get_rng_state()
    load_potential(file)
    assert torch.equal(torch.get_rng_state(), before)


def test_loaded_in_inference_mode(file: Path) -> None:
    graph = build_graph(molecule("H2O"), 4.0)
    expected = load_potential(file, dtype=torch.float64)(graph)["forces"]
    with torch.inference_mode():
        potential = load_potential(file, dtype=torch.float64)
        assert torch.equal(potential(graph)["forces"], expected)
    assert torch.equal(potential(graph)["forces"], expected)


def test_header(file: Path) -> None:
    header = read_header(file)
    assert header["format"] == "polyad-potential"
    assert header["format_version"] == 2
    assert header["model"] == "polyad"
    assert header["species"] == [1, 8]
    assert header["cutoff"] == header["config"]["cutoff"] == 4.0
    assert header["config"]["num_channels"] == 4
    assert {int(z): e for z, e in header["e0s"].items()} == E0S
    assert header["units"] == {"energy": "eV", "length": "Å"}
    assert header["dtype"] == "float32"
    assert header["level_of_theory"] == "PBE"
    assert header["license"] == "unknown"
    assert header["num_parameters"] == sum(t.numel() for t in load_file(file).values())
    assert header["mlip_version"]


def test_header_without_torch(file: Path) -> None:
    code = (
        "import sys; from mlip.checkpoint import read_header; print(read_header(sys.argv[1])['cutoff']); "
        "assert not {'torch', 'ase', 'numpy', 'safetensors'} & set(sys.modules), sorted(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "4.0"


@pytest.mark.parametrize("kept", [0, 5, 8, 100, "header", -1])
def test_truncated(file: Path, kept: int | str) -> None:
    raw = file.read_bytes()
    end = 8 + struct.unpack("<Q", raw[:8])[0]
    file.write_bytes(raw[: end if kept == "header" else kept])
    message = (
        "is truncated: " if kept in ("header", -1) else "is not a polyad model; give a .safetensors file"
    )
    for read in (read_header, load_potential):
        with pytest.raises(InputError, match=message):
            read(file)


def test_foreign_files(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    other = {"w": torch.zeros(2)}
    writers: list[Callable[[], Any]] = [
        lambda: path.write_bytes(b""),
        lambda: path.write_text("7\nLattice=...\nH 0 0 0\n" * 50),
        lambda: path.write_bytes(os.urandom(500)),
        lambda: path.write_bytes(struct.pack("<Q", 6) + b"[1, 2]"),
        lambda: path.write_bytes(struct.pack("<Q", 2**63) + b"{}" * 10),
        lambda: torch.save(other, path),
        lambda: save_file(other, path),
        lambda: save_file(other, path, metadata={"format": "pt"}),
        lambda: save_file(other, path, metadata={"polyad": "not json"}),
        lambda: save_file(other, path, metadata={"polyad": "[1]"}),
        lambda: save_file(other, path, metadata={"polyad": json.dumps({"format": "something else"})}),
        lambda: save_file(other, path, metadata={"polyad": json.dumps({"format": "polyad-potential"})}),
    ]
    for write in writers:
        write()
        for read in (read_header, load_potential):
            with pytest.raises(
                InputError, match=r"foreign.safetensors is not a polyad model; give a \.safetensors file"
            ):
                read(path)


def test_newer_format(file: Path) -> None:
    rewrite(file, lambda metadata: metadata.update(format_version=3))
    with pytest.raises(InputError, match="has format version 3; this polyad reads 2: upgrade it"):
        load_potential(file)


def test_older_format(file: Path) -> None:
    rewrite(file, lambda metadata: metadata.update(format_version=1))
    with pytest.raises(InputError, match=r"version 1, whose weights meant something else.*train the model"):
        load_potential(file)


def test_unknown_model(file: Path) -> None:
    rewrite(file, lambda metadata: metadata.update(model="hexad"))
    with pytest.raises(InputError, match="holds a 'hexad' model; this polyad knows polyad"):
        load_potential(file)


def test_unknown_precision(file: Path) -> None:
    rewrite(file, lambda metadata: metadata.update(dtype="float16"))
    with pytest.raises(InputError, match="holds float16 weights; this polyad reads float32, float64"):
        load_potential(file)


def test_unknown_option(file: Path) -> None:
    rewrite(file, lambda metadata: metadata["config"].update(num_chanels=4))
    with pytest.raises(
        InputError, match="model option `num_chanels` is unknown; did you mean `num_channels`"
    ):
        load_potential(file)


def test_weights_do_not_fit(file: Path) -> None:
    rewrite(file, lambda metadata: metadata["config"].update(num_channels=5))
    with pytest.raises(InputError, match="its weights do not fit its configuration"):
        load_potential(file)


@pytest.mark.parametrize("key", ["config", "e0s", "dtype", "species", "cutoff", "model", "format_version"])
def test_incomplete_header(file: Path, key: str) -> None:
    rewrite(file, lambda metadata: metadata.pop(key))
    with pytest.raises(InputError, match="is not a polyad model"):
        load_potential(file)


def test_neither_file_nor_name(tmp_path: Path) -> None:
    for name in ("defualt", str(tmp_path)):
        with pytest.raises(InputError, match=rf"model {name!r} is neither a file nor one of default, gfn2"):
            resolve_model(name)


def test_a_folder_of_a_training(tmp_path: Path, file: Path) -> None:
    file.rename(tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"is a folder: name .*model\.safetensors"):
        resolve_model(tmp_path)


def test_bundled_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setattr(mlip.checkpoint, "_BUNDLED_FOLDER", tmp_path)
    with pytest.raises(
        InputError, match=r"the bundled model .*\.safetensors is missing from this installation; reinst"
    ):
        resolve_model("default")
    target = tmp_path / BUNDLED["default"]
    file.rename(target)
    assert resolve_model("default") == target
    assert load_potential("default").cutoff == 4.0


@pytest.mark.parametrize("moment", ["save_file", "replace"])
def test_failed_write_leaves_the_old_file(file: Path, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def fail(*arguments: Any, **options: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file" if moment == "save_file" else "os.replace", fail)
    with pytest.raises(OSError, match="disk full"):
        save_potential(make(), file)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_metadata_that_is_not_json(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError, match="not JSON serializable"):
        save_potential(make(), file, metadata={"array": torch.zeros(2)})
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


def test_others_may_read_it(file: Path) -> None:
    assert stat.S_IMODE(file.stat().st_mode) == 0o644


def test_unregistered_model(tmp_path: Path) -> None:
    class Own(Polyad):
        pass

    potential = make()
    own = Potential(Own(potential.model.config), E0S)
    with pytest.raises(ValueError, match="Own is not registered in MODELS"):
        save_potential(own, tmp_path / "own.safetensors")
    assert list(tmp_path.iterdir()) == []
