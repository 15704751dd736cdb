"""Runs this package for a benchmark.

The model comes from `options["model"]`: the `model` section of a training configuration (`*.yaml`), a
checkpoint (`*.safetensors`, or the name of a bundled model), or a preset below. A checkpoint keeps its
weights where it knows the elements and has the cutoff; otherwise its configuration is built anew for the
elements at hand, as a configuration is: weights do not change the time.
"""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from protocol import Task, peak_memory, serve

import mlip
from mlip.calculators import MLIPCalculator
from mlip.checkpoint import load_potential
from mlip.graph import AtomGraph, collate
from mlip.kernels.library import instruction_set
from mlip.models import MODELS
from mlip.neighbors import build_graph
from mlip.potential import Potential

PRESETS: dict[str, dict[str, Any]] = {
    "small": {
        "name": "polyad", "num_channels": 32, "num_layers": 2, "lmax": 2, "lmax_hidden": 1, "correlation": 2
    },
}  # fmt: skip


def energy(options: dict[str, Any]) -> Task:
    """Energy, forces and, where there is a cell and `options["stress"]`, stress of one structure."""
    graph = _graph(options)
    memory = peak_memory()
    potential, facts = _potential(options, graph)
    facts["peak_memory_after_neighbors_mb"] = memory
    stress = bool(options.get("stress", True))
    if not options.get("with_neighbors"):
        return Task(lambda: potential(graph, stress=stress), facts=facts)
    atoms = ase.io.read(options["structures"])

    def run() -> dict[str, torch.Tensor]:
        return potential(build_graph(atoms, potential.cutoff, dtype=potential.dtype), stress=stress)

    return Task(run, facts=facts)


def training(options: dict[str, Any]) -> Task:
    """`TrainingModule.training_step` on one batch: AMSGrad, clipping at 10, averages."""
    from mlip.datasets import read_frames
    from mlip.training.config_file import parse_config
    from mlip.training.module import TrainingModule
    from mlip.training.packed import pack

    graph = _graph(options)
    potential, facts = _potential(options, graph)
    potential = potential.train().requires_grad_(True)
    config = parse_config(
        {
            "model": {"name": "polyad"},
            "data": {"train": options["structures"], "valid": 1},
            "loss": {"energy": 1.0, "forces": 100.0},
            "optimizer": {"name": "adamw", "lr": 1e-3, "amsgrad": True},
            "ema": 0.99,
            "gradient_clip": 10.0,
            "dtype": options["dtype"],
        },
        "benchmark",
    )
    frames = pack(list(read_frames(options["structures"])), potential.cutoff, dtype=potential.dtype)
    batch = frames.batch(np.arange(len(frames)))
    module = TrainingModule(potential, config, frames, frames)
    # outside a Lightning trainer: what it does with one process and no mixed precision
    module.manual_backward = lambda loss, *args, **kwargs: loss.backward(*args, **kwargs)  # type: ignore[method-assign]
    return Task(lambda: module.training_step(batch, 0), facts=facts)


def calculator(options: dict[str, Any]) -> Task:
    """Energy and forces through `MLIPCalculator`, atoms moved before each call."""
    potential, facts = _potential(options, _graph(options))
    atoms = ase.io.read(options["structures"])
    atoms.calc = MLIPCalculator(potential, device="cpu", dtype=options["dtype"])
    start, random = atoms.get_positions(), np.random.default_rng(0)

    def move() -> None:
        atoms.set_positions(start + random.normal(scale=options["displacement"], size=start.shape))

    def run() -> None:
        atoms.get_potential_energy()
        atoms.get_forces()

    return Task(run, move, facts)


def hessian(options: dict[str, Any]) -> Task:
    """Hessians of a batch by `options["quantity"]`, or "energy and forces"."""
    graph = _graph(options)
    potential, facts = _potential(options, graph)
    if not potential.has_direct_hessian:
        config = dataclasses.replace(potential.model.config, hessian_cutoff=7.0)
        model = type(potential.model)(config).to(potential.dtype)
        potential = Potential(model, potential.isolated_energies()).eval().requires_grad_(False)
        facts["config"] = dataclasses.asdict(config)
    if options["quantity"] == "energy and forces":
        return Task(lambda: potential(graph), facts=facts)
    return Task(lambda: potential.hessian(graph, method=options["quantity"]), facts=facts)


def _graph(options: dict[str, Any]) -> AtomGraph:
    torch.set_num_threads(options["threads"])
    dtype = getattr(torch, options["dtype"])
    frames = ase.io.read(options["structures"], ":")
    return collate([build_graph(atoms, options["cutoff"], dtype=dtype) for atoms in frames])


def _potential(options: dict[str, Any], graph: AtomGraph) -> tuple[Potential, dict[str, Any]]:
    """The potential, with frozen weights, and facts about it and the structures."""
    potential = _checkpoint(options, graph) or _fresh(options, graph)
    potential = potential.to(dtype=getattr(torch, options["dtype"])).eval().requires_grad_(False)
    facts = {
        "atoms": graph.num_atoms,
        "edges": graph.num_edges,
        "structures": graph.num_structures,
        "parameters": sum(p.numel() for p in potential.parameters()),
        "config": dataclasses.asdict(potential.model.config),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "polyad": mlip.__version__,
            "kernels": instruction_set(),
        },
    }
    return potential, facts


def _checkpoint(options: dict[str, Any], graph: AtomGraph) -> Potential | None:
    """The checkpoint itself, if the model is one that knows the elements and has the cutoff."""
    if options["model"] in PRESETS or Path(options["model"]).suffix in (".yaml", ".yml"):
        return None
    potential = load_potential(options["model"])
    known = set(graph.atomic_numbers.tolist()) <= set(potential.species)
    return potential if known and potential.cutoff == options["cutoff"] else None


def _fresh(options: dict[str, Any], graph: AtomGraph) -> Potential:
    """An untrained potential of the configuration, for the elements of the structures."""
    species = tuple(sorted(set(graph.atomic_numbers.tolist())))
    section = _section(options["model"])
    name = section.pop("name")
    measured = {
        "species": species,
        "cutoff": options["cutoff"],
        "avg_num_neighbors": graph.num_edges / graph.num_atoms,
        "energy_scale": 1.0,
    }
    torch.manual_seed(0)
    return Potential(MODELS[name].from_config({**section, **measured}), dict.fromkeys(species, 0.0))


def _section(model: str) -> dict[str, Any]:
    """Name and settings of a model."""
    if model in PRESETS:
        return dict(PRESETS[model])
    if Path(model).suffix in (".yaml", ".yml"):
        from mlip.training.config_file import read_yaml

        section = read_yaml(Path(model))["model"]
        return {"name": section} if isinstance(section, str) else dict(section)
    from mlip.checkpoint import read_header

    header = read_header(model)
    return {"name": header["model"], **header["config"]}


if __name__ == "__main__":
    serve({"energy": energy, "training": training, "calculator": calculator, "hessian": hessian})
