r"""A force field without atom types, good for nothing but its Hessian: where a search starts that has no
better.

Springs on all distances, angles and dihedrals, whose constants fall off smoothly with the distances involved:
$k_{ij} = 0.45\rho_{ij}$, $k_{ijk} = 0.15\rho_{ij}\rho_{jk}$, $k_{ijkl} =
0.005\rho_{ij}\rho_{jk}\rho_{kl}$ in atomic units, $\rho_{ij} = \exp(\alpha_{ij}(r_{0,ij}^2 - r_{ij}^2))$
with α and r₀ by rows of the periodic table.

Source: Lindh, Bernhardsson, Karlström, Malmqvist, Chem. Phys. Lett. 241, 423 (1995).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.units import BOHR, HARTREE

if TYPE_CHECKING:
    from ase import Atoms
    from jaxtyping import Float64

STRETCH: Final = 0.45 * HARTREE / BOHR**2
"""eV/Å²; of a distance."""

BEND: Final = 0.15 * HARTREE
"""eV; of an angle."""

TORSION: Final = 0.005 * HARTREE
"""eV; of a dihedral."""

FLOOR: Final = 0.1
"""eV/Å², added to all directions: what holds fragments that no spring reaches."""

EXPONENTS: Final = np.array([[1.0, 0.3949, 0.3949], [0.3949, 0.28, 0.28], [0.3949, 0.28, 0.28]]) / BOHR**2
LENGTHS: Final = np.array([[1.35, 2.10, 2.53], [2.10, 2.87, 3.40], [2.53, 3.40, 3.40]]) * BOHR

WEAKEST: Final = 0.02
"""Springs whose ρ is smaller are left out."""

STRONGEST: Final = 1.5
"""Bound of ρ, so that atoms too close do not freeze."""

STRAIGHT: Final = 0.03
"""Squared sine of an angle below which it is bent in two directions, and no dihedral goes through it."""


def model_hessian(atoms: Atoms) -> Float64[np.ndarray, "coordinates coordinates"]:
    """The Hessian of the model at `atoms`, positive definite, eV/Å²; periodic images count."""
    size = 3 * len(atoms)
    hessian = np.zeros((size, size))
    i, j, vectors, rho = _springs(atoms)
    first = i < j
    half = np.where(i == j, 0.5, 1.0)  # an atom and its own image: listed from both sides
    keep = first | (i == j)
    unit = vectors / np.linalg.norm(vectors, axis=1)[:, None]
    _add(hessian, [(i[keep], -unit[keep]), (j[keep], unit[keep])], (STRETCH * half * rho)[keep])
    _add_bends(hessian, i, j, vectors, rho)
    _add_torsions(hessian, i, j, vectors, rho)
    return hessian + FLOOR * np.eye(size)


def _springs(
    atoms: Atoms,
) -> tuple[
    Float64[np.ndarray, " springs"],
    Float64[np.ndarray, " springs"],
    Float64[np.ndarray, "springs 3"],
    Float64[np.ndarray, " springs"],
]:
    """Pairs in both orders: i, j, the vector from i to j, ρ."""
    from ase.neighborlist import neighbor_list

    row = np.where(atoms.numbers <= 2, 0, np.where(atoms.numbers <= 10, 1, 2))
    reach = float(np.sqrt(LENGTHS**2 - np.log(WEAKEST) / EXPONENTS).max())
    bare = atoms.copy()
    bare.set_constraint()
    i, j, vectors = neighbor_list("ijD", bare, reach)
    squares = (vectors**2).sum(axis=1)
    rho = np.exp(EXPONENTS[row[i], row[j]] * (LENGTHS[row[i], row[j]] ** 2 - squares))
    kept = (rho > WEAKEST) & (squares > 1e-4)
    return i[kept], j[kept], vectors[kept], np.minimum(rho[kept], STRONGEST)


def _add(
    hessian: Float64[np.ndarray, "coordinates coordinates"],
    derivative: list[tuple[Float64[np.ndarray, " terms"], Float64[np.ndarray, "terms 3"]]],
    constants: Float64[np.ndarray, " terms"],
) -> None:
    """Add Σ k b bᵀ in place; each b is given as the parts (atom, derivative with respect to its position)."""
    size = len(hessian)
    rows = np.concatenate([3 * atom[:, None] + np.arange(3) for atom, _ in derivative], axis=1)
    parts = np.concatenate([part for _, part in derivative], axis=1)
    if len(rows) == 0:
        return
    flat = rows[:, :, None] * size + rows[:, None, :]
    blocks = constants[:, None, None] * parts[:, :, None] * parts[:, None, :]
    hessian += np.bincount(flat.ravel(), blocks.ravel(), size * size).reshape(size, size)


def _neighbour_pairs(i: np.ndarray, rho: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Places (a, b), a < b, of springs that begin at the same atom."""
    first, second = [], []
    order = np.argsort(i, kind="stable")
    for group in np.split(order, np.flatnonzero(np.diff(i[order])) + 1):
        a, b = np.triu_indices(len(group), 1)
        first.append(group[a])
        second.append(group[b])
    a, b = np.concatenate(first), np.concatenate(second)
    kept = rho[a] * rho[b] > WEAKEST
    return a[kept], b[kept]


