"""Finds and loads the compiled CPU kernels (plain C interface, no torch headers)."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor

import mlip.kernels

SUFFIX = {torch.float32: "f32", torch.float64: "f64"}
"""Types that the kernels are compiled for, and the ending of their names."""

_NAME = "libmlip_kernels.so"

_KEEPING = ((-1, 1 << 30), (-2, 64 << 20), (-4, 0))
"""M_TRIM_THRESHOLD, M_TOP_PAD and M_MMAP_MAX of `malloc.h`, as `lammps_plugin/src/plugin.cpp` sets them."""


class MessageShape(ctypes.Structure):
    """Mirror of `MlipMessageShape` in `src/message.h`."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "senders_n",
            "receivers_n",
            "edges",
            "points",
            "a_points",
            "degrees",
            "channels",
            "basis",
            "rows",
            "threads",
        )
    ] + [(name, ctypes.c_void_p) for name in ("senders", "receivers", "row")]


class SphereShape(ctypes.Structure):
    """Mirror of `MlipSphereShape` in `src/sphere_product.h`."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            "nodes",
            "species_n",
            "points",
            "degrees",
            "harmonics_out",
            "correlation",
            "channels",
            "threads",
        )
    ] + [("species", ctypes.c_void_p)]


class LinearShape(ctypes.Structure):
    """Mirror of `MlipLinearShape` in `src/linear.h`."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("nodes", "degrees", "channels_in", "channels_out", "threads")
    )


class ProjectShape(ctypes.Structure):
    """Mirror of `MlipProjectShape` in `src/linear.h`."""

    _fields_ = tuple(
        (name, ctypes.c_int64) for name in ("nodes", "components_in", "components_out", "channels", "threads")
    )


class PairShape(ctypes.Structure):
    """Mirror of `MlipPairShape` in `src/hessian_pairs.h`."""

    _fields_ = (
        *(
            (name, ctypes.c_int64)
            for name in ("pairs", "channels", "width", "radials", "coordinates", "threads")
        ),
        *((name, ctypes.c_double) for name in ("cutoff", "scale", "shorten")),
        *((name, ctypes.c_void_p) for name in ("receivers", "senders", "kinds", "place")),
    )


class MatrixShape(ctypes.Structure):
    """Mirror of `MlipMatrixShape` in `src/hessian_matrix.h`."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("structures", "coordinates", "threads")),
        ("tiny", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in ("atoms", "pairs", "nears", "receivers", "senders", "near")),
    )


class EdgeShape(ctypes.Structure):
    """Mirror of `MlipEdgeShape` in `src/edge_basis.h`."""

    _fields_ = (
        ("edges", ctypes.c_int64),
        ("degrees", ctypes.c_int64),
        ("intervals", ctypes.c_int64),
        ("threads", ctypes.c_int64),
        ("cutoff", ctypes.c_double),
        ("polynomials", ctypes.c_void_p),
    )


def library_path() -> Path | None:
    """Where the compiled kernels lie, or None where the package was installed without them."""
    for folder in mlip.kernels.__path__:
        candidate = Path(folder) / _NAME
        if candidate.is_file():
            return candidate
    return None


def keep_memory() -> None:
    """Have the C library keep the memory that is freed for the next evaluation, up to 1 GiB.

    Given back to the system, the pages are fetched and cleared anew at every step, which for hundreds of
    atoms takes up to a third of its time. Changes nothing where the environment has settings of its own
    (`MALLOC_*`, as `MALLOC_TRIM_THRESHOLD_` of mallopt(3)), and where the C library is not glibc.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt") and not any(name.startswith("MALLOC_") for name in os.environ):
        for option, value in _KEEPING:
            libc.mallopt(option, value)


@lru_cache(maxsize=1)
def load_library() -> ctypes.CDLL | None:
    """Load the kernels once, and have their memory kept; None where there are none.

    The library needs `libgomp.so.1`. Torch brings its own copy under that name and is always
    imported before this runs, so both share one thread pool and one thread count.
    """
    path = library_path()
    if path is None:
        return None
    keep_memory()
    library = ctypes.CDLL(str(path))
    library.mlip_isa.restype = ctypes.c_char_p
    library.mlip_set_isa.argtypes = [ctypes.c_char_p]
    shapes = (MessageShape, SphereShape, EdgeShape, LinearShape, ProjectShape, PairShape, MatrixShape)
    message, sphere, edge, linear, project, pair, matrix = map(ctypes.POINTER, shapes)
    for dtype in SUFFIX.values():
        for name, shape, pointers in (
            ("message", message, 6),
            ("message_backward", message, 10),
            ("message_double_backward", message, 15),
            ("message_dual", message, 10),
            ("message_dual_backward", message, 13),
            ("sphere_product", sphere, 6),
            ("sphere_product_backward", sphere, 9),
            ("sphere_product_double_backward", sphere, 13),
            ("sphere_product_dual", sphere, 8),
            ("sphere_product_dual_backward", sphere, 12),
            ("linear", linear, 3),
            ("project", project, 3),
            ("hessian_pairs", pair, 16),
            ("hessian_matrix", matrix, 5),
            ("edge_basis", edge, 4),
            ("edge_basis_backward", edge, 4),
            ("edge_basis_double_backward", edge, 7),
        ):
            function = getattr(library, f"mlip_{name}_{dtype}")
            function.argtypes = [shape] + [ctypes.c_void_p] * pointers
            function.restype = ctypes.c_int
    return library


def covers(x: Tensor) -> bool:
    """Whether there are kernels for tensors of this device and type."""
    return x.device.type == "cpu" and x.dtype in SUFFIX and load_library() is not None


def call(name: str, dtype: torch.dtype, shape: ctypes.Structure, tensors: Iterable[Tensor | None]) -> None:
    """Run a kernel on dense tensors, of this type where they are not indices, in the order of its operands.

    Raises:
        RuntimeError: The kernels are not installed, or have no case for these sizes.
    """
    library = load_library()
    if library is None:
        raise RuntimeError("the compiled kernels are not installed; reinstall polyad with a C++ compiler")
    pointers = [None if t is None else t.data_ptr() for t in tensors]
    if getattr(library, f"mlip_{name}_{SUFFIX[dtype]}")(ctypes.byref(shape), *pointers) != 0:
        sizes = {field: getattr(shape, field) for field, kind in shape._fields_ if kind is ctypes.c_int64}
        raise RuntimeError(f"mlip::{name} has no compiled case for {sizes}")


@lru_cache(maxsize=1)
def usable() -> bool:
    """Whether there are compiled kernels; at its first call they must prove themselves.

    Raises:
        KernelMismatch: a kernel does not give the numbers of the reference on this machine.
    """
    if load_library() is None:
        return False
    from mlip.kernels.verification import verify

    verify()
    return True


def instruction_set() -> str:
    """The build of the kernels in use: "avx512", "avx2", "generic", or "none" if not compiled."""
    library = load_library()
    return "none" if library is None else library.mlip_isa().decode()


def set_instruction_set(name: str) -> None:
    """Choose one build of the kernels, for tests and for finding faults.

    Raises:
        ValueError: this machine or installation lacks it.
    """
    library = load_library()
    if library is None or library.mlip_set_isa(name.encode()) != 0:
        raise ValueError(f"kernels for {name!r} cannot run here; in use: {instruction_set()!r}")
    usable.cache_clear()
