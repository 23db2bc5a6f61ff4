"""What a problem refuses on construction: mistakes that would otherwise give wrong numbers or obscure errors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
import itertools
from typing import Any

from mpi4py import MPI
import dolfinx
from dolfinx import cpp as _cpp
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type

from sobofem.fem.assembly.compilation import CELL_SIZE
from sobofem.fem.assembly.forms import Member, Span
from sobofem.fem.assembly.switches import bending, jumps
from sobofem.fem.definition.function_checks import trouble_with
from sobofem.fem.definition.varying import Varying
from sobofem.fem.errors import agree
from sobofem.fem.load_path import Held, LoadPath
from sobofem.fem.parameters import Field, Parameter, Scalar, Shape
from sobofem.fem.responses import SMOOTHER, Combination, Response

SHOWN = 5
"""Names that a message lists."""

EDGES = ("MinCellEdgeLength", "MaxCellEdgeLength", "MinFacetEdgeLength", "MaxFacetEdgeLength", "FacetEdgeVectors")
UNMOVED = tuple(
    getattr(ufl.classes, name) for name in ("Circumradius", "CellDiameter", "CellVertices", "CellEdgeVectors", *EDGES)
)
"""What UFL does not differentiate by coordinates, all of it tried; `CellVolume` and `FacetArea` it does."""


def check_arguments(
    form: Any, unknown: Any, bcs: Sequence[Any], parameters: Sequence[Any], responses: Sequence[Any]
) -> None:
    """Refuse arguments of the wrong kind, boundary conditions of another space, and repeated names.

    Raises:
        TypeError: If an argument is of the wrong type.
        ValueError: If nothing varies or comes out, names repeat, or a condition lives on another space.
    """
    if not isinstance(form, ufl.Form):
        raise TypeError(f"form is of type {type(form).__name__}, expected a UFL form: an expression times ufl.dx")
    if not isinstance(unknown, dolfinx.fem.Function):
        raise TypeError(
            f"unknown is of type {type(unknown).__name__}, expected a dolfinx.fem.Function; several fields are "
            "parts of one, on a space of basix.ufl.mixed_element([...]), by ufl.split(unknown)"
        )
    for kind, things, wanted in (("parameters", parameters, Parameter), ("responses", responses, Response)):
        if not isinstance(things, Sequence) or not all(isinstance(thing, wanted) for thing in things):
            raise TypeError(
                f"{kind} must be a list of {'Scalar, Field, Shape' if kind == 'parameters' else 'Response'}"
            )
        if not things:
            raise ValueError(f"{kind} is empty; a problem needs at least one")
    names = [name for parameter in parameters for name in parameter.names] + [r.name for r in responses]
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")
    for k, bc in enumerate(bcs):
        if not unknown.function_space._cpp_object.contains(bc._cpp_object.function_space):
            raise ValueError(
                f"boundary condition {k} lives on another function space than the unknown; "
                "build it on unknown.function_space or a part of it"
            )


def checked_box(parameters: Sequence[Parameter]) -> np.ndarray:
    """Bounds (n, 2) of all parameters; `ValueError` names the one whose bounds are not finite and increasing."""
    rows = []
    for parameter in parameters:
        try:
            low, high = (float(bound) for bound in parameter.bounds)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"bounds of {parameter.names[0]!r} are {parameter.bounds!r}; expected two numbers"
            ) from error
        if not (np.isfinite(low) and np.isfinite(high) and low < high):
            raise ValueError(f"bounds of {parameter.names[0]!r} are ({low:g}, {high:g}); expected lower before upper")
        rows += [(low, high)] * len(parameter.names)
    return np.array(rows)


def check_forms(forms: Sequence[ufl.Form], unknown: dolfinx.fem.Function, parameters: Sequence[Parameter]) -> None:
    """Refuse what would be wrong: views of unknown or fields, cell sizes under a `Shape`, gradients at vertices.

    Raises:
        ValueError: With the way to write it instead.
    """
    moving = any(isinstance(parameter, Shape) for parameter in parameters)
    fields = {
        parameter.function: f"field {parameter.name!r}" for parameter in parameters if isinstance(parameter, Field)
    }
    mesh = unknown.function_space.mesh
    for form in forms:
        for integral in form.integrals():
            if integral.ufl_domain() != mesh.ufl_domain():
                raise ValueError("an integral is over another mesh than the unknown's; mark parts of one mesh by tags")
            if integral.integral_type() == "vertex" and extract_type(integral.integrand(), ufl.classes.Grad):
                raise ValueError(
                    "an integral over vertices holds a gradient, which differs from cell to cell around a vertex; "
                    "average it over a region"
                )
            if trouble := trouble_with(integral, mesh, moving=moving):
                raise ValueError(trouble)
        for function in form.coefficients():
            for whole, name in {unknown: "the unknown", **fields}.items():
                shared = function is not whole and np.shares_memory(function.x.array, whole.x.array)
                if mesh.comm.allreduce(shared, op=MPI.LOR):
                    raise ValueError(
                        f"{function} is a view of {name}, which UFL takes for another function; use ufl.split(...)"
                    )
        if moving and any(extract_type(form, kind) for kind in UNMOVED):
            raise ValueError(
                "UFL does not differentiate Circumradius, CellDiameter, vertices and edges of cells by shape; "
                "for a size of cells use " + CELL_SIZE.format(dimension=mesh.topology.dim)
            )


def check_independence(parameters: Sequence[Parameter], unknown: dolfinx.fem.Function) -> None:
    """Refuse parameters that fight over one constant or function; `ValueError` names them."""
    owners: dict[Any, str] = {}
    for parameter in parameters:
        if isinstance(parameter, Scalar):
            thing: Any = (id(parameter.constant), parameter.index)
        elif isinstance(parameter, Field):
            thing = id(parameter.function)
            if parameter.function is unknown:
                raise ValueError(f"field {parameter.name!r} is the unknown itself")
        else:
            continue
        if thing in owners:
            raise ValueError(
                f"parameters {owners[thing]!r} and {parameter.names[0]!r} set the same constant or function"
            )
        owners[thing] = parameter.names[0]


def check_boundary_values(
    parameters: Sequence[Parameter], bcs: Sequence[dolfinx.fem.DirichletBC], unknown: dolfinx.fem.Function
) -> None:
    """Refuse two parameters that prescribe the same boundary value, and the unknown as its own. Collective.

    Raises:
        ValueError: With the names.
    """
    comm = unknown.function_space.mesh.comm
    for k, bc in enumerate(bcs):
        value = bc.g
        same = isinstance(value, _cpp.fem.Function_float64) and np.shares_memory(value.x.array, unknown.x.array)
        if comm.allreduce(same, op=MPI.LOR):
            raise ValueError(
                f"boundary condition {k} prescribes the unknown itself, which changes as it is solved for; give it a "
                "function of its own: dolfinx.fem.dirichletbc(unknown.copy(), dofs)"
            )
    names: dict[int, str] = {}
    marked: dict[int, np.ndarray] = {}
    for parameter in parameters:
        if isinstance(parameter, Scalar | Field):
            source = parameter.constant if isinstance(parameter, Scalar) else parameter.function
            own = [bc for bc in bcs if bc.g is source._cpp_object]
            for bc in own:
                key = id(source)
                names.setdefault(key, parameter.name)
                marked.setdefault(key, np.zeros(len(unknown.x.array), dtype=bool))[bc.dof_indices()[0]] = True
    for first, second in itertools.combinations(marked, 2):
        shared = int(np.count_nonzero(marked[first] & marked[second]))
        if comm.allreduce(shared, op=MPI.SUM):
            raise ValueError(
                f"parameters {names[first]!r} and {names[second]!r} prescribe the same boundary value; "
                "take the nodes that both hold out of one of the two boundary conditions"
            )


def check_smoothness(
    responses: Sequence[Response], combination: Combination, integrals: Sequence[ufl.Form], varying: Varying
) -> None:
    """Refuse responses whose derivative jumps: by absolute values, minima and maxima of the solution. Collective.

    Args:
        responses: The responses.
        combination: Of the integrals.
        integrals: Expanded.
        varying: Parameters and state.
    """
    trouble = None
    for response, slots in zip(responses, combination.slots_of, strict=True):
        own = [integrals[combination.slots[slot][0]] for slot in slots]
        for expression in [integral.integrand() for form in own for integral in form.integrals()]:
            if trouble is None and (node := bending(expression, varying.is_solution, varying.ends)) is not None:
                trouble = (
                    f"response {response.name!r} uses {type(node).__name__} of the solution, whose derivative "
                    f"jumps; {SMOOTHER}"
                )
    if trouble := agree(varying.comm, trouble):
        raise ValueError(trouble)


def check_effect(names: Sequence[str], families: Sequence[Sequence[Member | Span]]) -> None:
    """Refuse a parameter by which no form has a derivative.

    Args:
        names: Of the parameters.
        families: Derivatives of each form by all parameters.
    """
    active: set[str] = set()
    for members in families:
        start = 0
        for member in members:
            if not member.empty:
                active.update(names[start : start + member.count])
            start += member.count
    idle = [name for name in names if name not in active]
    if idle:
        more = f" and {len(idle) - SHOWN} more" if len(idle) > SHOWN else ""
        raise ValueError(
            f"parameters {idle[:SHOWN]}{more} enter neither the form nor a boundary value nor a response; "
            "use the Constant itself in UFL, not its value"
        )


def check_path(path: LoadPath, parameters: Sequence[Parameter], bcs: Sequence[dolfinx.fem.DirichletBC]) -> None:
    """Refuse constants of the load path that are parameters as well, and a factor that scales boundary values twice."""
    for name, constant in path.constants.items():
        for parameter in parameters:
            if isinstance(parameter, Scalar) and parameter.constant is constant:
                raise ValueError(
                    f"parameter {parameter.name!r} is the load path's {name}, which the path sets; use another"
                )
    if path.factor is None:
        return
    if any(bc.g is path.factor._cpp_object and not isinstance(bc, Held) for bc in bcs):
        raise ValueError(
            "a boundary condition prescribes the load path's factor; boundary values are multiplied by it anyway, so "
            "prescribe their full value, such as a Constant of 1.0"
        )


def check_free_factor(remembers: bool, external: bool, *, linear: bool, path: LoadPath) -> None:
    """Refuse an unknown load factor with a memory or external functions, and the limit load of what is linear."""
    if external:
        raise ValueError(
            f"{type(path).__name__} does not work with external functions yet: take a path of given load factors, or "
            "of a prescribed displacement"
        )
    if remembers:
        raise ValueError(
            f"{type(path).__name__} finds the load factor of states without a memory: a problem with history or local "
            "unknowns needs a path of given load factors, or of a prescribed displacement"
        )
    if linear:
        raise ValueError("a linear problem has no limit load and needs no control; fem.Buckling finds its load factor")


def check_path_matters(
    path: LoadPath,
    bcs: Sequence[dolfinx.fem.DirichletBC],
    everything: Sequence[ufl.Form],
    fields: Mapping[str, Any],
) -> None:
    """Refuse constants of the load path that enter neither the forms, expanded, nor a boundary value, nor a field."""
    used = {id(c) for form in everything for c in form.constants()}
    used |= {id(c) for expression in fields.values() for c in extract_type(ufl.as_ufl(expression), ufl.Constant)}
    for name, constant in path.constants.items():
        if id(constant) not in used and not any(bc.g is constant._cpp_object for bc in bcs):
            raise ValueError(
                f"the load path's {name} enters neither the form nor a boundary value nor a response; use the Constant "
                "itself in UFL, not its value"
            )


def check_initial_values(functions: Sequence[dolfinx.fem.Function]) -> None:
    """Refuse values to start from that are not finite. Collective; `ValueError` names the function."""
    for function in functions:
        bad = int(np.count_nonzero(~np.isfinite(function.x.array)))
        if bad := function.function_space.mesh.comm.allreduce(bad, op=MPI.MAX):
            raise ValueError(
                f"{function.name!r} holds values that are not finite ({bad} of them); a problem starts from what it "
                "holds when the problem is made: set x.array to finite numbers, or to zero"
            )


def check_regions(responses: Sequence[Response], combination: Combination, integrals: np.ndarray) -> None:
    """Refuse responses over regions of no size, as a wrong facet tag gives them.

    Args:
        responses: The responses.
        combination: Of the integrals.
        integrals: Values of all integrals, (K,).
    """
    for response, slots in zip(responses, combination.slots_of, strict=True):
        for form, slot in zip(response.forms, slots, strict=True):
            if not form.coefficients() and not form.constants() and integrals[combination.slots[slot][0]] == 0.0:
                raise ValueError(f"response {response.name!r} integrates over an empty region; check its facet tag")


def check_differentiability(
    forms: Sequence[ufl.Form],
    responses: Sequence[Response],
    combination: Combination,
    integrals: Sequence[ufl.Form],
    updates: Sequence[ufl.Form],
    varying: Varying,
) -> None:
    """Refuse what jumps, or whose derivative does, with the parameters, and responses that jump with the solution.

    Collective.

    Args:
        forms: The form as given, and the residual.
        responses: The responses.
        combination: Of the integrals as given.
        integrals: Expanded.
        updates: Of internal variables.
        varying: Parameters and state.

    Raises:
        ValueError: With what to write instead.
    """
    given, residual = forms
    history = [("the update of internal variables", update) for update in updates]
    for name, form in [("the form", given), *_named(responses, combination, combination.integrals), *history]:
        for integral in form.integrals():
            for node, parameter in varying.kinks(integral.integrand()):
                raise ValueError(
                    f"{name} uses {type(node).__name__} of parameter {parameter!r}, whose derivative jumps; {SMOOTHER}"
                )
    for name, form in [("the form", residual), *_named(responses, combination, integrals), *history]:
        decides = varying.deciding(form)
        found = (jumps(integral.integrand(), decides, varying.ends) for integral in form.integrals())
        switch = next((node for node in found if node is not None), None)
        if trouble := agree(varying.comm, None if switch is None else varying.jump(name, switch)):
            raise ValueError(trouble)


def _named(
    responses: Sequence[Response], combination: Combination, integrals: Sequence[ufl.Form]
) -> list[tuple[str, ufl.Form]]:
    """Integrals, expanded or not, with the responses that they are of."""
    return [
        (f"response {response.name!r}", integrals[combination.slots[slot][0]])
        for response, slots in zip(responses, combination.slots_of, strict=True)
        for slot in slots
    ]
