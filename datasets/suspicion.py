"""Labels that are finite but look wrong: outliers, units, signs. Rules of thumb give warnings; forces and
stresses that fit the energies but for a sign or a unit are errors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

import numpy as np

from mlip.datasets.consistency import Slope, energy_jumps, force_slope, shear_order, stress_slope
from mlip.datasets.frames import Frame
from mlip.datasets.statistics import least_squares_e0
from mlip.units import GPA, HARTREE, HARTREE_PER_BOHR, KBAR, KCAL_PER_MOL, KJ_PER_MOL

Warned = tuple[Literal["error", "warning"], str, int, str]

_ENERGY_UNITS = {"hartree": 1 / HARTREE, "kcal/mol": 1 / KCAL_PER_MOL, "kJ/mol": 1 / KJ_PER_MOL}
_TYPICAL_FORCE = 20.0  # eV/Å, root mean square over components; thermal and strained data stay below
_TYPICAL_STRESS = 1.0  # eV/Å³, 160 GPa


def label_findings(frames: Sequence[Frame], *, e0s: Mapping[int, float] | None) -> Iterator[Warned]:
    """Severity, check, number of frames and example of everything that looks wrong.

    Args:
        frames: Frames with finite values and known elements.
        e0s: Energies of isolated atoms, eV.
    """
    bulk = [f for f in frames if not f.is_isolated_atom and len(f)]
    yield from _energy_units(frames)
    yield from _binding(bulk, e0s)
    yield from _outliers(bulk)
    yield from _magnitudes(bulk)
    yield from _slopes("forces", force_slope(bulk))
    yield from _slopes("stress", stress_slope(bulk))
    yield from _jumps(frames)
    yield from _order(bulk)


def scott_energy(atomic_numbers: np.ndarray) -> float:
    r"""All-electron energy of the separated atoms, eV, within a few per cent.

    $E(Z) = -0.768745 Z^{7/3} + \tfrac12 Z^2 - 0.269900 Z^{5/3}$ hartree.

    Source: Englert & Schwinger, Phys. Rev. A 29, 2339 (1984).
    """
    z = atomic_numbers.astype(np.float64)
    return float(np.sum(-0.768745 * z ** (7 / 3) + 0.5 * z**2 - 0.269900 * z ** (5 / 3))) * HARTREE


def _energy_units(frames: Sequence[Frame]) -> Iterator[Warned]:
    """All-electron energies in another unit than eV, seen from their ratio to the estimate for free atoms."""
    heavy = [f for f in frames if f.energy is not None and f.atomic_numbers.max() > 2]
    for unit, factor in _ENERGY_UNITS.items():
        hits = [
            f for f in heavy if abs((f.energy or 0.0) / scott_energy(f.atomic_numbers) / factor - 1) < 0.06
        ]
        if heavy and len(hits) > 0.9 * len(heavy):
            first = hits[0]
            yield (
                "warning",
                f"energies look like {unit}, not eV",
                len(hits),
                f"{first.formula} has {first.energy:.6g}; "
                f"about {scott_energy(first.atomic_numbers):.4g} eV was expected",
            )


def _binding(frames: Sequence[Frame], e0s: Mapping[int, float] | None) -> Iterator[Warned]:
    """Energies against isolated atoms: chemistry binds by less than 15 eV an atom."""
    if e0s is None:
        return
    missing = sorted({int(z) for f in frames for z in f.atomic_numbers} - set(e0s))
    if missing:
        yield "warning", "elements without an isolated atom", len(frames), f"no energy for Z = {missing[0]}"
    hits = []
    for i, f in enumerate(frames):
        if f.energy is None or any(int(z) not in e0s for z in f.atomic_numbers):
            continue
        binding = (f.energy - sum(e0s[int(z)] for z in f.atomic_numbers)) / len(f)
        if not -15 < binding < 5:
            hits.append(f"frame {i} ({f.formula}) is {binding:.4g} eV/atom above its isolated atoms")
    if hits:
        yield (
            "warning",
            "energies do not fit the isolated atoms (units? level of theory?)",
            len(hits),
            hits[0],
        )


def _outliers(frames: Sequence[Frame]) -> Iterator[Warned]:
    """Energies per atom far from what the composition predicts."""
    labelled = [(i, f) for i, f in enumerate(frames) if f.energy is not None]
    if len(labelled) < 10:
        return
    e0s, _ = least_squares_e0([f for _, f in labelled])
    left = np.array(
        [((f.energy or 0.0) - sum(e0s[int(z)] for z in f.atomic_numbers)) / len(f) for _, f in labelled]
    )
    centre = float(np.median(left))
    limit = max(15 * 1.4826 * float(np.median(np.abs(left - centre))), 0.5)
    far = np.flatnonzero(np.abs(left - centre) > limit)
    if len(far):
        k = int(far[np.argmax(np.abs(left[far] - centre))])
        i, f = labelled[k]
        yield (
            "warning",
            "outlying energies",
            len(far),
            f"frame {i} ({f.formula}) is {left[k] - centre:+.4g} eV/atom off the others",
        )


def _magnitudes(frames: Sequence[Frame]) -> Iterator[Warned]:
    """Forces and stresses of a size that another unit would explain."""
    forces = [f.forces for f in frames if f.forces is not None]
    if forces:
        rms = float(np.sqrt(np.mean(np.concatenate(forces) ** 2)))
        if rms > _TYPICAL_FORCE:
            yield (
                "warning",
                "forces look like another unit than eV/Å",
                len(forces),
                f"root mean square {rms:.4g} eV/Å",
            )
    large = [
        (i, f)
        for i, f in enumerate(frames)
        if f.stress is not None and np.abs(f.stress).max() > _TYPICAL_STRESS
    ]
    if large:
        i, f = large[0]
        text = f"frame {i}: {np.abs(f.stress).max():.4g} eV/Å³ is {np.abs(f.stress).max() / GPA:.4g} GPa"  # type: ignore[arg-type]
        yield "warning", "stresses look like another unit than eV/Å³", len(large), text


def _jumps(frames: Sequence[Frame]) -> Iterator[Warned]:
    """Steps of a trajectory whose energies do not fit the forces, where those of the others do."""
    jumps = energy_jumps(frames)
    if jumps:
        worst = max(jumps, key=lambda jump: abs(jump.energy))
        yield (
            "warning",
            "energies jump along a trajectory",
            len(jumps),
            f"frames {worst.first} and {worst.second}: {worst.energy:+.4g} eV beside what the forces say",
        )


def _order(frames: Sequence[Frame]) -> Iterator[Warned]:
    """Shear stresses in another order than yz xz xy."""
    order = shear_order(frames)
    if order is not None:
        yield (
            "warning",
            "shear stresses are in the wrong order",
            sum(f.stress is not None for f in frames),
            f"what is stored as yz xz xy fits the energies as {' '.join(order)}"
            + (", the order of VASP" if order == ("xy", "yz", "xz") else ""),
        )


def _slopes(label: str, slope: Slope | None) -> Iterator[Warned]:
    """Forces or stresses that are not the derivative of the energies."""
    if slope is None or abs(slope.correlation) < 0.95 or 0.7 < slope.slope < 1.4:
        return
    known = {
        "the sign is wrong": -1.0,
        "energies in hartree, forces in eV/Å": 1 / HARTREE,
        "energies in eV, forces in hartree/bohr": HARTREE_PER_BOHR,
        "energies in hartree, forces in hartree/bohr": HARTREE_PER_BOHR / HARTREE,
        "energies in eV, forces in kcal/mol/Å": KCAL_PER_MOL,
        "energies in kcal/mol, forces in eV/Å": 1 / KCAL_PER_MOL,
    }
    if label == "stress":
        known = {
            "the sign is wrong": -1.0,
            "stress in GPa": GPA,
            "stress in kbar": KBAR,
            "stress in kbar with VASP's sign": -KBAR,
            "stress in GPa with the wrong sign": -GPA,
        }
    reason = next((name for name, value in known.items() if abs(slope.slope / value - 1) < 0.15), None)
    yield (
        "warning" if reason is None else "error",
        f"{label} do not derive from the energies: {reason or 'units or sign?'}".replace(
            "stress do", "stresses do"
        ),
        slope.pairs,
        f"energy differences are {slope.slope:.4g} times those that the {label} predict (1 is expected)",
    )
