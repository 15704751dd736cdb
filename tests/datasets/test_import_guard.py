from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_import_from_the_repository_root_is_refused() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import datasets"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "write `from mlip.datasets import read_frames`" in done.stderr


def test_importing_costs_no_torch_no_ase_no_h5py() -> None:
    script = (
        "import sys, mlip.datasets; print([m for m in ('torch', 'ase', 'h5py', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
