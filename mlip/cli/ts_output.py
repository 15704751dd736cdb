"""What `mlip ts` writes: a folder for each reaction, and its report."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from mlip.calculators.electrons import charge_of, said_of, spin_of
from mlip.cli.structure_files import write_structures
from mlip.search.bonds import describe_changes
from mlip.search.reaction import Energies, Reaction, energies
from mlip.search.reaction_pictures import draw_profile
from mlip.search.results_database import check_settings
from mlip.search.vibrations import format_frequency
from mlip.units import KCAL_PER_MOL

if TYPE_CHECKING:
    from collections.abc import Mapping as Dictionary
    from pathlib import Path

    from ase import Atoms

    from mlip.cli.ts_inputs import Task
    from mlip.search.vibrations import Vibrations

RESULT: Final = "result.json"
"""Written last: a reaction whose folder holds it, with the same key, is not searched again."""

FILES: Final = ("reactant.xyz", "saddle.xyz", "product.xyz", "path.extxyz", "profile.png")
"""What else may be written."""


def key(task: Task, settings: Dictionary[str, Any]) -> str:
    """A digest of everything that the result depends on."""
    digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for atoms in task.structures:
        for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc, atoms.get_masses()):
            digest.update(np.ascontiguousarray(part).tobytes())
        digest.update(repr((charge_of(atoms), spin_of(atoms))).encode())
        digest.update(repr([constraint.todict() for constraint in atoms.constraints]).encode())
    return digest.hexdigest()


def earlier(folder: Path, wanted: str, settings: Dictionary[str, Any]) -> dict[str, Any] | None:
    """The report of an earlier run of the same search; None where there is none, or one of other structures.

    Raises:
        InputError: There is a report of another method or of other settings.
    """
    try:
        report = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(report, dict):
        return None
    held = report.get("settings", settings)
    check_settings(folder, held, settings)
    return report if report.get("key") == wanted else None


def write(
    task: Task, reaction: Reaction, folder: Path, *, wanted: str, settings: Dictionary[str, Any]
) -> dict[str, Any]:
    """Write structures, path, picture and, last, the report; return the report."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in (RESULT, *FILES):  # of another search, if there was one here
        (folder / name).unlink(missing_ok=True)
    files: dict[str, str] = {}
    for name in ("reactant", "saddle", "product"):
        point: Vibrations | None = getattr(reaction, name)
        if point is not None:
            frame = _frame(point.atoms, point.energy, label=name)
            write_structures(folder / f"{name}.xyz", [frame], format="extxyz")
            files[name] = f"{name}.xyz"
    frames = path_frames(reaction)
    if frames:
        write_structures(folder / "path.extxyz", frames, format="extxyz")
        draw_profile(reaction, folder / "profile.png", title=f"{task.name}: {reaction.verdict.kind}")
        files |= {"path": "path.extxyz", "profile": "profile.png"}
    report = _report(task, reaction, temperature=settings["temperature"])
    report |= {"settings": dict(settings), "files": files, "key": wanted}
    temporary = folder / f".{RESULT}.tmp"
    temporary.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    temporary.replace(folder / RESULT)
    return report


def path_frames(reaction: Reaction) -> list[Atoms]:
    """The path from reactant to product: down from the saddle on both sides; else the band."""
    if reaction.path is not None:
        path = reaction.path
        points = list(zip(path.structures, path.energies, path.arc, strict=True))
        if reaction.reversed_path:
            points = [(atoms, energy, -arc) for atoms, energy, arc in reversed(points)]
        return [_frame(atoms, float(energy), arc=float(arc)) for atoms, energy, arc in points]
    if reaction.band is not None:
        images = zip(reaction.band.images, reaction.band.energies, strict=True)
        return [_frame(atoms, float(energy), image=number) for number, (atoms, energy) in enumerate(images)]
    return []


def _frame(atoms: Atoms, energy: float, **info: object) -> Atoms:
    from ase.calculators.singlepoint import SinglePointCalculator

    frame: Atoms = atoms.copy()
    frame.info = {**said_of(atoms), **info}
    frame.calc = SinglePointCalculator(frame, energy=energy)
    return frame


