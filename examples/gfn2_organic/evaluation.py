"""What the model card reports, measured on the molecules that no part of the training has seen."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.units import invcm
from rdkit import Chem

from mlip.alignment import rmsd
from mlip.calculators.batch import BatchCalculator
from mlip.calculators.named import named_calculator
from mlip.calculators.surface import Evaluation
from mlip.datasets import Frame, H5Dataset
from mlip.neighbors import build_graph
from mlip.search.batch_relax import relax_many
from mlip.search.relax import relax
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
FMAX = 0.003
"""eV/Å, for model and reference alike: at 0.02 the minimum of a floppy molecule is uncertain by 0.1 Å."""
LOOSE = 0.02
"""eV/Å, to which the data are relaxed."""
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
    pairs = [p for p in ends.values() if len(p) == 2 and largest(p["minimum"]) <= LOOSE]
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
    reference = named_calculator("tblite")
    minima = [relax(bare(p["minimum"]), reference, fmax=FMAX, steps=500) for p in pairs]
    for outcome in relax_many(starts, surface, fmax=FMAX, steps=500):
        minimum, molecule = minima[outcome.place], pairs[outcome.place]["minimum"].molecule
        converged += outcome.status == "converged"
        if outcome.result is None:
            missed.append(molecule)
            continue
        distance = rmsd(outcome.result.atoms, minimum.atoms)
        distances.append(distance)
        steps.append(outcome.result.steps)
        if distance > REACHED:
            missed.append(molecule)
        else:
            energies.append(1000 * (outcome.result.energy - minimum.energy) / len(minimum.atoms))
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


def second_derivatives(surface: BatchCalculator, frames: Sequence[Frame]) -> dict[str, Any] | None:
    """Hessians of the head and by differentiation against those of the reference."""
    labelled = [f for f in frames if f.hessian is not None and len(f) > 2]
    if not labelled:
        return None
    potential, found = surface.potential, {}
    for method in ("direct", "autograd") if potential.has_direct_hessian else ("autograd",):
        rows = []
        for frame in labelled:
            graph = build_graph(bare(frame), potential.cutoff)
            rows.append(compared_hessians(frame, potential.hessian(graph, method=method)[0].double().numpy()))
        at_minima = [
            row for row, frame in zip(rows, labelled, strict=True) if frame.info["kind"] == "minimum"
        ]
        frequencies = np.concatenate([row["frequencies"] for row in at_minima])
        found[method] = {
            "mae_eV_per_A2": float(np.mean([row["mae"] for row in rows])),
            "lowest_mode_cosine": float(np.mean([row["cosine"] for row in rows])),
            "frequencies": len(frequencies),
            "frequency_mae": float(np.abs(frequencies).mean()),
            "frequency_rmse": float(np.sqrt(np.square(frequencies).mean())),
            "frequency_mean": float(frequencies.mean()),
            "zpe_mae_meV": float(np.mean([abs(row["zpe"]) for row in at_minima])),
        }
    return {"frames": len(labelled), "minima": len(at_minima), "methods": found}


def compared_hessians(frame: Frame, hessian: np.ndarray) -> dict[str, Any]:
    """Errors of a Hessian of one frame; frequencies in cm⁻¹, zero-point energy in meV."""
    theirs = np.asarray(frame.hessian, dtype=float)
    theirs = 0.5 * (theirs + theirs.T)
    mine, reference = (normal_modes(bare(frame), h) for h in (hessian, theirs))
    one, other = (m.mass_weighted[0].ravel() for m in (mine, reference))
    return {
        "mae": np.abs(hessian - theirs).mean(),
        "cosine": abs(one @ other),
        "frequencies": np.sort(mine.frequencies) - np.sort(reference.frequencies),
        "zpe": 500 * (zero_point(mine.frequencies) - zero_point(reference.frequencies)),
    }


def zero_point(frequencies: np.ndarray) -> float:
    """Sum of the quanta of the real vibrations, eV."""
    return float(frequencies[frequencies > 0].sum()) * invcm


def evaluate(model: str, folder: Path, *, limit: int, part: str = "test") -> dict[str, Any]:
    """What the model card says of errors, relaxations and second derivatives."""
    surface = BatchCalculator(model)
    data = H5Dataset(folder / f"{part}.h5")
    frames = [data[k] for k in range(len(data))]
    return {
        "part": part,
        "molecules": len({f.molecule for f in frames}),
        "scaffolds": len({f.group for f in frames}),
        "errors": errors(surface, frames),
        "relaxations": relaxations(surface, frames, limit),
        "second_derivatives": second_derivatives(surface, frames),
    }
