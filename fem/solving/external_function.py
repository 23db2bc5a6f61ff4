"""Functions that other code computes at the quadrature points, such as a learned stored energy, differentiated exactly.

In a form stands a function's Taylor polynomial about the present values of its arguments z,

    f(z) = N₀ + N₁·d + ½ d·N₂·d + ⅙ N₃ d d d,    d = z − z₀,

whose coefficients live at the quadrature points and are computed anew before each assembly. There d is zero, and value
and derivatives up to the third are those of the function, by whatever z depends on: the unknown, parameters,
coordinates, internal variables. UFL differentiates z, and never hears of the function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import basix.ufl
import dolfinx
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type
from ufl.domain import extract_unique_domain

from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.assembly.forms import without_variables
from sobofem.fem.assembly.vanishing import vanishing
from sobofem.fem.errors import together

ORDERS = 3
"""Derivatives that a function gives: the second ones are in the tangent, the third ones in products with Hessians."""


type Evaluate = Callable[[np.ndarray, int], Sequence[np.ndarray]]
"""Maps arguments z (k, n) and an order to values (k,), gradients (k, n), Hessians (k, n, n), ... up to that order.

The same on every rank for the same z; where z is no number, neither is what it gives.
"""


class ExternalFunction:
    """A scalar function of UFL scalars that other code computes with its derivatives, at the quadrature points.

    It is used in UFL like any other function, `energy = f(I1, J) * dx`; a `Problem` finds it in its forms.

    Args:
        mesh: Its mesh.
        evaluate: Its derivatives up to the third, at many points.
        quadrature_degree: That of the integrals it stands in, over cells.
        digest: A text that changes with the function, for the digest of a problem.
        name: Its name, for messages.
        orders: How many derivatives there are, 2 or 3. Products with Hessians need those of one order more than
            gradients do. 0 for what is only looked at, as a field of a problem.
        refuse: Why arguments (k, n) at an equilibrium are none that the function is to be believed at, if so.
        outside: Which arguments (k, n) are outside of what the function was made for, (k,).

    Attributes:
        expansions: Its Taylor polynomials, one for each place where it is used.

    Raises:
        ValueError: If there are too few derivatives.
    """

    def __init__(
        self,
        mesh: dolfinx.mesh.Mesh,
        evaluate: Evaluate,
        *,
        quadrature_degree: int,
        digest: str,
        name: str = "external function",
        orders: int = ORDERS,
        refuse: Callable[[np.ndarray], str | None] | None = None,
        outside: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> None:
        if orders not in (0, 2, ORDERS):
            raise ValueError(
                f"orders of {name!r} is {orders!r}, expected 2 or 3, as a tangent holds second derivatives, or 0 for "
                "what is only looked at"
            )
        self.mesh = mesh
        self.evaluate = evaluate
        self.quadrature_degree = quadrature_degree
        self.digest = digest
        self.name = name
        self.orders = orders
        self.refuse = refuse
        self.outside = outside
        self.expansions: list[Expansion] = []

    @property
    def refuses(self) -> bool:
        """Whether it refuses any arguments."""
        return self.refuse is not None

    def arguments(self) -> np.ndarray:
        """Its arguments (k, n) when it was evaluated last, at this rank's points of every place where it is used.

        Raises:
            ValueError: If it was not evaluated yet.
        """
        found = [expansion.at_points() for expansion in self.expansions if expansion.evaluated]
        if not found:
            raise ValueError(f"{self.name!r} was not evaluated yet; solve a problem that it is part of first")
        return np.concatenate(found)

    def derivatives(self, z: np.ndarray, order: int) -> list[np.ndarray]:
        """What it gives for arguments (k, n) up to an order, or as far as there are any.

        Raises:
            ValueError: If that is not as many arrays, or these have other shapes.
        """
        (k, n) = z.shape
        order = min(order, self.orders) if n else 0
        found = [np.asarray(array) for array in self.evaluate(z, order)]
        shapes, expected = [array.shape for array in found], [(k, *j * (n,)) for j in range(order + 1)]
        if shapes[: order + 1] != expected:
            raise ValueError(f"{self.name!r} gives arrays of shapes {shapes} for order {order}, expected {expected}")
        return found

    def __call__(self, *arguments: Any) -> Any:
        """The function of UFL scalars, a UFL scalar; of none, a number that may be another one later. Collective."""
        for k, argument in enumerate(arguments):
            if ufl.as_ufl(argument).ufl_shape:
                raise ValueError(f"argument {k} of {self.name!r} has shape {argument.ufl_shape}, expected a scalar")
        if all(extract_unique_domain(ufl.as_ufl(argument)) is None for argument in arguments):
            # plain numbers have no mesh, and what is computed at its points wants one
            arguments = tuple(dolfinx.fem.Constant(self.mesh, float(argument)) for argument in arguments)
        expansion = Expansion(self, arguments)
        self.expansions.append(expansion)
        return expansion.value


class Expansion:
    """The Taylor polynomial of an external function about the present values of its arguments.

    Args:
        function: The function.
        arguments: Its arguments z, UFL scalars.

    Attributes:
        value: The polynomial, a UFL scalar.
        point: z₀; None without arguments.
        coefficients: N₀ to N₃; the last as a vector of all n³ entries. Without arguments N₀ alone.
        nodes: Where this rank's own points are among the degrees of freedom of scalars at the points; once prepared.
        evaluated: Whether it was.
    """

    def __init__(self, function: ExternalFunction, arguments: Sequence[Any]) -> None:
        self.function = function
        self.evaluated = False
        self._size = n = len(arguments)
        self.point: Coefficient | None = None
        if not n:
            self.coefficients = [self._at_points((), 0, "value")]
            self.value: Any = self.coefficients[0]
            return
        self._z = z = ufl.as_vector(arguments)
        shapes: list[tuple[int, ...]] = [(), (n,), (n, n), (n**3,)]
        self.point = self._at_points((n,), 0, "arguments")
        words = ("value", "gradient", "Hessian", "third derivative")
        self.coefficients = [self._at_points(*each) for each in zip(shapes, range(ORDERS + 1), words, strict=True)]
        value, gradient, hessian, flat = self.coefficients
        third = ufl.as_tensor([[[flat[(i * n + j) * n + k] for k in range(n)] for j in range(n)] for i in range(n)])
        d = vanishing(z - self.point)
        cubic = ufl.dot(ufl.dot(ufl.dot(third, d), d), d)
        self.value = value + ufl.dot(gradient, d) + 0.5 * ufl.dot(ufl.dot(hessian, d), d) + cubic / 6

    def _at_points(self, shape: tuple[int, ...], order: int, word: str) -> Coefficient:
        mesh = self.function.mesh
        element = basix.ufl.quadrature_element(
            mesh.basix_cell(), value_shape=shape, degree=self.function.quadrature_degree
        )
        space = dolfinx.fem.functionspace(mesh, element)
        return Coefficient(space, self, order, f"{word} of {self.function.name}")

    @property
    def functions(self) -> list[Coefficient]:
        """All that `refresh` sets."""
        return [*([] if self.point is None else [self.point]), *self.coefficients]

    def prepare(self) -> None:
        """Compile the arguments, and check that all ranks have the same function. Collective."""
        comm = self.function.mesh.comm
        digests = comm.allgather(self.function.digest)
        if len(set(digests)) > 1:
            rank = next(k for k, other in enumerate(digests) if other != digests[0])
            raise ValueError(
                f"{self.function.name!r} is another function on rank {rank} than on rank 0; load one file on all ranks"
            )
        space = self.coefficients[0].function_space
        if self.point is not None:
            points = space.element.interpolation_points
            self._expression = compile_expression(without_variables(ufl.as_ufl(self._z)), points, comm)
        cells = self.function.mesh.topology.index_map(self.function.mesh.topology.dim).size_local
        self._cells = np.arange(cells, dtype=np.int32)
        self.nodes = space.dofmap.list[:cells].ravel()

    def arguments(self) -> np.ndarray:
        """Present values of the arguments (k, n) at the k points of this rank's own cells."""
        if self.point is None:
            return np.zeros((len(self.nodes), 0))
        values = self._expression.eval(self.function.mesh, self._cells)
        return np.ascontiguousarray(values.reshape(len(self.nodes), self._size))

    def at_points(self) -> np.ndarray:
        """The arguments (k, n) that it was expanded about last, at this rank's own points."""
        if self.point is None:
            return np.zeros((len(self.nodes), 0))
        return np.asarray(self.point.x.array.reshape(-1, self._size)[self.nodes])

    def refusal(self) -> str | None:
        """Why the function is not to be believed there, or None."""
        return self.function.refuse(self.at_points()) if self.function.refuse else None

    def take(self, z: np.ndarray, derivatives: Sequence[np.ndarray]) -> None:
        """Expand about arguments (k, n), by the derivatives there."""
        self.evaluated = True
        known = (*([] if self.point is None else [z]), *derivatives)
        for function, values in zip(self.functions, known, strict=False):
            width = int(np.prod(function.ufl_shape, dtype=int))
            function.x.array.reshape(-1, width)[self.nodes] = values.reshape(-1, width)


