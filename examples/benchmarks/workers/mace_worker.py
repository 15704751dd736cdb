"""Runs mace-torch for a benchmark; started with the Python of an environment that has it.

Models are those of `mace_run_train --model MACE` with its defaults (version 0.3): two layers, harmonics to
l = 3, correlation 3, 8 Bessel functions, radial network of 3 x 64, readout network of 16; `hidden_irreps`
varies. Weights are random: they do not change the time. Eager mode with e3nn's compiled products, as in
`MACECalculator` and in training.
"""

from __future__ import annotations

import logging
import platform
import warnings
from typing import Any

import ase.io
import numpy as np
import torch
from protocol import Task, serve

torch.serialization.add_safe_globals([slice])  # in a file that e3nn 0.4 loads while it is imported

from e3nn import __version__ as e3nn_version  # noqa: E402
from e3nn import o3  # noqa: E402
from mace import data, modules, tools  # noqa: E402
from mace.__version__ import __version__ as mace_version  # noqa: E402
from mace.calculators import MACECalculator  # noqa: E402
from mace.modules.models import ScaleShiftMACE  # noqa: E402
from mace.tools import torch_geometric  # noqa: E402
from mace.tools.train import take_step  # noqa: E402
from torch_ema import ExponentialMovingAverage  # noqa: E402

KEYS = data.KeySpecification(info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"})
"""Names of the labels in the structure files of the benchmarks."""


def energy(options: dict[str, Any]) -> Task:
    """Energy, forces and stress of one structure; neighbour list made beforehand."""
    batch = _batch(options)
    model = _model(options, batch).eval().requires_grad_(False)

    def run() -> dict[str, Any]:
        return model(batch.to_dict(), training=False, compute_force=True, compute_stress=True)

    return Task(run, facts=_facts(model, batch))


def training(options: dict[str, Any]) -> Task:
    """`mace.tools.train.take_step` on one batch: AMSGrad, clipping at 10, moving average."""
    batch = _batch(options)
    model = _model(options, batch).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, amsgrad=True)
    average = ExponentialMovingAverage(model.parameters(), decay=0.99)
    loss = modules.WeightedEnergyForcesLoss(energy_weight=1.0, forces_weight=100.0)
    outputs = {"forces": True, "virials": False, "stress": False}

    def run() -> None:
        take_step(model, loss, batch, optimizer, average, outputs, 10.0, torch.device("cpu"))

    return Task(run, facts=_facts(model, batch))


def calculator(options: dict[str, Any]) -> Task:
    """Energy and forces through `MACECalculator`, atoms moved before each call."""
    batch = _batch(options)
    model = _model(options, batch).eval()
    facts = _facts(model, batch)
    atoms = ase.io.read(options["structures"])
    atoms.calc = MACECalculator(models=model, device="cpu", default_dtype=options["dtype"])
    start, random = atoms.get_positions(), np.random.default_rng(0)

    def move() -> None:
        atoms.set_positions(start + random.normal(scale=options["displacement"], size=start.shape))

    def run() -> None:
        atoms.get_potential_energy()
        atoms.get_forces()

    return Task(run, move, facts)


def _batch(options: dict[str, Any]) -> Any:
    torch.set_num_threads(options["threads"])
    tools.set_default_dtype(options["dtype"])
    frames = ase.io.read(options["structures"], ":")
    elements = tools.AtomicNumberTable(sorted({int(z) for frame in frames for z in frame.numbers}))
    graphs = [
        data.AtomicData.from_config(
            data.config_from_atoms(frame, key_specification=KEYS), z_table=elements, cutoff=options["cutoff"]
        )
        for frame in frames
    ]
    loader = torch_geometric.dataloader.DataLoader(dataset=graphs, batch_size=len(graphs), shuffle=False)
    batch = next(iter(loader))
    batch.elements = elements.zs
    return batch


def _model(options: dict[str, Any], batch: Any) -> Any:
    torch.manual_seed(0)
    elements = batch.elements
    return ScaleShiftMACE(
        r_max=options["cutoff"],
        num_bessel=8,
        num_polynomial_cutoff=5,
        max_ell=3,
        interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
        interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
        num_interactions=2,
        num_elements=len(elements),
        hidden_irreps=o3.Irreps(options["hidden_irreps"]),
        MLP_irreps=o3.Irreps("16x0e"),
        atomic_energies=np.zeros(len(elements)),
        avg_num_neighbors=batch.edge_index.shape[1] / batch.num_nodes,
        atomic_numbers=elements,
        correlation=3,
        gate=torch.nn.functional.silu,
        radial_MLP=[64, 64, 64],
        use_reduced_cg=options.get("reduced_cg", False),
        atomic_inter_scale=1.0,
        atomic_inter_shift=0.0,
        heads=["Default"],
    )


def _facts(model: Any, batch: Any) -> dict[str, Any]:
    return {
        "atoms": int(batch.num_nodes),
        "edges": int(batch.edge_index.shape[1]),
        "structures": int(batch.num_graphs),
        "parameters": sum(p.numel() for p in model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "mace-torch": mace_version,
            "e3nn": e3nn_version,
        },
    }


if __name__ == "__main__":
    logging.disable(logging.WARNING)
    warnings.filterwarnings("ignore")
    serve({"energy": energy, "training": training, "calculator": calculator})
