"""Transition states: from reactant and product, or from a guess, to a verified saddle.

Ends relaxed, paths interpolated and compared, climbing-image elastic band, saddle refined with its
Hessian, path down on both sides, ends relaxed, frequencies of all three, verdict. All reactions take
these steps together, each at its own pace, so that the surface always has a batch to evaluate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlip.calculators.surface import as_surface
from mlip.search.lockstep import run
from mlip.search.pursuit import FMAX, IMAGES, Demands, guess_search, reaction_search
from mlip.search.stationary import predicts_hessians, with_true_hessians

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ase import Atoms
    from ase.calculators.calculator import BaseCalculator

    from mlip.calculators.surface import Surface
    from mlip.search.reaction import Reaction


def find_transition_states(
    pairs: Sequence[tuple[Atoms, Atoms]],
    calculator: BaseCalculator | Surface,
    *,
    images: int = IMAGES,
    fmax: float = FMAX,
    done: Callable[[int, Reaction], None] | None = None,
) -> list[Reaction]:
    """Search the transition states of many reactions at once.

    Args:
        pairs: Reactant and product of each; not changed. Where the atoms are in different orders, the
            product's are put into the reactant's.
        calculator: Any ASE calculator, or a `Surface`.
        images: Of the elastic band, ends included.
        fmax: To which minima and saddles are converged, eV/Å.
        done: Called with number and result as each search ends.

    Returns:
        A result for each pair, whatever became of it; its verdict says what.

    Raises:
        InputError: An argument is not as above.
    """
    demands = Demands(images=images, fmax=fmax)
    surface = as_surface(calculator)
    predicts = predicts_hessians(surface)
    searches = [reaction_search(*pair, demands=demands, predicts=predicts) for pair in pairs]
    return run(surface, searches, true=with_true_hessians(surface), at_once=at_once(surface), done=done)


def find_from_guesses(
    guesses: Sequence[Atoms],
    calculator: BaseCalculator | Surface,
    *,
    fmax: float = FMAX,
    done: Callable[[int, Reaction], None] | None = None,
) -> list[Reaction]:
    """Refine guesses of transition states, and see what they connect.

    Args:
        guesses: Structures near a saddle; not changed.
        calculator: Any ASE calculator, or a `Surface`.
        fmax: To which saddles and the minima beside them are converged, eV/Å.
        done: Called with number and result as each search ends.

    Raises:
        InputError: An argument is not as above.
    """
    demands = Demands(fmax=fmax)
    surface = as_surface(calculator)
    predicts = predicts_hessians(surface)
    searches = [guess_search(guess, demands=demands, predicts=predicts) for guess in guesses]
    return run(surface, searches, true=with_true_hessians(surface), at_once=at_once(surface), done=done)


def at_once(surface: Surface) -> int:
    """Reactions that are searched side by side: enough to fill batches where structures are evaluated
    together; else one after the other, so that the first are done soon."""
    from mlip.calculators.batch import BatchCalculator

    return 16 if isinstance(surface, BatchCalculator) else 1
