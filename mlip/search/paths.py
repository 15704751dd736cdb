r"""Starting paths between two structures: image dependent pair potential, and geodesics.

A straight line in Cartesian coordinates drives atoms through each other. Three better paths are made without
looking at any energy, and whoever asks for one picks that with the lowest top:

* IDPP: each image has distances as near as can be to those interpolated between the ends,
  $\sum_{i<j}(d_{ij}-d^0_{ij})^2/d_{ij}^4$, and neighbouring images are tied together. From the straight line;
  or grown from both ends, each image starting where the one before it came to rest, for lines on which atoms
  collide.
* Geodesic: the shortest path in the coordinates $w = e^{\alpha(1-r/r_e)} + \beta r_e/r$ of all pairs, in
which
  bonds that break and form count for what they cost.

Sources: Smidstrup, Pedersen, Stokbro, Jónsson, J. Chem. Phys. 140, 214106 (2014); Schmerwitz, Ásgeirsson,
Jónsson,
J. Chem. Theory Comput. 20, 155 (2024); Zhu, Thompson, Martínez, J. Chem. Phys. 150, 164103 (2019).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from mlip.alignment import aligned, superposed

if TYPE_CHECKING:
    from collections.abc import Callable

    from ase import Atoms
    from jaxtyping import Bool, Float64

    Images = Float64[np.ndarray, "images atoms 3"]

STEEPNESS: Final = 1.7
"""α of the geodesic's coordinates."""

REPULSION: Final = 0.01
"""β of the geodesic's coordinates."""

FRICTION: Final = 0.02
"""1/Å; weight of Cartesian length beside that in the geodesic's coordinates."""

TIE: Final = 0.03
"""1/Å⁴; tie between neighbouring images of an IDPP path."""

COLLISION: Final = 0.6
"""Of the sum of covalent radii: atoms nearer than this on a straight line collide."""

NUDGE: Final = 0.05
"""Å; random displacement of images in which atoms collide, so that they may pass on either side."""


def straight(start: Atoms, end: Atoms, images: int) -> Images:
    """The straight line from `start` to `end`, which is aligned with it first; both ends are among the
    images."""
    last = aligned(end, start).positions
    fractions = np.linspace(0.0, 1.0, images)[:, None, None]
    return start.positions + fractions * (last - start.positions)


def starting_paths(start: Atoms, end: Atoms, images: int) -> dict[str, Images]:
    """Paths from `start` to `end` by name; both ends are among the images, fixed atoms do not move.

    Args:
        start: First image.
        end: Last image, its atoms in the same order; it is aligned with the first.
        images: How many, ends included; at least 3.
    """
    line = straight(start, end, images)
    if start.pbc.any():  # distances across cells would need images of atoms
        return {"straight": line}
    movable = _movable(start)
    radii = _radii(start)
    first = _idpp(_nudged(line, radii, movable), line, movable)
    paths = {"idpp": first, "geodesic": _geodesic(first, radii, movable)}
    if _collides(line, radii):
        grown = _grown(line, movable)
        paths["grown geodesic"] = _geodesic(grown, radii, movable)
    return {name: _in_sequence(path, free=not start.constraints) for name, path in paths.items()}


def _movable(atoms: Atoms) -> Bool[np.ndarray, "atoms 3"]:
    from mlip.rigid_motions import rigid_motions

    return rigid_motions(atoms, mass_weighted=False).free.reshape(-1, 3)


def _radii(atoms: Atoms) -> Float64[np.ndarray, "atoms atoms"]:
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    return radii[:, None] + radii[None]


def _distances(
    images: Images,
) -> tuple[Float64[np.ndarray, "images atoms atoms 3"], Float64[np.ndarray, "images atoms atoms"]]:
    """Unit vectors from the second atom to the first, and distances; infinite on the diagonal."""
    vectors = images[:, :, None] - images[:, None]
    lengths = np.sqrt((vectors**2).sum(axis=-1) + 1e-12)
    places = np.arange(images.shape[1])
    lengths[:, places, places] = np.inf
    return vectors / lengths[..., None], lengths


def _collides(line: Images, radii: Float64[np.ndarray, "atoms atoms"]) -> bool:
    return bool((_distances(line)[1] < COLLISION * radii).any())


def _nudged(
    line: Images, radii: Float64[np.ndarray, "atoms atoms"], movable: Bool[np.ndarray, "atoms 3"]
) -> Images:
    """The line with a smooth random bulge where atoms collide; the same at every call."""
    if not _collides(line, radii):
        return line
    bulge = np.sin(np.linspace(0.0, np.pi, len(line)))[:, None, None]
    random = np.random.default_rng(0).normal(size=line.shape[1:], scale=NUDGE)
    return line + bulge * np.where(movable, random, 0.0)


