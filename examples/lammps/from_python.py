"""Silicon in LAMMPS, driven from Python, beside the same potential as an ASE calculator.

python from_python.py --model ../mlearn/si.safetensors --package si.pt2
"""

from __future__ import annotations

import argparse

import numpy as np
from ase.build import bulk

from mlip.calculators import MLIPCalculator
from mlip.lammps_plugin import start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="../mlearn/si.safetensors")
    parser.add_argument("--package", default="si.pt2", help="from `mlip export` of that model")
    parser.add_argument("--steps", type=int, default=200)
    arguments = parser.parse_args()

    atoms = bulk("Si", cubic=True, a=5.469).repeat(2)
    side = atoms.cell.lengths()
    lammps = start()
    lammps.commands_string(f"""
        units metal
        atom_modify map array
        region box block 0 {side[0]} 0 {side[1]} 0 {side[2]}
        create_box 1 box
        mass 1 28.085
        pair_style mlip
        pair_coeff * * {arguments.package} Si
    """)
    lammps.create_atoms(len(atoms), None, [1] * len(atoms), atoms.positions.ravel().tolist())
    lammps.commands_string(f"""
        velocity all create 1200 87 loop geom
        fix 1 all nve
        run {arguments.steps}
    """)
    atoms.positions = np.array(lammps.gather_atoms("x", 1, 3)).reshape(-1, 3)
    forces = np.array(lammps.gather_atoms("f", 1, 3)).reshape(-1, 3)
    energy = lammps.get_thermo("pe")
    lammps.close()

    atoms.calc = MLIPCalculator(arguments.model)
    print(f"energy, eV: {energy:.6f} in LAMMPS, {atoms.get_potential_energy():.6f} in Python")
    print(f"largest difference of forces, eV/Å: {np.abs(forces - atoms.get_forces()).max():.1e}")


if __name__ == "__main__":
    main()
