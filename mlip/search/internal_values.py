"""Values and derivatives of the internal coordinates of many structures at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float64, Int64

    from mlip.search.internals import Internals

_TINY: Final = 1e-12


@dataclass(frozen=True, eq=False)
class JoinedInternals:
    """The coordinates of several structures as one list of each kind, and their places in padded tables.

    Structure s has atoms s·A … in the flat list of atoms and rows s·Q … in the flat list of coordinates; its
    displacements are (A + 3) rows of three, the last three of which are the strain times `scale`.
    """

    structures: int
    coordinates: int
    """Q, of the largest structure."""
    atoms: int
    """A, of the largest structure."""
    ends: Int64[np.ndarray, "edges 2"]
    shifts: Float64[np.ndarray, "edges 3"]
    owner: Int64[np.ndarray, " edges"]
    stretches: Int64[np.ndarray, " stretches"]
    bends: Int64[np.ndarray, "bends 2"]
    torsions: Int64[np.ndarray, "torsions 3"]
    wags: Int64[np.ndarray, "wags 3"]
    linear: Int64[np.ndarray, "linear 2"]
    directions: Float64[np.ndarray, "linear 3"]
    cartesian: Int64[np.ndarray, " cartesian"]
    rows: tuple[Int64[np.ndarray, " n"], ...]
    """Row of each coordinate, kind by kind."""
    periodic: Int64[np.ndarray, " torsions"]
    """Rows of the angles that are the same after a full turn."""

    def edges(
        self, positions: Float64[np.ndarray, "atoms 3"], cells: Float64[np.ndarray, "structures 3 3"]
    ) -> Float64[np.ndarray, "edges 3"]:
        """Vectors from tail to head, Å."""
        vectors = positions[self.ends[:, 1]] - positions[self.ends[:, 0]]
        if self.shifts.any():
            vectors += np.einsum("ei,eij->ej", self.shifts, cells[self.owner])
        return vectors

    def values(
        self,
        positions: Float64[np.ndarray, "atoms 3"],
        cells: Float64[np.ndarray, "structures 3 3"],
        *,
        since: Float64[np.ndarray, "structures 3 3"] | None = None,
    ) -> Float64[np.ndarray, "structures coordinates"]:
        """Å and rad, zero where a structure has fewer coordinates.

        Cartesian coordinates are taken back to the cells `since`, so that they do not change with the strain.
        """
        v = self.edges(positions, cells)
        unit = v / np.linalg.norm(v, axis=1)[:, None]
        out = np.zeros(self.structures * self.coordinates)
        stretch, bend, torsion, wag, linear, cartesian = self.rows
        out[stretch] = np.linalg.norm(v[self.stretches], axis=1)
        u, w = unit[self.bends[:, 0]], unit[self.bends[:, 1]]
        out[bend] = np.arctan2(np.linalg.norm(_cross(u, w), axis=1), _dot(u, w))
        b1, b2, b3 = (v[self.torsions[:, k]] for k in range(3))
        n1, n2 = _cross(b2, b1), _cross(b2, b3)
        out[torsion] = np.arctan2(_dot(_cross(n1, n2), unit[self.torsions[:, 1]]), _dot(n1, n2))
        a, b, c = (unit[self.wags[:, k]] for k in range(3))
        out[wag] = _dot(a, _cross(b, c))
        out[linear] = _dot(self.directions, unit[self.linear[:, 0]] + unit[self.linear[:, 1]])
        if since is not None:
            back = np.linalg.solve(cells, since)
            positions = (positions.reshape(self.structures, -1, 3) @ back).reshape(-1, 3)
        out[cartesian] = positions.ravel()[self.cartesian]
        return out.reshape(self.structures, self.coordinates)

    def difference(
        self,
        new: Float64[np.ndarray, "structures coordinates"],
        old: Float64[np.ndarray, "structures coordinates"],
    ) -> Float64[np.ndarray, "structures coordinates"]:
        """new − old, torsions between −π and π."""
        change = (new - old).ravel()
        angles = change[self.periodic]
        change[self.periodic] = angles - 2.0 * np.pi * np.round(angles / (2.0 * np.pi))
        return change.reshape(new.shape)

    def derivatives(
        self,
        positions: Float64[np.ndarray, "atoms 3"],
        cells: Float64[np.ndarray, "structures 3 3"],
        scale: Float64[np.ndarray, " structures"] | None,
    ) -> Float64[np.ndarray, "structures coordinates displacements"]:
        """∂q/∂x; with `scale`, the last nine columns are ∂q/∂ε over `scale`, for the symmetric strain ε."""
        v = self.edges(positions, cells)
        stretch, bend, torsion, wag, linear, cartesian = self.rows
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []  # row, edge, derivative by the edge
        length = np.linalg.norm(v, axis=1)[:, None]
        unit = v / length
        parts.append((stretch, self.stretches, unit[self.stretches]))
        parts += _bend_parts(bend, self.bends, unit, length)
        parts += _torsion_parts(torsion, self.torsions, v)
        parts += _wag_parts(wag, self.wags, unit, length)
        for k in range(2):
            edge = self.linear[:, k]
            parts.append((linear, edge, _across(unit[edge], self.directions) / length[edge]))
        row, edge, value = (np.concatenate(column) for column in zip(*parts, strict=True))
        return self._table(row, edge, value, cartesian, v, scale)

    def _table(
        self,
        row: np.ndarray,
        edge: np.ndarray,
        value: np.ndarray,
        cartesian: np.ndarray,
        v: np.ndarray,
        scale: np.ndarray | None,
    ) -> np.ndarray:
        """Derivatives by edges put where their atoms (and the strain) have their columns."""
        width = 3 * (self.atoms + 3)
        table_row = row * width
        first = self.owner[edge] * self.atoms
        axes = np.arange(3)
        places = [table_row + 3 * (self.ends[edge, k] - first) for k in (0, 1)]
        entries = [np.repeat(place, 3) + np.tile(axes, len(place)) for place in places]
        entries.append(cartesian * width + self.cartesian - cartesian // self.coordinates * 3 * self.atoms)
        weights = [-value.ravel(), value.ravel(), np.ones(len(cartesian))]
        if scale is not None:
            strained = v[edge][:, :, None] * value[:, None, :] / scale[self.owner[edge]][:, None, None]
            strained = 0.5 * (strained + strained.transpose(0, 2, 1))
            entries.append(np.repeat(table_row + 3 * self.atoms, 9) + np.tile(np.arange(9), len(row)))
            weights.append(strained.ravel())
        flat = np.bincount(
            np.concatenate(entries),
            weights=np.concatenate(weights),
            minlength=self.structures * self.coordinates * width,
        )
        return flat.reshape(self.structures, self.coordinates, width)


def _dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("ij,ij->i", a, b)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """`np.cross` for rows of three, several times faster."""
    out = np.empty_like(a)
    for axis in range(3):
        following, last = (axis + 1) % 3, (axis + 2) % 3
        out[:, axis] = a[:, following] * b[:, last] - a[:, last] * b[:, following]
    return out


def _across(unit: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The part of `vector` at right angles to `unit`."""
    return vector - _dot(unit, vector)[:, None] * unit


