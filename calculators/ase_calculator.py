"""`MLIPCalculator`: a potential as an ASE calculator."""

from __future__ import annotations

import copy
import math
import warnings
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np
import torch
from ase.calculators.calculator import Calculator, all_changes

from mlip.calculators.electrons import require_neutral_singlet
from mlip.calculators.skin import SkinNeighbors
from mlip.checkpoint import load_potential
from mlip.domain import OF_NO_KIND
from mlip.errors import InputError
from mlip.potential import Potential

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from ase import Atoms
    from jaxtyping import Float64

    from mlip.hessian import HessianMethod

TOLERATED: Final = 0.01
"""Share of atoms beyond the boundary that gives no warning; in known matter it is one in a thousand."""

DTYPES: Final = {"float64": torch.float64, "float32": torch.float32}

_VOIGT_ROWS: Final = (0, 1, 2, 1, 0, 0)
_VOIGT_COLUMNS: Final = (0, 1, 2, 2, 2, 1)


class OutsideDomainWarning(UserWarning):
    """The model was asked about atoms unlike those it was trained on."""


def warn_if_novel(atoms: Atoms, novelty: Float64[np.ndarray, " atoms"]) -> bool:
    """Whether too many atoms have surroundings unlike those that the model was trained on; if so, warn.

    Warns:
        OutsideDomainWarning: More than one atom in a hundred has a novelty (`mlip.domain`) above 1, or the
            structure is of a kind that training had none of: an odd number of electrons, or periodic.
    """
    unknown = int((novelty > 1.0).sum())
    if unknown <= TOLERATED * len(novelty):
        return False
    worst = int(novelty.argmax())
    kind = None
    if novelty.min() >= OF_NO_KIND and atoms.pbc.any():
        kind = (
            "is periodic, but the model was trained on molecules only: energies, forces and stress of "
            "crystals and liquids"
        )
    elif novelty.min() >= OF_NO_KIND and int(atoms.numbers.sum()) % 2:
        kind = (
            "has an odd number of electrons, but the model was trained on molecules with all electrons "
            "paired: energies and forces of radicals"
        )
    if kind is not None:
        warnings.warn(
            f"{atoms.get_chemical_formula()} {kind} may be far off", OutsideDomainWarning, stacklevel=2
        )
        return True
    warnings.warn(
        f"{unknown} of {len(novelty)} atoms of {atoms.get_chemical_formula()} have "
        f"surroundings unlike any that the model was trained on (most of all atom {worst}, "
        f"{atoms.symbols[worst]}: novelty {float(novelty[worst]):.2g}, where 1 is the boundary): "
        "energies and forces may be far off",
        OutsideDomainWarning,
        stacklevel=2,
    )
    return True