class Coefficient(dolfinx.fem.Function):
    """What an expansion holds at the points: set before each assembly, and by nobody else.

    Args:
        space: At the points.
        expansion: Whose it is.
        order: Of the derivative.
        name: Its name, for messages.
    """

    def __init__(self, space: dolfinx.fem.FunctionSpace, expansion: Expansion, order: int, name: str) -> None:
        super().__init__(space, name=name)
        self.expansion = expansion
        self.order = order


def expansions_in(all_forms: Iterable[ufl.Form], expressions: Iterable[Any] = ()) -> tuple[Expansion, ...]:
    """All expansions in forms and expressions, those first that others are made of."""
    found = {c for form in all_forms for c in form.coefficients() if isinstance(c, Coefficient)}
    for expression in expressions:
        found |= {c for c in extract_type(ufl.as_ufl(expression), ufl.Coefficient) if isinstance(c, Coefficient)}
    # UFL is built from the inside out: the arguments of an expansion were there before its own functions
    return tuple(dict.fromkeys(c.expansion for c in sorted(found, key=lambda c: c.count())))


def refresh(expansions: Sequence[Expansion], order: int) -> None:
    """Expand external functions about the present values of their arguments, up to an order. Collective."""
    if expansions:
        together(expansions[0].function.mesh.comm, lambda: expand_about(expansions, order))


def expand_about(expansions: Sequence[Expansion], order: int) -> None:
    """The same on this rank alone, which may have more to do than others.

    A function that is used in several places, as in an energy and in a stress, is evaluated once for the same values.
    """
    known: list[tuple[ExternalFunction, np.ndarray, Sequence[np.ndarray]]] = []
    for expansion in expansions:
        z = expansion.arguments()
        same = (d for f, at, d in known if f is expansion.function and np.array_equal(at, z, equal_nan=True))
        derivatives = next(same, None)
        if derivatives is None:
            derivatives = expansion.function.derivatives(z, order)
            known.append((expansion.function, z, derivatives))
        expansion.take(z, derivatives)
