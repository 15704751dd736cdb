"""`mlip vibrations` of crystals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from mlip.calculators.surface import StructureError, as_surface
from mlip.cli.structure_files import check_writable
from mlip.cli.vibrations import (
    Outcome,
    Request,
    not_computed,
    progress,
    refuse_if_moving,
    step_text,
    write_relaxed,
)
from mlip.errors import InputError
from mlip.search.elasticity import ElasticConstants, elastic_constants, in_crystal_axes
from mlip.search.phonons import Phonons, check_phonons, phonons
from mlip.search.relax import RelaxResult, relax
from mlip.search.vibration_pictures import draw_phonons
from mlip.search.vibrations import format_frequency
from mlip.units import GPA, KJ_PER_MOL

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from mlip.calculators.surface import Surface

J_PER_MOL = KJ_PER_MOL / 1000.0

TEMPERATURES = tuple(range(0, 1001, 10))
"""K; of the curves."""


BOX_GAP = 5.0
"""Å; an empty layer thicker than this separates molecules, not planes of a crystal."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """Everything that was computed."""

    atoms: Atoms
    relaxation: RelaxResult | None
    pressure: float | None
    phonons: Phonons
    elastic: ElasticConstants | None
    files: list[str]


def plan(
    request: Request, *, supercell: str | None, dos_mesh: str | None, elastic: bool | None
) -> Callable[[BaseCalculator], Outcome]:
    """Check everything that can be checked before a calculator is there; what is returned computes."""
    options: dict[str, Any] = {
        "supercell": _three("supercell", supercell),
        "mesh": _three("dos-mesh", dos_mesh),
        "temperatures": sorted({*map(float, TEMPERATURES), request.temperature}),
    }
    if request.temperature <= 0.0:
        raise InputError(f"--temperature is {request.temperature:g} but must be positive, K")
    check_phonons(request.atoms, **options)
    picture, constants = request.file("-phonons.png"), request.file("-phonopy.yaml")
    for path in (picture, constants):
        check_writable(path, inputs=[request.source])

    def run(calculator: BaseCalculator) -> Outcome:
        surface = as_surface(calculator)
        atoms, relaxation = _at_rest(request, calculator, surface)
        if relaxation is not None and not relaxation.converged:
            return _not_at_rest(request, relaxation)
        with progress(f"{request.source}") as show:
            show("forces of displaced supercells")
            found = phonons(atoms, surface, **options)
            draw_phonons(found, picture, title=f"{request.source.name}: {found.primitive.symbols}")
            found.save(constants)
            show("elastic constants")
            moduli, missed = _elastic(atoms, surface) if elastic else (None, [])
        if relaxation is not None and not found.stable:
            missed.insert(0, f"not a minimum: phonons down to {_lowest(found)}")
        everything = _Found(
            atoms=atoms, relaxation=relaxation, pressure=_pressure(atoms, surface), phonons=found,
            elastic=moduli, files=[str(picture), str(constants)],
        )  # fmt: skip
        return Outcome(
            text="\n".join(_text(request, everything)),
            report=_report(request, everything, converged=not missed),
            missed="; ".join(missed),
        )

    return run


def _three(name: str, text: str | None) -> tuple[int, int, int] | None:
    """`"2 2 2"`, also with commas or ×; None for "auto"."""
    if text is None or text == "auto":
        return None
    words = text.replace(",", " ").replace("x", " ").replace("×", " ").split()
    if len(words) != 3 or not all(word.isdecimal() and int(word) > 0 for word in words):
        raise InputError(f'--{name} is "{text}" but must be three whole numbers such as "2 2 2", or auto')
    first, second, third = (int(word) for word in words)
    return first, second, third


def _at_rest(
    request: Request, calculator: BaseCalculator, surface: Surface
) -> tuple[Atoms, RelaxResult | None]:
    if not request.relax:
        refuse_if_moving(request, surface)
        return request.atoms, None
    with progress(f"{request.source}") as show:
        result = relax(
            request.atoms,
            calculator,
            cell=True,
            fmax=request.fmax,
            steps=request.steps,
            callback=lambda step: show(step_text(step)),
        )
    write_relaxed(request, result.atoms)
    return result.atoms, result


def _not_at_rest(request: Request, end: RelaxResult) -> Outcome:
    return Outcome(
        text=f"NOT relaxed after {end.steps} steps, fmax {end.fmax:.4f} eV/Å -> {request.relaxed_file}",
        report={"relaxation": _relaxation(request, end), "converged": False},
        missed=not_computed("phonons", end),
    )


def _elastic(atoms: Atoms, surface: Surface) -> tuple[ElasticConstants | None, list[str]]:
    """Elastic constants, or why there are none: the phonons are reported all the same."""
    try:
        return elastic_constants(atoms, surface), []
    except InputError as error:
        return None, [f"no elastic constants: {error}"]


def _pressure(atoms: Atoms, surface: Surface) -> float | None:
    """GPa; None where the calculator knows no stress."""
    try:
        (found,) = surface.evaluate([atoms], stress=True)
    except StructureError:
        return None
    return None if found.stress is None else -float(found.stress[:3].mean()) / GPA


def _text(request: Request, found: _Found) -> list[str]:
    waves, end = found.phonons, found.relaxation
    verdict = "no imaginary phonon" if waves.stable else "UNSTABLE"
    lines = [f"{found.atoms.symbols}, primitive cell {waves.primitive.symbols}, {verdict}"]
    if end is not None:
        lines.append(f"relaxed in {end.steps} steps, fmax {end.fmax:.4f} eV/Å -> {request.relaxed_file}")
    if not waves.stable:
        lines.append(
            f"lowest frequency {_lowest(waves)}; "
            f"{100 * waves.imaginary_fraction:.1f} % of the modes are imaginary, and left out below"
        )
    supercell = "×".join(str(n) for n in np.diag(waves.supercell))
    pressure = "" if found.pressure is None else f", pressure {found.pressure:.3f} GPa"
    lines.append(
        f"{waves.displaced} displaced supercell{'s' if waves.displaced > 1 else ''} {supercell} of "
        f"{waves.supercell_atoms} atoms, mesh {'×'.join(map(str, waves.mesh))}{pressure}"
    )
    atoms, now = len(waves.primitive), waves.temperatures.tolist().index(request.temperature)
    highest = max(segment.frequencies.max() for segment in waves.bands)
    lines += [
        f"highest frequency {highest:.1f} cm⁻¹, zero-point energy "
        f"{waves.zero_point_energy / atoms:.6f} eV for each atom",
        f"at {request.temperature:g} K, for each atom: heat capacity "
        f"{waves.heat_capacity[now] / J_PER_MOL / atoms:.3f} J/mol/K, entropy "
        f"{waves.entropy[now] / J_PER_MOL / atoms:.3f} J/mol/K, free energy "
        f"{waves.free_energy[now] / atoms:.6f} eV",
    ]
    if found.elastic is not None:
        lines += _elastic_lines(found.elastic, found.atoms)
    lines.append(f"-> {', '.join(found.files)}")
    if _is_molecule_in_a_box(found.atoms):
        lines.append(
            "note: this looks like a molecule in a box, treated as a crystal because it is periodic; for its "
            "thermochemistry make it free (pbc F F F)"
        )
    return lines


def _lowest(waves: Phonons) -> str:
    point = ", ".join(f"{value:.3g}" for value in waves.lowest_qpoint)
    return f"{format_frequency(waves.lowest_frequency)} cm⁻¹ at ({point})"


def _is_molecule_in_a_box(atoms: Atoms) -> bool:
    """Whether there is an empty layer of `BOX_GAP` across each lattice vector."""
    heights = 1.0 / np.linalg.norm(atoms.cell.reciprocal().array, axis=1)
    fractions = np.sort(atoms.get_scaled_positions(), axis=0)
    gaps = np.diff(np.concatenate([fractions, fractions[:1] + 1.0]), axis=0).max(axis=0)
    return len(atoms) > 1 and bool((gaps * heights > BOX_GAP).all())


def _elastic_lines(elastic: ElasticConstants, atoms: Atoms) -> list[str]:
    verdict = "positive definite" if elastic.stable else "NOT positive definite: the crystal is unstable"
    bulk, shear = elastic.bulk_bounds, elastic.shear_bounds
    return [
        f"elastic constants in the axes of the conventional cell, GPa (xx yy zz yz xz xy), {verdict}:",
        *(
            "".join(f"{value:10.2f}" for value in row)
            for row in in_crystal_axes(elastic.stiffness, atoms).round(2) + 0.0
        ),
        f"bulk modulus {elastic.bulk_modulus:.2f} GPa (Reuss {bulk[0]:.2f}, Voigt {bulk[1]:.2f}), "
        f"shear modulus {elastic.shear_modulus:.2f} GPa (Reuss {shear[0]:.2f}, Voigt {shear[1]:.2f})",
        f"Young's modulus {elastic.youngs_modulus:.2f} GPa, Poisson's ratio {elastic.poisson_ratio:.3f}",
    ]


def _relaxation(request: Request, end: RelaxResult | None) -> dict[str, Any] | None:
    if end is None:
        return None
    return {
        "converged": end.converged,
        "steps": end.steps,
        "fmax_eV_per_A": end.fmax,
        "pressure_GPa": end.pressure_gpa,
        "output": str(request.relaxed_file),
    }


def _report(request: Request, found: _Found, *, converged: bool) -> dict[str, Any]:
    waves = found.phonons
    return {
        "kind": "crystal",
        "formula": found.atoms.get_chemical_formula(),
        "atoms": len(found.atoms),
        "converged": converged,
        "relaxation": _relaxation(request, found.relaxation),
        "pressure_GPa": found.pressure,
        "primitive_formula": waves.primitive.get_chemical_formula(),
        "primitive_atoms": len(waves.primitive),
        "supercell": waves.supercell.tolist(),
        "supercell_atoms": waves.supercell_atoms,
        "displaced_supercells": waves.displaced,
        "stable": waves.stable,
        "lowest_frequency_per_cm": waves.lowest_frequency,
        "lowest_qpoint": list(waves.lowest_qpoint),
        "imaginary_fraction": waves.imaginary_fraction,
        "bands": [
            {
                "labels": list(segment.labels),
                "qpoints": segment.qpoints.tolist(),
                "distances_per_A": segment.distances.tolist(),
                "frequencies_per_cm": segment.frequencies.tolist(),
            }
            for segment in waves.bands
        ],
        "density_of_states": {
            "mesh": list(waves.mesh),
            "frequencies_per_cm": waves.dos_frequencies.tolist(),
            "states_cm": waves.dos.tolist(),
        },
        "thermal_per_primitive_cell": {
            "zero_point_energy_eV": waves.zero_point_energy,
            "temperatures_K": waves.temperatures.tolist(),
            "free_energy_eV": waves.free_energy.tolist(),
            "entropy_eV_per_K": waves.entropy.tolist(),
            "heat_capacity_eV_per_K": waves.heat_capacity.tolist(),
        },
        "elastic": None if found.elastic is None else _elastic_report(found.elastic, found.atoms),
        "files": found.files,
    }


def _elastic_report(elastic: ElasticConstants, atoms: Atoms) -> dict[str, Any]:
    return {
        "stiffness_GPa": elastic.stiffness.tolist(),
        "stiffness_in_crystal_axes_GPa": in_crystal_axes(elastic.stiffness, atoms).tolist(),
        "errors_GPa": elastic.errors.tolist(),
        "eigenvalues_GPa": elastic.eigenvalues.tolist(),
        "positive_definite": elastic.stable,
        "bulk_modulus_GPa": elastic.bulk_modulus,
        "shear_modulus_GPa": elastic.shear_modulus,
        "bulk_reuss_voigt_GPa": list(elastic.bulk_bounds),
        "shear_reuss_voigt_GPa": list(elastic.shear_bounds),
        "youngs_modulus_GPa": elastic.youngs_modulus,
        "poisson_ratio": elastic.poisson_ratio,
        "pressure_GPa": elastic.pressure,
        "strain": elastic.strain,
    }