def _bend_parts(
    rows: np.ndarray, bends: np.ndarray, unit: np.ndarray, length: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    one, other = bends[:, 0], bends[:, 1]
    u, w = unit[one], unit[other]
    sine = np.maximum(np.linalg.norm(_cross(u, w), axis=1), _TINY)[:, None]
    return [
        (rows, one, -_across(u, w) / (length[one] * sine)),
        (rows, other, -_across(w, u) / (length[other] * sine)),
    ]


def _torsion_parts(
    rows: np.ndarray, torsions: np.ndarray, v: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Angle from b1 to b3 about b2, where b1 and b3 leave the two ends of b2.

    Source: A. Blondel and M. Karplus, J. Comput. Chem. 17, 1132 (1996).
    """
    b1, b2, b3 = (v[torsions[:, k]] for k in range(3))
    n1, n2 = _cross(b2, b1), _cross(b2, b3)
    length = np.linalg.norm(b2, axis=1)[:, None]
    first = n1 * (-length / np.maximum(_dot(n1, n1), _TINY)[:, None])
    last = n2 * (length / np.maximum(_dot(n2, n2), _TINY)[:, None])
    # A turn of everything changes nothing: what moves the first atom along b2's other end follows.
    along = -(_dot(b1, b2)[:, None] * first + _dot(b3, b2)[:, None] * last) / length**2
    return [(rows, torsions[:, 0], first), (rows, torsions[:, 1], along), (rows, torsions[:, 2], last)]


def _wag_parts(
    rows: np.ndarray, wags: np.ndarray, unit: np.ndarray, length: np.ndarray
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    parts = []
    for k in range(3):
        edge, following, last = wags[:, k], wags[:, (k + 1) % 3], wags[:, (k + 2) % 3]
        normal = _cross(unit[following], unit[last])
        parts.append((rows, edge, _across(unit[edge], normal) / length[edge]))
    return parts


def join_internals(parts: Sequence[Internals], *, atoms: int, coordinates: int = 0) -> JoinedInternals:
    """Join the coordinates of several structures.

    Args:
        parts: Of each structure.
        atoms: Width of the tables in atoms; at least that of the largest structure.
        coordinates: Least height of the tables.
    """
    edges = np.cumsum([0, *(len(p.ends) for p in parts)])
    coordinates = max(coordinates, *(len(p.stiffness) for p in parts))
    kinds = ("stretches", "bends", "torsions", "wags", "linear", "cartesian")
    joined: dict[str, np.ndarray] = {}
    rows = []
    before = [s * coordinates for s in range(len(parts))]
    for kind in kinds:
        lists = [getattr(p, kind) for p in parts]
        step = [3 * atoms * s for s in range(len(parts))] if kind == "cartesian" else edges
        joined[kind] = np.concatenate([found + step[s] for s, found in enumerate(lists)])
        rows.append(np.concatenate([before[s] + np.arange(len(found)) for s, found in enumerate(lists)]))
        before = [before[s] + len(found) for s, found in enumerate(lists)]
    return JoinedInternals(
        structures=len(parts),
        coordinates=coordinates,
        atoms=atoms,
        ends=np.concatenate([p.ends + s * atoms for s, p in enumerate(parts)]),
        shifts=np.concatenate([p.shifts for p in parts]),
        owner=np.repeat(np.arange(len(parts)), np.diff(edges)),
        directions=np.concatenate([p.directions for p in parts]),
        rows=tuple(rows),
        periodic=rows[2],
        **joined,
    )
