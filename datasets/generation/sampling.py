"""Geometries scattered about minima: thermal, rattled, stretched, twisted; and molecules put side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mlip.datasets.generation.labelling import Labeller
from mlip.datasets.generation.topology import Array, Indices, Topology, bond_ratio

Generator = np.random.Generator
_FLOOR = 100.0  # cm⁻¹; softer and imaginary modes count as this, so samples stay near the harmonic region


def rattled(rng: Generator, positions: Array) -> Array:
    """Normal noise on every coordinate, of 0.02 to 0.25 Å; small ones are more often."""
    sigma = 0.02 * (0.25 / 0.02) ** (rng.uniform() ** 1.5)
    return positions + rng.normal(scale=sigma, size=positions.shape)


def thermal_modes(numbers: Indices, minimum: Array, hessian: Array) -> Callable[[Generator, float], Array]:
    """A sampler (random numbers, K) -> positions of the classical harmonic distribution about a minimum.

    Translations and rotations are projected out. Source: Wilson, Decius and Cross, Molecular Vibrations.
    """
    from ase.data import atomic_masses
    from ase.units import fs, invcm, kB

    root_mass = np.sqrt(np.repeat(atomic_masses[numbers], 3))
    scaled = (hessian + hessian.T) / (2 * root_mass[:, None] * root_mass)
    centred = minimum - np.average(minimum, axis=0, weights=atomic_masses[numbers])
    rigid = [np.tile(axis, len(numbers)) for axis in np.eye(3)]
    rigid += [np.cross(axis, centred).ravel() for axis in np.eye(3)]
    left, weights, _ = np.linalg.svd(np.array(rigid).T * root_mass[:, None], full_matrices=True)
    vibrations = left[:, int((weights > 1e-6 * weights[0]).sum()) :]
    eigenvalues, modes = np.linalg.eigh(vibrations.T @ scaled @ vibrations)
    # ħω = 100 cm⁻¹, with ħ in eV times the ASE time unit, Å sqrt(amu/eV)
    least = (_FLOOR * invcm / (6.582119569e-16 * 1e15 * fs)) ** 2
    omega = np.sqrt(np.maximum(eigenvalues, least))

    def sample(rng: Generator, temperature: float) -> Array:
        q = np.sqrt(kB * temperature) / omega * rng.normal(size=len(omega))
        return minimum + ((vibrations @ (modes @ q)) / root_mass).reshape(-1, 3)

    return sample


def dynamics(
    label: Labeller,
    numbers: Indices,
    start: Array,
    rng: Generator,
    *,
    temperature: float,
    frames: int,
    interval: int = 10,
    time_step: float = 1.0,
) -> list[tuple[Array, float, Array]]:
    """Positions, energies and forces of every `interval`-th step of molecular dynamics from `start`.

    Langevin dynamics (friction 0.02 fs⁻¹) by the BAOAB splitting, from velocities of the temperature.
    Source: Leimkuhler and Matthews 2013, doi:10.1063/1.4802990.

    Args:
        time_step: fs.

    Raises:
        LabelError: A geometry has no label.
    """
    from ase.data import atomic_masses
    from ase.units import fs, kB

    mass, dt = atomic_masses[numbers][:, None], time_step * fs
    spread = np.sqrt(kB * temperature / mass)
    keep = np.exp(-0.02 * time_step)
    x, v = start.copy(), spread * rng.normal(size=start.shape)
    energy, forces = label(x)
    out = []
    for step in range(1, frames * interval + 1):
        v += 0.5 * dt * forces / mass
        x = x + 0.5 * dt * v
        v = keep * v + np.sqrt(1 - keep**2) * spread * rng.normal(size=v.shape)
        x = x + 0.5 * dt * v
        energy, forces = label(x, near=True)
        v += 0.5 * dt * forces / mass
        if step % interval == 0:
            out.append((x.copy(), energy, forces))
    return out


def stretched(rng: Generator, topology: Topology, positions: Array) -> Array:
    """One random bond at 0.72 to 1.9 times its length (0.85 to 1.3 in rings), all atoms slightly rattled."""
    bond = int(rng.integers(len(topology.bonds)))
    begin, end = topology.bonds[bond]
    vector = positions[end] - positions[begin]
    out = positions + rng.normal(scale=0.02, size=positions.shape)
    if topology.ring_bond[bond]:
        change = vector * (rng.uniform(0.85, 1.3) - 1)
        out[begin] -= change / 2
        out[end] += change / 2
    else:
        factor = rng.uniform(0.72, 1.0) if rng.uniform() < 0.4 else rng.uniform(1.0, 1.9)
        out[topology.side(bond)] += vector * (factor - 1)
    return out


def twisted(rng: Generator, topology: Topology, positions: Array) -> Array | None:
    """A random rotation about a random bond outside rings; None without one, or if atoms clash."""
    adjacency = topology.adjacency
    degree = adjacency.sum(axis=1)
    movable = [b for b in np.flatnonzero(~topology.ring_bond) if (degree[topology.bonds[b]] > 1).all()]
    if not movable:
        return None
    bond = int(rng.choice(movable))
    begin, end = topology.bonds[bond]
    side = topology.side(bond)
    out = positions + rng.normal(scale=0.02, size=positions.shape)
    axis = positions[end] - positions[begin]
    out[side] = rotated(out[side] - positions[end], axis, rng.uniform(0, 2 * np.pi)) + positions[end]
    return out if (bond_ratio(topology.numbers, out)[~adjacency] > 1.1).all() else None


def rotated(points: Array, axis: Array, angle: float) -> Array:
    """Points turned about an axis through the origin (Rodrigues' formula)."""
    n = axis / np.linalg.norm(axis)
    cos, sin = np.cos(angle), np.sin(angle)
    return np.asarray(points * cos + np.cross(n, points) * sin + np.outer(points @ n, n) * (1 - cos))


def placed(rng: Generator, parts: Sequence[tuple[Indices, Array]], contact: float) -> Array:
    """Molecules at random orientations, brought together from random directions.

    Each stops where an atom of it is within `contact` times the sum of van der Waals radii of a placed one.
    """
    from ase.data import vdw_radii

    there, there_radii = np.zeros((0, 3)), np.zeros(0)
    for numbers, positions in parts:
        turned = (positions - positions.mean(axis=0)) @ _rotation(rng).T
        direction = rng.normal(size=3)
        direction /= np.linalg.norm(direction)
        radii = vdw_radii[numbers]
        if len(there):
            separation = 20.0
            while separation > 0:
                pair = np.linalg.norm(turned[:, None] + separation * direction - there, axis=-1)
                if (pair / (radii[:, None] + there_radii)).min() < contact:
                    break
                separation -= 0.02
            turned = turned + separation * direction
        there, there_radii = np.concatenate([there, turned]), np.concatenate([there_radii, radii])
    return there


def _rotation(rng: Generator) -> Array:
    """A uniformly distributed rotation, never a reflection: molecules keep their handedness."""
    q, r = np.linalg.qr(rng.normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return np.asarray(q * np.linalg.det(q))
