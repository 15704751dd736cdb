"""Logs."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlip.training.logs import CsvLog, ProgressLine, TensorBoardLog

ROWS = [
    {"epoch": 1.0, "step": 4.0, "train_forces_rmse": 0.5},
    {"epoch": 2.0, "step": 8.0, "train_forces_rmse": 0.25, "valid_loss": 1.5},
    {"epoch": 3.0, "step": 12.0, "train_forces_rmse": 0.125},
]


def test_csv_grows_and_is_cut(tmp_path: Path) -> None:
    log = CsvLog(tmp_path / "log.csv")
    assert log.read() == []
    for row in ROWS:
        log.append(row)
    assert log.read() == ROWS
    log.keep_until(2)
    assert log.read() == ROWS[:2]
    log.append(ROWS[2])
    assert (tmp_path / "log.csv").read_text().splitlines()[-1].startswith("3,12,0.125")
    log.keep_until(0)
    assert log.read() == []


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    log = TensorBoardLog.open(tmp_path, first_step=1)
    assert log is not None
    for row in ROWS:
        log.append(row)
    log.close()
    events = EventAccumulator(str(tmp_path)).Reload().Scalars("train/forces_rmse")
    assert [(e.step, e.value) for e in events] == [(1, 0.5), (2, 0.25), (3, 0.125)]


def row(epoch: int) -> dict[str, float]:
    return {"epoch": epoch, "seconds": 1.5, "valid_energy_per_atom_rmse": 0.0012, "valid_forces_rmse": 0.0345}


def test_lines_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    line = ProgressLine(3, every=2)
    line.start(0)
    for epoch in (1, 2, 3):
        line.tick(epoch - 1, 1, 4)
        line.epoch(row(epoch), best=epoch == 2)
    line.close()
    text = capsys.readouterr().err
    assert "\r" not in text
    lines = text.splitlines()
    assert [one.split()[1] for one in lines] == ["2/3", "3/3"]
    assert "valid E 1.2 meV/atom, F 34.5 meV/Å" in lines[0]
    assert lines[0].endswith("left *")
    assert lines[1].endswith("0:00:00 left")


def test_a_line_that_moves_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    line = ProgressLine(3)
    line.start(0)
    line.tick(0, 1, 4)
    line.tick(0, 2, 4)
    line.epoch(row(1), best=True)
    text = capsys.readouterr().err
    assert text.count("\r") == 2
    assert "epoch 1/3  step 1/4" in text
    assert "step 2/4" not in text
