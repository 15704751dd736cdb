"""What the model card reports, measured on the molecules that no part of the training has seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from rdkit import Chem

from mlip.alignment import rmsd
from mlip.calculators.batch import BatchCalculator
from mlip.calculators.surface import Evaluation
from mlip.datasets import Frame, H5Dataset
from mlip.dynamics.run import molecular_dynamics
from mlip.dynamics.settings import DynamicsSettings
from mlip.search.batch_relax import relax_many
from mlip.search.vibrations import normal_modes

FAMILIES = {
    "relaxations": ("start", "relaxation", "minimum"),
    "thermal and rattled": ("thermal", "dynamics", "rattled"),
    "distorted": ("stretched", "twisted"),
    "reacting": ("pushed", "released", "product", "path"),
    "complexes": ("placed", "pulled"),
}
"""Kinds of frames by what they are for."""

DIKETONE = Chem.MolFromSmarts("[#6](=O)-[#6]-[#6]=O"), Chem.MolFromSmarts("[OH]-[#6]=[#6]-[#6]=O")
"""1,3-dicarbonyls, and their enols: as in acetylacetone."""

REACHED = 0.05
"""Å; a relaxation that ends this close to the reference minimum has reached it."""
FMAX = 0.02
BATCH = 256


class Errors:
    """Sums of errors of one set of frames."""

    def __init__(self) -> None:
        self.energies: list[float] = []
        self.forces: list[np.ndarray] = []

    def add(self, frame: Frame, found: Evaluation, atoms: np.ndarray | None = None) -> None:
        """A frame, or the forces on some atoms of it."""
        difference = found.forces - frame.forces
        if atoms is None:
            self.energies.append((found.energy - (frame.energy or 0.0)) / len(frame))
            self.forces.append(difference.ravel())
        else:
            self.forces.append(difference[atoms].ravel())

    def as_dict(self) -> dict[str, float]:
        """meV/atom and meV/Å."""
        out: dict[str, float] = {}
        if self.energies:
            energies = 1000 * np.array(self.energies)
            out |= {"frames": len(energies), "energy_mae": float(np.abs(energies).mean())}
            out["energy_rmse"] = float(np.sqrt((energies**2).mean()))
        forces = 1000 * np.concatenate(self.forces)
        return out | {
            "forces_mae": float(np.abs(forces).mean()),
            "forces_rmse": float(np.sqrt((forces**2).mean())),
        }


def batches(frames: Sequence[Frame]) -> Iterator[list[Frame]]:
    """Frames by size, so that a batch holds alike ones."""
    order = sorted(range(len(frames)), key=lambda k: len(frames[k]))
    for k in range(0, len(order), BATCH):
        yield [frames[i] for i in order[k : k + BATCH]]


def bare(frame: Frame) -> Atoms:
    """The structure without labels."""
    return Atoms(numbers=frame.atomic_numbers, positions=frame.positions)


def errors(surface: BatchCalculator, frames: Sequence[Frame]) -> dict[str, Any]:
    """Of energies and forces: of all frames, by family, by kind, by element, and of 1,3-dicarbonyls."""
    sums: dict[str, dict[str, Errors]] = defaultdict(lambda: defaultdict(Errors))
    family = {kind: name for name, kinds in FAMILIES.items() for kind in kinds}
    like_acac = {m: is_dicarbonyl(m) for m in {f.molecule for f in frames}}
    for batch in batches(frames):
        for frame, found in zip(batch, surface.evaluate([bare(f) for f in batch]), strict=True):
            kind = str(frame.info["kind"])
            sums["all"]["all"].add(frame, found)
            sums["by_kind"][kind].add(frame, found)
            sums["by_family"]["complexes" if "." in frame.molecule else family[kind]].add(frame, found)
            for number in np.unique(frame.atomic_numbers):
                mine = frame.atomic_numbers == number
                sums["by_element"][chemical_symbols[number]].add(frame, found, mine)
            if like_acac[frame.molecule]:
                sums["dicarbonyls"]["all"].add(frame, found)
    out = {name: {key: s.as_dict() for key, s in parts.items()} for name, parts in sums.items()}
    return {**out, "all": out["all"]["all"], "dicarbonyls": out.get("dicarbonyls", {}).get("all")}


def is_dicarbonyl(smiles: str) -> bool:
    """Whether a molecule is like acetylacetone."""
    mol = Chem.MolFromSmiles(smiles)
    return any(mol.HasSubstructMatch(pattern) for pattern in DIKETONE)


def relaxations(surface: BatchCalculator, frames: Sequence[Frame], limit: int) -> dict[str, Any]:
    """Relaxations from the starts of the reference's, against the minima that those reached."""
    ends: dict[str, dict[str, Frame]] = defaultdict(dict)
    for frame in frames:
        if frame.info["kind"] in ("start", "minimum") and frame.trajectory:
            ends[frame.trajectory][str(frame.info["kind"])] = frame
    # a reference that ran out of steps is no minimum
    pairs = [p for p in ends.values() if len(p) == 2 and largest(p["minimum"]) <= FMAX]
    out = {}
    for name in ("molecules", "complexes"):
        chosen = [p for p in pairs if ("." in p["start"].molecule) == (name == "complexes")][:limit]
        if chosen:
            out[name] = compared(surface, chosen)
    return out


