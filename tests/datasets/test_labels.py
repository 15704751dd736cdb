from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import LabelKeys, read_frames, require_labels
from mlip.errors import InputError

ATOM = "Properties=species:S:1:pos:R:3"
CELL = 'Lattice="2 0 0 0 2 0 0 0 2" pbc="T T T"'


def _write(path: Path, *headers: str) -> Path:
    path.write_text("".join(f"1\n{h}\nH 0 0 0\n" for h in headers))
    return path


def test_ref_names_go_before_bare_ones_and_it_is_said(tmp_path: Path) -> None:
    frames = read_frames(_write(tmp_path / "a.xyz", "energy=-1 REF_energy=-2", "energy=-3"))
    assert [f.energy for f in frames] == [-2.0, -3.0]
    assert frames.report.sources["energy"] == {"REF_energy": 1, "energy": 1}
    assert frames.report.notes == {
        "energy: `REF_energy` was used; `energy` is there too and holds OTHER values": 1
    }
    assert any("OTHER values" in line for line in frames.report.lines())


def test_a_named_key_is_the_only_one_looked_for(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.xyz", "energy=-1 mine=-5", "energy=-1")
    frames = read_frames(path, keys=LabelKeys(energy="mine"))
    assert [f.energy for f in frames] == [-5.0, None]


def test_a_named_key_that_is_nowhere(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.xyz", "energy=-1")
    with pytest.raises(InputError, match="no frame has the forces key `f`; keys in the file: `energy`"):
        read_frames(path, keys=LabelKeys(forces="f"))
    with pytest.raises(InputError, match="no frame has the energy key `e`"):
        read_frames(path, keys=LabelKeys(energy="e"), index="0:1")


def test_named_forces(tmp_path: Path) -> None:
    (tmp_path / "a.xyz").write_text(f"1\n{ATOM}:forces:R:3:mine:R:3\nH 0 0 0 1 1 1 2 3 4\n")
    frames = read_frames(tmp_path / "a.xyz", keys=LabelKeys(forces="mine"))
    assert frames[0].forces is not None
    assert frames[0].forces.tolist() == [[2, 3, 4]]


@pytest.mark.parametrize("six", [False, True])
def test_stress_and_virial_have_opposite_signs(tmp_path: Path, six: bool) -> None:
    tensor = "0.1 0.2 0.3 0.04 0.05 0.06" if six else "0.1 0.06 0.05 0.06 0.2 0.04 0.05 0.04 0.3"
    expected = np.array([[0.1, 0.06, 0.05], [0.06, 0.2, 0.04], [0.05, 0.04, 0.3]])
    path = _write(tmp_path / "a.xyz", f'{CELL} REF_stress="{tensor}"', f'{CELL} REF_virials="{tensor}"')
    frames = read_frames(path)
    np.testing.assert_allclose(frames[0].stress, expected, atol=1e-15)
    np.testing.assert_allclose(frames[1].stress, -expected / 8.0, atol=1e-15)  # 8 Å³
    assert "REF_virials (stress = -REF_virials/volume)" in frames.report.sources["stress"]


def test_virial_of_a_molecule_is_ignored(tmp_path: Path) -> None:
    frames = read_frames(_write(tmp_path / "a.xyz", 'virial="1 2 3 4 5 6"'))
    assert frames[0].stress is None
    assert "stress: `virial` ignored, because the cell has no volume" in frames.report.notes


def test_reference_virial_goes_before_bare_stress(tmp_path: Path) -> None:
    frames = read_frames(_write(tmp_path / "a.xyz", f'{CELL} stress="1 1 1 0 0 0" REF_virials="8 8 8 0 0 0"'))
    np.testing.assert_allclose(frames[0].stress, -np.eye(3))
    assert "stress: `REF_virials` was used; `stress` is there too" in frames.report.notes


def test_named_virial_beats_known_stress(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.xyz", f'{CELL} REF_stress="1 1 1 0 0 0" w="8 8 8 0 0 0"')
    np.testing.assert_allclose(read_frames(path, keys=LabelKeys(virial="w"))[0].stress, -np.eye(3))


def test_charge_spin_group_and_weight(tmp_path: Path) -> None:
    head = "total_charge=-1 total_spin=2 mol_id=17 config_weight=0.5 config_type=x head=y"
    frame = read_frames(_write(tmp_path / "a.xyz", head))[0]
    assert (frame.charge, frame.spin, frame.group, frame.weight) == (-1, 2, "17", 0.5)
    assert frame.info == {"config_type": "x", "head": "y"}


def test_fractional_charge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"`charge` is 0\.3 but must be a whole number"):
        read_frames(_write(tmp_path / "a.xyz", "charge=0.3"))


def test_missing_labels_are_refused(tmp_path: Path) -> None:
    frames = read_frames(_write(tmp_path / "a.xyz", "energy=1 E_dft=2", "E_dft=2", "E_dft=2"))
    with pytest.raises(InputError, match=r"2 of 3 frames have no energy \(the first is frame 1\)") as caught:
        require_labels(frames, forces=False)
    for part in ("a.xyz", "`E_dft`, `energy`", "--energy-key", "LabelKeys(energy=...)"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match=r"3 of 3 frames have no forces .* --forces-key"):
        require_labels(frames, energy=False)
    require_labels(frames, energy=False, forces=False)
    require_labels(list(frames)[:1], forces=False)


def test_missing_stress_counts_only_in_crystals(tmp_path: Path) -> None:
    frames = read_frames(_write(tmp_path / "a.xyz", "energy=1", f"{CELL} energy=1"))
    with pytest.raises(InputError, match=r"1 of 2 frames have no stress \(the first is frame 1\)"):
        require_labels(frames, forces=False, stress=True)


def test_isolated_atoms_need_no_forces(tmp_path: Path) -> None:
    require_labels(read_frames(_write(tmp_path / "a.xyz", "config_type=IsolatedAtom energy=-13")))


def test_report_as_json(xyz: Path) -> None:
    report = read_frames(xyz).report.as_dict()
    assert report["labelled"] == {"energy": 2, "forces": 2, "stress": 0, "hessian": 0}
    assert report["present"]["forces"] == 2
    assert report["format"] == "extxyz"
