r"""From pairs of atoms to blocks of a Hessian, and to the arms of internal coordinates.

Each atom has scalars $s$, three components of vectors $v$ and five of second-degree tensors $t$, of k
channels each; $T_{abm}$ is the symmetric matrix of component m, and u the direction from the receiver i to
the sender j, a distance r away. The *basis* of a pair is $(v_i, v_j, \hat t_i, \hat t_j)$ with $\hat t_a =
\sum_{bm} T_{bam} u_b t_m$, its *projections* are those of the basis on u and $v_i \cdot v_j / \sqrt 3$. With
Bessel functions of r, and gains and biases of each pair of species, the hidden layer is

$$h = \mathrm{silu}(s_i + s_j' + \mathrm{gain} \odot (\mathrm{bessel} \, W_r) + \mathrm{bias}
  + \mathrm{projections} \, W_u).$$

A network on h gives coefficients $(\beta, \alpha, L, R, x, y, w)$ of a block

$$B_{ab} = p_a u_b + u_a q_b + \sum_c w_c v_{ica} v_{jcb} + \sum_{cm} T_{abm} (x_c t_{icm} + y_c t_{jcm})
  + \beta \delta_{ab}, \qquad p = L \cdot \mathrm{basis} + \alpha u, \quad q = R \cdot \mathrm{basis},$$

and another, for pairs nearer than half of the cutoff, coefficients $(l, m)$ of arms $g_a = (l \odot
\mathrm{basis}_a) W_m + m u_a$. Blocks end smoothly at the cutoff and arms at half of it, and both follow
$c / (d + r^4)$, the arms its root. Where nothing is differentiated a compiled kernel does all this; elsewhere
torch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import silu

from mlip.kernels.distance import bessel, polynomial_envelope
from mlip.kernels.library import PairShape, call, covers, usable

VECTOR, TENSOR = 3, 5
"""Components of a vector and of a tensor."""
SCALE = 16.0
"""c, eV Å²: blocks of organic molecules fall off about as this divided by r⁴."""
SHORT = 0.5
"""d, Å⁴; keeps that finite at short distances."""


class PairEnds(NamedTuple):
    """Atoms, and pairs of them."""

    scalars: Float[Tensor, "atoms width2"]
    """For the receiver, then for the sender."""
    geometry: Float[Tensor, "atoms 8 channels"]
    """Vectors, then tensors."""
    receivers: Int[Tensor, " pairs"]
    senders: Int[Tensor, " pairs"]
    kinds: Int[Tensor, " pairs"]
    """Pair of species."""
    vectors: Float[Tensor, "pairs 3"]
    """From receiver to sender, Å."""


class PairNetwork(NamedTuple):
    """Weights, with all constant factors in them."""

    radial: Float[Tensor, "radials width"]
    gain: Float[Tensor, "kinds width"]
    bias: Float[Tensor, "kinds width"]
    angular: Float[Tensor, "channels5 width"]
    pair_hidden: Float[Tensor, "width width"]
    pair_out: Float[Tensor, "width coefficients"]
    """2 + 11 channels coefficients."""
    arm_hidden: Float[Tensor, "width width"]
    arm_out: Float[Tensor, "width beside"]
    """4 channels + coordinates."""
    arm_mix: Float[Tensor, "channels4 coordinates"]
    tensor: Float[Tensor, "3 3 5"]
    """T, the matrix of each component of a tensor."""


class PairTerms(NamedTuple):
    """What pairs contribute to a Hessian."""

    blocks: Float[Tensor, "pairs 3 3"]
    """eV/Å²."""
    weight: Float[Tensor, " pairs"]
    """Their size: c / (d + r⁴), going to zero at the cutoff."""
    near: Int[Tensor, " near"]
    """Pairs that have arms."""
    arms: Float[Tensor, "near 3 coordinates"]


def pair_terms(ends: PairEnds, network: PairNetwork, cutoff: float) -> PairTerms:
    """By a compiled kernel where nothing is differentiated, else by torch."""
    if supported(ends.geometry) and usable():
        return compiled(ends, network, cutoff)
    return reference(ends, network, cutoff)


def supported(geometry: Tensor) -> bool:
    """Whether the compiled CPU kernel covers these operands."""
    return covers(geometry) and not torch.is_grad_enabled()


def compiled(ends: PairEnds, network: PairNetwork, cutoff: float) -> PairTerms:
    """`pair_terms` by the kernel, which nothing can be differentiated through."""
    scalars, geometry, *index, vectors = (t.contiguous() for t in ends)
    weights = [t.contiguous() for t in network]
    close = vectors.norm(dim=1) < 0.5 * cutoff
    near = close.nonzero()[:, 0]
    place = torch.where(close, close.cumsum(0) - 1, -1)
    (radials, width), coordinates = network.radial.shape, network.arm_mix.shape[1]
    pairs, channels = vectors.shape[0], geometry.shape[2]
    blocks, weight = vectors.new_empty(pairs, 3, 3), vectors.new_empty(pairs)
    arms = vectors.new_empty(near.shape[0], 3, coordinates)
    sizes = pairs, channels, width, radials, coordinates, 0
    shape = PairShape(*sizes, cutoff, SCALE, SHORT, *(t.data_ptr() for t in (*index, place)))
    operands = scalars, geometry, vectors, *weights, blocks, weight, arms
    call("hessian_pairs", geometry.dtype, shape, operands)
    return PairTerms(blocks, weight, near, arms)


def reference(ends: PairEnds, network: PairNetwork, cutoff: float) -> PairTerms:
    """`pair_terms` by torch."""
    distance = ends.vectors.norm(dim=1)
    direction = ends.vectors / distance.unsqueeze(1)
    receiver, sender = (ends.geometry.index_select(0, i) for i in (ends.receivers, ends.senders))
    basis, projections = _turned(receiver, sender, direction, network.tensor)
    width = network.radial.shape[1]
    hidden = silu(
        ends.scalars[:, :width].index_select(0, ends.receivers)
        + ends.scalars[:, width:].index_select(0, ends.senders)
        + (bessel(distance, cutoff, len(network.radial)) @ network.radial)
        * network.gain.index_select(0, ends.kinds)
        + network.bias.index_select(0, ends.kinds)
        + projections @ network.angular
    )
    prior = SCALE / (SHORT + distance.pow(4))
    weight = prior * polynomial_envelope(distance / cutoff)
    coefficients = silu(hidden @ network.pair_hidden) @ network.pair_out
    blocks = _blocks(receiver, sender, direction, basis, network.tensor, coefficients)
    near = (distance < 0.5 * cutoff).nonzero()[:, 0]
    basis, direction, distance, prior = (t.index_select(0, near) for t in (basis, direction, distance, prior))
    beside = silu(hidden.index_select(0, near) @ network.arm_hidden) @ network.arm_out
    across, along = beside.split(list(network.arm_mix.shape), dim=1)
    arms = (basis * across.unsqueeze(1)) @ network.arm_mix + direction.unsqueeze(2) * along.unsqueeze(1)
    size = prior.sqrt() * polynomial_envelope(2 * distance / cutoff)
    return PairTerms(blocks * weight[:, None, None], weight, near, arms * size[:, None, None])


def _turned(
    receiver: Float[Tensor, "pairs 8 channels"],
    sender: Float[Tensor, "pairs 8 channels"],
    direction: Float[Tensor, "pairs 3"],
    tensor: Float[Tensor, "3 3 5"],
) -> tuple[Float[Tensor, "pairs 3 channels4"], Float[Tensor, "pairs channels5"]]:
    """Basis and projections."""
    (v_i, t_i), (v_j, t_j) = (end.split([VECTOR, TENSOR], dim=1) for end in (receiver, sender))
    turn = (direction @ tensor.reshape(3, 15)).view(-1, 3, TENSOR, 1)
    turned = [
        sum((turn[:, :, m] * t[:, m : m + 1] for m in range(1, TENSOR)), turn[:, :, 0] * t[:, :1])
        for t in (t_i, t_j)
    ]
    basis = torch.cat([v_i, v_j, *turned], dim=2)
    along = (basis * direction.unsqueeze(2)).sum(dim=1)
    inner = (v_i * v_j).sum(dim=1) / math.sqrt(3.0)
    return basis, torch.cat([along, inner], dim=1)


def _blocks(
    receiver: Float[Tensor, "pairs 8 channels"],
    sender: Float[Tensor, "pairs 8 channels"],
    u: Float[Tensor, "pairs 3"],
    basis: Float[Tensor, "pairs 3 channels4"],
    tensor: Float[Tensor, "3 3 5"],
    coefficients: Float[Tensor, "pairs coefficients"],
) -> Float[Tensor, "pairs 3 3"]:
    """Blocks of size one."""
    k = receiver.shape[2]
    one, along, left, right, of_ends, products = coefficients.split([1, 1, 4 * k, 4 * k, 2 * k, k], dim=1)
    before = (basis * left.unsqueeze(1)).sum(dim=2) + along * u
    after = (basis * right.unsqueeze(1)).sum(dim=2)
    block = before.unsqueeze(2) * u.unsqueeze(1) + u.unsqueeze(2) * after.unsqueeze(1)
    scaled = receiver[:, :VECTOR] * products.unsqueeze(1)
    block = block + (scaled.unsqueeze(2) * sender[:, :VECTOR].unsqueeze(1)).sum(dim=3)
    tensors = torch.cat([receiver[:, VECTOR:], sender[:, VECTOR:]], dim=2)
    mixed = (tensors * of_ends.unsqueeze(1)).sum(dim=2)
    block = block + (mixed @ tensor.reshape(9, TENSOR).T).view(-1, 3, 3)
    return block + one.unsqueeze(2) * torch.eye(3, dtype=u.dtype, device=u.device)
