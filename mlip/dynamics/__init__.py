"""Molecular dynamics on any ASE calculator, with exact resume."""
