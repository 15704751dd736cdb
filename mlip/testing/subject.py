"""What is tested: a potential, or an ASE calculator made to look like one, and the structures for it."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from torch import Tensor

from mlip.graph import AtomGraph
from mlip.neighbors import build_graph

RELATIVE = {torch.float64: 1e-10, torch.float32: 2e-4}
"""Largest relative change of a result under a transformation that should not change it."""

Output = Mapping[str, Tensor]


@runtime_checkable
class PotentialLike(Protocol):
    """The part of `mlip.potential.Potential` that the checks use."""

    species: tuple[int, ...]
    cutoff: float

    @property
    def dtype(self) -> torch.dtype: ...

    def __call__(
        self, graph: AtomGraph, *, forces: bool = True, stress: bool = False
    ) -> dict[str, Tensor]: ...


class CalculatorAdapter:
    """An ASE calculator as a `PotentialLike`; it makes its own neighbour list and ignores the edges.

    Args:
        calculator: Gives energy, energies, forces and stress.
        species: Atomic numbers that it knows.
        cutoff: Å; the distance beyond which pairs of atoms do not interact.
        dtype: Precision of the calculator.
    """

    def __init__(
        self, calculator: Any, species: tuple[int, ...], cutoff: float, *, dtype: torch.dtype = torch.float64
    ) -> None:
        self.calculator, self.species, self.cutoff, self._dtype = calculator, species, cutoff, dtype

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    def __call__(self, graph: AtomGraph, *, forces: bool = True, stress: bool = False) -> dict[str, Tensor]:
        """Structure by structure."""
        wanted = {"energy": "energy", "node_energy": "energies"}
        wanted |= {"forces": "forces"} if forces else {}
        wanted |= {"stress": "stress"} if stress else {}
        rows: dict[str, list[np.ndarray]] = {key: [] for key in wanted}
        numbers, positions, cell, pbc, batch = (
            t.numpy() for t in (graph.atomic_numbers, graph.positions, graph.cell, graph.pbc, graph.batch)
        )
        for k in range(graph.num_structures):
            mine = batch == k
            atoms = Atoms(numbers[mine], positions[mine], cell=cell[k], pbc=pbc[k])
            atoms.calc = self.calculator
            for key, name in wanted.items():
                if name == "stress":
                    rows[key].append(atoms.get_stress(voigt=False)[None])
                else:
                    rows[key].append(np.atleast_1d(self.calculator.get_property(name, atoms)))
        return {
            key: torch.from_numpy(np.concatenate(value)).to(torch.float64 if "energy" in key else self._dtype)
            for key, value in rows.items()
        }


@dataclasses.dataclass(frozen=True)
class Subject:
    """A potential under test and the structures on which it is tested."""

    potential: PotentialLike
    structures: dict[str, Atoms]
    isolated: Float[Tensor, " atomic_numbers"]
    """Energy of the isolated atom of each species, eV."""
    reflections: bool
    seed: int

    @property
    def tolerance(self) -> float:
        return RELATIVE[self.potential.dtype]

    def random(self, salt: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, salt])

    def graph(self, atoms: Atoms, *, margin: float = 0.0) -> AtomGraph:
        return build_graph(atoms, self.potential.cutoff + margin)

    def run(self, atoms: Atoms) -> Output:
        """Everything that is defined for this structure."""
        return self.potential(self.graph(atoms), forces=True, stress=bool(atoms.cell.rank == 3))

    def binding(self, output: Output, atoms: Atoms) -> Tensor:
        """Energy of each atom less that of the isolated atom, eV."""
        return output["node_energy"] - self.isolated[torch.as_tensor(atoms.numbers)]

    def expect(self, what: str, got: Output, expected: Output, atoms: Atoms) -> None:
        """Every result of `got` equals that of `expected`, relative to its largest number."""
        bonds = self.binding(expected, atoms).abs().sum() + 1e-4 * self.isolated[atoms.numbers].abs().sum()
        for key, value in expected.items():
            scale = float(bonds if "energy" in key else value.abs().max())
            difference = float((got[key] - value).abs().max()) if value.numel() else 0.0
            floor = 1e-13 if self.potential.dtype == torch.float64 else 1e-5
            limit = self.tolerance * scale + floor
            if not difference <= limit:
                raise AssertionError(f"{what}: `{key}` differs by {difference:.3e} but may by {limit:.3e}")


def demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _direction(random: np.random.Generator) -> Float[np.ndarray, " 3"]:
    vector = random.normal(size=3)
    return vector / np.linalg.norm(vector)


def sample_structures(species: Sequence[int], cutoff: float, *, seed: int = 0) -> dict[str, Atoms]:
    """Disordered structures of these elements: a molecule, a triclinic crystal smaller than the cutoff, a
    slab with atoms outside its cell, and a wire; one short bond in each, no two atoms closer than three
    quarters of a bond."""
    random = np.random.default_rng(seed)
    radius = max(float(covalent_radii[z]) for z in species)
    edge = max(2.6 * radius, 0.55 * cutoff)
    cell = edge * (np.eye(3) + 0.25 * random.uniform(-1, 1, (3, 3)))
    flat = np.array([cell[0], cell[1], 3.0 * cell[2]])
    kinds = {
        "molecule": (7, np.zeros((3, 3)), (False, False, False), 1.5 * edge),
        "crystal": (3, cell, (True, True, True), edge),
        "slab": (4, flat, (True, True, False), edge),
        "wire": (3, np.diag([0.0, 0.0, edge]), (False, False, True), edge),
    }
    structures = {}
    for name, (count, lattice, pbc, box) in kinds.items():
        numbers = [species[k % len(species)] for k in range(count)]
        radii = covalent_radii[numbers[:2]]
        atoms = Atoms(numbers, np.zeros((count, 3)), cell=lattice, pbc=pbc)
        for k in range(count):
            for attempt in itertools.count():
                trial = atoms[: k + 1]
                trial.positions[k] = random.uniform(0, box * (1 + attempt / 200), 3)
                if k == 1:  # one short bond
                    trial.positions[k] = trial.positions[0] + 0.85 * radii.sum() * _direction(random)
                near = 0.75 * (covalent_radii[numbers[k]] + covalent_radii[trial.numbers])
                distances = trial.get_distances(k, range(k + 1), mic=any(pbc))
                if (distances >= near)[:k].all():
                    break
            atoms.positions[k] = trial.positions[k]
        structures[name] = atoms
    structures["slab"].positions[0] += 2 * flat[0] - flat[1]
    return structures
