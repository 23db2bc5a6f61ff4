"""What is found at quadrature points before an assembly, and what a problem refuses of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import as_evaluated, expand
from sobofem.fem.errors import NotConverged, agree
from sobofem.fem.solving.external_function import ORDERS, Coefficient, expansions_in, refresh
from sobofem.fem.solving.history import LocalUnknown, in_order

IN_TANGENT = 2
"""Derivatives of an external function that a tangent needs."""


class Derivatives(NamedTuple):
    """Of external functions in a problem.

    Attributes:
        needed: The highest that its first derivatives need.
        left: How many times more its forms can be differentiated.
    """

    needed: int
    left: int


class PointValues:
    """Local unknowns and external functions of a problem. Collective, as is every method.

    Args:
        local: Local unknowns.
        everything: Forms that are to be differentiated, expanded.
        others: Forms that are not.
        fields: UFL expressions to look at, by name.
        mesh: Their mesh.

    Attributes:
        local: Local unknowns, each after those that it needs.
        expansions: Of the external functions.

    Raises:
        ValueError: If one can't be found, or has too few derivatives.
    """

    def __init__(
        self,
        local: Sequence[LocalUnknown],
        everything: Sequence[ufl.Form],
        others: Sequence[ufl.Form],
        fields: Mapping[str, Any],
        mesh: dolfinx.mesh.Mesh,
    ) -> None:
        self._comm = mesh.comm
        self.local = in_order(local)
        self._starts = [own.prepare() for own in self.local]
        self.expansions = expansions_in([*everything, *others], fields.values())
        for expansion in self.expansions:
            expansion.prepare()
        self._derivatives = _derivatives(everything, fields, mesh)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return bool(self.local or self.expansions)

    def find(self) -> None:
        """Solve for local unknowns, and expand external functions, at the present state."""
        for own, start in zip(self.local, self._starts, strict=True):
            own.solve(start)
        refresh(self.expansions, self._derivatives.needed)

    def expand_fully(self) -> None:
        """Expand external functions as far as second derivatives need it, at a state for which all was found."""
        refresh(self.expansions, ORDERS)

    def accept(self) -> None:
        """Raise `NotConverged` at an equilibrium where external functions are not to be believed."""
        refusals = [expansion.refusal() for expansion in self.expansions if expansion.function.refuses]
        if refusals and (reason := agree(self._comm, next((found for found in refusals if found), None))):
            raise NotConverged(reason, reason="outside of what a law was made for")

    def share_outside(self) -> float | None:
        """Share of the points at which an external function is outside of what it was made for.

        None where no function says what that is, NaN before the first state.
        """
        able = [(e.function.outside, e) for e in self.expansions if e.function.outside is not None]
        if not able:
            return None
        if not all(expansion.evaluated for _, expansion in able):
            return np.nan
        found = [judge(expansion.at_points()) for judge, expansion in able]
        counts = np.array([sum(each.sum() for each in found), sum(map(len, found))], dtype=float)
        outside, total = self._comm.allreduce(counts, op=MPI.SUM)
        return float(outside / total)

    def check_field(self, form: ufl.Form, name: str) -> None:
        """Refuse a field, as an expanded form, of external functions that are not evaluated, or not so far.

        Raises:
            ValueError: With what to do instead.
        """
        for coefficient in _coefficients([form]):
            function = coefficient.expansion.function
            if coefficient.order + 1 > function.orders:
                raise ValueError(
                    f"{name!r} holds derivative {coefficient.order} of {function.name!r}, of which there are "
                    f"{function.orders}: it has values, by fem.output, but no derivatives"
                )
            if coefficient.expansion not in self.expansions or coefficient.order + 1 > self._derivatives.needed:
                raise ValueError(
                    f"{name!r} holds {function.name!r}, which the problem evaluates where its own forms and fields "
                    "are; make it one of these, fields={name: expression}, and name it here"
                )

    def check_second_order(self) -> None:
        """Refuse second derivatives that need more than there are.

        Raises:
            NotImplementedError: With what to do instead.
        """
        if self._derivatives.left < 2:
            raise NotImplementedError(
                "a response holds the tangent of an external function, of which second derivatives need derivatives "
                "that are not there: difference jvp or vjp instead"
            )


def _derivatives(all_forms: Sequence[ufl.Form], fields: Mapping[str, Any], mesh: dolfinx.mesh.Mesh) -> Derivatives:
    """Which derivatives of external functions expanded forms hold, which are to be differentiated once more.

    Fields may be, and are looked at where they can't.

    Raises:
        ValueError: If that leads beyond the derivatives which there are.
    """
    found = _coefficients(all_forms)
    for coefficient in found:
        function = coefficient.expansion.function
        if coefficient.order + 1 > function.orders:
            raise ValueError(
                f"a form holds derivative {coefficient.order} of {function.name!r}, of which there are "
                f"{function.orders}, and a problem takes one more; make a field of what is only looked at, and leave "
                "out responses that differentiate a tangent, as fem.Buckling does: Problem.stability says where "
                "stability is lost"
            )
    shown = [(name, c) for name, field in fields.items() for c in _in_field(field, mesh)]
    for name, c in shown:
        if c.order > c.expansion.function.orders:
            raise ValueError(
                f"the field {name!r} holds derivative {c.order} of {c.expansion.function.name!r}, of which there are "
                f"{c.expansion.function.orders}"
            )
    wanted = (min(c.order + 1, c.expansion.function.orders) for _, c in shown)
    needed = max([IN_TANGENT, *(c.order + 1 for c in found), *wanted])
    return Derivatives(needed, min([ORDERS, *(c.expansion.function.orders - c.order for c in found)]))


def _coefficients(all_forms: Sequence[ufl.Form]) -> list[Coefficient]:
    """What expanded forms hold of external functions, once all is left out that is zero, in their order."""
    found = {c for form in all_forms for c in as_evaluated(form).coefficients() if isinstance(c, Coefficient)}
    return sorted(found, key=lambda c: c.count())


def _in_field(field: Any, mesh: dolfinx.mesh.Mesh) -> list[Coefficient]:
    """The same of a UFL expression."""
    if not expansions_in([], [field]):
        return []
    return _coefficients([expand(ufl.inner(field, field) * ufl.dx(mesh, metadata={"quadrature_degree": 0}))])
