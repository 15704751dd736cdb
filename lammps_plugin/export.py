"""Exports a potential as one AOTInductor package that `pair_style mlip` runs on any number of processes."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mlip.errors import InputError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.export import ExportedProgram
    from torch.fx import GraphModule

    from mlip.potential import Potential

FORMAT: Final = "polyad-lammps"
FORMAT_VERSION: Final = "1"

_TOLERANCE: Final = {"float64": 1e-10, "float32": 2e-4}
"""Largest accepted difference of package and potential, relative to the largest number."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written."""

    path: Path
    metadata: dict[str, str]
    """What the package says of itself."""
    difference: float
    """Largest difference of energies and gradients from the potential's, relative to the largest of them."""


@dataclass(frozen=True)
class Sample:
    """A made-up part of a system: some atoms owned, some copies of them, edges to and fro."""

    numbers: Tensor
    owned: Tensor
    """Atomic numbers of those owned."""
    senders: Tensor
    receivers: Tensor
    vectors: Tensor
    owner: Tensor
    """Of which owned atom each atom is a copy."""

    def operands(self) -> tuple[Tensor, ...]:
        """In the order of the package's inputs."""
        return self.numbers, self.owned, self.senders, self.receivers, self.vectors


def make_sample(potential: Potential, *, owned: int, total: int, edges: int) -> Sample:
    """A sample with random edges, shorter than the cutoff."""
    import torch

    generator = torch.Generator().manual_seed(owned)
    species = torch.tensor(potential.species)
    owner = torch.cat(
        [torch.arange(owned), torch.randint(0, max(owned, 1), (total - owned,), generator=generator)]
    )
    kinds = torch.randint(0, len(species), (owned,), generator=generator)
    numbers = species[kinds][owner]
    directions = torch.randn(edges, 3, generator=generator, dtype=torch.float64)
    lengths = 0.3 + 0.69 * torch.rand(edges, 1, generator=generator, dtype=torch.float64)
    vectors = directions / directions.norm(dim=1, keepdim=True) * lengths * potential.cutoff
    senders = torch.randint(0, max(total, 1), (edges,), generator=generator)
    receivers = torch.randint(0, max(owned, 1), (edges,), generator=generator).sort().values
    return Sample(numbers, numbers[:owned].clone(), senders, receivers, vectors.to(potential.dtype), owner)


def _energies_and_gradient(potential: Potential, *operands: Tensor) -> tuple[Tensor, Tensor]:
    """Energy of each owned atom, float64, eV, and the gradient of their sum by each edge vector, eV/Å."""
    import torch

    numbers, owned, senders, receivers, vectors = operands
    vectors = vectors.detach().requires_grad_()
    output = potential.model(numbers, senders, receivers, vectors, num_owned=owned.shape[0])["node_energy"]
    energies = output.detach().double() + potential.e0s.index_select(0, owned)
    (gradient,) = torch.autograd.grad(output.sum(), vectors)
    return energies, gradient


def trace(potential: Potential) -> GraphModule:
    """Energies and gradients as one graph of operators, shapes left open."""
    import torch
    from torch.fx.experimental.proxy_tensor import make_fx

    from mlip.kernels.halo import copies
    from mlip.lammps_plugin.operators import claim

    # Sizes that all differ: tracing takes equal ones for the same.
    sample = make_sample(potential, owned=7, total=11, edges=29)
    with torch.enable_grad(), copies(sample.owner):
        _energies_and_gradient(potential, *sample.operands())  # what depends on weights alone is kept
        graph = make_fx(
            lambda *operands: _energies_and_gradient(potential, *operands),
            tracing_mode="symbolic",
            _allow_non_fake_inputs=True,
        )(*sample.operands())
    graph.graph.eliminate_dead_code()
    return claim(graph)


def _program(potential: Potential) -> ExportedProgram:
    import torch
    from torch.export import Dim

    total, owned, edges = Dim("total", min=0), Dim("owned", min=0), Dim("edges", min=0)
    sample = make_sample(potential, owned=7, total=11, edges=29)
    shapes = ({0: total}, {0: owned}, {0: edges}, {0: edges}, {0: edges})
    return torch.export.export(trace(potential), sample.operands(), dynamic_shapes=shapes)


def instructions(*, portable: bool) -> str:
    """Instructions that a package may use: the x86-64 level of this processor, or v3 (AVX2) if `portable`.

    Raises:
        InputError: this processor is none that packages are made for.
    """
    import torch

    machine = platform.machine()
    if machine == "aarch64":
        return machine
    best = torch.backends.cpu.get_cpu_capability()
    if machine not in ("x86_64", "AMD64") or best not in ("AVX2", "AVX512"):
        raise InputError(
            f"packages are made for x86-64 with AVX2 and for aarch64, not for {machine} with {best}"
        )
    return "x86-64-v3" if portable or best == "AVX2" else "x86-64-v4"


