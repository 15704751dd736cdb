"""One safe file for a potential: weights, and everything needed to use them, as safetensors.

The header's metadata holds one JSON object under the key `polyad`; nothing is ever unpickled.
"""

from __future__ import annotations

import dataclasses
import json
import os
import struct
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlip.errors import InputError

if TYPE_CHECKING:
    import torch

    from mlip.domain import Domain
    from mlip.potential import Potential

FORMAT, FORMAT_VERSION = "polyad-potential", 2
BUNDLED = {
    "default": "gfn2-organic.safetensors",
    "gfn2-organic": "gfn2-organic.safetensors",
}
"""Names of the models that come with the package."""
_BUNDLED_FOLDER = Path(__file__).parent / "models" / "bundled"
_REQUIRED = ("model", "config", "species", "cutoff", "e0s", "dtype")
_MAX_HEADER = 100_000_000
_DOMAIN = "domain."
"""Prefix of the tensors of `Potential.domain`; all others are weights of the model."""


def resolve_model(name_or_path: str | os.PathLike[str]) -> Path:
    """File of a bundled model by name, or the path itself.

    Raises:
        InputError: neither a bundled model nor a file.
    """
    if str(name_or_path) in BUNDLED:
        path = _BUNDLED_FOLDER / BUNDLED[str(name_or_path)]
        if not path.is_file():
            raise InputError(
                f"the bundled model {path.name} is missing from this installation; reinstall polyad"
            )
        return path
    path = Path(name_or_path)
    if (path / "model.safetensors").is_file():
        raise InputError(f"model {str(name_or_path)!r} is a folder: name {path / 'model.safetensors'}")
    if not path.is_file():
        raise InputError(
            f"model {str(name_or_path)!r} is neither a file nor one of {', '.join(sorted(BUNDLED))}"
        )
    return path


def read_header(name_or_path: str | os.PathLike[str]) -> dict[str, Any]:
    """What a model file says of itself, without reading its weights or importing torch.

    Raises:
        InputError: the file is no polyad model, is truncated, or is of a newer format.
    """
    path = resolve_model(name_or_path)
    with open(path, "rb") as file:
        start = file.read(8)
        size = struct.unpack("<Q", start)[0] if len(start) == 8 else _MAX_HEADER + 1
        raw = file.read(size) if size <= _MAX_HEADER else b""
    try:
        if not raw or len(raw) != size:
            raise ValueError
        tensors = json.loads(raw)
        metadata = json.loads(tensors.get("__metadata__", {})["polyad"])
        if metadata["format"] != FORMAT or not isinstance(metadata["format_version"], int):
            raise ValueError
        newer = metadata["format_version"] > FORMAT_VERSION
        if not newer and any(key not in metadata for key in _REQUIRED):
            raise ValueError
        end = max(entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__")
    except (ValueError, LookupError, TypeError, AttributeError):
        raise InputError(
            f"{path} is not a polyad model; give a .safetensors file written by `mlip train`"
        ) from None
    if newer:
        raise InputError(
            f"{path} has format version {metadata['format_version']}; "
            f"this polyad reads {FORMAT_VERSION}: upgrade it"
        )
    if metadata["format_version"] < FORMAT_VERSION:
        raise InputError(
            f"{path} has format version {metadata['format_version']}, whose weights meant something else; "
            f"this polyad reads {FORMAT_VERSION}: train the model again"
        )
    if path.stat().st_size < 8 + size + end:
        raise InputError(
            f"{path} is truncated: {path.stat().st_size} bytes of {8 + size + end}; copy or train it again"
        )
    return metadata


def _own_version() -> str:
    try:
        return version("polyad")
    except PackageNotFoundError:
        return "unknown"


def save_potential(
    potential: Potential, path: str | os.PathLike[str], *, metadata: Mapping[str, Any] | None = None
) -> None:
    """Write a potential to one file, complete or not at all.

    Args:
        potential: What to save; weights keep their type.
        path: Target, usually `*.safetensors`.
        metadata: Anything that should travel with it (level of theory, metrics, licence, ...), as
            JSON values; added to the potential's own metadata.
    """
    from safetensors.torch import save_file

    from mlip.models import MODELS

    names = [name for name, cls in MODELS.items() if type(potential.model) is cls]
    if not names:
        raise ValueError(f"{type(potential.model).__name__} is not registered in MODELS")
    header = {
        "level_of_theory": "unknown",
        "license": "unknown",
        **potential.metadata,
        **(metadata or {}),
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "mlip_version": _own_version(),
        "model": names[0],
        "config": dataclasses.asdict(potential.model.config),
        "species": list(potential.species),
        "cutoff": potential.cutoff,
        "e0s": {str(z): energy for z, energy in potential.isolated_energies().items()},
        "units": {"energy": "eV", "length": "Å"},
        "dtype": str(potential.dtype).removeprefix("torch."),
        "num_parameters": sum(p.numel() for p in potential.parameters()),
    }
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in potential.model.state_dict().items()
    }
    if potential.domain is not None:
        tensors |= {
            _DOMAIN + name: value.detach().cpu().float().contiguous()
            for name, value in potential.domain.state_dict().items()
        }
    path = Path(path)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    try:
        save_file(tensors, temporary, metadata={"polyad": json.dumps(header)})
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_potential(
    name_or_path: str | os.PathLike[str],
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Potential:
    """Read a potential, ready to use: in evaluation mode, its weights frozen.

    Args:
        name_or_path: Name of a bundled model ("default"), or a file.
        device: Where to put it.
        dtype: torch.float32 or torch.float64; the type it was saved with if None.

    Raises:
        InputError: not a polyad model, truncated, of a newer format, or with weights that do not fit.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from mlip.models import MODELS
    from mlip.potential import Potential

    path = resolve_model(name_or_path)
    header = read_header(path)
    if header["model"] not in MODELS:
        raise InputError(f"{path} holds a {header['model']!r} model; this polyad knows {', '.join(MODELS)}")
    types = {"float32": torch.float32, "float64": torch.float64}
    if header["dtype"] not in types:
        raise InputError(f"{path} holds {header['dtype']} weights; this polyad reads {', '.join(types)}")
    saved = types[header["dtype"]]
    # Weights are ordinary tensors, also for who loads in inference mode; nobody's random numbers are used up.
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        model = MODELS[header["model"]].from_config(header["config"]).to(saved)
        try:
            tensors = load_file(str(path))
            domain = _domain({k: tensors.pop(k) for k in list(tensors) if k.startswith(_DOMAIN)})
            model.load_state_dict(tensors)
        except (RuntimeError, LookupError, ValueError, SafetensorError) as error:
            raise InputError(
                f"{path}: its weights do not fit its configuration ({str(error).splitlines()[0]})"
            ) from None
    known = (
        "format",
        "format_version",
        "mlip_version",
        "model",
        "config",
        "species",
        "cutoff",
        "e0s",
        "dtype",
    )
    metadata = {key: value for key, value in header.items() if key not in known}
    with torch.inference_mode(False):
        potential = Potential(model, {int(z): e for z, e in header["e0s"].items()}, metadata=metadata)
        potential.domain = domain
        return potential.to(device=device, dtype=dtype or saved).eval().requires_grad_(False)


def _domain(tensors: dict[str, torch.Tensor]) -> Domain | None:
    """The domain that a file holds, if it holds one."""
    from mlip.domain import Domain

    if not tensors:
        return None
    state = {name.removeprefix(_DOMAIN): value for name, value in tensors.items()}
    domain = Domain(*state["mean"].shape)
    domain.load_state_dict(domain.state_dict() | state)  # older files do not tell of odd electrons
    return domain
