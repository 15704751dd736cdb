"""Labelled frames of one molecule or cluster: GFN2-xTB relaxations and structures scattered about them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator as AseCalculator
from ase.calculators.calculator import all_changes
from ase.data import atomic_masses, covalent_radii, vdw_radii
from ase.optimize import BFGS
from ase.units import Bohr, Hartree, fs, invcm, kB
from numpy.typing import NDArray
from rdkit import Chem
from rdkit.Chem import AllChem
from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds
from tblite.interface import Calculator, Result

Array = NDArray[np.float64]

SCF_ACCURACY = 0.1  # tblite's scale: 1 is its default; forces then agree with tighter settings to 1e-4 eV/Å
MAX_FORCE = 30.0  # eV/Å, largest force norm kept
FMAX = 0.02  # eV/Å, relaxations stop here
MAX_STEPS = 200


class SCFError(RuntimeError):
    """The self-consistent charges did not converge, or gave numbers that are not finite."""


class Rejected(RuntimeError):
    """A whole molecule is dropped; the message says why."""


class Labeller:
    """GFN2-xTB energy (eV) and forces (eV/Å) of one fixed set of atoms, closed shell and neutral."""

    def __init__(self, numbers: NDArray[np.int64]) -> None:
        spread = np.arange(3.0 * len(numbers)).reshape(-1, 3)
        self._calculator = Calculator("GFN2-xTB", numbers, spread)
        self._calculator.set("verbosity", 0)
        self._previous: Result | None = None

    def __call__(
        self, positions: Array, *, restart: bool = False, accuracy: float = SCF_ACCURACY
    ) -> tuple[float, Array]:
        """Energy and forces; `restart` begins from the charges of the previous call: faster nearby."""
        self._calculator.set("accuracy", accuracy)
        self._calculator.update(positions=positions / Bohr)
        try:
            result = self._calculator.singlepoint(self._previous if restart else None)
        except RuntimeError as error:
            raise SCFError(str(error)) from error
        energy, forces = float(result.get("energy")) * Hartree, -result.get("gradient") * (Hartree / Bohr)
        if not (np.isfinite(energy) and np.isfinite(forces).all()):
            raise SCFError("energy or forces are not finite")
        self._previous = result
        return energy, forces


class _AseLabeller(AseCalculator):
    """`Labeller` for ASE's optimizer, remembering each structure that it labelled."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012

    def __init__(self, label: Labeller) -> None:
        super().__init__()
        self.labeller = label
        self.path: list[tuple[Array, float, Array]] = []

    def calculate(self, atoms=None, properties=None, system_changes=all_changes):  # type: ignore[no-untyped-def]
        super().calculate(atoms, properties, system_changes)
        positions = atoms.positions.copy()
        energy, forces = self.labeller(positions, restart=bool(self.path))
        self.results = {"energy": energy, "forces": forces}
        self.path.append((positions, energy, forces))


@dataclass
class Collector:
    """Frames of one molecule so far, and what was discarded and why."""

    label: Labeller
    kinds: list[str] = field(default_factory=list)
    positions: list[Array] = field(default_factory=list)
    energies: list[float] = field(default_factory=list)
    forces: list[Array] = field(default_factory=list)
    discarded: Counter[str] = field(default_factory=Counter)

    def keep(self, kind: str, positions: Array, energy: float, forces: Array) -> None:
        if np.linalg.norm(forces, axis=1).max() > MAX_FORCE:
            self.discarded["force above limit"] += 1
            return
        self.kinds.append(kind)
        self.positions.append(positions)
        self.energies.append(energy)
        self.forces.append(forces)

    def add(self, kind: str, positions: Array) -> None:
        try:
            energy, forces = self.label(positions)
        except SCFError:
            self.discarded["SCF failure"] += 1
            return
        self.keep(kind, positions, energy, forces)


