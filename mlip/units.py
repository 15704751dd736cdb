"""Conversion factors into the package's units: eV, Å, eV/Å, eV/Å³.

`value * HARTREE` is in eV when `value` is in hartree, and so on. The numbers are those of `ase.units` (CODATA
2014, the set that ASE uses by default), repeated here so that a conversion does not import ASE; a test
compares the two.

Source: Mohr, Newell, Taylor, Rev. Mod. Phys. 88, 035009 (2016).
"""

from __future__ import annotations

from typing import Final

HARTREE: Final = 27.211386024367243
"""One hartree, eV."""

BOHR: Final = 0.5291772105638411
"""One bohr, Å."""

HARTREE_PER_BOHR: Final = HARTREE / BOHR
"""One atomic unit of force, eV/Å."""

KCAL_PER_MOL: Final = 0.04336410390059322
"""One kilocalorie (thermochemical) per mole, eV."""

KJ_PER_MOL: Final = 0.010364269574711572
"""One kilojoule per mole, eV."""

GPA: Final = 0.006241509125883258
"""One gigapascal, eV/Å³."""

KBAR: Final = 0.0006241509125883258
"""One kilobar, eV/Å³."""

BOLTZMANN: Final = 8.617330337217213e-05
"""Boltzmann's constant, eV/K."""

INVERSE_CM: Final = 0.0001239841973964072
"""The quantum hc/λ of one reciprocal centimetre, eV."""

VIBRATIONAL_QUANTUM: Final = 0.06465415105180661
"""ħω for ω² = 1 eV/Å²/amu, eV; 521.4709 cm⁻¹."""
