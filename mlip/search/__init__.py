"""Searches on the energy surface: relaxation."""
