"""Pictures of vibrations: the spectrum of a molecule, the phonons of a crystal."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.units import KJ_PER_MOL

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from mlip.search.phonons import Phonons
    from mlip.search.vibrations import NormalModes

WIDTH: Final = 10.0
"""cm⁻¹; half width of the lines that are drawn over the sticks."""


def draw_spectrum(modes: NormalModes, path: Path, *, title: str) -> None:
    """A stick for each mode and the density of modes; there are no intensities, which need dipoles.

    Args:
        modes: What to draw.
        path: Of the PNG, written under a temporary name first.
        title: Above the picture.
    """
    figure = _figure(7.0, 3.0)
    axes = figure.add_subplot()
    frequencies = modes.frequencies
    real = frequencies >= 0.0
    for chosen, colour, label in ((real, "C0", "real"), (~real, "C3", "imaginary")):
        if chosen.any():
            axes.vlines(frequencies[chosen], 0.0, 1.0, color=colour, lw=1.0, label=label)
    left = min(0.0, float(frequencies.min(initial=0.0)) - 50.0 if not real.all() else 0.0)
    right = max(500.0, float(frequencies.max(initial=0.0)) * 1.05)
    grid = np.linspace(left, right, 2000)
    density = (1.0 / (1.0 + ((grid[:, None] - frequencies) / WIDTH) ** 2)).sum(axis=1)
    axes.plot(grid, density, color="0.4", lw=0.8)
    if not real.all():
        axes.axvline(0.0, color="0.7", lw=0.6)
        axes.legend(fontsize=8)
    axes.set(xlim=(left, right), ylim=(0.0, None), xlabel="frequency, cm⁻¹", ylabel="modes", title=title)
    axes.title.set_fontsize(10)
    _save(figure, path)


def draw_phonons(phonons: Phonons, path: Path, *, title: str) -> None:
    """Dispersion, density of states and heat capacity.

    Args:
        phonons: What to draw.
        path: Of the PNG, written under a temporary name first.
        title: Above the picture.
    """
    figure = _figure(11.0, 4.0)
    figure.suptitle(title, fontsize=10)
    bands, states, heat = figure.subplots(1, 3, width_ratios=(3.0, 1.0, 1.6))
    _draw_bands(bands, phonons)
    states.sharey(bands)
    states.plot(phonons.dos, phonons.dos_frequencies, color="C0", lw=0.9)
    states.fill_betweenx(phonons.dos_frequencies, 0.0, phonons.dos, color="C0", alpha=0.2)
    states.set(xlim=(0.0, None), xlabel="states per cm⁻¹")
    states.tick_params(labelleft=False)
    atoms = len(phonons.primitive)
    heat.plot(phonons.temperatures, phonons.heat_capacity / KJ_PER_MOL * 1000.0 / atoms, color="C0", lw=1.2)
    heat.axhline(3.0 * 8.314462618, color="0.7", lw=0.6, ls="--")
    heat.set(xlabel="temperature, K", ylabel="heat capacity, J/mol/K per atom", ylim=(0.0, None))
    heat.set_xlim(float(phonons.temperatures.min()), float(phonons.temperatures.max()) or 1.0)
    _save(figure, path)


def _draw_bands(axes: Axes, phonons: Phonons) -> None:
    marks: list[tuple[float, str]] = []
    for segment in phonons.bands:
        axes.plot(segment.distances, segment.frequencies, color="C0", lw=0.9)
        for at, label in zip(segment.distances[[0, -1]], segment.labels, strict=True):
            name = "Γ" if label == "G" else label
            if marks and abs(marks[-1][0] - at) < 1e-9:
                known = marks.pop()[1]
                name = known if known == name else f"{known}|{name}"
            marks.append((float(at), name))
    for at, _ in marks:
        axes.axvline(at, color="0.8", lw=0.6)
    axes.axhline(0.0, color="0.6", lw=0.6)
    if not phonons.stable:
        axes.axhspan(phonons.lowest_frequency * 1.1, 0.0, color="C3", alpha=0.1)
        axes.text(0.01, 0.01, "imaginary below zero", color="C3", fontsize=8, transform=axes.transAxes)
    axes.set_xticks([at for at, _ in marks], [name for _, name in marks])
    bottom = 0.0 if phonons.stable else phonons.lowest_frequency * 1.1
    axes.set(xlim=(marks[0][0], marks[-1][0]), ylim=(bottom, None), ylabel="frequency, cm⁻¹")


def _figure(width: float, height: float) -> Figure:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: Figure, path: Path) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, dpi=150, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