def _report(task: Task, reaction: Reaction, *, temperature: float) -> dict[str, Any]:
    points = {name: getattr(reaction, name) for name in ("reactant", "saddle", "product")}
    known = {
        name: energies(point, temperature=temperature) for name, point in points.items() if point is not None
    }
    verdict = reaction.verdict
    return {
        "name": task.name,
        "sources": [str(path) for path in task.sources],
        "formula": task.structures[0].get_chemical_formula(),
        "atoms": len(task.structures[0]),
        "charge": charge_of(task.structures[0]),
        "spin": spin_of(task.structures[0]),
        "reached": verdict.reached,
        "verdict": verdict.kind,
        "verdict_text": verdict.text,
        "verdict_robust": verdict.robust,
        "same_conformers": verdict.same_conformers,
        "temperature_K": temperature,
        **_barriers(known),
        "imaginary_frequency_per_cm": None
        if reaction.saddle is None
        else float(reaction.saddle.modes.frequencies[0]),
        "points": {name: _point(points[name], known[name]) for name in known},
        "mapping": None
        if reaction.mapping is None
        else {
            "given": reaction.mapping.given,
            "order": reaction.mapping.order.tolist(),
            "bonds_broken": reaction.mapping.broken,
            "bonds_formed": reaction.mapping.formed,
        },
        "bond_changes": None
        if reaction.mapping is None
        else describe_changes(task.structures[0], reaction.mapping.broken, reaction.mapping.formed),
        "evaluations": reaction.evaluations,
        "hessians": reaction.hessians,
        "log": reaction.log,
    }


def _barriers(known: Dictionary[str, Energies]) -> dict[str, float | None]:
    """Differences of the saddle to both ends: potential, with zero-point energy, Gibbs; eV."""
    saddle, reactant, product = (known.get(name) for name in ("saddle", "reactant", "product"))

    def apart(upper: Energies | None, lower: Energies | None, what: str) -> float | None:
        if upper is None or lower is None:
            return None
        high, low = getattr(upper, what), getattr(lower, what)
        return None if high is None or low is None else high - low

    return {
        f"{kind}{name}_eV": apart(upper, lower, what)
        for name, what in (("barrier", "potential"), ("zpe_barrier", "corrected"), ("gibbs_barrier", "gibbs"))
        for kind, upper, lower in (("", saddle, reactant), ("reverse_", saddle, product))
    } | {"reaction_energy_eV": apart(product, reactant, "potential")}


def _point(point: Vibrations, found: Energies) -> dict[str, Any]:
    return {
        "energy_eV": point.energy,
        "zero_point_energy_eV": found.zero_point,
        "gibbs_energy_eV": found.gibbs,
        "gibbs_missing": found.why or None,
        "fmax_eV_per_A": point.fmax,
        "novelty": point.novelty,
        "hessian_method": point.hessian_method,
        "frequencies_per_cm": [round(float(frequency), 2) for frequency in point.modes.frequencies],
    }


def refused(task: Task) -> dict[str, Any]:
    """The report of a reaction that cannot be searched."""
    return {
        "name": task.name,
        "sources": [str(path) for path in task.sources],
        "reached": False,
        "verdict": "refused",
        "verdict_text": task.problem,
    }


def lines(report: Dictionary[str, Any]) -> list[str]:
    """The report for people."""
    text = [f"{report['name']}: {report['verdict']}: {report['verdict_text']}"]
    if report["bond_changes"]:
        order = "as given" if report["mapping"]["given"] else "as in the reactant"
        text.append(f"  asked for: {report['bond_changes']}, atoms numbered {order}")
    if report["verdict_robust"] is False:
        text.append("  bonds 5 % longer or shorter would make the verdict another")
    if report["imaginary_frequency_per_cm"] is not None:
        lowest = report["imaginary_frequency_per_cm"]
        what = "saddle" if lowest < 0.0 else "no saddle: lowest frequency"
        text.append(f"  {what}: {format_frequency(lowest)} cm⁻¹")
    gibbs = f"ΔG at {report['temperature_K']:g} K"
    for label, name in (
        ("barrier", "barrier"),
        ("with zero-point energy", "zpe_barrier"),
        (gibbs, "gibbs_barrier"),
    ):
        there, back = report[f"{name}_eV"], report[f"reverse_{name}_eV"]
        if there is not None:
            reverse = "" if back is None else f", reverse {_both_units(back)}"
            text.append(f"  {label}: {_both_units(there)}{reverse}")
    if report["reached"] and report["same_conformers"] is False:
        text.append("  from the ends that were given; the path leads to other conformers of them")
    novelties = {name: point.get("novelty") or 0.0 for name, point in report["points"].items()}
    if any(novelty > 1.0 for novelty in novelties.values()):
        listed = ", ".join(f"{name} {novelty:.2g}" for name, novelty in novelties.items())
        text.append(
            "  warning: surroundings unlike any that the model was trained on, these numbers may be far off "
            f"(novelty, where 1 is the boundary: {listed})"
        )
    return text


def _both_units(value: float) -> str:
    return f"{value:.3f} eV ({value / KCAL_PER_MOL:.1f} kcal/mol)"
