"""The checks, one function each; they raise `AssertionError`."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable

import numpy as np
import torch
from ase import Atoms
from ase.data import covalent_radii
from jaxtyping import Float
from torch import Tensor

from mlip.graph import AtomGraph, collate
from mlip.testing.subject import Subject, demand

DERIVATIVE = 1e-7
"""Largest difference between a derivative and its finite difference, relative to the largest component."""


def orthogonal_matrix(random: np.random.Generator, *, reflect: bool) -> Float[np.ndarray, "3 3"]:
    """An element of O(3), uniform over rotations, times -1 if `reflect`."""
    a, b, c, d = (q := random.normal(size=4)) / np.linalg.norm(q)
    rotation = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a - b * b + c * c - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a - b * b - c * c + d * d],
        ]
    )
    return -rotation if reflect else rotation


def check_outputs(subject: Subject) -> None:
    """Keys, shapes, types; the inputs are left as they were; each time the same numbers."""
    atoms = subject.structures["crystal"]
    for forces, stress in itertools.product((False, True), repeat=2):
        graph = subject.graph(atoms)
        before = {f.name: getattr(graph, f.name).clone() for f in dataclasses.fields(graph)}
        output = subject.potential(graph, forces=forces, stress=stress)
        n, dtype = len(atoms), subject.potential.dtype
        expected: dict[str, tuple[tuple[int, ...], torch.dtype]]
        expected = {"energy": ((1,), torch.float64), "node_energy": ((n,), torch.float64)}
        expected |= {"forces": ((n, 3), dtype)} if forces else {}
        expected |= {"stress": ((1, 3, 3), dtype)} if stress else {}
        asked = f"with forces={forces}, stress={stress}"
        demand(output.keys() == expected.keys(), f"{asked}: keys are {sorted(output)} not {sorted(expected)}")
        for key, (shape, kind) in expected.items():
            value = output[key]
            found = f"{asked}: `{key}` is {tuple(value.shape)} {value.dtype}"
            demand(tuple(value.shape) == shape and value.dtype == kind, f"{found}, not {shape} {kind}")
            demand(bool(value.isfinite().all()), f"{asked}: `{key}` holds NaN or infinity")
            demand(not value.requires_grad, f"{asked}: `{key}` still requires a gradient")
        for name, value in before.items():
            now = getattr(graph, name)
            same = torch.equal(now, value) and not now.requires_grad
            demand(same, f"{asked}: the input `{name}` was changed")
        again = subject.potential(graph, forces=forces, stress=stress)
        for key, value in output.items():
            demand(torch.equal(again[key], value), f"{asked}: a second call gives another `{key}`")


def check_sums(subject: Subject) -> None:
    """Atomic energies add up, forces add up to zero, the stress is symmetric."""
    for name, atoms in subject.structures.items():
        output = subject.run(atoms)
        total, parts = float(output["energy"]), float(output["node_energy"].sum())
        limit = 1e-12 * float(output["node_energy"].abs().sum())
        demand(
            abs(total - parts) <= limit,
            f"{name}: atomic energies add up to {parts!r}, the energy is {total!r}",
        )
        net = float(output["forces"].double().sum(0).abs().max())
        scale = float(output["forces"].abs().sum())
        demand(net <= subject.tolerance * scale, f"{name}: forces add up to {net:.3e} eV/Å, not zero")
        if "stress" in output:
            skew = float((output["stress"] - output["stress"].mT).abs().max())
            limit = subject.tolerance * float(output["stress"].abs().max())
            demand(skew <= limit, f"{name}: the stress is not symmetric, by {skew:.3e} eV/Å³")


def _moved(atoms: Atoms, *, positions: np.ndarray | None = None, cell: np.ndarray | None = None) -> Atoms:
    copy = atoms.copy()
    if cell is not None:
        copy.set_cell(cell)
    if positions is not None:
        copy.positions = positions
    return copy


def check_rotation(subject: Subject) -> None:
    """Under elements of O(3) energies stay, forces turn as vectors and the stress as a tensor."""
    for k, (name, atoms) in enumerate(subject.structures.items()):
        reference = subject.run(atoms)
        for reflect in (False, True) if subject.reflections else (False, False):
            matrix = orthogonal_matrix(subject.random(k + 10 * reflect), reflect=reflect)
            turned = subject.run(
                _moved(atoms, positions=atoms.positions @ matrix.T, cell=atoms.cell.array @ matrix.T)
            )
            back = torch.as_tensor(matrix, dtype=subject.potential.dtype)
            undone = {**turned, "forces": turned["forces"] @ back}
            if "stress" in turned:
                undone["stress"] = back.T @ turned["stress"] @ back
            what = "rotation with reflection" if reflect else "rotation"
            subject.expect(f"{name}: {what} {matrix.tolist()}", undone, reference, atoms)


def check_translation(subject: Subject) -> None:
    """Moving everything, or single atoms by lattice vectors, or choosing another cell of the same lattice."""
    for k, (name, atoms) in enumerate(subject.structures.items()):
        random, reference = subject.random(k), subject.run(atoms)
        shifted = _moved(atoms, positions=atoms.positions + random.uniform(-9, 9, 3))
        subject.expect(f"{name}: translation", subject.run(shifted), reference, atoms)
        steps = random.integers(-3, 4, (len(atoms), 3)) * atoms.pbc
        images = _moved(atoms, positions=atoms.positions + steps @ atoms.cell.array)
        subject.expect(f"{name}: atoms moved by lattice vectors", subject.run(images), reference, atoms)
        if atoms.pbc.all():
            other = _moved(atoms, cell=np.array([[1, 1, 0], [0, 1, 0], [0, -2, -1]]) @ atoms.cell.array)
            subject.expect(f"{name}: another cell of the same lattice", subject.run(other), reference, atoms)


def check_permutation(subject: Subject) -> None:
    """Results follow the order of the atoms."""
    for k, (name, atoms) in enumerate(subject.structures.items()):
        order = subject.random(k).permutation(len(atoms))
        reference, output = subject.run(atoms), dict(subject.run(atoms[order]))
        back = torch.as_tensor(np.argsort(order))
        output |= {key: output[key][back] for key in ("node_energy", "forces")}
        subject.expect(f"{name}: permutation {order.tolist()}", output, reference, atoms)


def check_batch(subject: Subject) -> None:
    """The same numbers alone or among others."""
    chosen = [name for name, atoms in subject.structures.items() if atoms.cell.rank == 3]
    for names, stress in ((list(subject.structures), False), (chosen * 2, True)):
        together = subject.potential(
            collate([subject.graph(subject.structures[n]) for n in names]), stress=stress
        )
        start = 0
        for k, name in enumerate(names):
            atoms = subject.structures[name]
            rows = slice(start, start := start + len(atoms))
            part = {"energy": slice(k, k + 1), "stress": slice(k, k + 1), "node_energy": rows, "forces": rows}
            alone = subject.potential(subject.graph(atoms), stress=stress)
            mine = {key: value[part[key]] for key, value in together.items()}
            subject.expect(f"{name}: number {k} of a batch", mine, alone, atoms)


def check_long_edges(subject: Subject) -> None:
    """Edges longer than the cutoff, as a skin leaves them, change nothing."""
    for name, atoms in subject.structures.items():
        output = subject.potential(subject.graph(atoms, margin=0.5))
        subject.expect(
            f"{name}: edges beyond the cutoff", output, subject.potential(subject.graph(atoms)), atoms
        )


def check_extensivity(subject: Subject) -> None:
    """Two copies far apart have twice the energy, and so have two cells of a crystal."""
    molecule, crystal = subject.structures["molecule"], subject.structures["crystal"]
    copy = _moved(
        molecule, positions=molecule.positions + 5 * subject.potential.cutoff + np.ptp(molecule.positions)
    )
    for what, one, two in (("two copies far apart", molecule, molecule + copy),
                           ("a supercell", crystal, crystal.repeat((1, 2, 1)))):  # fmt: skip
        expected, output = subject.run(one), dict(subject.run(two))
        output["energy"] = output["energy"] / 2
        n = len(one)
        for half in (slice(0, n), slice(n, 2 * n)):
            mine = output | {key: output[key][half] for key in ("node_energy", "forces")}
            subject.expect(what, mine, expected, one)


def check_isolated(subject: Subject) -> None:
    """An atom without neighbours has an energy of its own, no force and no stress, in any box."""
    size = 3 * subject.potential.cutoff
    for z in subject.potential.species:
        for pbc in (False, True):
            output = subject.run(Atoms([z], [[0.1, 0.2, 0.3]], cell=[size] * 3, pbc=pbc))
            for key, value in output.items():
                expected = subject.isolated[z] if "energy" in key else torch.zeros(())
                rounding = subject.tolerance * 1e-4 * float(expected.abs())
                where = f"isolated atom of element {z}, pbc={pbc}"
                found = f"`{key}` is {value.tolist()} but should be {float(expected)!r}"
                demand(bool(((value - expected).abs() <= rounding).all()), f"{where}: {found}")


_STENCIL = ((-2.0, 1 / 12), (-1.0, -2 / 3), (1.0, 2 / 3), (2.0, -1 / 12))
"""Offsets and weights of the central difference of fourth order."""


def _slopes(subject: Subject, graphs: Callable[[float], list[AtomGraph]], step: float) -> Tensor:
    """d(energy)/dt at 0 of each graph(t), by finite differences, all in one batch."""
    energies = subject.potential(collate([g for at, _ in _STENCIL for g in graphs(at * step)]), forces=False)[
        "energy"
    ]
    weights = torch.tensor([weight for _, weight in _STENCIL], dtype=torch.float64)
    return weights @ energies.view(len(_STENCIL), -1) / step


def _compare_slopes(what: str, got: Tensor, slopes: Tensor, scale: Tensor) -> None:
    difference = float((got - slopes).abs().max())
    limit = DERIVATIVE * float(scale.abs().max())
    demand(
        difference <= limit,
        f"{what} differ from finite differences by {difference:.3e} but may by {limit:.3e}",
    )


def check_derivatives(subject: Subject, *, step: float = 1e-3) -> None:
    """Forces and stress are derivatives of the energy (float64 only)."""
    for k, (name, atoms) in enumerate(subject.structures.items()):
        graph = subject.graph(atoms, margin=0.1)
        output = subject.run(atoms)
        n = len(atoms)
        single = torch.eye(3 * n, dtype=torch.float64).view(-1, n, 3)
        mixed = torch.from_numpy(subject.random(k).normal(size=(2, n, 3)))
        directions = torch.cat([single[:: max(1, n)], mixed / mixed.flatten(1).norm(dim=1)[:, None, None]])

        def displaced(t: float, graph: AtomGraph = graph, directions: Tensor = directions) -> list[AtomGraph]:
            return [dataclasses.replace(graph, positions=graph.positions + t * d) for d in directions]

        slopes = _slopes(subject, displaced, step)
        got = -torch.einsum("dni,ni->d", directions, output["forces"].double())
        _compare_slopes(f"{name}: forces", got, slopes, output["forces"])
        if "stress" not in output:
            continue
        strains = torch.zeros(6, 3, 3, dtype=torch.float64)
        for row, (i, j) in enumerate(((0, 0), (1, 1), (2, 2), (1, 2), (0, 2), (0, 1))):
            strains[row, i, j] = strains[row, j, i] = 1.0 if i == j else 0.5

        def strained(t: float, graph: AtomGraph = graph, strains: Tensor = strains) -> list[AtomGraph]:
            return [
                dataclasses.replace(
                    graph,
                    positions=graph.positions + t * graph.positions @ s,
                    cell=graph.cell + t * graph.cell @ s,
                )
                for s in strains
            ]

        slopes = _slopes(subject, strained, 0.2 * step) / atoms.get_volume()
        got = torch.einsum("dij,ij->d", strains, output["stress"][0].double())
        _compare_slopes(f"{name}: stresses", got, slopes, output["stress"])


def check_smoothness(subject: Subject, *, step: float = 1e-4) -> None:
    """Energy, force and its derivative are continuous where a neighbour passes the cutoff (float64 only).

    The neighbour is one end of a dimer, so that many-body terms are there.
    """
    species, cutoff = subject.potential.species, subject.potential.cutoff
    for z, other in itertools.product(species, repeat=2):
        bond = 1.3 * (covalent_radii[species[0]] + covalent_radii[other])

        def at(r: float, z: int = z, other: int = other, bond: float = bond) -> tuple[float, float]:
            """Energy, eV, and its derivative, the force on the single atom, eV/Å."""
            atoms = Atoms([z, other, species[0]], [[0, 0, 0], [0, 0, r], [0, bond, r]])
            output = subject.run(atoms)
            return float(output["energy"]), float(output["forces"][0, 2])

        below, here, above = at(cutoff - step), at(cutoff), at(cutoff + step)
        force = max(abs(at(fraction * cutoff)[1]) for fraction in (0.6, 0.7, 0.8, 0.9))
        pair = f"elements {z} and {other} at the cutoff"
        jump = abs(above[0] - below[0] - step * (below[1] + above[1]))
        limit = 10 * step**2 * force + 1e-13 * abs(here[0])
        demand(jump <= limit, f"{pair}: the energy jumps by {jump:.3e} eV but may by {limit:.3e}")
        jump = abs(above[1] - below[1])
        demand(jump <= 100 * step * force, f"{pair}: the force jumps by {jump:.3e} eV/Å, of {force:.3e}")
        kink = abs(above[1] - 2 * here[1] + below[1]) / step
        demand(kink <= 0.02 * force, f"{pair}: the derivative of the force jumps by {kink:.3e} eV/Å²")
