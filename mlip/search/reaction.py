"""What a search for a transition state found: structures, barriers, thermochemistry, verdict."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mlip.errors import InputError
from mlip.search.thermochemistry import ideal_gas, oscillators
from mlip.search.vibrations import Vibrations, normal_modes

if TYPE_CHECKING:
    from mlip.search.irc import ReactionPath
    from mlip.search.mapping import Mapping
    from mlip.search.neb import Band
    from mlip.search.stationary import StationaryPoint
    from mlip.search.verdict import Verdict


@dataclass(frozen=True, kw_only=True, eq=False)
class Reaction:
    """The end of a search for a transition state. Whatever was computed is kept, whatever the verdict.

    Attributes:
        verdict: Whether the saddle connects reactant and product, or what was found instead.
        reactant: Relaxed, with its vibrations; None where the search did not get there, as all below. For a
            search from a guess, one end of the path down from the saddle.
        product: The same for the product, its atoms in the reactant's order.
        saddle: The transition state with its vibrations.
        mapping: Which atom of the product is which of the reactant; None for a search from a guess.
        band: The path of least energy between the ends as last seen; None for a search from a guess.
        path: The path down from the saddle on both sides.
        reversed_path: Whether the path runs from product to reactant.
        evaluations: Structures evaluated, those with Hessians included.
        hessians: Hessians computed.
        log: What was tried, in order.
    """

    verdict: Verdict
    reactant: Vibrations | None = None
    product: Vibrations | None = None
    saddle: Vibrations | None = None
    mapping: Mapping | None = None
    band: Band | None = None
    path: ReactionPath | None = None
    reversed_path: bool = False
    evaluations: int = 0
    hessians: int = 0
    log: list[str] = field(default_factory=list)

    @property
    def barrier(self) -> float | None:
        """Energy of the saddle above the reactant, eV."""
        return (
            None
            if self.saddle is None or self.reactant is None
            else self.saddle.energy - self.reactant.energy
        )

    @property
    def reverse_barrier(self) -> float | None:
        """Energy of the saddle above the product, eV."""
        return (
            None if self.saddle is None or self.product is None else self.saddle.energy - self.product.energy
        )

    @property
    def reaction_energy(self) -> float | None:
        """Energy of the product above the reactant, eV."""
        return (
            None
            if self.reactant is None or self.product is None
            else self.product.energy - self.reactant.energy
        )


@dataclass(frozen=True, kw_only=True)
class Energies:
    """Of one stationary point, eV.

    Attributes:
        potential: Potential energy.
        zero_point: Zero-point energy of the real modes.
        gibbs: Gibbs energy (ideal gas, quasi-RRHO) of a molecule, Helmholtz energy of the vibrations of a
            periodic structure or one with fixed atoms; None where it cannot be computed.
        why: What is missing for `gibbs`.
    """

    potential: float
    zero_point: float
    gibbs: float | None
    why: str = ""

    @property
    def corrected(self) -> float:
        """Potential energy and zero-point energy."""
        return self.potential + self.zero_point


def energies(point: Vibrations, *, temperature: float) -> Energies:
    """Energies of a minimum or saddle at `temperature` (K) and 1 bar; imaginary modes are left out."""
    zero_point = point.modes.zero_point_energy
    try:
        if point.atoms.pbc.any() or point.atoms.constraints:
            gibbs = oscillators(point, temperature=temperature).free_energy
        else:
            gibbs = ideal_gas(point, temperature=temperature).quasi_rrho_gibbs_energy
    except InputError as error:
        return Energies(potential=point.energy, zero_point=zero_point, gibbs=None, why=str(error))
    return Energies(potential=point.energy, zero_point=zero_point, gibbs=gibbs)


def vibrations_of(point: StationaryPoint) -> Vibrations:
    """Vibrations from the Hessian that a search ended with."""
    return Vibrations(
        atoms=point.atoms,
        energy=point.energy,
        fmax=point.fmax,
        hessian=point.hessian,
        hessian_method=point.hessian_method or "",
        modes=normal_modes(point.atoms, point.hessian),
        novelty=point.novelty,
    )
