"""What frames are made of a source: a molecule, several molecules side by side, or reactant and product."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mlip.alignment import superposed
from mlip.datasets.generation.collection import Collector, Note
from mlip.datasets.generation.force_field import ForceField, Rejected, embed, parse
from mlip.datasets.generation.labelling import LabelError, MakeLabeller, Particles, hessian
from mlip.datasets.generation.reactions import (
    hydrogen_shifts,
    interpolated,
    random_push,
    refined_path,
    shifted_geometry,
)
from mlip.datasets.generation.relaxation import Labelled, relax
from mlip.datasets.generation.sampling import (
    dynamics,
    placed,
    rattled,
    stretched,
    thermal_modes,
    twisted,
)
from mlip.datasets.generation.topology import Array, Topology, bond_ratio, distances

if TYPE_CHECKING:
    from rdkit.Chem import Mol

RELAX_STEPS = 150
_RELAXATION = ("start", "relaxation", "minimum")


@dataclass(frozen=True, kw_only=True)
class Amounts:
    """How many frames of each kind a source gives.

    Attributes:
        conformers: ETKDG conformers that are relaxed; one where nothing can turn.
        relaxation: Frames kept of every relaxation, first and last among them.
        rattled, stretched, twisted: Of each, about random minima.
        thermal: Harmonic samples, at temperatures of 150 to 1500 K in turn.
        dynamics: Frames of molecular dynamics, 10 fs apart, at 300 to 1000 K.
        pushes: Relaxations under a force that makes or breaks a bond, up to 10 frames each.
        shifts: Hydrogen shifts, with the relaxation of the product and images of the path.
        images: Images of a path between reactant and product, ends apart.
        rounds: Times that the images of a path are labelled, refined in between.
        placed: Random placements of molecules side by side, at contacts from tight to loose.
        pulled: Frames of the best complex pulled apart or pushed together rigidly.
        hessians: 1: of a minimum; 2 and more: of other frames too.
    """

    conformers: int = 2
    relaxation: int = 8
    rattled: int = 3
    stretched: int = 4
    twisted: int = 2
    thermal: int = 5
    dynamics: int = 0
    pushes: int = 1
    shifts: int = 1
    images: int = 5
    rounds: int = 2
    placed: int = 6
    pulled: int = 6
    hessians: int = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """What frames are made of; JSON can hold it.

    Attributes:
        name: Unique; the SMILES, or file and index of a structure.
        group: Frames of one group never part in a split.
        split: File that the frames go to.
        smiles: Of a molecule, or of several with dots; "" with `structures`.
        structures: Geometries: one, or reactant and product of the same atoms in the same order. Each has
            `numbers`, `positions` (Å), and may have `charge` and `spin`.
        amounts: How many frames of each kind.
    """

    name: str
    group: str = ""
    split: str = ""
    smiles: str = ""
    structures: list[dict[str, Any]] = field(default_factory=list)
    amounts: Amounts = field(default_factory=Amounts)


def elements_of(source: Source) -> set[int]:
    """Atomic numbers that occur.

    Raises:
        InputError: The SMILES cannot be read.
    """
    out = {int(z) for structure in source.structures for z in structure["numbers"]}
    if source.smiles:
        atoms = list(parse(source.smiles).GetAtoms())
        out |= {a.GetAtomicNum() for a in atoms} | ({1} if any(a.GetTotalNumHs() for a in atoms) else set())
    return out


def make_frames(source: Source, make_labeller: MakeLabeller, *, seed: int) -> tuple[Particles, Collector]:
    """All frames of one source. Random numbers follow from the seed and the name of the source alone.

    Raises:
        InputError: The SMILES cannot be read.
        LabelError: The first geometry has no label.
        Rejected: Nothing comes of this source; the message says why.
    """
    digest = hashlib.sha256(f"{seed}:{source.name}".encode()).digest()
    rng = np.random.default_rng(int.from_bytes(digest[:8], "little"))
    recipe: Callable[[Source, MakeLabeller, np.random.Generator], tuple[Particles, Collector]]
    if len(source.structures) == 2:
        recipe = _pair
    elif not source.structures and "." in source.smiles:
        recipe = _complex
    else:
        recipe = _molecule
    return recipe(source, make_labeller, rng)


@dataclass(eq=False)
class _Case:
    """A molecule or complex at work: its topology, force field, frames and minima so far."""

    topology: Topology
    force_field: ForceField | None
    out: Collector
    rng: np.random.Generator
    minima: list[Array] = field(default_factory=list)
    indices: list[int | None] = field(default_factory=list)

    def guess(self, positions: Array) -> Array | None:
        return None if self.force_field is None else self.force_field.hessian(positions)

    def anywhere(self) -> Array:
        return self.minima[int(self.rng.integers(len(self.minima)))]

    def relax(self, start: Array, amount: int, steps: int = RELAX_STEPS) -> bool:
        """Relax and keep; False where the bonds did not survive. A minimum seen before is not kept twice."""
        path, _ = relax(self.out.label, start, steps=steps, guess=self.guess(start))
        last = path[-1].positions
        if not self.topology.intact(last):
            return False
        print_of_last = np.sort(distances(last).ravel())
        if any(np.abs(np.sort(distances(m).ravel()) - print_of_last).max() < 0.1 for m in self.minima):
            return True
        self.minima.append(last)
        self.indices.append(self.out.add_path(path, amount, kinds=_RELAXATION))
        return True


def _molecule(
    source: Source, make_labeller: MakeLabeller, rng: np.random.Generator
) -> tuple[Particles, Collector]:
    amounts = source.amounts
    if source.structures:
        particles, starts = _given(source)
        topology, mol, force_field = Topology.of_geometry(particles.numbers, starts[0]), None, None
    else:
        from rdkit.Chem.rdMolDescriptors import CalcNumRotatableBonds

        parsed = parse(source.smiles)
        count = amounts.conformers if CalcNumRotatableBonds(parsed) else 1
        mol, starts = embed(parsed, count, int(rng.integers(2**31 - 1)))
        topology, force_field = Topology.of_mol(mol), _force_field([mol])
        particles = _particles([mol])
    case = _Case(topology, force_field, Collector(make_labeller(particles)), rng)
    for k, start in enumerate(starts):
        if not case.relax(start, amounts.relaxation) and k == 0:
            raise Rejected("bonds changed in the relaxation")
    if len(particles.numbers) > 1:
        _scatter(case, amounts)
        for _ in range(amounts.pushes):
            _push(case)
        if mol is not None:
            _shifts(case, mol, amounts)
        _add_hessians(case, amounts.hessians)
    return particles, case.out


def _force_field(mols: list[Mol]) -> ForceField | None:
    """None where there are no parameters: relaxations take longer then, thermal samples need a Hessian."""
    try:
        return ForceField(mols)
    except Rejected:
        return None


def _particles(mols: list[Mol]) -> Particles:
    """Of molecules side by side, unpaired electrons parallel."""
    atoms = [a for mol in mols for a in mol.GetAtoms()]
    return Particles(
        np.array([a.GetAtomicNum() for a in atoms], dtype=np.int64),
        charge=sum(a.GetFormalCharge() for a in atoms),
        spin=1 + sum(a.GetNumRadicalElectrons() for a in atoms),
    )


def _given(source: Source) -> tuple[Particles, list[Array]]:
    """Atoms and geometries of a source with structures."""
    first = source.structures[0]
    particles = Particles(
        np.array(first["numbers"], dtype=np.int64), int(first.get("charge", 0)), int(first.get("spin", 1))
    )
    return particles, [np.array(s["positions"], dtype=np.float64) for s in source.structures]


def _scatter(case: _Case, amounts: Amounts) -> None:
    """Rattled, thermal, stretched and twisted geometries about the minima, and molecular dynamics."""
    rng, out, numbers = case.rng, case.out, case.topology.numbers
    for _ in range(amounts.rattled):
        out.add(Note("rattled"), rattled(rng, case.anywhere()))
    temperatures = (300.0, 150.0, 600.0, 300.0, 1000.0, 450.0, 1500.0)
    if amounts.thermal:
        sample = thermal_modes(numbers, case.minima[0], _curvature(case))
    for k in range(amounts.thermal):
        out.add(Note("thermal"), sample(rng, temperatures[k % len(temperatures)]))
    for _ in range(amounts.stretched if len(case.topology.bonds) else 0):
        out.add(Note("stretched"), stretched(rng, case.topology, case.anywhere()))
    for _ in range(amounts.twisted):
        out.add(Note("twisted"), twisted(rng, case.topology, case.anywhere()))
    if amounts.dynamics:
        try:
            run = dynamics(
                out.label, numbers, case.anywhere(), rng, temperature=float(rng.choice([300, 500, 1000])),
                frames=amounts.dynamics,
            )  # fmt: skip
        except LabelError as error:
            out.discarded[str(error)] += 1
            return
        for k, frame in enumerate(run):
            out.keep(Note("dynamics", "dynamics", k), Labelled(*frame))


def _curvature(case: _Case) -> Array:
    """Second derivatives at the first minimum: of the force field, or without one of the labels."""
    minimum = case.minima[0]
    guess = case.guess(minimum)
    return hessian(case.out.label, minimum) if guess is None else guess


def _push(case: _Case, *, between: int = 0, start: Array | None = None) -> None:
    """React under a force, then relax without it for a while."""
    start = case.anywhere() if start is None else start
    start = start + case.rng.normal(scale=0.03, size=start.shape)
    try:
        push = random_push(case.rng, case.topology, start, between=between)
        path, _ = relax(case.out.label, start, steps=30, guess=case.guess(start), push=push)
        case.out.add_path(path, 7, kinds=("pushed", "pushed", "pushed"))
        path, _ = relax(case.out.label, path[-1].positions, steps=12)
        case.out.add_path(path[1:], 4, kinds=("released", "released", "released"))
    except (Rejected, LabelError) as error:
        case.out.discarded[f"push: {error}"] += 1


def _shifts(case: _Case, mol: Any, amounts: Amounts) -> None:
    """Hydrogen shifts: the product's relaxation and the path to it."""
    if not amounts.shifts:
        return
    found = list(hydrogen_shifts(mol))
    chosen = case.rng.permutation(len(found))[: amounts.shifts]
    for number, k in enumerate(chosen.tolist()):
        shift, reaction = found[k], f"shift-{number}"
        start = case.minima[0]
        try:
            product = Topology.of_mol(shift.product)
            guess = ForceField([shift.product])
            geometry = shifted_geometry(shift, start, case.rng)
            path, _ = relax(case.out.label, geometry, steps=60, guess=guess.hessian(geometry))
            if not product.intact(path[-1].positions):
                raise Rejected("product not reached")
            kinds = ("product", "product", "product")
            case.out.add_path(path, amounts.relaxation // 2, kinds=kinds, reaction=reaction)
            _path(case, start, path[-1].positions, amounts, reaction)
        except (Rejected, LabelError) as error:
            case.out.discarded[f"shift: {error}"] += 1


def _path(case: _Case, first: Array, last: Array, amounts: Amounts, reaction: str) -> None:
    """Interpolated and refined images between two geometries."""
    numbers = case.topology.numbers
    last = superposed(last, first)
    images = interpolated(first, last, amounts.images)
    guess = case.guess(first)
    if guess is None:
        guess = np.eye(first.size) * 30.0
    images = [i for i in images if bond_ratio(numbers, i).min() > 0.5]
    for k, labelled in enumerate(
        refined_path(case.out.label, images, (first, last), guess, rounds=amounts.rounds)
    ):
        for step, frame in enumerate(labelled):
            case.out.keep(Note("path", f"{reaction}-path-{k}", step, reaction), frame)


def _add_hessians(case: _Case, count: int) -> None:
    """Of minima first, then of frames away from them, reacting ones before others."""
    out = case.out
    wanted = list(case.indices[:1])
    order = ("path", "pushed", "thermal", "stretched", "released", "rattled")
    rest = [k for kind in order for k, n in enumerate(out.notes) if n.kind == kind]
    near = [k for k in rest if np.linalg.norm(out.frames[k].forces, axis=1).max() < 8.0]
    reacting = [k for k in near if out.notes[k].kind in ("path", "pushed")]
    other = [k for k in near if k not in reacting]
    for k in range(max(0, count - 1)):
        pool = (reacting if k % 2 == 0 else other) or reacting or other
        if pool:
            wanted.append(pool.pop(int(case.rng.integers(len(pool)))))
    for index in wanted[:count]:
        out.add_hessian(index)


def _complex(
    source: Source, make_labeller: MakeLabeller, rng: np.random.Generator
) -> tuple[Particles, Collector]:
    """Molecules side by side: placements from tight to loose, relaxations, pulled apart, pushed together."""
    amounts, bodies, mols = source.amounts, [], []
    for smiles in source.smiles.split("."):
        mol, (start,) = embed(parse(smiles), 1, int(rng.integers(2**31 - 1)))
        field, alone = _force_field([mol]), _particles([mol])
        guess = None if field is None else field.hessian(start)
        path, _ = relax(make_labeller(alone), start, steps=60, guess=guess, fmax=0.1)
        bodies.append((alone.numbers, path[-1].positions))
        mols.append(mol)
    topology, particles = Topology.joined([Topology.of_mol(m) for m in mols]), _particles(mols)
    case = _Case(topology, _force_field(mols), Collector(make_labeller(particles)), rng)
    out = case.out
    for contact in np.linspace(0.55, 1.5, amounts.placed):
        geometry = placed(rng, bodies, float(contact))
        out.add(Note("placed"), geometry + rng.normal(scale=0.03, size=geometry.shape))
    for _ in range(amounts.conformers):
        if not case.relax(placed(rng, bodies, 0.8), amounts.relaxation, steps=60):
            out.discarded["relaxation: bonds changed"] += 1
    if not case.minima:
        raise Rejected("bonds changed in the relaxation")
    best, first = case.anywhere(), len(bodies[0][0])
    axis = best[first:].mean(axis=0) - best[:first].mean(axis=0)
    axis /= np.linalg.norm(axis)
    for shift in np.linspace(-0.6, 2.5, amounts.pulled):
        moved = best + rng.normal(scale=0.03, size=best.shape)
        moved[first:] += axis * shift * rng.uniform(0.8, 1.2)
        out.add(Note("pulled"), moved)
    for _ in range(amounts.rattled):
        out.add(Note("rattled"), rattled(rng, best))
    for _ in range(amounts.pushes):
        _push(case, between=first, start=best)
    _add_hessians(case, amounts.hessians)
    return particles, out


def _pair(
    source: Source, make_labeller: MakeLabeller, rng: np.random.Generator
) -> tuple[Particles, Collector]:
    """Reactant and product: both relaxed, and the path between them."""
    particles, (first, last) = _given(source)
    label, numbers = make_labeller(particles), particles.numbers
    case = _Case(Topology.of_geometry(numbers, first), None, Collector(label), rng)
    ends = []
    for start in (first, last):
        path, _ = relax(label, start, steps=RELAX_STEPS)
        case.indices.append(
            case.out.add_path(path, source.amounts.relaxation, kinds=_RELAXATION, reaction=source.name)
        )
        ends.append(path[-1].positions)
    case.minima = ends[:1]
    _path(case, ends[0], ends[1], source.amounts, source.name)
    _scatter(case, source.amounts)
    _add_hessians(case, source.amounts.hessians)
    return particles, case.out