def _idpp(images: Images, line: Images, movable: Bool[np.ndarray, "atoms 3"]) -> Images:
    targets = _interpolated_distances(line)

    def objective(path: Images) -> tuple[float, Images]:
        total, gradient = _pair_misfit(path, targets)
        steps = np.diff(path, axis=0)
        gradient[1:] += 2.0 * TIE * steps
        gradient[:-1] -= 2.0 * TIE * steps
        return total + TIE * float((steps**2).sum()), gradient

    return _lowered(images, objective, movable, slice(1, -1), 200)


def _grown(line: Images, movable: Bool[np.ndarray, "atoms 3"]) -> Images:
    """Images one after the other from both ends to the middle, each from where the one before came to
    rest."""
    targets, path = _interpolated_distances(line), line.copy()
    middle = len(line) // 2
    for order, before in ((range(1, middle), -1), (range(len(line) - 2, middle - 1, -1), 1)):
        for place in order:

            def objective(one: Images, at: int = place) -> tuple[float, Images]:
                return _pair_misfit(one, targets[at : at + 1])

            path[place] = path[place + before]
            path[place] = _lowered(path[place][None], objective, movable, slice(0, 1), 60)[0]
            if movable.all():
                path[place] = superposed(path[place], path[place + before])
    return path


def _interpolated_distances(line: Images) -> Float64[np.ndarray, "images atoms atoms"]:
    ends = _distances(line[[0, -1]])[1]
    fractions = np.linspace(0.0, 1.0, len(line))[:, None, None]
    with np.errstate(invalid="ignore"):
        return (1.0 - fractions) * ends[0] + fractions * ends[1]


def _pair_misfit(path: Images, targets: Float64[np.ndarray, "images atoms atoms"]) -> tuple[float, Images]:
    """The IDPP of all images and its gradient."""
    unit, lengths = _distances(path)
    with np.errstate(invalid="ignore"):
        apart = np.nan_to_num(lengths - targets)
    slope = 2.0 * apart / lengths**4 - 4.0 * apart**2 / lengths**5
    gradient = (slope[..., None] * unit).sum(axis=2)
    return 0.5 * float((apart**2 / lengths**4).sum()), gradient


def _geodesic(
    images: Images, radii: Float64[np.ndarray, "atoms atoms"], movable: Bool[np.ndarray, "atoms 3"]
) -> Images:
    def objective(path: Images) -> tuple[float, Images]:
        unit, lengths = _distances(path)
        decay = np.exp(STEEPNESS * (1.0 - lengths / radii))
        scaled = decay + REPULSION * radii / lengths
        slope = -STEEPNESS / radii * decay - REPULSION * radii / lengths**2
        leaps, steps = np.diff(scaled, axis=0), np.diff(path, axis=0)
        pull = np.zeros_like(scaled)
        pull[1:] += 2.0 * leaps
        pull[:-1] -= 2.0 * leaps
        gradient = ((pull * slope)[..., None] * unit).sum(axis=2)
        gradient[1:] += 2.0 * FRICTION**2 * steps
        gradient[:-1] -= 2.0 * FRICTION**2 * steps
        return 0.5 * float((leaps**2).sum()) + FRICTION**2 * float((steps**2).sum()), gradient

    return _lowered(images, objective, movable, slice(1, -1), 200)


def _lowered(
    images: Images,
    objective: Callable[[Images], tuple[float, Images]],
    movable: Bool[np.ndarray, "atoms 3"],
    inner: slice,
    iterations: int,
) -> Images:
    """`images` with those of `inner` where the objective is least, by L-BFGS."""
    from scipy.optimize import minimize

    path = images.copy()

    def of_inner(x: Float64[np.ndarray, " coordinates"]) -> tuple[float, Float64[np.ndarray, " coordinates"]]:
        path[inner] = x.reshape(path[inner].shape)
        value, gradient = objective(path)
        return value, np.where(movable, gradient[inner], 0.0).ravel()

    found = minimize(
        of_inner,
        path[inner].ravel(),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": iterations, "gtol": 1e-5},
    )
    path[inner] = found.x.reshape(path[inner].shape)
    return path


def _in_sequence(path: Images, *, free: bool) -> Images:
    """Each image aligned with the one before."""
    if not free:
        return path
    aligned_path = path.copy()
    for place in range(1, len(path)):
        aligned_path[place] = superposed(aligned_path[place], aligned_path[place - 1])
    return aligned_path