@dataclass(frozen=True)
class Topology:
    """Atoms and bonds that a molecule or cluster is meant to have."""

    numbers: NDArray[np.int64]
    bonds: NDArray[np.int64]
    adjacency: NDArray[np.bool_]
    ring_bond: NDArray[np.bool_]

    @staticmethod
    def of(mol: Chem.Mol) -> Topology:
        numbers = np.array([a.GetAtomicNum() for a in mol.GetAtoms()])
        bonds = np.array([(b.GetBeginAtomIdx(), b.GetEndAtomIdx()) for b in mol.GetBonds()]).reshape(-1, 2)
        adjacency = np.zeros((len(numbers),) * 2, dtype=bool)
        adjacency[bonds[:, 0], bonds[:, 1]] = adjacency[bonds[:, 1], bonds[:, 0]] = True
        ring_bond = np.array([b.IsInRing() for b in mol.GetBonds()], dtype=bool)
        return Topology(numbers, bonds, adjacency, ring_bond)

    def intact(self, positions: Array) -> bool:
        """Bonds are shorter than 1.3, other pairs longer than 1.15 times the sum of covalent radii."""
        radii = covalent_radii[self.numbers]
        ratio = distances(positions) / (radii[:, None] + radii)
        apart = ~self.adjacency & ~np.eye(len(radii), dtype=bool)
        return bool((ratio[self.adjacency] < 1.3).all() and (ratio[apart] > 1.15).all())

    def side(self, bond: int) -> NDArray[np.int64]:
        """Atoms on the second end of a bond that is not in a ring."""
        begin, end = self.bonds[bond]
        seen, stack = {int(begin), int(end)}, [int(end)]
        while stack:
            for k in np.flatnonzero(self.adjacency[stack.pop()]):
                if int(k) not in seen:
                    seen.add(int(k))
                    stack.append(int(k))
        return np.array(sorted(seen - {int(begin)}))


def distances(positions: Array) -> Array:
    return np.asarray(np.linalg.norm(positions[:, None] - positions, axis=-1))


def relax(
    label: Labeller, numbers: NDArray[np.int64], positions: Array, *, steps: int = MAX_STEPS
) -> list[tuple[Array, float, Array]]:
    """Every structure of a BFGS relaxation, first to last, with energy and forces."""
    calculator = _AseLabeller(label)
    atoms = Atoms(numbers, positions, calculator=calculator)
    BFGS(atoms, logfile=None, maxstep=0.1).run(fmax=FMAX, steps=steps)
    return calculator.path


def thermal_modes(label: Labeller, numbers: NDArray[np.int64], minimum: Array) -> Callable[..., Array]:
    """A sampler of the harmonic Boltzmann distribution about a minimum.

    The Hessian comes from one-sided force differences, good enough to draw structures from. Frequencies
    below 100 cm⁻¹ (and imaginary ones) count as 100 cm⁻¹, so soft modes stay near the harmonic region.
    """
    step, size = 0.01, 3 * len(numbers)
    hessian = np.empty((size, size))
    reference = label(minimum, accuracy=1.0)[1]
    for k in range(size):
        shift = np.zeros(size)
        shift[k] = step
        forces = label(minimum + shift.reshape(-1, 3), restart=True, accuracy=1.0)[1]
        hessian[k] = (reference - forces).ravel() / step
    root_mass = np.sqrt(np.repeat(atomic_masses[numbers], 3))
    scaled = (hessian + hessian.T) / (2 * root_mass[:, None] * root_mass)
    centred = minimum - np.average(minimum, axis=0, weights=atomic_masses[numbers])
    rigid = [np.tile(axis, len(numbers)) for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    left, weights, _ = np.linalg.svd(np.array(rigid).T * root_mass[:, None], full_matrices=True)
    vibrations = left[:, int((weights > 1e-6 * weights[0]).sum()) :]
    eigenvalues, modes = np.linalg.eigh(vibrations.T @ scaled @ vibrations)
    # hbar omega = 100 cm⁻¹, with hbar in eV times the ASE time unit (Å sqrt(amu/eV))
    floor = (100 * invcm / (6.582119569e-16 * 1e15 * fs)) ** 2
    omega = np.sqrt(np.maximum(eigenvalues, floor))

    def sample(rng: np.random.Generator, temperature: float) -> Array:
        q = np.sqrt(kB * temperature) / omega * rng.normal(size=len(omega))
        return minimum + ((vibrations @ (modes @ q)) / root_mass).reshape(-1, 3)

    return sample


def stretched(rng: np.random.Generator, topology: Topology, positions: Array) -> Array:
    """One random bond at 0.75 to 1.6 times its length (0.85 to 1.3 in rings), all atoms slightly rattled."""
    bond = int(rng.integers(len(topology.bonds)))
    begin, end = topology.bonds[bond]
    vector = positions[end] - positions[begin]
    out = positions + rng.normal(scale=0.02, size=positions.shape)
    if topology.ring_bond[bond]:
        change = vector * (rng.uniform(0.85, 1.3) - 1)
        out[begin] -= change / 2
        out[end] += change / 2
    else:
        out[topology.side(bond)] += vector * (rng.uniform(0.75, 1.6) - 1)
    return out


def twisted(rng: np.random.Generator, topology: Topology, positions: Array) -> Array | None:
    """A random rotation about a random bond that is not in a ring; None without one, or if atoms clash."""
    degree = topology.adjacency.sum(axis=1)
    movable = [b for b in np.flatnonzero(~topology.ring_bond) if (degree[topology.bonds[b]] > 1).all()]
    if not movable:
        return None
    bond = int(rng.choice(movable))
    begin, end = topology.bonds[bond]
    axis = positions[end] - positions[begin]
    side = topology.side(bond)
    out = positions + rng.normal(scale=0.02, size=positions.shape)
    out[side] = rotated(out[side] - positions[end], axis, rng.uniform(0, 2 * np.pi)) + positions[end]
    radii = covalent_radii[topology.numbers]
    ratio = distances(out) / (radii[:, None] + radii) + 10 * np.eye(len(radii))
    return out if (ratio[~topology.adjacency] > 1.1).all() else None


def rotated(points: Array, axis: Array, angle: float) -> Array:
    """Rodrigues' formula: points turned about an axis through the origin."""
    n = axis / np.linalg.norm(axis)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points * cos + np.cross(n, points) * sin + np.outer(points @ n, n) * (1 - cos))


