"""The kernels in plain PyTorch: the oracle, slow and differentiable to any order."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from mlip.o3.harmonics import spherical_harmonics


def degree_of_harmonic(degrees: int, device: torch.device | None = None) -> Int[Tensor, " harmonics"]:
    """Degree l of each harmonic lm in the order 0, 1, 1, 1, 2, ..."""
    sizes = torch.arange(degrees, device=device) * 2 + 1
    return torch.repeat_interleave(torch.arange(degrees, device=device), sizes)


def message(
    a: Float[Tensor, "senders_n a_points channels"],
    y: Float[Tensor, "edges harmonics"],
    beta: Float[Tensor, "edges basis"],
    table: Float[Tensor, "rows degrees channels"],
    weight: Float[Tensor, "points harmonics"],
    row: Int[Tensor, " edges"],
    senders: Int[Tensor, " edges"],
    receivers: Int[Tensor, " edges"],
    num_receivers: int,
) -> Float[Tensor, "num_receivers points channels"]:
    """See `mlip.kernels.message`."""
    t = _edge_factors(y, beta, table, weight, row)
    z = t.new_zeros(num_receivers, t.shape[1], t.shape[2])
    return z.index_add(0, receivers, a[senders] * t)


def _edge_factors(
    y: Float[Tensor, "edges harmonics"],
    beta: Float[Tensor, "edges basis"],
    table: Float[Tensor, "rows degrees channels"],
    weight: Float[Tensor, "points harmonics"],
    row: Int[Tensor, " edges"],
) -> Float[Tensor, "edges points channels"]:
    """What the features of the sender are multiplied with."""
    degrees = table.shape[1]
    degree = degree_of_harmonic(degrees, y.device)
    select = torch.nn.functional.one_hot(degree, degrees).to(y.dtype)
    b = torch.einsum("qm,em,ml->elq", weight, y, select)
    rows = row[:, None] + torch.arange(beta.shape[1], device=row.device)
    w = torch.einsum("ek,eklc->elc", beta, table[rows])
    return torch.einsum("elq,elc->eqc", b, w)


def dual_message(
    a: Float[Tensor, "dual nodes a_points channels"],
    y: Float[Tensor, "2 edges harmonics"],
    beta: Float[Tensor, "2 edges basis"],
    table: Float[Tensor, "rows degrees channels"],
    weight: Float[Tensor, "points harmonics"],
    row: Int[Tensor, " edges"],
    senders: Int[Tensor, " edges"],
    receivers: Int[Tensor, " edges"],
) -> Float[Tensor, "2 nodes points channels"]:
    """See `mlip.kernels.message.dual_message`; a message is linear in each operand."""
    t = _edge_factors(y[0], beta[0], table, weight, row)
    dt = _edge_factors(y[1], beta[0], table, weight, row) + _edge_factors(y[0], beta[1], table, weight, row)
    tangent = a[0, senders] * dt
    if a.shape[0] == 2:
        tangent = tangent + a[1, senders] * t
    z = t.new_zeros(2, a.shape[1], t.shape[1], t.shape[2])
    return z.index_add(1, receivers, torch.stack([a[0, senders] * t, tangent]))


def linear(
    x: Float[Tensor, "nodes harmonics channels_in"],
    weight: Float[Tensor, "degrees channels_in channels_out"],
) -> Float[Tensor, "nodes harmonics channels_out"]:
    """See `mlip.kernels.linear`."""
    matrices = weight.index_select(0, degree_of_harmonic(weight.shape[0], x.device))
    return torch.bmm(x.transpose(0, 1), matrices).transpose(0, 1)


def project(
    x: Float[Tensor, "nodes components_in channels"],
    matrix: Float[Tensor, "components_out components_in"],
) -> Float[Tensor, "nodes components_out channels"]:
    """See `mlip.kernels.linear`."""
    return torch.matmul(matrix, x)


def sphere_product(
    a: Float[Tensor, "nodes harmonics channels"],
    scale: Float[Tensor, "species_n correlation degrees channels"],
    weight: Float[Tensor, "species_n correlation channels"],
    to_points: Float[Tensor, "points harmonics"],
    from_points: Float[Tensor, "harmonics_out points"],
    species: Int[Tensor, " nodes"],
) -> Float[Tensor, "nodes harmonics_out channels"]:
    """See `mlip.kernels.sphere_product`."""
    correlation, degrees = scale.shape[1:3]
    scales = scale.index_select(2, degree_of_harmonic(degrees, a.device)).index_select(0, species)
    f = torch.matmul(to_points, a.unsqueeze(1) * scales).unbind(1)
    w = weight.index_select(0, species).unsqueeze(2).unbind(1)
    product = f[-1] * w[-1]
    for j in range(correlation - 2, -1, -1):
        product = f[j] * (product + w[j])
    return torch.matmul(from_points, product)


def dual_sphere_product(
    a: Float[Tensor, "2 nodes harmonics channels"],
    scale: Float[Tensor, "species_n correlation degrees channels"],
    weight: Float[Tensor, "species_n correlation channels"],
    to_points: Float[Tensor, "points harmonics"],
    from_points: Float[Tensor, "harmonics_out points"],
    species: Int[Tensor, " nodes"],
) -> Float[Tensor, "2 nodes harmonics_out channels"]:
    """See `mlip.kernels.sphere_product.dual_sphere_product`."""
    correlation, degrees = scale.shape[1:3]
    scales = scale.index_select(2, degree_of_harmonic(degrees, a.device)).index_select(0, species)
    f, df = (torch.matmul(to_points, half.unsqueeze(1) * scales).unbind(1) for half in a)
    w = weight.index_select(0, species).unsqueeze(2).unbind(1)
    product, tangent = f[-1] * w[-1], df[-1] * w[-1]
    for j in range(correlation - 2, -1, -1):
        tangent = df[j] * (product + w[j]) + f[j] * tangent
        product = f[j] * (product + w[j])
    return torch.matmul(from_points, torch.stack([product, tangent]))


def edge_basis(
    vectors: Float[Tensor, "edges 3"],
    polynomials: Float[Tensor, "6 6"],
    cutoff: float,
    intervals: int,
    lmax: int,
) -> tuple[Float[Tensor, "edges harmonics"], Float[Tensor, "edges 6"], Int[Tensor, " edges"]]:
    """See `mlip.kernels.edge_basis`."""
    r = vectors.norm(dim=-1)
    u = r * (intervals / cutoff)
    interval = u.detach().floor().clamp(0, intervals - 1)
    f = (u - interval).unsqueeze(-1)
    powers = torch.cat([torch.ones_like(f), f, f**2, f**3, f**4, f**5], dim=-1)
    inside = (r < cutoff).to(r.dtype).unsqueeze(-1)
    beta = torch.where(inside > 0, powers @ polynomials.to(r.dtype), torch.zeros_like(inside))
    return spherical_harmonics(vectors, lmax), beta, interval.long()
