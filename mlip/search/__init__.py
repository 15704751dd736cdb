"""Searches on the energy surface: `mlip.search.relax`."""
