"""Errors of a model file on a data file: what ``mlip evaluate`` does."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlip.checkpoint import load_potential
from mlip.datasets import Frame, LabelKeys, read_frames
from mlip.errors import InputError
from mlip.training.evaluation import Predictions, predict
from mlip.training.loss import Labels
from mlip.training.packed import pack
from mlip.training.report import metrics_table, parity_plots
from mlip.training.run import DTYPES, Processes, resolve_device


@dataclass(frozen=True, kw_only=True)
class Request:
    """What to evaluate.

    Attributes:
        model: File or name of the model.
        data: File of labelled structures.
        batch_size: Structures computed together.
        energy_key: Name of the energy in the file; found by itself if None.
        forces_key: Name of the forces.
        stress_key: Name of the stress.
        data_format: Format of the file; from its name if None.
        dtype: ``float64`` or ``float32``.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        out: Where to write the structures with the predictions.
        plot: Folder for parity plots.
    """

    model: str
    data: Path
    batch_size: int = 32
    energy_key: str | None = None
    forces_key: str | None = None
    stress_key: str | None = None
    data_format: str | None = None
    dtype: str = "float64"
    device: str = "auto"
    out: Path | None = None
    plot: Path | None = None


@dataclass(frozen=True)
class FileErrors:
    """Errors of a model on a data file.

    Attributes:
        model: The model.
        data: The file.
        frames: Structures in it.
        metrics: See ``ErrorSums.result``.
    """

    model: str
    data: Path
    frames: int
    metrics: dict[str, float]

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "command": "evaluate",
            "model": self.model,
            "data": str(self.data),
            "frames": self.frames,
            "units": {"energy": "eV", "forces": "eV/Å", "stress": "eV/Å³"},
            "metrics": self.metrics,
        }

    def table(self) -> str:
        """In words, with the force errors of each element below."""
        lines = [metrics_table({f"{self.data.name} ({self.frames})": self.metrics})]
        elements = [
            key.removeprefix("forces_rmse_") for key in self.metrics if key.startswith("forces_rmse_")
        ]
        if len(elements) > 1:
            parts = (f"{s} {1000 * self.metrics[f'forces_rmse_{s}']:.4g}" for s in elements)
            lines.append("force RMSE by element, meV/Å: " + "  ".join(parts))
        return "\n".join(lines)


def evaluate_file(request: Request, *, say: Callable[[str], None]) -> FileErrors:
    """Compute the errors; write predictions and plots where asked.

    Args:
        request: What to evaluate.
        say: Called with each line about what was read.

    Raises:
        InputError: The model or the data cannot be used, or the data has no labels.
    """
    if request.dtype not in DTYPES:
        raise InputError(f"`dtype` is {request.dtype!r} but must be float64 or float32")
    device = resolve_device(request.device, Processes(0, 0, 1, 1))
    potential = load_potential(request.model, device=device, dtype=DTYPES[request.dtype])
    keys = LabelKeys(energy=request.energy_key, forces=request.forces_key, stress=request.stress_key)
    frames = read_frames(request.data, keys=keys, format=request.data_format)
    for line in frames.report.lines():
        say(line)
    _check(frames, potential.species, request.data)
    for line in _warnings(frames):
        say(line)
    packed = pack(frames, potential.cutoff, dtype=DTYPES[request.dtype], source=str(request.data)).to(device)
    predictions, metrics = predict(
        potential,
        packed,
        batch_size=request.batch_size,
        labels=Labels(
            energy=True,
            forces=True,
            stress=packed.has_stress,
            hessian=potential.has_direct_hessian and packed.has_hessians,
        ),
        species=potential.species,
    )
    shift = constant_shift(frames, predictions)
    if shift is not None:
        say(shift)
    if request.out is not None:
        _write(frames, predictions, request.out)
    if request.plot is not None:
        request.plot.mkdir(parents=True, exist_ok=True)
        parity_plots(request.plot, {request.data.stem: predictions}, {request.data.stem: metrics})
    return FileErrors(model=request.model, data=request.data, frames=len(frames), metrics=metrics)


def constant_shift(frames: list[Frame], predictions: Predictions) -> str | None:
    """A remark where most of the energy error is a constant for each element, as between levels of theory or
    zeros of energy that differ; None where it is not."""
    from ase.data import chemical_symbols

    error = predictions.energy - predictions.reference_energy
    given = np.isfinite(error)
    species = sorted({int(z) for f in frames for z in f.atomic_numbers})
    if given.sum() < 2 * len(species):
        return None
    counts = np.array([[(f.atomic_numbers == z).sum() for z in species] for f in frames], dtype=float)[given]
    shifts, *_ = np.linalg.lstsq(counts, error[given], rcond=None)
    before = float(np.sqrt(np.mean(error[given] ** 2)))
    after = float(np.sqrt(np.mean((error[given] - counts @ shifts) ** 2)))
    if not (before > 0.1 and after < 0.2 * before):
        return None
    terms = ", ".join(f"{chemical_symbols[z]} {v:+.4g}" for z, v in zip(species, shifts, strict=True))
    return (
        f"the energies differ by a constant per atom of each element, eV: {terms}; without it their RMSE "
        f"would be {1000 * after:.4g} meV instead of {1000 * before:.4g}. Is the zero of energy, or the "
        "level of theory, of these labels that of the model?"
    )


def _warnings(frames: list[Frame]) -> list[str]:
    """What the errors do not, or cannot, take into account."""
    lines = []
    charged = sum(frame.charge not in (None, 0) or frame.spin not in (None, 0, 1) for frame in frames)
    if charged:
        lines.append(
            f"warning: {charged} of {len(frames)} frames have a charge or unpaired electrons, of which the "
            "model is not told: it gives them the numbers of what it was trained on"
        )
    flat = sum(frame.stress is not None and frame.volume == 0.0 for frame in frames)
    if flat:
        lines.append(
            f"warning: {flat} of {len(frames)} frames have a stress but no cell with a volume: their stress "
            "is passed over"
        )
    return lines


def _check(frames: list[Frame], species: tuple[int, ...], path: Path) -> None:
    from ase.data import chemical_symbols

    if all(f.energy is None and f.forces is None for f in frames):
        raise InputError(
            f"{path}: no frame has an energy or forces to compare with; "
            "name them with --energy-key and --forces-key"
        )
    known = np.array(species)
    for i, frame in enumerate(frames):
        strange = np.setdiff1d(frame.atomic_numbers, known)
        if strange.size:
            have = ", ".join(chemical_symbols[z] for z in species)
            raise InputError(
                f"{path}: frame {i} contains {chemical_symbols[strange[0]]}, but the model only knows {have}"
            )


def _write(frames: list[Frame], predictions: Predictions, path: Path) -> None:
    """Structures as extended XYZ: references under ``REF_*``, predictions under ``mlip_*``."""
    from ase.io import write
    from ase.stress import full_3x3_to_voigt_6_stress

    ends = np.cumsum(predictions.num_atoms)
    images = []
    for i, frame in enumerate(frames):
        atoms = frame.to_atoms()
        atoms.calc = None
        mine = slice(ends[i] - predictions.num_atoms[i], ends[i])
        atoms.info["mlip_energy"] = float(predictions.energy[i])
        if frame.energy is not None:
            atoms.info["REF_energy"] = frame.energy
        if predictions.forces is not None:
            atoms.arrays["mlip_forces"] = predictions.forces[mine]
        if frame.forces is not None:
            atoms.arrays["REF_forces"] = frame.forces
        if predictions.stress is not None and np.isfinite(predictions.stress[i]).all():
            atoms.info["mlip_stress"] = full_3x3_to_voigt_6_stress(predictions.stress[i])
        if frame.stress is not None:
            atoms.info["REF_stress"] = full_3x3_to_voigt_6_stress(frame.stress)
        images.append(atoms)
    temporary = path.with_name(f".{path.name}.tmp")
    write(temporary, images, format="extxyz")
    os.replace(temporary, path)