def _add_bends(
    hessian: np.ndarray, i: np.ndarray, j: np.ndarray, vectors: np.ndarray, rho: np.ndarray
) -> None:
    if len(i) == 0:
        return
    a, b = _neighbour_pairs(i, rho)
    lengths = np.linalg.norm(vectors, axis=1)
    unit = vectors / lengths[:, None]
    cosine = (unit[a] * unit[b]).sum(axis=1)
    constants = BEND * rho[a] * rho[b]
    sine = np.sqrt(np.maximum(1.0 - cosine**2, STRAIGHT))[:, None]
    towards_a = (cosine[:, None] * unit[a] - unit[b]) / (sine * lengths[a][:, None])
    towards_b = (cosine[:, None] * unit[b] - unit[a]) / (sine * lengths[b][:, None])
    bent = 1.0 - cosine**2 >= STRAIGHT
    centre, both = i[a], -(towards_a + towards_b)
    parts = [(j[a], towards_a), (j[b], towards_b), (centre, both)]
    _add(hessian, [(atom[bent], part[bent]) for atom, part in parts], constants[bent])
    straight = ~bent & (cosine < 0.0)
    a, b, constants = a[straight], b[straight], constants[straight]
    normal = np.cross(unit[a], np.eye(3)[np.abs(unit[a]).argmin(axis=1)])
    normal /= np.linalg.norm(normal, axis=1)[:, None]
    for across in (normal, np.cross(unit[a], normal)):
        towards_a, towards_b = across / lengths[a][:, None], across / lengths[b][:, None]
        _add(hessian, [(j[a], towards_a), (j[b], towards_b), (i[a], -(towards_a + towards_b))], constants)


def _add_torsions(
    hessian: np.ndarray, i: np.ndarray, j: np.ndarray, vectors: np.ndarray, rho: np.ndarray
) -> None:
    """Dihedrals a–b–c–d around every spring b–c, each once.

    Source: Wilson, Decius, Cross, Molecular Vibrations (1955), section 4-1, for the derivatives.
    """
    starts = {atom: np.flatnonzero(i == atom) for atom in np.unique(i)}
    middles, firsts, lasts = [], [], []
    for centre in np.flatnonzero(i < j):
        left, right = starts[i[centre]], starts[j[centre]]
        x, y = (grid.ravel() for grid in np.meshgrid(left, right, indexing="ij"))
        strong = rho[x] * rho[y] * rho[centre] > 5.0 * WEAKEST
        middles.append(np.full(int(strong.sum()), centre))
        firsts.append(x[strong])
        lasts.append(y[strong])
    if not middles:
        return
    m, x, y = np.concatenate(middles), np.concatenate(firsts), np.concatenate(lasts)
    u, v, w = vectors[x], vectors[m], vectors[y]  # b→a, b→c, c→d
    u_v, w_v = np.cross(u, v), np.cross(w, v)
    lengths = [(part**2).sum(axis=1) for part in (u, v, w)]
    sines = (u_v**2).sum(axis=1) / (lengths[0] * lengths[1]), (w_v**2).sum(axis=1) / (lengths[2] * lengths[1])
    same = ((u - v - w) ** 2).sum(axis=1) < 1e-6  # a three-membered ring: a is d
    kept = (sines[0] > STRAIGHT) & (sines[1] > STRAIGHT) & ~same
    m, x, y, u, v, w, u_v, w_v = (part[kept] for part in (m, x, y, u, v, w, u_v, w_v))
    length = np.linalg.norm(v, axis=1)[:, None]
    at_a = u_v * length / (u_v**2).sum(axis=1)[:, None]
    at_d = -w_v * length / (w_v**2).sum(axis=1)[:, None]
    along_u = (u * v).sum(axis=1)[:, None] / length**2
    along_w = (w * v).sum(axis=1)[:, None] / length**2
    at_b = -at_a + along_u * at_a + along_w * at_d
    at_c = -at_d - along_u * at_a - along_w * at_d
    constants = TORSION * rho[x] * rho[m] * rho[y]
    _add(hessian, [(j[x], at_a), (i[m], at_b), (j[m], at_c), (j[y], at_d)], constants)
