"""The training checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mlip.errors import InputError
from mlip.training.state import load_state, save_state


def test_round_trip_restores_the_random_generator(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    torch.manual_seed(5)
    save_state(path, {"step": 3, "w": torch.arange(3.0)}, {"seed": 1})
    expected = torch.rand(2)
    torch.manual_seed(6)
    state, config = load_state(path)
    assert torch.equal(torch.rand(2), expected)
    assert state["step"] == 3
    assert torch.equal(state["w"], torch.arange(3.0))
    assert config == {"seed": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.ckpt"]


def test_a_failed_write_leaves_the_old_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "last.ckpt"
    save_state(path, {"step": 1}, {})

    def broken(content: object, target: Path) -> None:
        target.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(torch, "save", broken)
    with pytest.raises(OSError, match="disk full"):
        save_state(path, {"step": 2}, {})
    assert load_state(path)[0]["step"] == 1


class Malicious:
    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return (eval, ("1/0",))


def test_refusals(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with pytest.raises(
        InputError, match=r"nothing to resume: .*last\.ckpt does not exist; start without --resume"
    ):
        load_state(path)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match="is not a readable training checkpoint"):
        load_state(path)
    torch.save({"format": Malicious()}, path)
    with pytest.raises(InputError, match="is not a readable training checkpoint"):
        load_state(path)
    torch.save({"format": "other"}, path)
    with pytest.raises(InputError, match="is not a training checkpoint of this package"):
        load_state(path)
    torch.save({"format": "mlip-training-state", "format_version": 99}, path)
    with pytest.raises(InputError, match="has checkpoint format 99, but this version reads 1"):
        load_state(path)
