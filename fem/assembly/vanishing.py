"""Expressions that are zero wherever they are evaluated, but not their derivatives: distances from where one expands.

A Taylor polynomial about the present values of its arguments is evaluated nowhere else. Once all derivatives are
carried out, what is left of the distance is zero, and with it go most of the polynomial's terms: kernels are spared
them.
"""

from __future__ import annotations

from typing import Any

import ufl
from ufl.variable import Label, Variable


class _Vanishing(Label):  # type: ignore[misc]
    """Marks what is zero wherever it is evaluated."""


def vanishing(expression: Any) -> Any:
    """A UFL expression without free indices, marked as one that is zero wherever it is evaluated."""
    return Variable(ufl.as_ufl(expression), _Vanishing())


def vanishes(node: Any) -> bool:
    """Whether a part of an expression is marked so."""
    return isinstance(node, Variable) and isinstance(node.ufl_operands[1], _Vanishing)