def compared(surface: BatchCalculator, pairs: Sequence[dict[str, Frame]]) -> dict[str, Any]:
    """Share of relaxations that reach the minimum of the reference, and what happens to the others."""
    distances, energies, steps, missed, converged = [], [], [], [], 0
    starts = [bare(p["start"]) for p in pairs]
    for outcome in relax_many(starts, surface, fmax=FMAX, steps=500):
        minimum = pairs[outcome.place]["minimum"]
        converged += outcome.status == "converged"
        if outcome.result is None:
            missed.append(minimum.molecule)
            continue
        distance = rmsd(outcome.result.atoms, bare(minimum))
        distances.append(distance)
        steps.append(outcome.result.steps)
        if distance > REACHED:
            missed.append(minimum.molecule)
        else:
            energies.append(1000 * (outcome.result.energy - (minimum.energy or 0.0)) / len(minimum))
    reached = int((np.array(distances) <= REACHED).sum())
    return {
        "relaxations": len(pairs),
        "converged": converged,
        "reached": reached,
        "reached_share": reached / len(pairs),
        "rmsd_median": float(np.median(distances)),
        "rmsd_90_percent": float(np.percentile(distances, 90)),
        "energy_mae_of_reached": float(np.abs(energies).mean()) if energies else None,
        "steps_mean": float(np.mean(steps)),
        "missed": missed,
    }


def largest(frame: Frame) -> float:
    """Norm of the largest force, eV/Å."""
    return float(np.linalg.norm(frame.forces, axis=1).max()) if frame.forces is not None else np.inf


def frequencies(surface: BatchCalculator, frames: Sequence[Frame]) -> dict[str, Any] | None:
    """Harmonic frequencies at minima of the reference against those of its own Hessians, mode by mode."""
    minima = [f for f in frames if f.hessian is not None and f.info["kind"] == "minimum" and len(f) > 1]
    if not minima:
        return None
    differences, method = [], None
    for frame in minima:
        atoms = bare(frame)
        (found,) = surface.evaluate([atoms], hessian=True)
        method = found.hessian_method
        theirs = np.asarray(frame.hessian, dtype=float)
        reference = normal_modes(atoms, 0.5 * (theirs + theirs.T)).frequencies
        differences.append(np.sort(normal_modes(atoms, found.hessian).frequencies) - np.sort(reference))
    flat = np.concatenate(differences)
    worst = sorted(range(len(minima)), key=lambda k: -float(np.abs(differences[k]).mean()))[:10]
    return {
        "molecules": len(minima),
        "modes": len(flat),
        "method": method,
        "mae": float(np.abs(flat).mean()),
        "rmse": float(np.sqrt((flat**2).mean())),
        "mean": float(flat.mean()),
        "worst": {minima[k].molecule: float(np.abs(differences[k]).mean()) for k in worst},
    }


def trajectories(
    model: str, frames: Sequence[Frame], *, count: int, picoseconds: float
) -> dict[str, Any] | None:
    """Dynamics at constant energy from 300 K, from minima of different molecules."""
    from mlip.calculators import MLIPCalculator

    minima = {f.molecule: f for f in frames if f.info["kind"] == "minimum" and len(f) > 2}
    chosen = list(minima.values())[:count]
    if not chosen or picoseconds <= 0:
        return None
    calculator = MLIPCalculator(model)
    drifts, stopped = [], []
    for k, frame in enumerate(chosen):
        settings = DynamicsSettings(ensemble="nve", temperature=300.0, timestep=0.5, seed=k)
        steps = round(picoseconds * 2000)
        result = molecular_dynamics(bare(frame), calculator, settings, steps=steps, interval=200)
        if result.status == "runaway":
            stopped.append(frame.molecule)
        elif result.drift is not None:
            drifts.append(1000 * abs(result.drift) * picoseconds)
    return {
        "molecules": len(chosen),
        "picoseconds": picoseconds,
        "exploded": stopped,
        "drift_largest_meV_per_atom": max(drifts, default=None),
    }


def evaluate(
    model: str, folder: Path, *, limit: int, nve: int, picoseconds: float, part: str = "test"
) -> dict[str, Any]:
    """Everything in the model card that is measured."""
    surface = BatchCalculator(model)
    data = H5Dataset(folder / f"{part}.h5")
    frames = [data[k] for k in range(len(data))]
    return {
        "part": part,
        "molecules": len({f.molecule for f in frames}),
        "scaffolds": len({f.group for f in frames}),
        "errors": errors(surface, frames),
        "relaxations": relaxations(surface, frames, limit),
        "frequencies": frequencies(surface, frames),
        "dynamics": trajectories(model, frames, count=nve, picoseconds=picoseconds),
    }
