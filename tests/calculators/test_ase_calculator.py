"""The ASE calculator against the potential itself, finite differences, and ASE's own wrappers."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import re

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.calculators.emt import EMT
from ase.calculators.mixing import LinearCombinationCalculator, MixedCalculator, SumCalculator
from ase.constraints import FixAtoms
from ase.filters import FrechetCellFilter
from ase.optimize import BFGS

from mlip.calculators import BatchCalculator, MLIPCalculator
from mlip.errors import InputError
from mlip.neighbors import build_graph
from mlip.potential import Potential


def rattled_silicon(*, seed: int = 1) -> Atoms:
    atoms = bulk("Si", cubic=True) * (2, 1, 1)
    atoms.rattle(0.1, seed=seed)
    return atoms


def rattled_ethanol(*, seed: int = 1) -> Atoms:
    atoms = molecule("CH3CH2OH")
    atoms.rattle(0.05, seed=seed)
    return atoms


@pytest.mark.parametrize("make", [rattled_silicon, rattled_ethanol])
def test_same_numbers_as_the_potential(potential: Potential, make) -> None:
    atoms = make()
    expected = potential(build_graph(atoms, potential.cutoff), stress=bool(atoms.pbc.any()))
    atoms.calc = MLIPCalculator(potential)
    assert atoms.get_potential_energy() == pytest.approx(expected["energy"].item(), abs=1e-12)
    assert atoms.get_potential_energy(force_consistent=True) == atoms.get_potential_energy()
    np.testing.assert_allclose(atoms.get_forces(), expected["forces"].detach(), atol=1e-11)
    np.testing.assert_allclose(atoms.get_potential_energies(), expected["node_energy"].detach(), atol=1e-12)
    if atoms.pbc.any():
        stress = expected["stress"][0].detach().numpy()
        np.testing.assert_allclose(atoms.get_stress(voigt=False), stress, atol=1e-13)
        voigt = [stress[0, 0], stress[1, 1], stress[2, 2], stress[1, 2], stress[0, 2], stress[0, 1]]
        np.testing.assert_allclose(atoms.get_stress(), voigt, atol=1e-13)


def test_forces_and_stress_against_finite_differences(potential: Potential) -> None:
    atoms = rattled_silicon()
    atoms.calc = MLIPCalculator(potential)
    forces, stress, volume, step = atoms.get_forces(), atoms.get_stress(voigt=False), atoms.get_volume(), 1e-5
    for atom, axis in [(0, 0), (3, 1), (7, 2)]:
        energies = []
        for sign in (1, -1):
            moved = atoms.copy()
            moved.positions[atom, axis] += sign * step
            moved.calc = atoms.calc
            energies.append(moved.get_potential_energy())
        assert forces[atom, axis] == pytest.approx(-(energies[0] - energies[1]) / (2 * step), abs=1e-7)
    for row, column in [(0, 0), (1, 2), (0, 1)]:
        energies = []
        for sign in (1, -1):
            strain = np.eye(3)
            strain[row, column] += sign * step / 2
            strain[column, row] += sign * step / 2
            strained = atoms.copy()
            strained.set_cell(atoms.cell.array @ strain, scale_atoms=True)
            strained.calc = atoms.calc
            energies.append(strained.get_potential_energy())
        assert stress[row, column] == pytest.approx(
            (energies[0] - energies[1]) / (2 * step * volume), abs=1e-7
        )


def test_one_evaluation_serves_forces_and_stress_of_a_cell_filter(potential: Potential, monkeypatch) -> None:
    atoms = rattled_silicon()
    calculator = MLIPCalculator(potential)
    atoms.calc = calculator
    target = FrechetCellFilter(atoms)
    target.get_forces()
    calls = []
    forward = calculator.potential.forward
    monkeypatch.setattr(
        calculator.potential, "forward", lambda *args, **options: calls.append(1) or forward(*args, **options)
    )
    atoms.positions[0] += 0.01
    target.get_forces()
    atoms.get_potential_energy()
    assert len(calls) == 1


@pytest.mark.parametrize("make", [rattled_silicon, rattled_ethanol])
@pytest.mark.parametrize("through", ["pickle", "deepcopy"])
def test_a_copy_computes_the_same(potential: Potential, make, through: str) -> None:
    atoms = make()
    original = MLIPCalculator(potential, skin=0.3)
    expected = original.get_forces(atoms)
    twin = pickle.loads(pickle.dumps(original)) if through == "pickle" else copy.deepcopy(original)
    atoms.positions[0] += 0.01
    np.testing.assert_array_equal(twin.get_forces(atoms), original.get_forces(atoms))
    assert not np.array_equal(expected, original.get_forces(atoms))
    assert twin.parameters == original.parameters
    assert twin.potential is not original.potential


def _energy_of(job: tuple[MLIPCalculator, Atoms]) -> float:
    calculator, atoms = job
    return calculator.get_potential_energy(atoms)


def test_in_another_process(potential: Potential) -> None:
    calculator, atoms = MLIPCalculator(potential), rattled_ethanol()
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (energy,) = pool.map(_energy_of, [(calculator, atoms)])
    assert energy == pytest.approx(calculator.get_potential_energy(atoms), abs=1e-12)


def test_pickles_load_where_their_device_is_not(potential: Potential) -> None:
    calculator, atoms = MLIPCalculator(potential), rattled_ethanol()
    calculator._device_name = "cuda:77"
    with pytest.warns(UserWarning, match="the calculator goes on on"):
        twin = pickle.loads(pickle.dumps(calculator))
    assert twin.get_potential_energy(atoms) == pytest.approx(calculator.get_potential_energy(atoms))


def test_a_cell_that_is_not_finite(potential: Potential) -> None:
    calculator, atoms = MLIPCalculator(potential, skin=0.3), rattled_silicon()
    calculator.get_forces(atoms)
    atoms.set_cell(atoms.cell.array * np.nan)
    with pytest.raises(InputError, match="the cell is not finite"):
        calculator.get_forces(atoms)


def test_pickling_survives_the_loss_of_the_file(potential: Potential, tmp_path) -> None:
    from mlip.checkpoint import save_potential

    path = tmp_path / "model.safetensors"
    save_potential(potential, path)
    calculator, atoms = MLIPCalculator(path), rattled_ethanol()
    stored = pickle.dumps(calculator)
    path.unlink()
    assert pickle.loads(stored).get_potential_energy(atoms) == calculator.get_potential_energy(atoms)


def test_sums_and_mixtures(potential: Potential) -> None:
    atoms, ours = rattled_ethanol(), MLIPCalculator(potential)
    emt = EMT()
    ours_forces, emt_forces = ours.get_forces(atoms), emt.get_forces(atoms)
    for mixture, weights in [
        (SumCalculator([MLIPCalculator(potential), EMT()]), (1.0, 1.0)),
        (LinearCombinationCalculator([MLIPCalculator(potential), EMT()], [0.25, 0.75]), (0.25, 0.75)),
        (MixedCalculator(MLIPCalculator(potential), EMT(), 0.25, 0.75), (0.25, 0.75)),
    ]:
        atoms.calc = mixture
        expected = weights[0] * ours_forces + weights[1] * emt_forces
        np.testing.assert_allclose(atoms.get_forces(), expected, atol=1e-10)
        assert np.isfinite(atoms.get_potential_energy())


def test_constraints_hold_their_atoms(potential: Potential) -> None:
    atoms = rattled_ethanol()
    atoms.set_constraint(FixAtoms([0, 1]))
    atoms.calc = MLIPCalculator(potential)
    before = atoms.positions.copy()
    BFGS(atoms, logfile=None).run(fmax=1e-3, steps=5)
    np.testing.assert_array_equal(atoms.positions[:2], before[:2])
    assert not np.allclose(atoms.positions[2:], before[2:])
    assert np.all(atoms.get_forces()[:2] == 0.0)
    assert np.any(atoms.get_forces(apply_constraint=False)[:2] != 0.0)


def test_lone_atoms_have_no_forces(potential: Potential) -> None:
    for atoms in (
        Atoms("H"),
        Atoms("OH", positions=[[0, 0, 0], [50, 0, 0]]),
        Atoms("C", cell=[20, 20, 20], pbc=True),
        Atoms("HOH", positions=[[0, 0, 0], [1.0, 0, 0], [90, 0, 0]]),
    ):
        atoms.calc = MLIPCalculator(potential)
        assert np.isfinite(atoms.get_potential_energy())
        assert atoms.get_forces().shape == (len(atoms), 3)
        assert np.all(atoms.get_forces()[-1] == 0.0)
    assert np.all(
        Atoms("C", cell=[20] * 3, pbc=True, calculator=MLIPCalculator(potential)).get_stress() == 0.0
    )


def test_single_precision_agrees_and_returns_doubles(potential: Potential) -> None:
    atoms = rattled_silicon()
    single, double = MLIPCalculator(potential, dtype="float32"), MLIPCalculator(potential)
    assert single.get_forces(atoms).dtype == np.float64
    np.testing.assert_allclose(single.get_forces(atoms), double.get_forces(atoms), atol=1e-4)
    assert single.get_potential_energy(atoms) == pytest.approx(double.get_potential_energy(atoms), abs=1e-4)
    assert single.get_potential_energy(atoms) != double.get_potential_energy(atoms)


def test_single_precision_far_from_the_origin(potential: Potential) -> None:
    """Differences of positions are taken in double precision, so that they do not drown in rounding."""
    here = rattled_ethanol()
    there = here.copy()
    there.positions += 4096.0
    calculator = MLIPCalculator(potential, dtype="float32")
    near, far = (calculator.get_forces(atoms) for atoms in (here, there))
    np.testing.assert_allclose(far, near, rtol=0, atol=2e-6 * np.abs(near).max())
    batch = BatchCalculator(calculator.potential)
    near, far = (e.forces for e in batch.evaluate([here, there]))
    np.testing.assert_allclose(far, near, rtol=0, atol=2e-6 * np.abs(near).max())


def test_the_given_potential_is_left_alone(potential: Potential) -> None:
    before = {name: weight.clone() for name, weight in potential.state_dict().items()}
    was_training = potential.training
    MLIPCalculator(potential, dtype="float32").get_forces(rattled_ethanol())
    assert potential.training == was_training
    assert all(weight.requires_grad for weight in potential.parameters())
    for name, weight in potential.state_dict().items():
        assert weight.dtype == before[name].dtype
        assert torch.equal(weight, before[name])


def test_its_own_weights_are_frozen(potential: Potential) -> None:
    calculator = MLIPCalculator(potential)
    assert not calculator.potential.training
    assert not any(weight.requires_grad for weight in calculator.potential.parameters())


def test_an_energy_that_is_not_finite_is_an_error(potential: Potential) -> None:
    broken = copy.deepcopy(potential)
    with torch.no_grad():
        next(broken.parameters()).fill_(torch.nan)
    with pytest.raises(InputError, match="the energy of C2H6O is nan"):
        MLIPCalculator(broken).get_potential_energy(rattled_ethanol())


def test_torch_settings_are_left_alone(potential: Potential) -> None:
    def settings() -> tuple[object, ...]:
        return (
            torch.get_default_dtype(),
            torch.get_num_threads(),
            torch.get_num_interop_threads(),
            torch.is_grad_enabled(),
            torch.are_deterministic_algorithms_enabled(),
            torch.get_rng_state().sum().item(),
        )

    before = settings()
    for dtype in ("float64", "float32"):
        MLIPCalculator(potential, dtype=dtype).get_forces(rattled_ethanol())
    assert settings() == before


def test_works_where_gradients_are_off(potential: Potential) -> None:
    atoms = rattled_ethanol()
    expected = MLIPCalculator(potential).get_forces(atoms)
    with torch.no_grad():
        np.testing.assert_array_equal(MLIPCalculator(potential).get_forces(atoms), expected)


def test_results_are_not_overwritten_by_the_next_step(potential: Potential) -> None:
    atoms = rattled_ethanol()
    atoms.calc = MLIPCalculator(potential)
    first = atoms.get_forces()
    kept = first.copy()
    atoms.positions[0] += 0.1
    atoms.get_forces()
    np.testing.assert_array_equal(first, kept)


def test_goes_through_an_ase_trajectory(potential: Potential, tmp_path) -> None:
    from ase.io import read

    atoms = rattled_ethanol()
    atoms.calc = MLIPCalculator(potential)
    energy = atoms.get_potential_energy()
    atoms.write(tmp_path / "a.traj")
    assert read(tmp_path / "a.traj").get_potential_energy() == energy


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": "float16"}, '`dtype` is "float16" but must be one of float64, float32'),
        ({"device": "abacus"}, '`device` is "abacus" but must be "auto", "cpu" or a device that is there'),
        ({"skin": -0.1}, "`skin` is -0.1 but must be a length"),
        ({"skin": float("nan")}, "`skin` is nan but must be a length"),
    ],
)
def test_bad_options(potential: Potential, options: dict, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        MLIPCalculator(potential, **options)


def test_bad_structures(potential: Potential) -> None:
    calculator = MLIPCalculator(potential)
    with pytest.raises(InputError, match="no atoms"):
        calculator.get_potential_energy(Atoms())
    with pytest.raises(InputError, match="Fe"):
        calculator.get_potential_energy(Atoms("Fe"))
    with pytest.raises(InputError, match="cell has no volume"):
        calculator.get_stress(Atoms("H2", positions=[[0, 0, 0], [0.7, 0, 0]]))
    with pytest.raises(InputError, match="cannot be changed"):
        calculator.set(dtype="float32")


def test_positions_that_turn_nan_are_an_error(potential: Potential) -> None:
    atoms = rattled_ethanol()
    atoms.calc = MLIPCalculator(potential)
    atoms.get_forces()
    atoms.positions[2, 1] = np.nan
    with pytest.raises(InputError, match=r"must be finite"):
        atoms.get_forces()
    atoms.positions[2, 1] = 0.0
    assert np.isfinite(atoms.get_potential_energy())


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("positions", lambda atoms: atoms.positions.__setitem__((0, 0), atoms.positions[0, 0] + 1e-15)),
        ("numbers", lambda atoms: atoms.set_atomic_numbers(atoms.numbers[::-1])),
        ("cell", lambda atoms: atoms.set_cell([9.0, 9.0, 9.0])),
        ("pbc", lambda atoms: atoms.set_pbc([True, False, False])),
    ],
)
def test_any_change_of_the_structure_is_noticed(potential: Potential, name: str, change) -> None:
    atoms = rattled_ethanol()
    atoms.set_cell([8.0, 8.0, 8.0])
    calculator = MLIPCalculator(potential)
    assert "positions" in calculator.check_state(atoms)
    calculator.get_potential_energy(atoms)
    assert calculator.check_state(atoms) == []
    atoms.set_initial_charges([0.8, *[-0.1] * 8])
    assert calculator.check_state(atoms) == []
    change(atoms)
    assert calculator.check_state(atoms) == [name]
    del atoms[0]
    assert "numbers" in calculator.check_state(atoms)


def test_hessian_is_kept_until_the_structure_changes(potential: Potential) -> None:
    atoms = rattled_ethanol()
    calculator = MLIPCalculator(potential)
    atoms.calc = calculator
    forces = atoms.get_forces()
    expected = potential.hessian(build_graph(atoms, potential.cutoff), method="autograd")[0]
    hessian = calculator.get_hessian()
    assert calculator.hessian_method == "autograd"
    np.testing.assert_allclose(hessian, expected.numpy(), atol=1e-9)
    hessian[:] = 0.0  # a copy
    np.testing.assert_allclose(calculator.get_hessian(atoms), expected.numpy(), atol=1e-9)
    np.testing.assert_allclose(
        calculator.get_hessian(atoms, "finite-difference"), expected.numpy(), atol=1e-5
    )
    assert calculator.hessian_method == "finite-difference"
    np.testing.assert_array_equal(atoms.get_forces(), forces)
    atoms.positions[0, 0] += 0.1
    moved = potential.hessian(build_graph(atoms, potential.cutoff), method="autograd")[0]
    np.testing.assert_allclose(calculator.get_hessian(atoms), moved.numpy(), atol=1e-9)
    with pytest.raises(InputError, match="no head for direct Hessians"):
        calculator.get_hessian(atoms, "direct")
    with pytest.raises(InputError, match="no atoms"):
        MLIPCalculator(potential).get_hessian()
