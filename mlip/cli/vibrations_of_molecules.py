"""`mlip vibrations` of molecules, and of structures held by fixed atoms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mlip.calculators.surface import as_surface
from mlip.cli.structure_files import check_writable, write_structures
from mlip.cli.vibrations import (
    Outcome,
    Request,
    not_computed,
    progress,
    refuse_if_moving,
    step_text,
    write_relaxed,
)
from mlip.search.minimum import Minimum, minimum
from mlip.search.thermochemistry import IdealGas, Oscillators, check_thermochemistry, ideal_gas, oscillators
from mlip.search.vibration_pictures import draw_spectrum
from mlip.search.vibrations import Vibrations, animate, format_frequency, vibrations
from mlip.units import KJ_PER_MOL

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase.calculators.calculator import BaseCalculator

J_PER_MOL = KJ_PER_MOL / 1000.0

PER_LINE = 8
"""Frequencies in a line of text."""


def plan(
    request: Request,
    *,
    is_gas: bool,
    pressure: float | None,
    symmetry: int | None,
    multiplicity: int | None,
) -> Callable[[BaseCalculator], Outcome]:
    """Check everything that can be checked before a calculator is there; what is returned computes."""
    options: dict[str, Any] = {
        "pressure": 1.0 if pressure is None else pressure, "symmetry": symmetry, "multiplicity": multiplicity
    }  # fmt: skip
    check_thermochemistry(request.atoms, temperature=request.temperature, **options)
    for ending in ("-modes.xyz", "-spectrum.png"):
        check_writable(request.file(ending), inputs=[request.source])

    def run(calculator: BaseCalculator) -> Outcome:
        reached, found = _vibrations(request, calculator)
        if found is None:
            return _not_at_rest(request, reached)
        thermo: IdealGas | Oscillators = (
            ideal_gas(found, temperature=request.temperature, **options)
            if is_gas
            else oscillators(found, temperature=request.temperature)
        )
        files = _write(request, found)
        missed = ""
        if reached is not None and not reached.converged:
            missed = f"not a minimum after {reached.escapes} sidesteps: {_verdict(found)}"
        return Outcome(
            text="\n".join(_text(request, reached, found, thermo, files)),
            report=_report(request, reached, found, thermo, files),
            missed=missed,
        )

    return run


def _vibrations(request: Request, calculator: BaseCalculator) -> tuple[Minimum | None, Vibrations | None]:
    if request.relax:
        with progress(f"{request.source}") as show:
            reached = minimum(
                request.atoms,
                calculator,
                fmax=request.fmax,
                steps=request.steps,
                hessian_method=request.hessian,
                callback=lambda step: show(step_text(step)),
            )
        write_relaxed(request, reached.relaxation.atoms)
        return reached, reached.vibrations
    surface = as_surface(calculator)
    refuse_if_moving(request, surface)
    with progress(f"{request.source}") as show:
        show("Hessian")
        return None, vibrations(request.atoms, surface, hessian_method=request.hessian)


def _not_at_rest(request: Request, reached: Minimum | None) -> Outcome:
    assert reached is not None
    end = reached.relaxation
    said = f"NOT relaxed after {end.steps} steps, fmax {end.fmax:.4f} eV/Å -> {request.relaxed_file}"
    return Outcome(
        text=said,
        report={"relaxation": _relaxation(request, reached), "converged": False},
        missed=not_computed("vibrations", end),
    )


def _write(request: Request, found: Vibrations) -> list[str]:
    if not len(found.modes.frequencies):
        return []
    animation, picture = request.file("-modes.xyz"), request.file("-spectrum.png")
    write_structures(animation, animate(found.atoms, found.modes), format="extxyz")
    draw_spectrum(found.modes, picture, title=f"{request.source.name}: {found.atoms.get_chemical_formula()}")
    return [str(animation), str(picture)]


def _verdict(found: Vibrations) -> str:
    modes = found.modes
    if modes.num_imaginary == 0:
        return "minimum, no imaginary frequency"
    listed = ", ".join(format_frequency(value) for value in modes.frequencies[: modes.num_imaginary])
    return f"saddle of index {modes.num_imaginary}, imaginary: {listed} cm⁻¹"


def _text(
    request: Request,
    reached: Minimum | None,
    found: Vibrations,
    thermo: IdealGas | Oscillators,
    files: list[str],
) -> list[str]:
    modes = found.modes
    lines = [f"{found.atoms.get_chemical_formula()}, {_verdict(found)}"]
    if reached is not None:
        escaped = f", {reached.escapes} saddles were left" if reached.escapes > 1 else ", a saddle was left"
        end = reached.relaxation
        lines.append(
            f"relaxed in {end.steps} steps{escaped if reached.escapes else ''}, fmax {end.fmax:.4f} eV/Å "
            f"-> {request.relaxed_file}"
        )
    lines.append(f"energy {found.energy:.6f} eV, zero-point energy {modes.zero_point_energy:.6f} eV")
    lines.append(
        f"Hessian {found.hessian_method}; {modes.translations} translations and {modes.rotations} rotations "
        "projected out; masses are averages over isotopes"
    )
    if len(modes.frequencies):
        lines.append("frequencies, cm⁻¹:")
        words = [f"{format_frequency(value):>9}" for value in modes.frequencies]
        lines += ["".join(words[k : k + PER_LINE]) for k in range(0, len(words), PER_LINE)]
    lines += _gas_lines(thermo) if isinstance(thermo, IdealGas) else _oscillator_lines(thermo)
    if files:
        lines.append(f"-> {', '.join(files)}")
    return lines


def _gas_lines(gas: IdealGas) -> list[str]:
    group = gas.point_group
    given = "given; " if gas.symmetry_number != group.symmetry_number else ""
    rows = [
        ("enthalpy H", gas.enthalpy, gas.enthalpy, "eV", 6),
        ("entropy S", gas.entropy / J_PER_MOL, gas.quasi_rrho_entropy / J_PER_MOL, "J/mol/K", 3),
        ("Gibbs energy G", gas.gibbs_energy, gas.quasi_rrho_gibbs_energy, "eV", 6),
        ("G − energy", gas.gibbs_energy - gas.energy, gas.quasi_rrho_gibbs_energy - gas.energy, "eV", 6),
    ]
    left_out = f"; {gas.left_out} imaginary left out" if gas.left_out else ""
    return [
        f"ideal gas at {gas.temperature:g} K and {gas.pressure:g} bar, symmetry number "
        f"{gas.symmetry_number} ({given}{group.name} within {group.tolerance:.2g} Å), "
        f"multiplicity {gas.multiplicity}{left_out}:",
        f"{'':17}{'RRHO':>17}{'quasi-RRHO':>17}",
        *(f"{name:<17}{plain:17.{n}f}{quasi:17.{n}f}  {unit}" for name, plain, quasi, unit, n in rows),
    ]


def _oscillator_lines(bound: Oscillators) -> list[str]:
    left_out = f"; {bound.left_out} imaginary left out" if bound.left_out else ""
    return [
        f"bound oscillators at {bound.temperature:g} K{left_out}:",
        f"internal energy {bound.internal_energy:.6f} eV, entropy {bound.entropy / J_PER_MOL:.3f} J/mol/K, "
        f"free energy {bound.free_energy:.6f} eV ({bound.free_energy - bound.energy:+.6f})",
    ]


def _relaxation(request: Request, reached: Minimum | None) -> dict[str, Any] | None:
    if reached is None:
        return None
    end = reached.relaxation
    return {
        "converged": end.converged,
        "steps": end.steps,
        "saddles_left": reached.escapes,
        "fmax_eV_per_A": end.fmax,
        "output": str(request.relaxed_file),
    }


def _report(
    request: Request,
    reached: Minimum | None,
    found: Vibrations,
    thermo: IdealGas | Oscillators,
    files: list[str],
) -> dict[str, Any]:
    modes = found.modes
    return {
        "kind": "molecule" if isinstance(thermo, IdealGas) else "bound",
        "formula": found.atoms.get_chemical_formula(),
        "atoms": len(found.atoms),
        "converged": reached is None or reached.converged,
        "relaxation": _relaxation(request, reached),
        "energy_eV": found.energy,
        "fmax_eV_per_A": found.fmax,
        "novelty": found.novelty,
        "hessian_method": found.hessian_method,
        "translations": modes.translations,
        "rotations": modes.rotations,
        "imaginary": modes.num_imaginary,
        "frequencies_per_cm": modes.frequencies.tolist(),
        "reduced_masses_amu": modes.reduced_masses.tolist(),
        "zero_point_energy_eV": modes.zero_point_energy,
        "thermochemistry": _gas_report(thermo)
        if isinstance(thermo, IdealGas)
        else _oscillator_report(thermo),
        "files": files,
    }


def _gas_report(gas: IdealGas) -> dict[str, Any]:
    return {
        "temperature_K": gas.temperature,
        "pressure_bar": gas.pressure,
        "geometry": gas.geometry,
        "symmetry_number": gas.symmetry_number,
        "point_group": gas.point_group.name,
        "symmetry_tolerance_A": gas.point_group.tolerance,
        "multiplicity": gas.multiplicity,
        "imaginary_left_out": gas.left_out,
        "enthalpy_eV": gas.enthalpy,
        "entropy_eV_per_K": gas.entropy,
        "gibbs_energy_eV": gas.gibbs_energy,
        "translational_entropy_eV_per_K": gas.translational_entropy,
        "rotational_entropy_eV_per_K": gas.rotational_entropy,
        "electronic_entropy_eV_per_K": gas.electronic_entropy,
        "vibrational_entropy_eV_per_K": gas.vibrational_entropy,
        "quasi_rrho_vibrational_entropy_eV_per_K": gas.quasi_rrho_vibrational_entropy,
        "quasi_rrho_entropy_eV_per_K": gas.quasi_rrho_entropy,
        "quasi_rrho_gibbs_energy_eV": gas.quasi_rrho_gibbs_energy,
    }


def _oscillator_report(bound: Oscillators) -> dict[str, Any]:
    return {
        "temperature_K": bound.temperature,
        "imaginary_left_out": bound.left_out,
        "internal_energy_eV": bound.internal_energy,
        "entropy_eV_per_K": bound.entropy,
        "free_energy_eV": bound.free_energy,
    }
