"""The report of a run: metrics as JSON and as a table, parity plots and learning curves."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from mlip.training.evaluation import Predictions
from mlip.training.relaxation import UNITS as RELAXATION_UNITS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = (
    ("energy", "E RMSE", "meV", 1000.0),
    ("energy_per_atom", "E/atom RMSE", "meV", 1000.0),
    ("forces", "F RMSE", "meV/Å", 1000.0),
    ("stress", "stress RMSE", "meV/Å³", 1000.0),
    ("hessian", "Hessian RMSE", "meV/Å²", 1000.0),
    ("lowest_eigenvalue", "lowest eigenvalue RMSE", "meV/Å²/amu", 1000.0),
    ("lowest_mode_overlap", "lowest mode 1-|cos|", "1e-3", 1000.0),
    ("frequency", "frequency RMSE", "cm⁻¹", 1.0),
    ("zero_point_energy", "ZPE RMSE", "meV", 1000.0),
)
"""Quantity, title, unit in the table, and that unit in the package's."""
MOST_POINTS = 50_000
"""Points drawn in a parity plot; of more, every n-th is drawn. Errors are always of all."""


def write_report(
    folder: Path,
    predictions: Mapping[str, Predictions],
    metrics: Mapping[str, Mapping[str, float]],
    history: Sequence[Mapping[str, float]],
    *,
    relaxation: Mapping[str, float] | None = None,
    plots: bool = True,
) -> None:
    """Write ``metrics.json`` and the plots.

    Args:
        folder: Is made.
        predictions: By name of the set of frames.
        metrics: Errors by name of the set of frames.
        history: Rows of ``log.csv``.
        relaxation: What `Relaxations.measure` found with the best weights.
        plots: Whether to draw.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / "metrics.json.tmp"
    units = {"energy": "eV", "energy_per_atom": "eV", "forces": "eV/Å", "stress": "eV/Å³"}
    content: dict[str, Any] = {"units": units, "metrics": metrics}
    if relaxation:
        content["units"] = {**units, **RELAXATION_UNITS}
        content["relaxation"] = relaxation
    temporary.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(temporary, folder / "metrics.json")
    if plots:
        parity_plots(folder, predictions, metrics)
        if history:
            learning_curves(folder / "learning_curves.png", history)
        if any("relax_converged" in row for row in history):
            relaxation_curves(folder / "relaxation.png", history)


def metrics_table(metrics: Mapping[str, Mapping[str, float]]) -> str:
    """Errors as a table: one row per set of frames, RMSE with the MAE in brackets."""
    present = [c for c in COLUMNS if any(f"{c[0]}_rmse" in m for m in metrics.values())]
    rows = [["", *(c[1] for c in present)], ["", *(f"(MAE) {c[2]}" for c in present)]]
    for name, errors in metrics.items():
        row = [name]
        for key, _, _, factor in present:
            value, mean = errors.get(f"{key}_rmse"), errors.get(f"{key}_mae")
            row.append(
                "-" if value is None or mean is None else f"{factor * value:.4g} ({factor * mean:.4g})"
            )
        rows.append(row)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(w) if i == 0 else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def parity_plots(
    folder: Path, predictions: Mapping[str, Predictions], metrics: Mapping[str, Mapping[str, float]]
) -> list[Path]:
    """Predicted against reference values, one file for each of energy, forces and stress that is there."""
    written = []
    for quantity, unit in (("energy", "eV/atom"), ("forces", "eV/Å"), ("stress", "eV/Å³")):
        pairs = {name: _pair(p, quantity) for name, p in predictions.items()}
        drawn = {name: pair for name, pair in pairs.items() if pair is not None}
        if not drawn:
            continue
        figure = _figure(5.0, 5.0)
        axes = figure.add_subplot()
        for name, (reference, predicted) in drawn.items():
            key = "energy_per_atom" if quantity == "energy" else quantity
            rmse = 1000 * metrics[name][f"{key}_rmse"]
            every = -(-len(reference) // MOST_POINTS)
            label = f"{name}: {rmse:.3g} m{unit} RMSE"
            axes.plot(reference[::every], predicted[::every], ".", ms=3, alpha=0.6, label=label)
        low, high = axes.get_xlim()
        axes.plot([low, high], [low, high], "-", color="0.5", lw=0.8, zorder=0)
        axes.set_xlabel(f"reference {quantity}, {unit}" + _relative(quantity))
        axes.set_ylabel(f"predicted {quantity}, {unit}" + _relative(quantity))
        axes.legend(fontsize=8)
        written.append(_save(figure, folder / f"parity_{quantity}.png"))
    return written


def learning_curves(path: Path, history: Sequence[Mapping[str, float]]) -> Path:
    """Errors of training and validation frames against the epoch, logarithmic."""
    shown = [
        (key, title, unit, factor)
        for key, title, unit, factor in COLUMNS[1:]
        if any(f"{side}_{key}_rmse" in row for row in history for side in ("train", "valid"))
    ]
    figure = _figure(4.2 * max(1, len(shown)), 3.6)
    for i, (key, title, unit, factor) in enumerate(shown):
        axes: Axes = figure.add_subplot(1, len(shown), i + 1)
        for side in ("train", "valid"):
            rows = [
                (row["epoch"], factor * row[f"{side}_{key}_rmse"])
                for row in history
                if f"{side}_{key}_rmse" in row
            ]
            if rows:
                axes.plot(*zip(*rows, strict=True), label=side, lw=1.2)
        axes.set_yscale("log")
        axes.set_xlabel("epoch")
        axes.set_ylabel(f"{title}, {unit}")
        axes.legend(fontsize=8)
    return _save(figure, path)


def relaxation_curves(path: Path, history: Sequence[Mapping[str, float]]) -> Path:
    """How relaxations of held-out structures went, against the epoch."""
    panels = (
        (("relax_converged", "relax_same"), "fraction of structures"),
        (("relax_rmsd",), "RMSD to the minimum, Å"),
        (("relax_energy",), "energy above the minimum, eV/atom"),
        (("relax_steps",), "steps"),
    )
    figure = _figure(4.2 * len(panels), 3.6)
    labels = {"relax_converged": "converged", "relax_same": "converged to the minimum"}
    for i, (keys, title) in enumerate(panels):
        axes: Axes = figure.add_subplot(1, len(panels), i + 1)
        for key in keys:
            rows = [(row["epoch"], row[key]) for row in history if key in row]
            if rows:
                axes.plot(*zip(*rows, strict=True), ".-", label=labels.get(key), lw=1.2)
        axes.set_xlabel("epoch")
        axes.set_ylabel(title)
        if i == 0:
            axes.set_ylim(-0.02, 1.02)
            axes.legend(fontsize=8)
    return _save(figure, path)


def _pair(
    predictions: Predictions, quantity: str
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    if quantity == "energy":
        reference = predictions.reference_energy / predictions.num_atoms
        predicted = predictions.energy / predictions.num_atoms
    elif quantity == "forces":
        if predictions.forces is None:
            return None
        reference, predicted = predictions.reference_forces.ravel(), predictions.forces.ravel()
    else:
        if predictions.stress is None:
            return None
        reference, predicted = predictions.reference_stress.ravel(), predictions.stress.ravel()
    known = np.isfinite(reference) & np.isfinite(predicted)
    if not known.any():
        return None
    reference, predicted = reference[known], predicted[known]
    offset = reference.mean() if quantity == "energy" else 0.0
    return reference - offset, predicted - offset


def _relative(quantity: str) -> str:
    return ", less the mean of the set" if quantity == "energy" else ""


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> Path:
    temporary = path.with_name(f".{path.name}.tmp")
    figure.savefig(temporary, dpi=150, format="png")
    os.replace(temporary, path)
    return path
