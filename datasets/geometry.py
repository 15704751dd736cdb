"""The closest pair of atoms in a frame, periodic images included."""

from __future__ import annotations

import numpy as np

from mlip.datasets.frames import Frame


def closest_pair(frame: Frame, *, within: float) -> tuple[float, int, int] | None:
    """Distance (Å) and indices of the two atoms that are closest, if closer than `within`.

    Lattice vectors of periodic directions must be linearly independent and further apart than `within`.

    Args:
        frame: Frame with finite positions.
        within: Å; small, for atoms are copied across the faces of the cell only that far.
    """
    from scipy.spatial import cKDTree

    points, index = _with_images(frame, within)
    pairs = cKDTree(points).query_pairs(within, output_type="ndarray")
    if not len(pairs):
        return None
    distances = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    k = int(np.argmin(distances))
    i, j = sorted(index[pairs[k]].tolist())
    return float(distances[k]), i, j


def _with_images(frame: Frame, within: float) -> tuple[np.ndarray, np.ndarray]:
    """Positions wrapped into the cell, with copies of those near a lower face beyond the upper one."""
    points, index = frame.positions, np.arange(len(frame))
    axes = np.flatnonzero(frame.pbc)
    if not len(axes):
        return points, index
    vectors = frame.cell[axes]
    dual = np.linalg.pinv(vectors)
    points = points - np.floor(points @ dual) @ vectors
    for k in range(len(axes)):
        near = (points @ dual[:, k]) < within * np.linalg.norm(dual[:, k])
        points = np.concatenate([points, points[near] + vectors[k]])
        index = np.concatenate([index, index[near]])
    return points, index
