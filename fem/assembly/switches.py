"""Conditions in UFL at which an integrand jumps: its derivative by what decides the condition is lost, not zero.

UFL differentiates both branches of a conditional, never its condition. Where the branches agree as the condition turns,
as those of a return mapping do, that is the derivative. Whether they do is looked at in numbers: made-up values of the
state, parameters inside their bounds, places inside the mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
import operator
from typing import Any

import numpy as np
import ufl
from ufl.algorithms.expand_indices import expand_indices
from ufl.classes import EQ, GE, GT, LE, LT, NE, ScalarValue, Zero
from ufl.corealg.traversal import unique_pre_traversal

from sobofem.fem.assembly.forms import without_variables

PATHS, POINTS, HALVINGS = 40, 81, 50
AGREES = 1e-3
"""Part of a typical difference of the branches that may be left of it where the condition turns."""

STEP, SMOOTH = 1e-5, 1e-8
"""Step by which an absolute value is changed where it turns, relative to its size nearby; and how much of its typical
effect there may be left for a smooth expression."""

Ends = Callable[[Any, np.random.Generator], tuple[np.ndarray, np.ndarray, bool]]
"""Of an entry of a terminal: values at the start and end of each path, (PATHS,), and whether they grow by orders."""


def switches(expression: Any) -> Iterator[Any]:
    """Comparisons in an expression; `ufl.sign` is made of them."""
    return (node for node in unique_pre_traversal(expression) if isinstance(node, LT | GT | LE | GE | EQ | NE))


def jumps(expression: Any, moves: Callable[[Any], bool], ends: Ends) -> Any | None:
    """The first comparison that something moves, and at which a scalar expression jumps.

    Args:
        expression: UFL scalar whose derivatives are carried out.
        moves: Whether a switch, a UFL expression, depends on something that varies.
        ends: Made-up values of terminals.
    """
    if not any(moves(node) for node in switches(expression)):
        return None
    scalar = expand_indices(without_variables(expression))
    for node in switches(scalar):
        if moves(node) and _jumps_at(scalar, node, ends):
            return node
    return None


def jumping(expression: Any) -> list[Any]:
    """Absolute values, maxima and minima in an expression, unless raised to a power: their derivatives jump.

    Not those in conditions, which are not differentiated.
    """
    kinds = (ufl.classes.Abs, ufl.classes.MaxValue, ufl.classes.MinValue)
    found, seen, waiting = [], set(), [expression]
    while waiting:
        node = waiting.pop()
        if node in seen or isinstance(node, ufl.classes.Condition):
            continue
        seen.add(node)
        operands = node.ufl_operands
        if isinstance(node, ufl.classes.Power) and isinstance(operands[0], kinds):
            exponent = operands[1]
            if isinstance(exponent, ufl.classes.ScalarValue) and float(exponent) > 1.0:
                operands = operands[0].ufl_operands
        if isinstance(node, kinds):
            found.append(node)
        waiting.extend(operands)
    return found


def bending(expression: Any, moves: Callable[[Any], bool], ends: Ends) -> Any | None:
    """The first absolute value, maximum or minimum that something moves, and at which a scalar expression bends.

    Args:
        expression: UFL scalar whose derivatives are carried out.
        moves: Whether a node depends on something that varies.
        ends: Made-up values of terminals.
    """
    if not any(moves(node) for node in jumping(expression)):
        return None
    scalar = expand_indices(without_variables(expression))
    return next((node for node in jumping(scalar) if moves(node) and has_kink(scalar, node, ends)), None)


def has_kink(expression: Any, node: Any, ends: Ends) -> bool:
    """Whether a scalar expression bends where an absolute value, maximum or minimum in it turns, as far as is known.

    Squares of Macaulay brackets, such as of a + |a|, do not: there its factor vanishes.

    Args:
        expression: UFL scalar without indices, whose derivatives are carried out.
        node: Part of it.
        ends: Made-up values of terminals.
    """
    operands = node.ufl_operands if len(node.ufl_operands) == 2 else (node.ufl_operands[0], ufl.as_ufl(0.0))
    paths = _Paths(operands, ends)
    if not paths.lines.size:
        return True
    own, after = (paths.values([node], paths.at, {})[0], paths.values([node], paths.after, {})[0])
    size = np.maximum(np.abs(after - own), np.abs(paths.values([node], paths.before, {})[0] - own))

    def spread(part: float) -> np.ndarray:
        high, low = (paths.values([expression], paths.at, {node: own + sign * part * size})[0] for sign in (1.0, -1.0))
        return np.asarray(np.abs(high - low) / part)

    here, typical = (
        spread(STEP),
        sum(
            np.abs(
                paths.values([expression], where, {node: value})[0] - paths.values([expression], where, {node: own})[0]
            )
            for where, value in ((paths.before, own + size), (paths.after, own + size))
        ),
    )
    sound = np.isfinite(here) & np.isfinite(typical) & (typical > 0.0)
    return not sound.any() or bool((here[sound] > SMOOTH * typical[sound]).any())


def _jumps_at(expression: Any, switch: Any, ends: Ends) -> bool:
    """Whether the expression differs on both sides of where a switch turns, along made-up paths."""
    paths = _Paths(switch.ufl_operands, ends)
    if not paths.lines.size:
        return False

    def difference(along: np.ndarray) -> np.ndarray:
        true, false = (
            paths.values([expression], along, {switch: np.full(along.shape, side)})[0] for side in (True, False)
        )
        return np.broadcast_to(true - false, along.shape)

    typical = np.maximum(np.abs(difference(paths.before)), np.abs(difference(paths.after)))
    at = np.abs(difference(paths.at))
    # where a branch grows without bound, as beside a guard against division by zero, nothing is said
    sound = np.isfinite(typical) & (typical > 0.0) & (at < typical / AGREES)
    return bool(sound.any() and np.median(at[sound] / typical[sound]) > AGREES)


class _Paths:
    """Made-up paths, and where on them two expressions meet.

    Args:
        operands: The two.
        ends: Made-up values of terminals.

    Attributes:
        lines: The path of each place.
        before: The place on it before which they meet, as a part of the path.
        after: The place after that.
        at: Where they meet.
    """

    def __init__(self, operands: Sequence[Any], ends: Ends) -> None:
        self._rng = np.random.default_rng(0)
        self._ends = ends
        self._known: dict[Any, tuple[np.ndarray, np.ndarray, bool]] = {}
        path, grid = np.meshgrid(np.arange(PATHS), np.linspace(0.0, 1.0, POINTS), indexing="ij")
        self.lines = path.ravel()

        def apart(along: np.ndarray) -> np.ndarray:
            left, right = self.values(operands, along, {})
            return np.broadcast_to(left - right, along.shape)

        values = apart(grid.ravel()).reshape(grid.shape)
        turns = np.nonzero(values[:, :-1] * values[:, 1:] <= 0.0)
        self.lines, self.before, self.after = turns[0], grid[turns], grid[turns[0], turns[1] + 1]
        low, high = self.before, self.after
        rising = apart(low) < 0.0
        for _ in range(HALVINGS if self.lines.size else 0):
            middle = (low + high) / 2
            below = (apart(middle) < 0.0) == rising
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        self.at = low

    def values(self, expressions: Sequence[Any], along: np.ndarray, forced: dict[Any, np.ndarray]) -> list[np.ndarray]:
        """Of scalar expressions at places on the paths; of some of their nodes they are given."""
        found = evaluated(list(expressions), forced, lambda node: self._leaf(node, along))
        return [np.broadcast_to(value, along.shape) for value in found]

    def _leaf(self, node: Any, along: np.ndarray) -> np.ndarray:
        if node not in self._known:
            self._known[node] = self._ends(node, self._rng)
        start, end, by_orders = self._known[node]
        path = self.lines
        straight = start[path] + along * (end[path] - start[path])
        # every second path leads through all sizes, where it meets thresholds; the others, where entries meet
        return np.where(path % 2 == 0, end[path] * 10.0 ** (11.0 * along - 8.0), straight) if by_orders else straight


def evaluated(
    expressions: list[Any], forced: dict[Any, np.ndarray], leaf: Callable[[Any], np.ndarray]
) -> list[np.ndarray]:
    """Values of scalar expressions; of some of their nodes they are given."""
    found: dict[Any, np.ndarray] = dict(forced)
    with np.errstate(all="ignore"):
        for expression in expressions:
            waiting = [expression]
            while waiting:
                node = waiting[-1]
                rule = None if node in found or _is_leaf(node) else _rule(node)
                open_operands = [o for o in node.ufl_operands if o not in found] if rule else []
                if open_operands:
                    waiting += open_operands
                    continue
                waiting.pop()
                if rule:
                    found[node] = rule(*(found[operand] for operand in node.ufl_operands))
                elif node not in found:
                    found[node] = _number(node) if isinstance(node, ScalarValue | Zero) else leaf(node)
    return [found[expression] for expression in expressions]


def _is_leaf(node: Any) -> bool:
    """Whether a node is an entry of a terminal, or of its derivative."""
    while not node._ufl_is_terminal_:
        if not node._ufl_is_terminal_modifier_:
            return False
        node = node.ufl_operands[0]
    return True


def _number(node: Any) -> np.ndarray:
    return np.asarray(0.0 if isinstance(node, Zero) else float(node))


def _rule(node: Any) -> Callable[..., np.ndarray]:
    """What a node does with its operands' values; NaN where that is not known, which proves nothing."""
    return _RULES.get(node._ufl_handler_name_, lambda *values: np.asarray(np.nan))


_RULES: dict[Any, Callable[..., np.ndarray]] = {
    "sum": operator.add,
    "product": operator.mul,
    "division": operator.truediv,
    "power": np.power,
    "abs": np.abs,
    "min_value": np.minimum,
    "max_value": np.maximum,
    "conditional": np.where,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "ln": np.log,
    "cos": np.cos,
    "sin": np.sin,
    "tan": np.tan,
    "cosh": np.cosh,
    "sinh": np.sinh,
    "tanh": np.tanh,
    "acos": np.arccos,
    "asin": np.arcsin,
    "atan": np.arctan,
    "atan2": np.arctan2,
    "lt": np.less,
    "gt": np.greater,
    "le": np.less_equal,
    "ge": np.greater_equal,
    "eq": np.equal,
    "ne": np.not_equal,
    "and_condition": np.logical_and,
    "or_condition": np.logical_or,
    "not_condition": np.logical_not,
    "conj": lambda value: value,
    "real": lambda value: value,
    "positive_restricted": lambda value: value,
    "negative_restricted": lambda value: 0.37 * value,  # any other number than on the first side
}
