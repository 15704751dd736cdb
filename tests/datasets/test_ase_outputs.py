from __future__ import annotations

import pickle
import re
from pathlib import Path

import numpy as np
import pytest

from mlip.datasets import read_frames
from mlip.datasets.ase_outputs import READABLE
from mlip.errors import InputError

HARTREE, BOHR = 27.2113860, 0.5291772105

VASPRUN = """<?xml version="1.0" encoding="ISO-8859-1"?>
<modeling>
 <generator><i name="program" type="string">vasp </i><i name="version" type="string">6.3.0 </i></generator>
 <kpoints><varray name="kpointlist"><v>0 0 0</v></varray><varray name="weights"><v>1</v></varray></kpoints>
 <parameters></parameters>
 <atominfo><atoms>2 </atoms><types>1 </types>
  <array name="atoms"><dimension dim="1">ion</dimension><field type="string">element</field>
   <field type="int">atomtype</field><set><rc><c>Si</c><c>1</c></rc><rc><c>Si</c><c>1</c></rc></set></array>
 </atominfo>
 <structure name="initialpos"><crystal><varray name="basis">{cell}</varray></crystal>
  <varray name="positions"><v>0 0 0</v><v>0.25 0.25 0.25</v></varray></structure>
{steps}
</modeling>
"""
STEP = """ <calculation>
  <scstep><energy><i name="alphaZ">0</i><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">{zero}</i>
   <i name="e_0_energy">{zero}</i></energy></scstep>
  <structure><crystal><varray name="basis">{cell}</varray></crystal>
   <varray name="positions"><v>0 0 {z}</v><v>0.25 0.25 0.25</v></varray></structure>
  <varray name="forces"><v>0.1 0 0</v><v>-0.1 0 0</v></varray>
  <varray name="stress"><v>10 1 3</v><v>1 20 2</v><v>3 2 30</v></varray>
  <energy><i name="e_fr_energy">{free}</i><i name="e_wo_entrp">{zero}</i>
   <i name="e_0_energy">{zero}</i></energy>
 </calculation>
"""
CELL = "<v>0 2.7 2.7</v><v>2.7 0 2.7</v><v>2.7 2.7 0</v>"


@pytest.fixture
def vasprun(tmp_path: Path) -> Path:
    steps = "".join(STEP.format(free=-10.81 - i, zero=-10.8 - i, z=0.01 * i, cell=CELL) for i in range(3))
    path = tmp_path / "run7" / "vasprun.xml"
    path.parent.mkdir()
    path.write_text(VASPRUN.format(cell=CELL, steps=steps))
    return path


def test_vasp(vasprun: Path) -> None:
    frames = read_frames(vasprun)
    assert frames.report.format == "ase-output"
    assert len(frames) == 3
    assert [f.step for f in frames] == [0, 1, 2]
    assert {f.trajectory for f in frames} == {f.group for f in frames} == {"run7/vasprun.xml"}
    assert [f.energy for f in frames] == pytest.approx([-10.8, -11.8, -12.8])
    assert frames[0].forces is not None
    assert frames[0].forces[0].tolist() == [0.1, 0.0, 0.0]
    kbar = 1 / 1602.1766208
    wanted = -kbar * np.array([[10, 1, 3], [1, 20, 2], [3, 2, 30.0]])
    np.testing.assert_allclose(frames[0].stress, wanted, rtol=1e-6)  # pressure positive there
    assert frames[0].pbc.all()


def test_cut_short(vasprun: Path) -> None:
    """The steps that a run finished are read; a step that ends within its energies is not."""
    text = vasprun.read_text()
    ends = [match.end() for match in re.finditer("</calculation>", text)]
    vasprun.write_text(text[: ends[1] + 5])
    assert [f.energy for f in read_frames(vasprun)] == pytest.approx([-10.8, -11.8])
    vasprun.write_text(text[: ends[1] - 100])
    with pytest.raises(InputError, match=r"vasprun\.xml: ASE cannot read it as vasp-xml"):
        read_frames(vasprun)


ORCA = """
                                 *****************
                                 * O   R   C   A *
                                 *****************
 Program Version 5.0.3
Number of atoms                             ....      2
---------------------------------
CARTESIAN COORDINATES (ANGSTROEM)
---------------------------------
  H      0.000000    0.000000    0.000000
  H      0.000000    0.000000    0.740000

----------------------------
FINAL SINGLE POINT ENERGY        -1.130000000000
------------------
CARTESIAN GRADIENT
------------------

   1   H   :    0.000000000    0.000000000    0.010000000
   2   H   :    0.000000000    0.000000000   -0.010000000

Difference to translation invariance:
                             ****ORCA TERMINATED NORMALLY****
"""


def test_orca(tmp_path: Path) -> None:
    (tmp_path / "h2.out").write_text(ORCA)
    (frame,) = read_frames(tmp_path / "h2.out")
    assert frame.energy == pytest.approx(-1.13 * HARTREE, rel=1e-7)
    assert frame.forces is not None
    assert frame.forces[0, 2] == pytest.approx(-0.01 * HARTREE / BOHR, rel=1e-6)


def test_formats_that_are_pickles_are_not_read(tmp_path: Path) -> None:
    """ASE still knows its first trajectory format, which is one."""
    assert not {"trj", "bundletrajectory"} & set(READABLE)
    (tmp_path / "a.trj").write_bytes(pickle.dumps([1]))
    with pytest.raises(InputError, match="cannot tell the format"):
        read_frames(tmp_path / "a.trj")
    with pytest.raises(
        InputError, match="not the output of a program that is known: abinit-out, aims-output"
    ):
        read_frames(tmp_path / "a.trj", format="ase-output")


def test_ase_knows_all_of_them() -> None:
    from ase.io.formats import ioformats

    assert set(READABLE) <= set(ioformats)