def resolve_device(device: str) -> torch.device:
    """The device called `device`: "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
        InputError: The name is unknown to PyTorch, or that device is not present.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f'`device` is "{device}" but must be "auto", "cpu" or a device that is there ({reason})'
        ) from None
    return resolved


class MLIPCalculator(Calculator):
    """A potential as an ASE calculator: energies in eV, forces in eV/Å, stress in eV/Å³ (Voigt xx yy zz yz xz
    xy, tension positive).

        atoms.calc = MLIPCalculator("default")
        atoms.get_potential_energy()

    The calculator owns a private copy of the potential. It changes neither torch's default dtype nor its
    threads, and it can be
    pickled: weights travel by value, so a copy computes the same on another process or machine, with the file
        gone.
    """

    implemented_properties: ClassVar[list[str]] = ["energy", "free_energy", "energies", "forces", "stress"]
    name: ClassVar[str] = "mlip"

    def __init__(
        self,
        model: str | Path | Potential = "default",
        *,
        device: str = "auto",
        dtype: str = "float64",
        skin: float = 0.5,
    ) -> None:
        """Load the potential.

        Args:
            model: Name of a bundled model, path of a checkpoint, or a `Potential`, which is copied and left
                as it is.
            device: "auto" (CUDA where present, else CPU), "cpu", "cuda", "cuda:1", …
            dtype: "float64" or "float32", of the network; energies are summed in float64 either way.
            skin: Extra radius of the neighbour list, Å, which is reused until it may be incomplete. Results
                do not depend on it.

        Raises:
            InputError: An argument is not as above, or the checkpoint cannot be used.
            FileNotFoundError: There is no such checkpoint.
        """
        super().__init__()
        if dtype not in DTYPES:
            raise InputError(f'`dtype` is "{dtype}" but must be one of {", ".join(DTYPES)}')
        if not (skin >= 0.0 and math.isfinite(skin)):
            raise InputError(f"`skin` is {skin} but must be a length in Å, 0 or more")
        self._device_name = device
        where = resolve_device(device)
        if isinstance(model, Potential):
            potential = copy.deepcopy(model).to(device=where, dtype=DTYPES[dtype])
        else:
            potential = load_potential(model, device=where, dtype=DTYPES[dtype])
        self.potential: Potential = potential.requires_grad_(False).eval()
        self.parameters.update(
            model="a Potential" if isinstance(model, Potential) else str(model), dtype=dtype, skin=float(skin)
        )
        self.hessian_method: HessianMethod | None = None
        """How the Hessian that was last asked for was made."""
        self._hessian_atoms: Atoms | None = None
        self._hessians: dict[HessianMethod, Float64[np.ndarray, "coordinates coordinates"]] = {}
        self._stress_wanted = False
        self._warned = False
        self._start_neighbors()

    def _start_neighbors(self) -> None:
        self.device = resolve_device(self._device_name)
        self._neighbors = SkinNeighbors(
            self.potential.cutoff,
            skin=self.parameters["skin"],
            device=self.device,
        )

    def set(self, **kwargs: Any) -> dict[str, Any]:
        """Refuse: the options are fixed when the calculator is made.

        Raises:
            InputError: On any argument.
        """
        if kwargs:
            raise InputError(
                f"`{next(iter(kwargs))}` cannot be changed on an MLIPCalculator: make a new one instead"
            )
        return {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """What has changed since the last calculation, bit for bit; initial charges and moments do not matter
        here.

        ASE's own comparison, with tolerances, takes longer than the graph of a small molecule.
        """
        require_neutral_singlet(atoms)
        return list(all_changes) if self.atoms is None else _changes(self.atoms, atoms)

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Compute energy, per-atom energies and forces of `atoms`, and the stress once it has ever been asked
        for.

        Raises:
            InputError: No or empty atoms, an element that the model does not know, a charge or spin in
                `atoms.info` other than 0 and 1, positions that are not finite, coinciding atoms, a periodic
                cell without volume, stress asked for without a cell, or an energy that is not finite.

        Warns:
            OutsideDomainWarning: Once, when more than one atom in a hundred has surroundings unlike those the
                model was trained on (see `mlip.domain`).
        """
        if atoms is not None:
            self.atoms = atoms.copy()
        if self.atoms is None or len(self.atoms) == 0:
            raise InputError("the structure has no atoms: at least one is needed")
        require_neutral_singlet(self.atoms)
        if not np.isfinite(self.atoms.cell.array).all():
            raise InputError("the cell is not finite: mend it")
        has_volume = bool(self.atoms.cell.rank == 3)
        if "stress" in properties:
            if not has_volume:
                raise InputError(
                    "stress was asked for but the cell has no volume: give three independent cell vectors"
                )
            # cell filters ask for forces first and for the stress next: from now on give both at once
            self._stress_wanted = True
        stress = self._stress_wanted and has_volume
        output = self.potential(
            self._neighbors.graph(self.atoms), forces=True, stress=stress, novelty=not self._warned
        )
        energy = output["energy"].item()
        if not math.isfinite(energy):
            raise InputError(
                f"the energy of {self.atoms.get_chemical_formula()} is {energy}: are atoms too close?"
            )
        results = {
            "energy": energy,
            "free_energy": energy,
            "energies": output["node_energy"].detach().cpu().double().numpy(),
            "forces": output["forces"].detach().cpu().double().numpy(),
        }
        if "novelty" in output:
            self._warned = warn_if_novel(self.atoms, output["novelty"].cpu().double().numpy())
        if stress:
            tensor = output["stress"][0].detach().cpu().double().numpy()
            results["stress"] = tensor[_VOIGT_ROWS, _VOIGT_COLUMNS]
        self.results = results

    def get_hessian(
        self, atoms: Atoms | None = None, method: HessianMethod | None = None
    ) -> Float64[np.ndarray, "coordinates coordinates"]:
        """Second derivatives of the energy, eV/Å², symmetric, (3 atoms, 3 atoms), whatever the constraints.

        Computed when asked for, and kept until the structure changes; `hessian_method` says how the last one
        was made.

        Args:
            atoms: The structure; that of the last calculation if None.
            method: "direct" (the model's own head), "autograd" or "finite-difference"; by default direct
                where the model has the head, else autograd.

        Raises:
            InputError: As `calculate`; or a method that there is not, or that the model has no head for.
        """
        atoms = self.atoms if atoms is None else atoms
        if atoms is None or len(atoms) == 0:
            raise InputError("the structure has no atoms: at least one is needed")
        require_neutral_singlet(atoms)
        if self._hessian_atoms is None or _changes(self._hessian_atoms, atoms):
            self._hessian_atoms, self._hessians = atoms.copy(), {}
        method = self.potential.best_hessian_method() if method is None else method
        if method not in self._hessians:
            hessian = self.potential.hessian(self._neighbors.graph(atoms), method=method)[0]
            self._hessians[method] = hessian.cpu().double().numpy()
        self.hessian_method = method
        return self._hessians[method].copy()

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the neighbour list; weights on the CPU, so that a machine without this device can
        load them."""
        state = {key: value for key, value in self.__dict__.items() if key != "_neighbors"}
        state["potential"] = copy.deepcopy(self.potential).to(device="cpu")
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Put the weights back on the device that was asked for, or on the best one that is there.

        Warns:
            UserWarning: It is another one.
        """
        self.__dict__.update(state)
        try:
            self._start_neighbors()
        except InputError as error:
            self._device_name = "auto"
            self._start_neighbors()
            warnings.warn(f"{error}; the calculator goes on on {self.device}", stacklevel=2)
        self.potential = self.potential.to(device=self.device)


def _changes(last: Atoms, atoms: Atoms) -> list[str]:
    """What differs between two structures, bit for bit."""
    changes = []
    for name, old, new in (
        ("positions", last.positions, atoms.positions),
        ("numbers", last.numbers, atoms.numbers),
        ("cell", last.cell.array, atoms.cell.array),
        ("pbc", last.pbc, atoms.pbc),
    ):
        if old.shape != new.shape or not (old == new).all():
            changes.append(name)
    return changes
