"""Expressions of the solution as means over the cells, with their derivatives by the parameters.

The mean of e over a cell is ∫ e / ∫ 1. Both integrals are linear forms tested by functions that are constant in each
cell, so that they are differentiated as residuals are, by shapes, too; the quotient follows by hand.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
import ufl

from sobofem.fem.assembly.families import DirectedForms, LinearForms
from sobofem.fem.assembly.forms import Member, by_function, expand
from sobofem.fem.definition.function_checks import trouble_with
from sobofem.fem.derivatives.sensitivity import by_parameters
from sobofem.fem.fields.base import (
    DEGREE,
    ProblemField,
    at_rest,
    cell_vertices,
    cell_volumes,
    cellwise_constants,
    check_history,
)
from sobofem.fem.problem import Problem
from sobofem.fem.responses import ModeShape


class CellField(ProblemField):
    """An expression's means over the cells. Collective on the problem's communicator, as is every method that computes.

    Args:
        problem: A problem without internal variables.
        expression: One of `problem.fields` by name, or UFL in terms of the unknown and the parameters.
        name: Stem of the values' names; by default the field's own.
        degree: Of the quadrature.

    Attributes:
        mass: Positive weights (M,) of an inner product: the cells' volumes.

    Raises:
        NotImplementedError: If internal variables make the state depend on the way there.
        ValueError: If the problem has no field of that name, or does not evaluate an external function that it holds.
    """

    def __init__(
        self, problem: Problem, expression: str | Any, *, name: str | None = None, degree: int = DEGREE
    ) -> None:
        check_history(problem)
        name = name or (expression if isinstance(expression, str) else "field")
        if isinstance(expression, str):
            if expression not in problem.fields:
                known = ", ".join(problem.fields) or "none"
                raise ValueError(f"unknown field {expression!r}; the problem has {known}")
            expression = problem.fields[expression]
        expression = ufl.as_ufl(expression)
        mesh = problem.mesh
        self._space = cellwise_constants(mesh, expression.ufl_shape)
        self._block = self._space.dofmap.index_map_bs
        dx = ufl.dx(mesh, metadata={"quadrature_degree": degree})
        test = ufl.TestFunction(self._space)
        self._form = expand(ufl.inner(expression, test) * dx)
        problem.parts.check_field(self._form, name)
        moving = any(binding.motion is not None for binding in problem.parts.bindings)
        for integral in self._form.integrals():
            if trouble := trouble_with(integral, mesh, moving=moving):
                raise ValueError(f"field {name!r}: {trouble}")
        if any(isinstance(f, ModeShape) for f in self._form.coefficients()):
            raise ValueError(f"field {name!r} is of a mode: it has values, by fem.output, but no derivatives")
        # an average is the integral over the volume; both move with the shape, so both are differentiated
        volume = ufl.inner(_ones(expression.ufl_shape), test) * ufl.dx(mesh, metadata={"quadrature_degree": DEGREE})
        self._integrals = LinearForms([Member(self._form), Member(expand(volume))], self._space)
        bindings = problem.parts.bindings
        self._slopes = LinearForms(by_parameters(self._form, bindings), self._space)
        self._swelling = LinearForms(by_parameters(expand(volume), bindings), self._space)
        # where no Shape has moved the mesh
        with at_rest(problem):
            vertices, volumes = cell_vertices(mesh), cell_volumes(problem)
        super().__init__(problem, name, vertices.mean(axis=1), self._block, self._form.signature())
        self.mass = self._gathering.gather(np.repeat(volumes, self._block)[:, None])[:, 0]

    def outlines(self, x: ArrayLike) -> np.ndarray:
        """Vertices of the cells (cells, vertices, gdim) at parameters x (n,), where shapes have moved them: to draw.

        Raises:
            NotConverged: If there is no equilibrium.
        """
        self._problem.parts.solve(x)
        vertices = cell_vertices(self._problem.mesh)
        rows = np.repeat(vertices.reshape(len(vertices), -1), self._block, axis=0)
        return self._gathering.gather(rows)[:: self._block].reshape(-1, *vertices.shape[1:])

    @cached_property
    def _forward(self) -> DirectedForms:
        """Change of the integrals with the unknown."""
        unknown, V = self._problem.unknown, self._problem.unknown.function_space
        count = len(self._problem.parameters)
        return DirectedForms(lambda du: by_function(self._form, unknown, du), [V], self._space, count)

    @cached_property
    def _back(self) -> DirectedForms:
        """Gradients of weighted integrals by the unknown."""
        unknown, V = self._problem.unknown, self._problem.unknown.function_space
        (test,) = self._form.arguments()

        def build(weight: Any) -> ufl.Form:
            return by_function(ufl.replace(self._form, {test: weight}), unknown, ufl.TestFunction(V))

        return DirectedForms(build, [self._space], V, len(self._problem.parameters))

    def _value(self) -> np.ndarray:
        return self._means()[0]

    def _change(self, directions: np.ndarray) -> np.ndarray:
        means, volumes = self._means()
        change = self._slopes.assemble().times(directions) + self._forward.assemble(self._moved(directions))
        return (change - means * self._swelling.assemble().times(directions)) / volumes

    def _gradients(self, weights: np.ndarray) -> np.ndarray:
        means, volumes = self._means()
        rows = weights / volumes
        gradients = self._slopes.assemble().transposed_times(rows)
        gradients -= self._swelling.assemble().transposed_times(means * rows)
        return gradients + self._pulled(self._back.assemble(rows))

    def close(self) -> None:
        """Free matrices. Collective."""
        self._slopes.close()
        self._swelling.close()

    def _means(self) -> tuple[np.ndarray, np.ndarray]:
        """Means and volumes (owned, 1) as of now."""
        integrals, volumes = self._integrals.assemble().times().T
        return (integrals / volumes)[:, None], volumes[:, None].copy()


def _ones(shape: tuple[int, ...]) -> Any:
    return ufl.as_tensor(np.ones(shape).tolist()) if shape else ufl.as_ufl(1.0)
