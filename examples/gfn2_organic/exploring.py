"""Reactions that the model finds by itself, labelled with GFN2-xTB.

A search for a transition state goes where its model is wrong: to intermediates and over barriers that are not
there. Frames from along these ways, with their labels, tell the model so.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import random
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from ase import Atoms

from mlip.alignment import superposed
from mlip.calculators.ase_calculator import MLIPCalculator
from mlip.calculators.batch import BatchCalculator
from mlip.datasets.frames import Frame
from mlip.datasets.generation.collection import Collector, Note
from mlip.datasets.generation.labelling import ASELabels, LabelError, Labeller, Particles, TBLite
from mlip.datasets.generation.pack import MAX_ENERGY
from mlip.datasets.generation.reactions import interpolated
from mlip.datasets.generation.relaxation import kept, relax
from mlip.datasets.generation.topology import Array, Indices, Topology, bond_ratio, distances
from mlip.datasets.h5_reader import H5Dataset
from mlip.datasets.h5_writer import H5Writer
from mlip.errors import InputError
from mlip.search.batch_relax import relax_many
from mlip.search.lockstep import FAILURES, Search, run
from mlip.search.neb import Band, band_search

UP_TO = 16
"""Atoms."""
TOGETHER = 16
"""Reactions whose paths are computed side by side."""
IMAGES = 9
"""Of a path, ends included."""
ITERATIONS = 40
"""Of the nudged elastic band: enough to be on the model's path, converged or not."""
DRIVES = 50
"""Steps of the relaxation with springs."""
STIFFNESS, STRENGTH = 20.0, 5.0
"""eV/Å² near the length of a spring, and eV/Å far from it."""
TWICE = 0.4
"""Share of reactions in which two bonds break."""
CLOSEST = 0.5
"""Of the sum of two covalent radii; geometries with nearer atoms are left out."""
HESSIANS, HESSIANS_UP_TO = 0.6, 14
"""Share of the highest images that get Hessians, and their atoms."""
JOSTLE = 0.04
"""Å; displacement of the geometries near the top of a path, for the curvature across it."""


