"""The picture of a run: energies, temperature, pressure over time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


def draw(table: dict[str, np.ndarray], path: Path, *, title: str) -> bool:
    """Draw the columns of `mlip.dynamics.records.read_table` into a PNG.

    Args:
        table: At least one row.
        path: Written under a temporary name first.
        title: Above the picture.

    Returns:
        False, and nothing is written, where Matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    time = table["time_fs"]
    unit = "fs"
    if time[-1] >= 10_000.0:
        time, unit = time / 1000.0, "ps"
    panels: list[tuple[str, list[tuple[str, np.ndarray]]]] = [
        (
            "energy − start, eV",
            [
                (name, table[f"{name}_eV"] - table[f"{name}_eV"][0])
                for name in ("potential", "total", "conserved")
            ],
        ),
        ("temperature, K", [("", table["temperature_K"])]),
        ("pressure, GPa", [("", table["pressure_GPa"])]),
        ("volume, Å³", [("", table["volume_A3"])]),
    ]
    panels = [
        (label, curves)
        for label, curves in panels
        if any(np.isfinite(values).any() for _, values in curves)
        and not (label.startswith("volume") and np.ptp(curves[0][1]) == 0.0)
    ]
    figure = Figure(figsize=(7.0, 2.2 * len(panels)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=10)
    for row, (label, curves) in enumerate(panels):
        axes = figure.add_subplot(len(panels), 1, row + 1)
        for name, values in curves:
            if np.isfinite(values).any():
                axes.plot(time, values, lw=0.9, label=name or None)
        if len(curves) > 1:
            axes.legend(fontsize=8)
        elif label.startswith(("temperature", "pressure")):
            axes.axhline(float(np.nanmean(curves[0][1])), color="0.5", lw=0.8, ls="--")
        axes.set_ylabel(label)
    axes.set_xlabel(f"time, {unit}")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, dpi=150, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return True
