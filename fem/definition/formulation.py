"""The forms of a problem, with whatever is wrong about them found before anything is compiled, on all ranks alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import dolfinx
import ufl

from sobofem.fem.assembly import forms
from sobofem.fem.definition import checks, function_checks, history_checks
from sobofem.fem.definition.varying import Varying
from sobofem.fem.derivatives.sensitivity import System, by_parameters
from sobofem.fem.errors import together
from sobofem.fem.load_path import LoadPath
from sobofem.fem.parameters import Parameter
from sobofem.fem.responses import Combination, Response
from sobofem.fem.solving.history import History, LocalUnknown
from sobofem.fem.solving.tie import Tie


class Formulation(NamedTuple):
    """What a problem is made of.

    Attributes:
        system: The residual, the K integrals that responses take, the unknown and the parameters.
        combination: What responses make of them.
        memory: Internal variables; None without any.
        updates: Forms of what these become in a step.
        means: Forms that vanish by ties.
    """

    system: System
    combination: Combination
    memory: History | None
    updates: list[ufl.Form]
    means: list[ufl.Form]

    @property
    def everything(self) -> list[ufl.Form]:
        """All forms."""
        return [self.system.residual, *self.system.integrals, *self.updates]


def formulate(
    form: ufl.Form,
    unknown: dolfinx.fem.Function,
    *,
    bcs: Sequence[dolfinx.fem.DirichletBC],
    parameters: Sequence[Parameter],
    responses: Sequence[Response],
    fields: Mapping[str, Any],
    path: LoadPath,
    history: Mapping[dolfinx.fem.Function, Any],
    local: Sequence[LocalUnknown],
    ties: Sequence[Tie],
) -> Formulation:
    """Expand and check the forms of a problem, and attach its parameters; for the arguments see `Problem`. Collective.

    Raises:
        ValueError: If a derivative would be wrong, or a parameter has no or a double effect.
    """
    mesh = unknown.function_space.mesh
    residual = forms.residual(form, unknown)
    combination = together(mesh.comm, lambda: Combination(responses, mesh.ufl_domain(), len(path.points)))
    integrals = [forms.expand(forms.with_quadrature_degrees(i)) for i in combination.integrals]
    checks.check_independence(parameters, unknown)
    checks.check_forms([residual, *integrals], unknown, parameters)
    checks.check_boundary_values(parameters, bcs, unknown)
    checks.check_path(path, parameters, bcs)
    history_checks.check_fields(parameters, [*history, *(own.function for own in local)])
    history_checks.check_history([residual, *integrals], history, local)
    history_checks.check_local([form, *combination.integrals], history, local)
    memory = History(history) if history else None
    updates = [memory.update(memory.weight)] if memory else []
    function_checks.check_looked_at(fields, mesh)
    function_checks.check_modes([residual, *updates], responses, combination)
    varying = Varying(unknown, parameters, path, local)
    checks.check_smoothness(responses, combination, integrals, varying)
    checks.check_differentiability([form, residual], responses, combination, integrals, updates, varying)
    bindings = together(mesh.comm, lambda: [parameter.bind(unknown, bcs) for parameter in parameters])
    known = [] if isinstance(ties, Tie) else [(k, tie) for k, tie in enumerate(ties) if isinstance(tie, Tie)]
    means = together(mesh.comm, lambda: [form for number, tie in known for form in tie.integrals(unknown, number)])
    found = Formulation(System(residual, integrals, unknown, bindings), combination, memory, updates, means)
    # a parameter that reaches none of the forms has been forgotten in them: a derivative of 0 would hide that
    names = [name for parameter in parameters for name in parameter.names]
    checks.check_effect(names, [by_parameters(form, bindings) for form in (*found.everything, *means)])
    checks.check_path_matters(path, bcs, [*found.everything, *means], fields)
    return found
