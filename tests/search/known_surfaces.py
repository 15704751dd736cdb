"""Surfaces with known minima, saddles and paths. Those in the plane move one atom in x and y, beside
three fixed ones that keep it from being free to turn; units are eV and Å by convention.

Values: computed once from the formulas, standard ones agreeing with the literature (Müller, Brown, Theor.
Chim. Acta 53, 75 (1979); LEPS and LEPS + harmonic oscillator as in Jónsson, Mills, Jacobsen, 1998).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian

from mlip.calculators.surface import Evaluation


class Plane:
    """V(x, y) as a `Surface` for one atom."""

    def __init__(self, function: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        self.function = function
        self.calls = 0

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        self.calls += 1
        return [self._one(atoms, hessian) for atoms in structures]

    def _one(self, atoms: Atoms, hessian: bool) -> Evaluation:
        point = torch.tensor(atoms.positions[MOVER, :2], dtype=torch.float64, requires_grad=True)
        energy = self.function(point[0], point[1])
        (gradient,) = torch.autograd.grad(energy, point, create_graph=True)
        forces, second = np.zeros((4, 3)), np.zeros((12, 12))
        forces[MOVER, :2] = -gradient.detach().numpy()
        if hessian:
            rows = [torch.autograd.grad(part, point, retain_graph=True)[0].numpy() for part in gradient]
            second[PLACES] = np.stack(rows)
        return Evaluation(
            energy=float(energy.detach()),
            forces=forces,
            hessian=second if hessian else None,
            hessian_method="autograd" if hessian else None,
        )


MOVER = 3
"""Number of the atom that moves."""

PLACES = np.ix_((9, 10), (9, 10))
"""Of its x and y in a Hessian."""


def at(x: float, y: float = 0.0, *, only_x: bool = False, mass: float = 1.0) -> Atoms:
    """The moving atom at (x, y)."""
    atoms = Atoms("He3H", positions=[[0, 0, -20], [2, 0, -20], [0, 2, -20], [x, y, 0]])
    atoms.set_masses([1.0, 1.0, 1.0, mass])
    atoms.set_constraint([FixAtoms([0, 1, 2]), FixCartesian(MOVER, [False, only_x, True])])
    return atoms


def where(atoms: Atoms) -> np.ndarray:
    """(x, y) of the moving atom."""
    return atoms.positions[MOVER, :2]


def muller_brown(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    terms = zip(
        (-200.0, -100.0, -170.0, 15.0),
        (-1.0, -1.0, -6.5, 0.7),
        (0.0, 0.0, 11.0, 0.6),
        (-10.0, -10.0, -6.5, 0.7),
        (1.0, 0.0, -0.5, -1.0),
        (0.0, 0.5, 1.5, 1.0),
        strict=True,
    )
    return sum(
        A * torch.exp(a * (x - u) ** 2 + b * (x - u) * (y - v) + c * (y - v) ** 2)
        for A, a, b, c, u, v in terms
    )


MULLER_BROWN_MINIMA = {
    "A": ((-0.558223635, 1.441725842), -146.6995172, (410.53, 4068.2)),
    "B": ((-0.050010823, 0.466694105), -80.7678181, (221.04, 1479.2)),
    "C": ((0.623499405, 0.028037759), -108.1667241, (543.84, 3005.4)),
}
MULLER_BROWN_SADDLES = {
    "AB": ((-0.822001559, 0.624312803), -40.6648435, (-750.86, 490.24)),
    "BC": ((0.212486582, 0.292988325), -72.2489401, (-735.25, 510.89)),
}


def ring(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Minima at (±1, 0), saddle at (0, 1) with V = 1 and h = −2, 50; the path of least energy is the unit
    circle, V = cos²s … sin², its length from the saddle π/2."""
    square = x * x + y * y
    return 25.0 * (torch.sqrt(square) - 1.0) ** 2 + y * y / square


def leps(ab: torch.Tensor, bc: torch.Tensor, *, b: float = 0.30) -> torch.Tensor:
    parameters = {"a": 0.05, "b": b, "c": 0.05}
    depth = {"a": 4.746, "b": 4.746, "c": 3.445}
    distance = {"a": ab, "b": bc, "c": ab + bc}
    coulomb, exchange = {}, {}
    for bond, r in distance.items():
        decay = torch.exp(-1.942 * (r - 0.742))
        scale = depth[bond] / (1.0 + parameters[bond])
        coulomb[bond] = 0.5 * scale * (1.5 * decay**2 - decay)
        exchange[bond] = 0.25 * scale * (decay**2 - 6.0 * decay)
    j = exchange
    squares = j["a"] ** 2 + j["b"] ** 2 + j["c"] ** 2
    return sum(coulomb.values()) - torch.sqrt(squares - j["a"] * j["b"] - j["b"] * j["c"] - j["a"] * j["c"])


def leps_oscillator(r: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    return leps(r, 3.742 - r, b=0.80) + 2.0 * 0.2025 * (r - (3.742 / 2.0 - x / 1.154)) ** 2


class LennardJones:
    """ε = σ = 1 as a `Surface`, with its Hessian."""

    def evaluate(
        self, structures: Sequence[Atoms], *, stress: bool = False, hessian: bool = False
    ) -> list[Evaluation]:
        return [self._one(atoms.positions, hessian) for atoms in structures]

    def _one(self, positions: np.ndarray, hessian: bool) -> Evaluation:
        number = len(positions)
        vectors = positions[:, None] - positions[None]
        r = np.linalg.norm(vectors, axis=-1) + np.diag(np.full(number, np.inf))
        first = -48.0 / r**13 + 24.0 / r**7
        forces = -(first / r)[:, :, None] * np.nan_to_num(vectors)
        second = None
        if hessian:
            unit = vectors / r[:, :, None]
            along = 624.0 / r**14 - 168.0 / r**8
            outer = unit[..., :, None] * unit[..., None, :]
            blocks = along[..., None, None] * outer + (first / r)[..., None, None] * (np.eye(3) - outer)
            whole = -blocks
            whole[np.arange(number), np.arange(number)] = blocks.sum(axis=1)
            second = whole.transpose(0, 2, 1, 3).reshape(3 * number, 3 * number)
        return Evaluation(
            energy=float(2.0 * (r**-12.0 - r**-6.0).sum()),
            forces=forces.sum(axis=1),
            hessian=second,
            hessian_method="direct" if hessian else None,
        )
