"""Runs NequIP for a benchmark; started with the Python of an environment that has it.

Models are `NequIPGNNModel` with 64 channels for every degree, 3 layers, a radial network of one hidden layer
of 128 (the default) and 8 Bessel functions; `l_max` and `parity` vary. Weights are random: they do not change
the time. Eager mode, or the package that `nequip-compile --mode aotinductor --target ase` makes (its own
export function, with its settings).
"""

from __future__ import annotations

import platform
import warnings
from typing import Any

import ase.io
import torch
from e3nn import __version__ as e3nn_version
from nequip import __version__ as nequip_version
from nequip.data import AtomicDataDict, from_ase
from nequip.integrations.utils import basic_transforms
from nequip.model import NequIPGNNModel
from nequip.nn.compile import DictInputOutputWrapper
from nequip.scripts._compile_utils import ASE_TARGET, single_frame_batch_map_settings
from nequip.utils.aot import aot_export_model
from nequip.utils.global_state import set_global_state
from protocol import Task, serve


def energy(options: dict[str, Any]) -> Task:
    """Energy, forces and stress of one structure, eagerly; neighbour list made beforehand."""
    structure = _structure(options)
    model = _model(options, structure)
    return Task(lambda: model(structure), facts=_facts(model, structure))


def compile_package(options: dict[str, Any]) -> Task:
    """Write the compiled package for `energy_compiled`; a run does nothing."""
    structure = _structure(options)
    dimension = torch.export.dynamic_shapes.Dim
    sizes = {name: dimension(f"num_{name}s", min=2, max=torch.inf) for name in ("graph", "node", "edge")}
    model = _model(options, structure)
    aot_export_model(
        model=model,
        device=torch.device("cpu"),
        input_fields=ASE_TARGET["input"],
        output_fields=ASE_TARGET["output"],
        data=structure,
        batch_map=single_frame_batch_map_settings(sizes),
        output_path=options["package"],
    )
    return Task(lambda: None, facts=_facts(model, structure))


def energy_compiled(options: dict[str, Any]) -> Task:
    """As `energy`, by the compiled package `options["package"]`."""
    structure = _structure(options)
    package = torch._inductor.aoti_load_package(options["package"])
    model = DictInputOutputWrapper(package, ASE_TARGET["input"], ASE_TARGET["output"])
    return Task(lambda: model(structure), facts=_facts(None, structure))


def _structure(options: dict[str, Any]) -> dict[str, torch.Tensor]:
    torch.set_num_threads(options["threads"])
    set_global_state()
    atoms = ase.io.read(options["structures"])
    symbols = sorted(set(atoms.get_chemical_symbols()))
    values = from_ase(atoms)
    for transform in basic_transforms({}, options["cutoff"], symbols, {s: s for s in symbols}):
        values = transform(values)
    for name in (AtomicDataDict.BATCH_KEY, AtomicDataDict.NUM_NODES_KEY):  # as the target `ase` does
        values.pop(name, None)
    return values


def _model(options: dict[str, Any], structure: dict[str, torch.Tensor]) -> Any:
    symbols = sorted(set(ase.io.read(options["structures"]).get_chemical_symbols()))
    edges, atoms = _sizes(structure)
    model = NequIPGNNModel(
        seed=0,
        model_dtype=options["dtype"],
        r_max=options["cutoff"],
        type_names=symbols,
        num_layers=3,
        l_max=options["l_max"],
        parity=options["parity"],
        num_features=64,
        num_bessels=8,
        avg_num_neighbors=edges / atoms,
        per_type_energy_scales=1.0,
        per_type_energy_shifts=0.0,
    )
    return model.eval().requires_grad_(False)


def _sizes(structure: dict[str, torch.Tensor]) -> tuple[int, int]:
    edges = int(structure[AtomicDataDict.EDGE_INDEX_KEY].shape[1])
    return edges, int(structure[AtomicDataDict.POSITIONS_KEY].shape[0])


def _facts(model: Any, structure: dict[str, torch.Tensor]) -> dict[str, Any]:
    edges, atoms = _sizes(structure)
    return {
        "atoms": atoms,
        "edges": edges,
        "structures": 1,
        "parameters": None if model is None else sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "nequip": nequip_version,
            "e3nn": e3nn_version,
        },
    }


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    serve({"energy": energy, "compile": compile_package, "energy-compiled": energy_compiled})
