"""`Frame`: one structure with its labels, in eV and Å, as readers return it and writers take it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float64, Int64

from mlip.errors import InputError

if TYPE_CHECKING:
    from ase import Atoms

    from mlip.datasets.labels import LabelKeys

Scalar = str | int | float | bool

_ISOLATED = "isolatedatom"
_ASYMMETRY = 0.05
"""Of the largest element of a Hessian; the noise of published ones (HORM: 0.08 eV/Å²) is far less."""


@dataclass(frozen=True, eq=False)
class Frame:
    """One structure, its labels (each may be absent) and where it came from.

    Sequences are converted to contiguous arrays of the types below; arrays that already have the type are
    kept, not copied, and are not to be written to.

    Attributes:
        positions: Cartesian coordinates, Å.
        atomic_numbers: Z of every atom.
        cell: Lattice vectors as rows, Å; zero rows where there is none.
        pbc: Periodic or not along each lattice vector.
        energy: Total energy, eV.
        forces: eV/Å.
        stress: σ = V⁻¹ ∂E/∂ε, eV/Å³, tension positive (the sign of ASE).
        hessian: Second derivatives of the energy, eV/Å², rows and columns x0 y0 z0 x1 …; published ones are
            symmetric to a few hundredths of an eV/Å² only, and are kept as they are.
        group: Frames that share it must not be divided between training and test. The coarsest of the keys:
            where none is given it is the first of `reaction`, `molecule` and `trajectory` that is.
        molecule: Molecule or material, "" where unknown.
        reaction: Elementary reaction that the frame lies on the way of, "" where there is none.
        trajectory: Relaxation, dynamics or path that the frame is a step of, "" where there is none.
        step: Place in that trajectory, ascending; -1 where unknown.
        weight: Factor of this frame in a loss.
        charge: Net charge, e.
        spin: Multiplicity 2S + 1.
        info: Whatever else the file says about the frame, in small scalars.

    Raises:
        InputError: A shape does not fit.
    """

    positions: Float64[np.ndarray, "atoms 3"]
    atomic_numbers: Int64[np.ndarray, " atoms"]
    cell: Float64[np.ndarray, "3 3"] = field(default_factory=lambda: np.zeros((3, 3)))
    pbc: Bool[np.ndarray, " 3"] = field(default_factory=lambda: np.zeros(3, dtype=bool))
    energy: float | None = None
    forces: Float64[np.ndarray, "atoms 3"] | None = None
    stress: Float64[np.ndarray, "3 3"] | None = None
    hessian: Float64[np.ndarray, "3*atoms 3*atoms"] | None = None
    group: str = ""
    molecule: str = ""
    reaction: str = ""
    trajectory: str = ""
    step: int = -1
    weight: float = 1.0
    charge: int = 0
    spin: int = 1
    info: Mapping[str, Scalar] = field(default_factory=dict)

    def __post_init__(self) -> None:
        numbers = np.ascontiguousarray(self.atomic_numbers, dtype=np.int64)
        shape = (numbers.size, 3)
        if numbers.ndim != 1:
            raise InputError(f"`atomic_numbers` has shape {numbers.shape} but must have one number per atom")
        if self.energy is not None:
            object.__setattr__(self, "energy", float(self.energy))
        object.__setattr__(self, "atomic_numbers", numbers)
        object.__setattr__(self, "positions", _array("positions", self.positions, shape))
        object.__setattr__(self, "cell", _array("cell", self.cell, (3, 3)))
        object.__setattr__(self, "pbc", _flags(self.pbc))
        if self.forces is not None:
            object.__setattr__(self, "forces", _array("forces", self.forces, shape))
        if self.stress is not None:
            object.__setattr__(self, "stress", _array("stress", self.stress, (3, 3)))
        if self.hessian is not None:
            object.__setattr__(self, "hessian", _hessian(self.hessian, 3 * numbers.size))
        if not self.group:
            object.__setattr__(self, "group", self.reaction or self.molecule or self.trajectory)

    def __len__(self) -> int:
        return int(self.atomic_numbers.size)

    @property
    def volume(self) -> float:
        """Volume of the cell, Å³; 0 where it is not three-dimensional."""
        return float(abs(np.linalg.det(self.cell)))

    @property
    def formula(self) -> str:
        """Composition in Hill order, as `C2H6O`."""
        from ase.data import chemical_symbols

        values, counts = np.unique(self.atomic_numbers, return_counts=True)
        of = {
            (chemical_symbols[z] if 0 < z < len(chemical_symbols) else f"Z{z}"): int(n)
            for z, n in zip(values.tolist(), counts.tolist(), strict=True)
        }
        first = [s for s in ("C", "H") if "C" in of and s in of]
        order = first + sorted(s for s in of if s not in first)
        return "".join(s if of[s] == 1 else f"{s}{of[s]}" for s in order)

    @property
    def is_isolated_atom(self) -> bool:
        """Marked `config_type=IsolatedAtom` (any spelling), or `isolated_atom`."""
        kind = str(self.info.get("config_type", "")).lower()
        return len(self) == 1 and "".join(c for c in kind if c.isalpha()) == _ISOLATED

    def belongs_to(self) -> dict[str, str | int]:
        """Those of group, molecule, reaction, trajectory and step that the frame has, by name."""
        found: dict[str, str | int] = {
            name: value
            for name, value in (
                ("group", self.group),
                ("molecule", self.molecule),
                ("reaction", self.reaction),
                ("trajectory", self.trajectory),
            )
            if value
        }
        if self.step >= 0:
            found["step"] = self.step
        return found

    def to_atoms(self) -> Atoms:
        """ASE atoms with the labels in a `SinglePointCalculator` and the rest in `atoms.info`.

        The Hessian, for which ASE has no place, is not among them.
        """
        from ase import Atoms
        from ase.calculators.singlepoint import SinglePointCalculator
        from ase.stress import full_3x3_to_voigt_6_stress

        atoms = Atoms(numbers=self.atomic_numbers, positions=self.positions, cell=self.cell, pbc=self.pbc)
        atoms.info.update(self.info)
        if self.charge != 0 or self.spin != 1:
            atoms.info.update(charge=self.charge, spin=self.spin)
        atoms.info.update(self.belongs_to())
        if self.weight != 1.0:
            atoms.info["config_weight"] = self.weight
        results: dict[str, Any] = {}
        if self.energy is not None:
            results["energy"] = results["free_energy"] = self.energy
        if self.forces is not None:
            results["forces"] = self.forces
        if self.stress is not None:
            results["stress"] = full_3x3_to_voigt_6_stress(self.stress)
        if results:
            atoms.calc = SinglePointCalculator(atoms, **results)
        return atoms

    @classmethod
    def from_atoms(cls, atoms: Atoms, *, keys: LabelKeys | None = None) -> Frame:
        """Frame of ASE atoms: labels from `info`, `arrays` and the attached calculator's stored results.

        Stored forces are taken as they are: ASE's `get_forces()` zeroes those under a constraint. Nothing is
        computed.

        Args:
            atoms: Structure; its calculator is only read.
            keys: Names of the labels; by default those of `LabelKeys`.
        """
        from mlip.datasets.labels import LabelKeys, frame_of_record
        from mlip.datasets.records import record_of_atoms

        return frame_of_record(record_of_atoms(atoms), keys=keys or LabelKeys())


def _array(name: str, value: object, shape: tuple[int, ...]) -> np.ndarray:
    array = np.ascontiguousarray(value, dtype=np.float64)
    if array.shape != shape:
        raise InputError(f"`{name}` has shape {array.shape} but must have {shape}")
    return array


def _hessian(value: object, size: int) -> np.ndarray:
    array = _array("hessian", value, (size, size))
    asymmetry, largest = (
        float(np.abs(array - array.T).max(initial=0.0)),
        float(np.abs(array).max(initial=0.0)),
    )
    if asymmetry > _ASYMMETRY * largest:  # false for NaN, which `check_frame` reports
        raise InputError(
            f"`hessian` differs from its transpose by {asymmetry:.3g} eV/Å², its largest element being "
            f"{largest:.3g}, but must be symmetric; are its rows and columns ordered x0 y0 z0 x1 …?"
        )
    return array


def _flags(value: object) -> Bool[np.ndarray, " 3"]:
    flags = np.asarray(value, dtype=bool)
    if flags.shape not in ((), (3,)):
        raise InputError(f"`pbc` has shape {flags.shape} but must be one or three truth values")
    return flags if flags.shape == (3,) else np.full(3, bool(flags))
