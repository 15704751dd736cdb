"""Features of atoms that are computed elsewhere, registered as `mlip::halo`, with its adjoint.

An engine that divides space among processes gives each the atoms it owns and copies of those around them,
its halo. Between two layers the copies must get the features of their owners (`halo`); on the way back their
gradients must be added to those of the owners (`halo_adjoint`). Each is the other's derivative. The engine
brings kernels that communicate; here, in one process, `copies` says whose copy each atom is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

_library = torch.library.Library("mlip", "FRAGMENT")
_library.define("halo(Tensor x, SymInt total) -> Tensor")
_library.define("halo_adjoint(Tensor g, SymInt owned) -> Tensor")

_owner: ContextVar[Tensor | None] = ContextVar("owner", default=None)


@contextmanager
def copies(owner: Int[Tensor, " total"]) -> Iterator[None]:
    """Within it, atom i of a halo is a copy of atom `owner[i]`; those owned come first and own themselves."""
    token = _owner.set(owner)
    try:
        yield
    finally:
        _owner.reset(token)


def _owners(owned: int, total: int) -> Tensor:
    owner = _owner.get()
    if owner is None or owner.shape[0] != total or int(owner.max()) >= owned:
        raise RuntimeError(
            f"{total} atoms of which {owned} are owned: an engine, or `mlip.kernels.halo.copies`, must say "
            "whose copies the others are"
        )
    return owner


def _halo(x: Tensor, total: int) -> Tensor:
    return x.clone() if total == x.shape[0] else x.index_select(0, _owners(x.shape[0], total))


def _adjoint(g: Tensor, owned: int) -> Tensor:
    if owned == g.shape[0]:
        return g.clone()
    return g.new_zeros(owned, *g.shape[1:]).index_add(0, _owners(owned, g.shape[0]), g)


_library.impl("halo", _halo, "CompositeExplicitAutograd")
_library.impl("halo_adjoint", _adjoint, "CompositeExplicitAutograd")


@torch.library.register_fake("mlip::halo", lib=_library)
@torch.library.register_fake("mlip::halo_adjoint", lib=_library)
def _fake(x: Tensor, rows: int) -> Tensor:
    return x.new_empty(rows, *x.shape[1:])


def _save(ctx: Any, inputs: Any, output: Any) -> None:
    ctx.rows = inputs[0].shape[0]


def _halo_vjp(ctx: Any, g: Tensor) -> Any:
    return torch.ops.mlip.halo_adjoint(g, ctx.rows), None


def _adjoint_vjp(ctx: Any, g: Tensor) -> Any:
    return torch.ops.mlip.halo(g, ctx.rows), None


torch.library.register_autograd("mlip::halo", _halo_vjp, setup_context=_save, lib=_library)
torch.library.register_autograd("mlip::halo_adjoint", _adjoint_vjp, setup_context=_save, lib=_library)


def halo(
    x: Float[Tensor, "owned harmonics channels"], total: int
) -> Float[Tensor, "total harmonics channels"]:
    """Features of all atoms from those of the atoms owned here.

    Args:
        x: Features of the owned atoms.
        total: Number of atoms, copies included; the owned ones come first.

    Raises:
        RuntimeError: there are copies and nobody says of which atoms.
    """
    return torch.ops.mlip.halo(x, total)
