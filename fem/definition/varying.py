"""What varies in a problem's forms, and made-up values of everything in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dolfinx
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type
from ufl.algorithms.expand_indices import expand_indices
from ufl.classes import EQ, NE, FixedIndex, Indexed
from ufl.geometry import GeometricQuantity

from sobofem.fem.assembly.switches import PATHS, evaluated, jumping
from sobofem.fem.load_path import LoadPath
from sobofem.fem.parameters import Field, Parameter, Scalar, Shape
from sobofem.fem.parameters.shape import nodal_velocity
from sobofem.fem.solving.history import InternalVariable, LocalUnknown

POINTS_INSIDE = 64
"""Points in a cell at which it is looked whether a shape carries them across a switch."""


class Varying:
    """Parameters and state of a problem, as terminals of its forms. Collective, as is `moves`.

    Args:
        unknown: What is solved for.
        parameters: The inputs.
        path: The load path.
        local: Unknowns at points.

    Attributes:
        comm: The mesh's communicator.
    """

    def __init__(
        self,
        unknown: dolfinx.fem.Function,
        parameters: Sequence[Parameter],
        path: LoadPath,
        local: Sequence[LocalUnknown] = (),
    ) -> None:
        self._unknown = unknown
        self._mesh = unknown.function_space.mesh
        self.comm = self._mesh.comm
        self._solved = {own.function for own in local}
        self._names: dict[Any, str] = {}
        self._ranges: dict[tuple[Any, tuple[int, ...]], tuple[float, float]] = {}
        self._motions: list[tuple[str, float, float, np.ndarray]] = []
        for parameter in parameters:
            if isinstance(parameter, Scalar):
                self._names[parameter.constant] = parameter.name
                self._ranges[parameter.constant, parameter.index] = parameter.bounds
            elif isinstance(parameter, Field):
                self._names[parameter.function] = parameter.name
            elif isinstance(parameter, Shape):
                low, high = (bound - parameter.reference for bound in parameter.bounds)
                self._motions.append((parameter.name, low, high, nodal_velocity(parameter, self._mesh)))
            else:  # an own kind sets what it holds
                held = [
                    v for v in vars(parameter).values() if isinstance(v, dolfinx.fem.Constant | dolfinx.fem.Function)
                ]
                self._names |= dict.fromkeys(held, parameter.names[0])
        if path.factor is not None:
            self._ranges[path.factor, ()] = min(path.points), max(path.points)

    def deciding(self, form: ufl.Form) -> Callable[[Any], bool]:
        """Whether a switch in a form turns with parameters or, in a functional, with the state.

        A local unknown has made-up values here, with which the branches of its equation don't agree: a switch beside
        one that the state decides is taken for that of its equation.
        """
        local = bool(self._solved.intersection(form.coefficients()))

        def decides(switch: Any) -> bool:
            state = any(self._is_state(f) for f in extract_type(switch, ufl.Coefficient))
            if state and (local or isinstance(switch, EQ | NE)):
                return False
            return bool(self._deciders(switch)) or (state and not form.arguments())

        return decides

    def jump(self, name: str, switch: Any) -> str:
        """What is wrong with a form that jumps at a switch, and what to write instead."""
        deciders = self._deciders(switch)
        moved = any(shape in deciders for shape, *_ in self._motions)
        return (
            f"{name} jumps where {f'parameter {deciders[0]!r}' if deciders else 'the solution'} turns a comparison "
            "(or sign), whose derivative UFL takes as zero; "
            + ("mark the region by mesh tags, which move with the mesh, or " if moved else "")
            + "write a transition over a small width, such as 0.5 * (1 + ufl.tanh((a - b) / width)) for a > b"
        )

    def kinks(self, expression: Any) -> list[tuple[Any, str]]:
        """Absolute values, maxima and minima of parameters alone, and the parameters."""
        found = []
        for node in jumping(expression):
            alone = not any(self._is_state(f) for f in extract_type(node, ufl.Coefficient))
            if alone and not extract_type(node, GeometricQuantity) and (names := self._deciders(node)):
                found.append((node, names[0]))
        return found

    def is_solution(self, node: Any) -> bool:
        """Whether a part of an expression depends on the unknown."""
        return self._unknown in extract_type(node, ufl.Coefficient)

    def _is_state(self, function: Any) -> bool:
        return function is self._unknown or isinstance(function, InternalVariable)

    def _deciders(self, switch: Any) -> list[str]:
        """Names of parameters that a switch depends on."""
        names = []
        for terminal in {*extract_type(switch, ufl.Coefficient), *extract_type(switch, ufl.Constant)}:
            if terminal in self._names and self._is_varied(terminal, switch):
                names.append(self._names[terminal])
        if self._motions and extract_type(switch, GeometricQuantity):
            names += self._shapes_that_turn(switch)
        return sorted(names)

    def _is_varied(self, terminal: Any, switch: Any) -> bool:
        """Whether one of the entries of a terminal that stand in a switch is a parameter."""
        entries = {index for constant, index in self._ranges if constant is terminal}
        used = {
            tuple(int(i) for i in node.ufl_operands[1])
            for node in extract_type(switch, Indexed)
            if node.ufl_operands[0] is terminal and all(isinstance(i, FixedIndex) for i in node.ufl_operands[1])
        }
        return not entries or not terminal.ufl_shape or not used or bool(entries & used)

    def _shapes_that_turn(self, switch: Any) -> list[str]:
        """Shapes that carry points of the mesh across the place where a switch turns: nodes, or points in cells."""
        if any(self._is_state(f) for f in extract_type(switch, ufl.Coefficient)):
            return [name for name, *_ in self._motions]
        found = []
        nodes, cells = self._mesh.geometry.x, self._mesh.geometry.dofmaps[0]
        of_nodes = self._signs(switch, nodes)
        cut = cells[:0] if of_nodes is None else cells[np.ptp(of_nodes[cells], axis=1) > 0.0]
        inside = np.random.default_rng(0).dirichlet(np.ones(cells.shape[1]), POINTS_INSIDE)

        def all_signs(places: np.ndarray) -> np.ndarray | None:
            return self._signs(switch, np.concatenate((places, (inside @ places[cut]).reshape(-1, 3))))

        rest = all_signs(nodes)
        for name, low, high, velocity in self._motions:
            for amount in (low, high):
                moved = nodes.copy()
                moved[:, : velocity.shape[1]] += amount * velocity
                signs = all_signs(moved)
                if rest is None or signs is None or (rest != signs).any():
                    found.append(name)
                    break
        return found

    def _signs(self, switch: Any, x: np.ndarray) -> np.ndarray | None:
        """On which side of a switch nodes are; None if it depends on more than their places."""

        def leaf(node: Any) -> np.ndarray:
            terminal, component, plain = _entry(node)
            if isinstance(terminal, ufl.SpatialCoordinate) and plain:
                return x[:, component[0] if component else 0]
            if isinstance(terminal, ufl.Constant):
                low, high = self._range(terminal, component)
                return np.full(len(x), (low + high) / 2)
            return np.full(len(x), np.nan)

        left, right = evaluated([expand_indices(operand) for operand in switch.ufl_operands], {}, leaf)
        difference = np.broadcast_to(left - right, len(x))
        return None if np.isnan(difference).any() else np.sign(difference)

    def _range(self, constant: Any, component: tuple[int, ...]) -> tuple[float, float]:
        value = float(constant.value[component])
        return self._ranges.get((constant, component), (value, value))

    def ends(self, node: Any, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, bool]:
        """Made-up values of an entry of a terminal at both ends of `PATHS` paths, and whether they grow by orders."""
        terminal, component, plain = _entry(node)
        if isinstance(terminal, ufl.Constant):
            low, high = self._range(terminal, component)
            if (terminal, component) not in self._ranges and terminal in self._names:
                low, high = 0.5 * low, 1.5 * high + 0.1
        elif isinstance(terminal, ufl.Coefficient) and self._is_state(terminal):
            return rng.normal(size=PATHS), rng.normal(size=PATHS), True
        elif isinstance(terminal, ufl.Coefficient) and plain:
            values = terminal.x.array
            spread = 0.5 if terminal in self._names else 0.0
            low, high = values.min(initial=0.0) - spread, values.max(initial=1.0) + spread
        elif isinstance(terminal, ufl.SpatialCoordinate) and plain and len(self._mesh.geometry.x):
            places = self._mesh.geometry.x[:, component[0] if component else 0]
            low, high = places.min(), places.max()
        else:
            low, high = 0.2, 1.0
        start, end = rng.uniform(low, high, (2, PATHS))
        return start, end, False


def _entry(node: Any) -> tuple[Any, tuple[int, ...], bool]:
    """Terminal and component of a leaf, and whether it is not differentiated."""
    component: tuple[int, ...] = ()
    plain = True
    while not node._ufl_is_terminal_:
        if isinstance(node, Indexed):
            component = tuple(int(index) for index in node.ufl_operands[1])
        elif "grad" in node._ufl_handler_name_:
            plain = False
        node = node.ufl_operands[0]
    return node, component, plain
