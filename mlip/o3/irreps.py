"""Irreducible representations of O(3) and how a feature vector is laid out in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from mlip.errors import InputError

_TERM = re.compile(r"(?:(\d+)x)?(\d+)([eo])")


@dataclass(frozen=True)
class Irreps:
    """A direct sum such as "16x0e+16x1o": multiplicity, degree l, parity (e even, o odd) of each term.

    Terms keep their order and are never merged. Iterating gives (multiplicity, l, p) with p = ±1.

    Attributes:
        terms: (multiplicity, l, p) of each term.
    """

    terms: tuple[tuple[int, int, int], ...]

    @classmethod
    def parse(cls, text: str) -> Irreps:
        """Read terms joined by "+", each `[multiplicity x] degree parity`; the empty string has none.

        Raises:
            InputError: If a term is not of that form.
        """
        terms = []
        for term in text.replace(" ", "").split("+") if text.strip() else []:
            match = _TERM.fullmatch(term)
            if match is None:
                raise InputError(f'`irreps` "{text}" has the term "{term}", but a term is written like 16x1o')
            terms.append((int(match[1] or 1), int(match[2]), 1 if match[3] == "e" else -1))
        return cls(tuple(terms))

    @classmethod
    def spherical(cls, lmax: int, multiplicity: int = 1) -> Irreps:
        """Degrees 0 … lmax with natural parity (-1)^l: 0e + 1o + 2e + …

        Raises:
            InputError: If lmax is negative.
        """
        if lmax < 0:
            raise InputError(f"`lmax` is {lmax} but must be at least 0")
        return cls(tuple((multiplicity, l, (-1) ** l) for l in range(lmax + 1)))

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        return iter(self.terms)

    def __len__(self) -> int:
        return len(self.terms)

    def __str__(self) -> str:
        return "+".join(f"{mul}x{l}{'e' if p == 1 else 'o'}" for mul, l, p in self.terms)

    @property
    def dim(self) -> int:
        """Number of components."""
        return sum(mul * (2 * l + 1) for mul, l, _ in self.terms)

    @property
    def lmax(self) -> int:
        """Largest degree.

        Raises:
            InputError: If there are no terms.
        """
        if not self.terms:
            raise InputError("`irreps` is empty and has no largest degree")
        return max(l for _, l, _ in self.terms)

    @property
    def slices(self) -> tuple[slice, ...]:
        """Where each term lies in a flat feature vector."""
        slices, start = [], 0
        for mul, l, _ in self.terms:
            slices.append(slice(start, start + mul * (2 * l + 1)))
            start = slices[-1].stop
        return tuple(slices)

    @property
    def is_natural(self) -> bool:
        """Whether every term has parity (-1)^l."""
        return all(p == (-1) ** l for _, l, p in self.terms)
