"""Numbers of UFL's constants, all with equally many digits.

UFL puts the terms of a sum in the order of their printed forms, where constant 10 comes before constant 9: the same
problem, built a second time, could have another signature, and so another digest.
"""

from __future__ import annotations

import itertools

import ufl

FIRST = 10**9
"""From here on numbers have ten digits."""


def number_with_equal_digits() -> None:
    """Have UFL count on from `FIRST`; called once, when `fem` is imported."""
    before = ufl.Constant._counter
    ufl.Constant._counter = itertools.count(max(FIRST, 0 if before is None else next(before)))
