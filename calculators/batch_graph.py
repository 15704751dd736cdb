"""The graph of many structures at once, without work of torch or of a cell list for each molecule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import torch

from mlip.calculators.skin import SkinNeighbors
from mlip.calculators.surface import StructureError
from mlip.errors import InputError
from mlip.graph import AtomGraph
from mlip.neighbors import MIN_DISTANCE, build_graph

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ase import Atoms
    from jaxtyping import Float64, Int64

LARGEST_ALL_PAIRS: Final = 100
"""Atoms of a molecule up to which all its pairs are looked at, every time; periodic and larger structures
have lists with a skin."""


class BatchNeighbors:
    """Graphs of one list of structures after another.

    The pairs of all molecules are measured together. Every other structure has a list with a skin, which
    stays with it, or for want of that with its place, and is reused as long as it is provably complete.
    """

    def __init__(self, cutoff: float, *, device: torch.device | str, skin: float = 0.5) -> None:
        """Start with no lists.

        Args:
            cutoff: Radius of the graphs, Å.
            device: Where the graphs live.
            skin: Added to the radius of the lists that are kept, Å.
        """
        self.cutoff, self.skin, self.device = cutoff, skin, torch.device(device)
        self._of_place: dict[int, SkinNeighbors] = {}
        self._of_object: dict[int, SkinNeighbors] = {}
        self._sizes: tuple[int, ...] = ()
        self._pairs = _all_pairs(())

    def keep(self, structures: Sequence[Atoms]) -> None:
        """Give lists to those structures that need one, those that they had before where there are any, and
        drop all others.

        A wrong guess costs time alone: every list is checked against the structure before it is used.
        """
        listed = {place: atoms for place, atoms in enumerate(structures) if not _is_small(atoms)}
        own = {place: self._of_object.get(id(atoms)) for place, atoms in listed.items()}
        taken = {id(kept) for kept in own.values()}
        lists = {}
        for place, kept in own.items():
            if kept is None:
                kept = self._of_place.get(place)
                if kept is None or id(kept) in taken:
                    kept = SkinNeighbors(self.cutoff, skin=self.skin)
            lists[place] = kept
        self._of_place = lists
        self._of_object = {id(atoms): lists[place] for place, atoms in listed.items()}

    def graph(self, structures: Sequence[Atoms], *, first: int = 0) -> AtomGraph:
        """The graph of all structures, the same as `build_graph` and `collate` make.

        Args:
            structures: At least one.
            first: Place of the first one in what `keep` was given, and for errors.

        Raises:
            StructureError: As `mlip.neighbors.build_graph`, with the place of the structure.
        """
        small = [_is_small(atoms) for atoms in structures]
        sizes = np.array([len(a) for a in structures])
        positions = np.concatenate([a.positions for a in structures])
        parts = [self._molecules(structures, positions, sizes, small, first)]
        offsets = np.cumsum(sizes) - sizes
        for k in [k for k, is_small in enumerate(small) if not is_small]:
            parts.append(self._listed(structures[k], first + k, int(offsets[k])))
        senders, receivers, shifts = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        if len(parts) > 1 and not all(len(part[0]) == 0 for part in parts[:-1]):
            order = np.argsort(receivers, kind="stable")
            senders, receivers, shifts = senders[order], receivers[order], shifts[order]
        where = self.device
        return AtomGraph(
            positions=torch.from_numpy(positions).to(where),
            atomic_numbers=torch.from_numpy(
                np.concatenate([a.numbers for a in structures]).astype(np.int64)
            ).to(where),
            cell=torch.from_numpy(np.stack([a.cell.array for a in structures])).to(where),
            pbc=torch.from_numpy(np.stack([a.pbc for a in structures])).to(where),
            batch=torch.from_numpy(np.repeat(np.arange(len(structures)), sizes)).to(where),
            senders=torch.from_numpy(senders).to(where),
            receivers=torch.from_numpy(receivers).to(where),
            shifts=torch.from_numpy(shifts).to(where, torch.float64),
        )

    def _molecules(
        self,
        structures: Sequence[Atoms],
        positions: Float64[np.ndarray, "atoms 3"],
        sizes: Int64[np.ndarray, " structures"],
        small: list[bool],
        first: int,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Senders, receivers and shifts of all molecules; the structures that are none count as empty."""
        key = tuple(int(n) if is_small else -int(n) for n, is_small in zip(sizes, small, strict=True))
        if key != self._sizes:
            self._sizes, self._pairs = key, _all_pairs(key)
        senders, receivers = self._pairs
        vectors = positions[senders] - positions[receivers]
        squared = np.einsum("ij,ij->i", vectors, vectors)
        near = squared < self.cutoff**2
        # Written so that coordinates that are not finite are found here, too.
        if not bool((squared >= MIN_DISTANCE**2).all()) or not np.isfinite(positions).all():
            self._report(structures, small, first)
        senders, receivers = senders[near], receivers[near]
        return senders, receivers, np.zeros((len(senders), 3))

    def _report(self, structures: Sequence[Atoms], small: list[bool], first: int) -> None:
        """Let the plain neighbour list say what is wrong with the first molecule that it refuses."""
        for k in [k for k, is_small in enumerate(small) if is_small]:
            try:
                build_graph(structures[k], self.cutoff)
            except InputError as error:
                raise StructureError(str(error), place=first + k) from None

    def _listed(self, atoms: Atoms, place: int, offset: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Senders, receivers and shifts of one structure that has a list of its own."""
        kept = self._of_place.get(place)
        if kept is None:
            kept = self._of_place[place] = SkinNeighbors(self.cutoff, skin=self.skin)
        try:
            graph = kept.graph(atoms)
        except InputError as error:
            raise StructureError(str(error), place=place) from None
        return graph.senders.numpy() + offset, graph.receivers.numpy() + offset, graph.shifts.numpy()


def _is_small(atoms: Atoms) -> bool:
    return 0 < len(atoms) <= LARGEST_ALL_PAIRS and not atoms.pbc.any()


def _all_pairs(
    sizes: tuple[int, ...],
) -> tuple[Int64[np.ndarray, " pairs"], Int64[np.ndarray, " pairs"]]:
    """Senders and receivers of all pairs of different atoms within each structure, by receiver, then sender.

    Args:
        sizes: Atoms of each structure; negative for one that takes part with none of its pairs.
    """
    atoms = np.abs(np.array(sizes, dtype=np.int64))
    offsets = np.cumsum(atoms) - atoms
    taken = np.array([n > 0 for n in sizes], dtype=bool)
    atoms, offsets = atoms[taken], offsets[taken]
    starts = np.repeat(offsets, atoms)  # of the structure of each atom
    counts = np.repeat(atoms, atoms)
    receivers = np.repeat(
        starts + np.arange(len(starts)) - np.repeat(np.cumsum(atoms) - atoms, atoms), counts
    )
    ends = np.cumsum(counts)
    senders = np.arange(int(counts.sum())) - np.repeat(ends - counts, counts) + np.repeat(starts, counts)
    different = senders != receivers
    return senders[different], receivers[different]
