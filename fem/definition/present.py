"""Which parameters a problem is set to, and whether its state is the one that was solved for with them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem.fem.definition.arguments import Arguments, in_order
from sobofem.fem.errors import agree, together
from sobofem.fem.geometry import Orientation
from sobofem.fem.parameters import Binding, Parameter, Shape
from sobofem.fem.parameters.left_behind import leave, take_back
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.ties import Ties
from sobofem.fem.solving.warm_start import WarmStart


class Fingerprint:
    """All that decides a state, and the state, as they were when it was found.

    Nobody says so who changes a constant or a function: their values are compared.

    Args:
        everything: Forms, whose constants and functions decide it.
        unknown: What holds it.
        bcs: Boundary conditions, whose values do, too.
    """

    def __init__(
        self, everything: Sequence[ufl.Form], unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]
    ) -> None:
        constants = {id(c): c for form in everything for c in form.constants()}
        functions = {id(f): f for form in everything for f in form.coefficients()} | {id(unknown): unknown}
        self._values: list[Callable[[], np.ndarray]] = [
            *(partial(lambda c: np.asarray(c.value), constant) for constant in constants.values()),
            *(partial(lambda f: f.x.array, function) for function in functions.values()),
            lambda: unknown.function_space.mesh.geometry.x,
            *(partial(_prescribed, bc) for bc in bcs),
        ]
        self._taken: list[np.ndarray] | None = None

    def take(self, x: ArrayLike) -> None:
        """Remember that the state now belongs to parameters x (n,)."""
        self._taken = self._now(x)

    def forget(self) -> None:
        """Be of no state."""
        self._taken = None

    def fits(self, x: ArrayLike) -> bool:
        """Whether the state is the one remembered, on this rank, and belongs to x (n,)."""
        return self._taken is not None and all(map(np.array_equal, self._taken, self._now(x)))

    def _now(self, x: ArrayLike) -> list[np.ndarray]:
        return [np.array(x, dtype=np.float64), *(values().copy() for values in self._values)]


def _prescribed(bc: dolfinx.fem.DirichletBC) -> np.ndarray:
    """What a condition takes its values from."""
    source: Any = bc.g
    return np.asarray(source.x.array if hasattr(source, "x") else source.value)


def as_loaded(mesh: dolfinx.mesh.Mesh) -> dolfinx.mesh.Mesh:
    """The mesh, with its nodes where they were before shapes of another problem moved them. Collective."""
    take_back(mesh, mesh.geometry.x, mesh.comm)
    return mesh


class Assignment:
    """Puts values of the parameters where forms, boundary conditions and the mesh have them. Collective.

    Args:
        mesh: As loaded.
        parameters: The inputs.
        bindings: The same, attached to the problem.
        ties: Those that shapes change.

    Attributes:
        coordinates: Of the mesh as loaded.
    """

    def __init__(
        self,
        mesh: dolfinx.mesh.Mesh,
        parameters: Sequence[Parameter],
        bindings: Sequence[Binding],
        ties: Sequence[Ties],
    ) -> None:
        self._mesh, self._bindings, self._ties = mesh, bindings, ties
        self.coordinates = mesh.geometry.x.copy()
        moving = any(isinstance(parameter, Shape) for parameter in parameters)
        self._orientation = Orientation(mesh) if moving else None

    def put(self, values: np.ndarray) -> None:
        """Assign values (n,); raises as a binding does, or where they turn cells inside out, on all ranks."""
        self._mesh.geometry.x[:] = self.coordinates
        ends = np.cumsum([binding.count for binding in self._bindings])[:-1]

        def assign() -> None:
            for binding, own in zip(self._bindings, np.split(values, ends), strict=True):
                binding.assign(own)

        together(self._mesh.comm, assign)
        if self._orientation is not None:
            leave(self._mesh, self.coordinates, self._mesh.geometry.x)
            self._orientation.check()
        for ties in self._ties:
            ties.follow_mesh()


class Present:
    """The parameters that a problem is set to. Collective.

    Args:
        arguments: Checks values.
        assignment: Puts them in place.
        fingerprint: Of the state.
        equilibrium: Whose settings of Newton's method go with them.
        history: Whether there are internal variables.

    Attributes:
        starts: How often the problem was set.
        closed: Whether the solver's memory is freed.
        warm_start: Finds states from those before, where that is wanted.
    """

    def __init__(
        self,
        arguments: Arguments,
        assignment: Assignment,
        fingerprint: Fingerprint,
        equilibrium: Equilibrium,
        *,
        history: bool,
    ) -> None:
        self._arguments, self._assignment, self._fingerprint = arguments, assignment, fingerprint
        self._equilibrium, self._newton = equilibrium, equilibrium.newton
        self._gentle = self._newton if equilibrium.linear else self._newton.gentle(history=history)
        self._gently_at: np.ndarray | None = None
        self.starts = 0
        self.closed = False
        self.warm_start: WarmStart | None = None

    def start(self, x: ArrayLike, *, gently: bool | None = None) -> None:
        """Set parameters, and the solver's settings: by default gentle ones where the last evaluation took them."""
        self._check_open()
        values = self._arguments.point(x)
        self._fingerprint.forget()
        self.starts += 1
        if gently is not None:
            self._gently_at = values if gently else None
        as_gently = self._gently_at is not None and np.array_equal(values, self._gently_at)
        self._equilibrium.newton = self._gentle if as_gently else self._newton
        if self.warm_start is not None:
            self.warm_start.aim(None if as_gently else values)
        self._assignment.put(values)

    def solved(self, x: ArrayLike) -> None:
        """Remember that the state is that of parameters x (n,)."""
        self._fingerprint.take(in_order(x, self._arguments.names))

    def is_solved(self, x: ArrayLike) -> bool:
        """Whether the state is that of parameters x (n,), on all ranks."""
        self._check_open()
        fits = self._fingerprint.fits(in_order(x, self._arguments.names))
        return agree(self._equilibrium.comm, None if fits else "changed") is None

    def _check_open(self) -> None:
        """Refuse what is closed."""
        if self.closed:
            raise ValueError("the problem is closed; make a new one")