def add_explored(data: Path, model: Path, *, count: int, workers: int, seed: int) -> None:
    """Write `explored.h5`: frames along `count` reactions that the model finds from minima of `train.h5`.

    Stopped at any moment, the same call goes on.
    """
    dataset = H5Dataset(data / "train.h5")
    attributes = {name: dataset.attributes[name] for name in ("level_of_theory", "source", "licence")}
    wanted = {"seed": seed, "count": count, "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest()}
    with H5Writer(data / "explored.h5", append=True, attributes=attributes) as writer:
        if not writer.provenance:
            writer.provenance = {**wanted, "done": 0}
        elif {name: writer.provenance[name] for name in wanted} != wanted:
            sys.exit(f"{writer.path} was begun with other settings: {writer.provenance}")
        before = writer.provenance["done"]
        todo = starts(dataset, count, seed)
        jobs = ((k, todo[k : k + TOGETHER], model, seed) for k in range(before, count, TOGETHER))
        begin = time.monotonic()
        with multiprocessing.get_context("spawn").Pool(workers) as pool:
            for frames in pool.imap(explored, jobs):
                writer.write_many(frames)
                done = min(writer.provenance["done"] + TOGETHER, count)
                writer.provenance = {**wanted, "done": done}
                writer.commit()
                left = (time.monotonic() - begin) / (done - before) * (count - done)
                print(f"{done}/{count} reactions, {left:.0f} s left", file=sys.stderr, flush=True)


def starts(dataset: H5Dataset, count: int, seed: int) -> list[Frame]:
    """Minima to react: every one once before any is there twice."""
    minima = [
        frame
        for frame in map(dataset.__getitem__, range(len(dataset)))
        if 4 <= len(frame) <= UP_TO and frame.info["kind"] == "minimum"
    ]
    rng, out = random.Random(seed), list[Frame]()
    while len(out) < count:
        out += rng.sample(minima, len(minima))
    return out[:count]


def explored(job: tuple[int, list[Frame], Path, int]) -> list[Frame]:
    """Labelled frames along reactions from some minima."""
    first, minima, model, seed = job
    rng = np.random.default_rng([seed, first])
    ways = list(driven(minima, model, rng))
    surface = BatchCalculator(model, dtype="float32")
    relaxed = settled([end for _, frames, _ in ways for end in (frames[0], frames[-1])], surface)
    found: list[list[tuple[str, Atoms]]] = []
    searches, joined = [], []
    for n, (_, frames, _) in enumerate(ways):
        ends = relaxed[2 * n : 2 * n + 2]
        found.append([("driven", frames[k]) for k in kept(len(frames), 4).tolist()])
        found[n] += [("settled", atoms) for atoms, _ in ends]
        if all(np.isfinite(energy) for _, energy in ends) and apart(ends[0][0], ends[1][0]):
            searches.append(path_between(*ends))
            joined.append(n)
    bands = {n: band for n, band in zip(joined, run(surface, searches), strict=True) if band is not None}
    beside = {n: beside_the_top(band) for n, band in bands.items()}
    rest = iter(settled([atoms for some in beside.values() for atoms in some], surface))
    for n, band in bands.items():
        kinds = ["top" if k == band.highest else "path" for k in range(IMAGES)]
        found[n] += list(zip(kinds, band.images, strict=True))[1:-1]
        found[n] += [("jostled", jostled(atoms, rng)) for atoms in beside[n]]
        found[n] += [("settled", next(rest)[0]) for _ in beside[n]]
    return [
        frame
        for n, (start, _, topology) in enumerate(ways)
        for frame in labelled(start, topology, found[n], rng, name=f"{start.molecule}/explored-{first + n}")
    ]


def driven(
    minima: list[Frame], model: Path, rng: np.random.Generator
) -> Iterator[tuple[Frame, list[Atoms], Topology]]:
    """Each with the geometries of a relaxation, on the model, in which springs make and break bonds."""
    calculator = MLIPCalculator(model, dtype="float32")
    for start in minima:
        numbers, positions = np.array(start.atomic_numbers), np.array(start.positions, dtype=np.float64)
        topology = Topology.of_geometry(numbers, positions)
        springs = Springs.at_random(rng, topology, positions)
        if springs is None:
            continue
        label = Sprung(ASELabels(Particles(numbers), calculator), springs)
        try:
            path, _ = relax(label, positions, steps=DRIVES, fmax=0.1)
        except (LabelError, InputError):
            continue
        yield start, [Atoms(numbers, frame.positions) for frame in path], topology


@dataclass(frozen=True, eq=False)
class Springs:
    """Pairs of atoms, and the distances (Å) that springs pull them to."""

    pairs: Indices
    lengths: Array

    @staticmethod
    def at_random(rng: np.random.Generator, topology: Topology, positions: Array) -> Springs | None:
        """A bond that breaks while one or both of its atoms make another; None where there is none."""
        from ase.data import covalent_radii

        if not len(topology.bonds):
            return None
        i, k = (int(x) for x in rng.permutation(topology.bonds[int(rng.integers(len(topology.bonds)))]))
        near = np.exp(-distances(positions)[i]) * ~topology.adjacency[i]
        near[[i, k]] = 0.0
        if not near.any():
            return None
        j = int(rng.choice(len(near), p=near / near.sum()))
        broken, formed = [(i, k)], [(i, j)]
        partners = np.setdiff1d(np.flatnonzero(topology.adjacency[j]), [i, k])
        if len(partners) and rng.uniform() < TWICE:
            other = int(rng.choice(partners))
            broken.append((j, other))
            if not topology.adjacency[k, other]:
                formed.append((k, other))
        pairs = np.array(broken + formed)
        radii = covalent_radii[topology.numbers][pairs].sum(axis=1)
        return Springs(pairs, radii * np.where(np.arange(len(pairs)) < len(broken), 2.0, 1.0))

    def pull(self, positions: Array) -> tuple[float, Array]:
        """Energy (eV) and forces (eV/Å): harmonic near the lengths, of one strength far from them."""
        first, second = self.pairs.T
        along = positions[second] - positions[first]
        length = np.linalg.norm(along, axis=1)
        off = length - self.lengths
        root = np.sqrt(1.0 + (STIFFNESS * off / STRENGTH) ** 2)
        forces = np.zeros_like(positions)
        pulls = (STIFFNESS * off / root / length)[:, None] * along
        np.add.at(forces, first, pulls)
        np.add.at(forces, second, -pulls)
        return float((STRENGTH**2 / STIFFNESS * (root - 1.0)).sum()), forces


@dataclass(frozen=True, eq=False)
class Sprung:
    """A labeller whose labels have those of springs added."""

    label: Labeller
    springs: Springs

    def __call__(self, positions: Array, *, near: bool = False) -> tuple[float, Array]:
        energy, forces = self.label(positions, near=near)
        more = self.springs.pull(positions)
        return energy + more[0], forces + more[1]


def settled(structures: list[Atoms], surface: BatchCalculator) -> list[tuple[Atoms, float]]:
    """Where the model relaxes structures to, and the energies there (eV; NaN where it fails)."""
    out = [(atoms, np.nan) for atoms in structures]
    for outcome in relax_many(structures, surface, fmax=0.03, steps=100):
        if outcome.result is not None:
            out[outcome.place] = outcome.result.atoms, outcome.result.energy
    return out


def apart(first: Atoms, last: Atoms) -> bool:
    """Whether bonds were made or broken."""
    adjacent = [Topology.of_geometry(a.numbers, a.positions).adjacency for a in (first, last)]
    return bool((adjacent[0] != adjacent[1]).any())


def path_between(first: tuple[Atoms, float], last: tuple[Atoms, float]) -> Search[Band | None]:
    """A search for the model's path; its result is None where an image to begin with is out of bounds."""
    images, energies = images_between(first[0], last[0]), (first[1], last[1])
    try:
        return (yield from band_search(images, energies, fmax=0.1, iterations=ITERATIONS, look=False))
    except FAILURES:
        return None


def images_between(first: Atoms, last: Atoms) -> list[Atoms]:
    """A path to begin with, ends included, each image turned onto the one before."""
    ends = first.positions, superposed(last.positions, first.positions)
    places = [ends[0]]
    for place in [*interpolated(*ends, IMAGES - 2), ends[1]]:
        places.append(superposed(place, places[-1]))
    return [Atoms(first.numbers, place) for place in places]


def beside_the_top(band: Band) -> list[Atoms]:
    """The highest image and its neighbours, and the minima between the ends."""
    top = {k for k in (band.highest - 1, band.highest, band.highest + 1) if 0 < k < len(band.images) - 1}
    return [band.images[k].copy() for k in sorted(top | set(band.minima))]


def jostled(atoms: Atoms, rng: np.random.Generator) -> Atoms:
    """The structure with every atom displaced."""
    return Atoms(atoms.numbers, atoms.positions + rng.normal(scale=JOSTLE, size=atoms.positions.shape))


def labelled(
    start: Frame, topology: Topology, found: list[tuple[str, Atoms]], rng: np.random.Generator, *, name: str
) -> list[Frame]:
    """Those of no too high an energy, with energies and forces of GFN2-xTB, some with Hessians."""
    out = Collector(TBLite(Particles(topology.numbers, start.charge, start.spin)))
    ceiling = float(start.energy or 0.0) + MAX_ENERGY * len(topology.numbers)
    for kind, atoms in found:
        if bond_ratio(topology.numbers, atoms.positions).min() < CLOSEST:
            continue
        index = out.add(Note(kind), atoms.positions)
        if index is not None and out.frames[index].energy > ceiling:
            del out.notes[index], out.frames[index]
        elif kind == "top" and len(atoms) <= HESSIANS_UP_TO and rng.uniform() < HESSIANS:
            out.add_hessian(index)
    return [
        replace(
            start,
            positions=frame.positions,
            energy=frame.energy,
            forces=frame.forces,
            hessian=out.hessians.get(k),
            reaction=name,
            trajectory="",
            step=-1,
            info={"kind": note.kind},
        )
        for k, (note, frame) in enumerate(zip(out.notes, out.frames, strict=True))
    ]
