"""The energy profile of a reaction as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from mlip.search.reaction import Reaction


def draw_profile(reaction: Reaction, path: Path, *, title: str) -> None:
    """The path down from the saddle on both sides, with the relaxed ends; where there is none, the band.

    Args:
        reaction: With a path or a band.
        path: Of the PNG, written under a temporary name first.
        title: Above the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    zero = reaction.reactant.energy if reaction.reactant is not None else None
    if reaction.path is not None:
        arc, energies = reaction.path.arc, reaction.path.energies
        if reaction.reversed_path:
            arc, energies = -arc[::-1], energies[::-1]
        zero = float(energies[0]) if zero is None else zero
        axes.plot(arc, energies - zero, color="C0", lw=1.4, marker=".", ms=3.0)
        ends = (float(arc[0]), reaction.reactant), (float(arc[-1]), reaction.product)
        for (at, point), aside in zip(ends, (-1.0, 1.0), strict=True):
            if point is not None:
                width = 0.06 * float(np.ptp(arc))
                axes.plot((at, at + aside * width), [point.energy - zero] * 2, color="0.3", lw=2.0)
        axes.set_xlabel("reaction path, Å√amu")
    elif reaction.band is not None:
        energies = reaction.band.energies
        zero = float(energies[0]) if zero is None else zero
        axes.plot(np.arange(len(energies)), energies - zero, color="C0", lw=1.2, marker="o", ms=4.0)
        axes.set_xlabel("image of the band")
    if reaction.saddle is not None and zero is not None:
        axes.axhline(reaction.saddle.energy - zero, color="0.8", lw=0.8, ls="--", zorder=0)
    axes.set_ylabel("energy above the reactant, eV")
    axes.set_title(title, fontsize=10)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        figure.savefig(temporary, dpi=150, format="png")
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