def _compiler_options(isa: str) -> dict[str, Any]:
    """Options of inductor. One thread: packages run in processes that share the cores of a machine."""
    width = {"x86-64-v3": 256, "x86-64-v4": 512}.get(isa)
    options: dict[str, Any] = {"cpp.threads": 1}
    if width is not None:
        options |= {"cpp.march": isa, "cpp.simdlen": width}
    return options


def model_hash(file: Path) -> str:
    """Of the model that a package comes from."""
    return "sha256:" + hashlib.sha256(file.read_bytes()).hexdigest()


def _describe(potential: Potential, source: Path, isa: str) -> dict[str, str]:
    import torch
    from ase.data import chemical_symbols

    import mlip

    layers = getattr(potential.model.config, "num_layers", 1)
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "polyad_version": str(mlip.__version__),
        "torch_version": str(torch.__version__),
        "symbols": " ".join(chemical_symbols[z] for z in potential.species),
        "atomic_numbers": " ".join(str(z) for z in potential.species),
        "cutoff": repr(potential.cutoff),
        "layers": str(layers),
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": "cpu",
        "instructions": isa,
        "model": source.name,
        "model_hash": model_hash(source),
        "level_of_theory": str(potential.metadata.get("level_of_theory", "unknown")),
    }


def _compare(potential: Potential, package: Path) -> float:
    """Largest difference of package and potential, on a part of a system and on an empty one."""
    import torch
    from torch._inductor import aoti_load_package

    from mlip.kernels.halo import copies

    # Torch mistakes a package for any processor with AVX2 for one made elsewhere.
    archive = logging.getLogger("torch.export.pt2_archive._package")
    level = archive.level
    archive.setLevel(logging.ERROR)
    try:
        compiled = aoti_load_package(str(package))
    finally:
        archive.setLevel(level)
    worst = 0.0
    for owned, total, edges in ((5, 9, 40), (3, 3, 0), (0, 0, 0)):
        sample = make_sample(potential, owned=owned, total=total, edges=edges)
        with torch.enable_grad(), copies(sample.owner):
            expected = _energies_and_gradient(potential, *sample.operands())
        with copies(sample.owner):
            got = compiled(*sample.operands())
        for one, other in zip(got, expected, strict=True):
            if one.shape != other.shape:
                return float("inf")
            if other.numel():
                worst = max(worst, float((one - other).abs().max() / other.abs().max().clamp(min=1e-30)))
    return worst


def export_potential(
    name_or_path: str | os.PathLike[str],
    out: Path,
    *,
    dtype: torch.dtype | None = None,
    portable: bool = False,
) -> Exported:
    """Compile a potential for `pair_style mlip`.

    Args:
        name_or_path: Name of a bundled model, or a file.
        out: The package, `*.pt2`; a file of that name is replaced.
        dtype: torch.float32 or torch.float64; the type that the model was saved with if None.
        portable: For any processor with AVX2, not just for those like this machine's.

    Raises:
        InputError: not a model, a file name that does not end in .pt2, no C++ compiler.
        RuntimeError: the package does not give the numbers of the potential.
    """
    import torch
    from torch._inductor import aoti_compile_and_package

    from mlip.checkpoint import load_potential, resolve_model

    if out.suffix != ".pt2":
        raise InputError(f"{out} must end in .pt2, as the packages of AOTInductor do")
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        raise InputError("exporting needs the C++ compiler g++, which was not found: apt install g++")
    isa = instructions(portable=portable)
    potential = load_potential(name_or_path, dtype=dtype)
    metadata = _describe(potential, Path(resolve_model(name_or_path)), isa)
    with (
        torch.inference_mode(False),
        tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder,
    ):
        package = Path(folder) / "model.pt2"
        options = {**_compiler_options(isa), "aot_inductor.metadata": metadata}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch about itself
            program = _program(potential)
            aoti_compile_and_package(program, package_path=str(package), inductor_configs=options)
        difference = _compare(potential, package)
        if not difference <= _TOLERANCE[metadata["dtype"]]:
            raise RuntimeError(
                f"the compiled package differs from the model by {difference:.1e} of the largest number, "
                "which is more than rounding; please report this with the output of `mlip doctor`"
            )
        os.replace(package, out)
    return Exported(path=out, metadata=metadata, difference=difference)


def read_metadata(package: Path) -> dict[str, str]:
    """What a package says of itself; nothing of it is run.

    Raises:
        FileNotFoundError: there is no such file.
        InputError: it was not written by `mlip export --format lammps`.
    """
    import json
    import zipfile

    try:
        with zipfile.ZipFile(package) as archive:
            names = [n for n in archive.namelist() if n.endswith("_metadata.json")]
            found = [dict(json.loads(archive.read(name))) for name in names]
    except (zipfile.BadZipFile, ValueError):
        found = []
    for metadata in found:
        if metadata.get("format") == FORMAT:
            return {str(key): str(value) for key, value in metadata.items()}
    raise InputError(f"{package} was not written by `mlip export --format lammps`")