def embed(smiles: str, conformers: int, seed: int) -> tuple[Chem.Mol, list[Array]]:
    """ETKDG conformers, cleaned up with MMFF where it has parameters."""
    mol = Chem.AddHs(Chem.MolFromSmiles(smiles))
    if mol.GetNumAtoms() == 1:
        return mol, [np.zeros((1, 3))]
    parameters = AllChem.ETKDGv3()
    parameters.randomSeed = seed
    ids = list(AllChem.EmbedMultipleConfs(mol, conformers, parameters))
    if not ids:
        parameters.useRandomCoords = True
        ids = list(AllChem.EmbedMultipleConfs(mol, conformers, parameters))
    if not ids:
        raise Rejected("no conformer")
    if AllChem.MMFFHasAllMoleculeParams(mol):
        AllChem.MMFFOptimizeMoleculeConfs(mol, maxIters=200)
    return mol, [np.array(mol.GetConformer(i).GetPositions()) for i in ids]


def molecule_frames(smiles: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], Collector]:
    """About 17 frames of one molecule (up to 30 for the smallest). Raises: Rejected, SCFError."""
    heavy = Chem.MolFromSmiles(smiles).GetNumHeavyAtoms()
    flexible = CalcNumRotatableBonds(Chem.MolFromSmiles(smiles)) > 0
    mol, conformers = embed(smiles, 2 if flexible else 1, int(rng.integers(2**31 - 1)))
    topology = Topology.of(mol)
    out = Collector(Labeller(topology.numbers))
    minima: list[Array] = []
    for number, start in enumerate(conformers):
        path = relax(out.label, topology.numbers, start, steps=40 if number else MAX_STEPS)
        last = path[-1][0]
        if not topology.intact(last):
            if number == 0:
                raise Rejected("connectivity changed")
            continue
        fingerprints = [np.sort(distances(m).ravel()) for m in minima]
        if any(np.abs(np.sort(distances(last).ravel()) - f).max() < 0.1 for f in fingerprints):
            continue
        minima.append(last)
        out.keep("start", *path[0])
        if number == 0 and len(path) > 3:
            out.keep("path", *path[len(path) // 3])
        out.keep("minimum", *path[-1])
    scatter(out, topology, minima, rng, generous=heavy <= 3)
    return topology.numbers, out


def scatter(
    out: Collector, topology: Topology, minima: list[Array], rng: np.random.Generator, *, generous: bool
) -> None:
    """Rattled, thermal, stretched and twisted structures about the minima."""

    def anywhere() -> Array:
        return minima[int(rng.integers(len(minima)))]

    shape = minima[0].shape
    for _ in range(5 if generous else 3):
        sigma = 0.03 * (0.25 / 0.03) ** (rng.uniform() ** 1.5)  # Å, small ones more often
        out.add("rattled", anywhere() + rng.normal(scale=sigma, size=shape))
    sample = thermal_modes(out.label, topology.numbers, minima[0])
    for temperature in (150, 300, 300, 600, 1000) * (2 if generous else 1):
        out.add("thermal", sample(rng, temperature))
    for _ in range(8 if generous else 3):
        out.add("stretched", stretched(rng, topology, anywhere()))
    twist = twisted(rng, topology, anywhere())
    if twist is not None:
        out.add("twisted", twist)


def place(rng: np.random.Generator, parts: list[tuple[NDArray[np.int64], Array]], contact: float) -> Array:
    """Parts at random orientations, brought together from random directions.

    Each stops where an atom comes within `contact` times the sum of van der Waals radii of a placed one.
    """
    placed, placed_radii = np.zeros((0, 3)), np.zeros(0)
    for numbers, positions in parts:
        turned = (positions - positions.mean(axis=0)) @ np.linalg.qr(rng.normal(size=(3, 3)))[0].T
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        radii = vdw_radii[numbers]
        if len(placed):
            separation = 20.0
            while separation > 0:
                pair = np.linalg.norm(turned[:, None] + separation * direction - placed, axis=-1)
                if (pair / (radii[:, None] + placed_radii)).min() < contact:
                    break
                separation -= 0.02
            turned = turned + separation * direction
        placed, placed_radii = np.concatenate([placed, turned]), np.concatenate([placed_radii, radii])
    return placed


def cluster_frames(smiles: str, rng: np.random.Generator) -> tuple[NDArray[np.int64], Collector]:
    """About 22 frames of a cluster: random placements, relaxations, and the parts pulled apart."""
    parts: list[tuple[NDArray[np.int64], Array]] = []
    for part in smiles.split("."):
        mol, conformers = embed(part, 1, int(rng.integers(2**31 - 1)))
        numbers = Topology.of(mol).numbers
        parts.append((numbers, relax(Labeller(numbers), numbers, conformers[0])[-1][0]))
    topology = Topology.of(Chem.AddHs(Chem.MolFromSmiles(smiles.split(".")[0])))
    for part in smiles.split(".")[1:]:
        topology = joined(topology, Topology.of(Chem.AddHs(Chem.MolFromSmiles(part))))
    out = Collector(Labeller(topology.numbers))
    for contact in np.linspace(0.6, 1.5, 8):
        placed = place(rng, parts, float(contact))
        out.add("placed", placed + rng.normal(scale=0.03, size=placed.shape))
    minima: list[tuple[float, Array]] = []
    for _ in range(2):
        path = relax(out.label, topology.numbers, place(rng, parts, 0.8))
        if not topology.intact(path[-1][0]):
            out.discarded["cluster relaxation changed connectivity"] += 1
            continue
        minima.append((path[-1][1], path[-1][0]))
        for kind, k in (("start", 0), ("path", len(path) // 3), ("minimum", -1)):
            out.keep(kind, *path[k])
    if not minima:
        raise Rejected("connectivity changed")
    best = min(minima, key=lambda m: m[0])[1]
    first = len(parts[0][0])
    axis = best[first:].mean(axis=0) - best[:first].mean(axis=0)
    axis /= np.linalg.norm(axis)
    for shift in (-0.3, -0.15, 0.2, 0.5, 1.0, 2.0):
        moved = best + rng.normal(scale=0.02, size=best.shape)
        moved[first:] += axis * shift * rng.uniform(0.8, 1.2)
        out.add("pulled", moved)
    for _ in range(4):
        out.add("rattled", best + rng.normal(scale=rng.uniform(0.03, 0.12), size=best.shape))
    return topology.numbers, out


def joined(a: Topology, b: Topology) -> Topology:
    """Both topologies side by side, no bond between them."""
    n, size = len(a.numbers), len(a.numbers) + len(b.numbers)
    adjacency = np.zeros((size, size), dtype=bool)
    adjacency[:n, :n], adjacency[n:, n:] = a.adjacency, b.adjacency
    return Topology(
        np.concatenate([a.numbers, b.numbers]),
        np.concatenate([a.bonds, b.bonds + n]),
        adjacency,
        np.concatenate([a.ring_bond, b.ring_bond]),
    )
