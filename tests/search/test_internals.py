"""Redundant internal coordinates: values, derivatives, completeness."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.collections import g2
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import expm

from mlip.search.batch_internal import InternalOptimizer, coordinates_of
from mlip.search.batch_walker import Walker
from mlip.search.internal_values import JoinedInternals, join_internals
from mlip.search.internals import find_internals


def tables(structures: list[Atoms]) -> tuple[np.ndarray, np.ndarray]:
    widest = max(len(atoms) for atoms in structures)
    positions = np.zeros((len(structures), widest, 3))
    for s, atoms in enumerate(structures):
        positions[s, : len(atoms)] = atoms.positions
    return positions, np.stack([atoms.cell.array for atoms in structures])


def joined_of(structures: list[Atoms], *, cartesian: bool) -> JoinedInternals:
    parts = [find_internals(atoms, cartesian=cartesian) for atoms in structures]
    return join_internals(parts, atoms=max(len(atoms) for atoms in structures))


@pytest.fixture(scope="module")
def structures() -> list[Atoms]:
    found = [molecule(name) for name in ("CH3CH2OH", "C6H6", "CO2", "HCN", "CH3CONH2", "NH3")]
    found += [bulk("Si", cubic=True), bulk("Cu")]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.03, seed=seed)
    return found


def test_values_are_those_of_ase() -> None:
    """Stretches, bends and torsions of hydrogen peroxide."""
    atoms = molecule("H2O2")
    joined = joined_of([atoms], cartesian=False)
    (values,) = joined.values(atoms.positions, np.zeros((1, 3, 3)))
    o1, o2 = (atom.index for atom in atoms if atom.symbol == "O")
    h1 = next(a.index for a in atoms if a.symbol == "H" and atoms.get_distance(o1, a.index) < 1.1)
    h2 = next(a.index for a in atoms if a.symbol == "H" and a.index != h1)
    assert len(values) == 3 + 2 + 1
    lengths = [atoms.get_distance(*pair) for pair in ((o1, o2), (o1, h1), (o2, h2))]
    np.testing.assert_allclose(sorted(values[:3]), sorted(lengths))
    angles = [atoms.get_angle(h1, o1, o2), atoms.get_angle(h2, o2, o1)]
    np.testing.assert_allclose(np.degrees(sorted(values[3:5])), sorted(angles))
    dihedral = (atoms.get_dihedral(h1, o1, o2, h2) + 180.0) % 360.0 - 180.0
    assert abs(np.degrees(values[5])) == pytest.approx(abs(dihedral))


def test_derivatives_are_differences(structures: list[Atoms]) -> None:
    """By positions and, co-moving, by the strain."""
    joined = joined_of(structures, cartesian=True)
    positions, cells = tables(structures)
    scales = np.array([float(len(atoms)) for atoms in structures])

    derivatives = joined.derivatives(positions.reshape(-1, 3), cells, scales)
    atoms = positions.shape[1]
    for column in range(3 * atoms):
        moved = np.zeros_like(positions)
        moved[:, column // 3, column % 3] = 1e-5
        found = [joined.values((positions + sign * moved).reshape(-1, 3), cells) for sign in (1, -1)]
        np.testing.assert_allclose(
            derivatives[:, :, column], joined.difference(*found) / 2e-5, atol=1e-8, err_msg=str(column)
        )
    periodic = [s for s, one in enumerate(structures) if one.pbc.all()]
    for a, b in ((0, 0), (0, 1), (2, 2)):
        strain = np.zeros((3, 3))
        strain[a, b] += 0.5e-5
        strain[b, a] += 0.5e-5
        found = []
        for sign in (1, -1):
            stretch = np.stack([expm(sign * strain / scale) for scale in scales])
            strained = cells @ stretch
            strained[[s for s in range(len(cells)) if s not in periodic]] = np.eye(3)
            since = np.where(cells.any(axis=(1, 2))[:, None, None], cells, np.eye(3))
            found.append(joined.values((positions @ stretch).reshape(-1, 3), strained, since=since))
        change = joined.difference(*found) / 2e-5
        np.testing.assert_allclose(
            derivatives[periodic][:, :, 3 * atoms + 3 * a + b], change[periodic], atol=1e-8
        )


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000))
def test_values_do_not_depend_on_where_a_molecule_is(structures: list[Atoms], seed: int) -> None:
    molecules = structures[:6]
    joined = joined_of(molecules, cartesian=False)
    positions, cells = tables(molecules)
    random = np.random.default_rng(seed)
    turn, _ = np.linalg.qr(random.normal(size=(3, 3)))
    turn *= np.linalg.det(turn)
    before = joined.values(positions.reshape(-1, 3), cells)
    after = joined.values((positions @ turn + random.normal(size=3)).reshape(-1, 3), cells)
    kept = np.ones(before.size, dtype=bool)
    kept[joined.rows[4]] = False  # linear bends count along directions that are fixed in space
    np.testing.assert_allclose(
        joined.difference(after, before).ravel()[kept], np.zeros(kept.sum()), atol=1e-9
    )


@pytest.mark.parametrize("name", [name for name in g2.names if len(g2[name]) > 1])
def test_coordinates_reach_every_motion(name: str) -> None:
    """As many independent ones as there are vibrations, for all molecules of the G2 set."""
    atoms = molecule(name)
    walker = Walker(atoms=atoms, free=np.ones(len(atoms), dtype=bool), scale=None)
    joined = join_internals([coordinates_of(walker)], atoms=len(atoms))
    rows = joined.derivatives(atoms.positions, np.zeros((1, 3, 3)), None)[0, :, :-9]
    strengths = np.linalg.svd(rows, compute_uv=False)
    linear = len(atoms) == 2 or np.linalg.matrix_rank(atoms.positions - atoms.positions[0], tol=1e-3) == 1
    assert (strengths > 1e-2).sum() >= 3 * len(atoms) - (5 if linear else 6)


def test_fragments_are_joined() -> None:
    pair = molecule("H2O") + molecule("H2O")
    pair.positions[3:] += [0, 0, 20.0]
    internals = find_internals(pair, cartesian=False)
    assert len(internals.stretches) == 5


def test_metals_have_stretches_only() -> None:
    internals = find_internals(bulk("Cu", cubic=True), cartesian=False)
    assert len(internals.stretches) == 24
    assert len(internals.bends) == len(internals.torsions) == 0


def test_a_quadratic_valley_takes_few_steps() -> None:
    """Where the surface is that of the first guess, one step and its curvature remain."""
    atoms = molecule("CH3CH2OH")
    walker = Walker(atoms=atoms.copy(), free=np.ones(len(atoms), dtype=bool), scale=None)
    internals = coordinates_of(walker)
    joined = join_internals([internals], atoms=len(atoms))
    cell = np.zeros((1, 3, 3))
    rest = joined.values(atoms.positions, cell)
    walker.atoms.rattle(0.03, seed=3)
    optimizer = InternalOptimizer()
    for step in range(6):  # noqa: B007
        missing = joined.difference(joined.values(walker.atoms.positions, cell), rest)
        energy = 0.5 * float((internals.stiffness * missing**2).sum())
        slope = joined.derivatives(walker.atoms.positions, cell, None)[0].T @ (
            internals.stiffness * missing[0]
        )
        walker.energy = walker.objective = energy
        walker.gradient = slope.reshape(-1, 3)
        if walker.fmax < 1e-3:
            break
        optimizer.advance([walker])
    assert step <= 3
