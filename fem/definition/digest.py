"""A digest of everything that decides a problem's answers, the same on any number of ranks.

What is spread over the ranks enters by sums over all of them, rounded so that their order does not show. What the
problem sets itself does not enter by its present value: the unknown, internal variables, and what parameters vary.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from functools import partial
import hashlib
import itertools
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.forms import map_integrands, rounded
from sobofem.fem.definition.formulation import Formulation
from sobofem.fem.definition.moments import Moments
from sobofem.fem.errors import together
from sobofem.fem.load_path import Held, LoadPath
from sobofem.fem.parameters import Binding, Field, OwnValues, Parameter, Scalar, Shape
from sobofem.fem.parameters.shape import nodal_velocity
from sobofem.fem.solving.equilibrium import Equilibrium


def digest(
    formulation: Formulation,
    bcs: Sequence[dolfinx.fem.DirichletBC],
    parameters: Sequence[Parameter],
    path: LoadPath,
    equilibrium: Equilibrium,
) -> str:
    """Changes with forms, constants, coefficients, mesh, tags, boundary conditions, parameters, path and `combine`.

    Collective.

    Args:
        formulation: All forms: of the residual, of integrals, and of what internal variables become.
        bcs: Boundary conditions.
        parameters: The inputs.
        path: The load path.
        equilibrium: Has ties and external functions; and says whether its first step and what the unknown holds, from
            which every solve starts, may change the answers.
    """
    system, combination, memory, _, means = formulation
    ties, external = equilibrium.ties, equilibrium.points.expansions
    unknown, mesh = system.unknown, system.space.mesh
    everything = [*formulation.everything, *path.forms, *means]
    known = _Known(everything, unknown, bcs)
    known.leave_out([function for expansion in external for function in expansion.functions])
    moments = Moments(mesh)
    # steps are a part of the answer of what has a memory
    stepping = f"first step {equilibrium.newton.first_step:g}" if memory else ""
    parts = [map_integrands(rounded, form).signature() for form in everything] + [combination.signature(), stepping]
    parts += [known.uses(form) for form in everything]
    for modes in combination.modes:
        parts += known.modes(modes.meanings(moments.of_function, moments.of_marks))
    if path.finds_factor:
        parts.append(type(path).__name__)
    for field in dataclasses.fields(path):
        if field.name not in ("stored_steps", "control", "branch"):  # memory, not answers; and forms like the others
            value = getattr(path, field.name)
            if isinstance(value, dolfinx.fem.Constant):
                known.vary(value)
                value = known.number(value)
            parts.append(f"{field.name} {value}")
    for parameter, binding in zip(parameters, system.bindings, strict=True):
        parts += _parameter(parameter, binding, known, moments)
    parts += [*_mesh(mesh, moments), *_regions(known.tags, mesh, moments)]
    parts += known.values(moments)
    parts += [f"external {expansion.function.digest}" for expansion in external]
    # an initial guess decides the answer of what is nonlinear or has a memory
    if (memory or not equilibrium.linear) and mesh.comm.allreduce(bool(unknown.x.array.any()), op=MPI.LOR):
        parts.append(moments.of_function(unknown))
    if ties is not None:
        parts.append(f"ties {moments.of_function(ties.probe())}")
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


class _Known:
    """All constants, functions and mesh tags of a problem, numbered as they occur.

    Args:
        everything: All forms.
        unknown: What is solved for.
        bcs: Boundary conditions.
    """

    def __init__(
        self, everything: Sequence[ufl.Form], unknown: dolfinx.fem.Function, bcs: Sequence[dolfinx.fem.DirichletBC]
    ) -> None:
        self.unknown, self.bcs = unknown, bcs
        self.constants: list[Any] = []
        self.functions: list[Any] = [unknown]
        self.tags: list[tuple[Any, str]] = []
        for form in everything:
            for kind, found in ((self.constants, form.constants()), (self.functions, form.coefficients())):
                kind += [thing for thing in found if not any(thing is other for other in kind)]
            for integral in form.integrals():
                data = integral.subdomain_data()
                if data is not None and not any(data is other for other, _ in self.tags):
                    self.tags.append((data, integral.integral_type()))
        self._varied: dict[int, set[tuple[int, ...]]] = {}
        self._free = {id(unknown)}
        self._free_bcs: set[int] = set()

    def number(self, thing: Any) -> str:
        """Where a constant, function or set of tags comes in the order of occurrence, and which conditions it sets."""
        kinds = self.constants, self.functions, [data for data, _ in self.tags]
        numbers = [k for kind in kinds for k, other in enumerate(kind) if other is thing]
        cpp = thing._cpp_object if isinstance(thing, dolfinx.fem.Constant | dolfinx.fem.Function) else None
        prescribed = [k for k, bc in enumerate(self.bcs) if bc.g is cpp]
        return f"{numbers} {prescribed}"

    def uses(self, form: ufl.Form) -> str:
        """Which constants, functions and tags a form holds: its signature numbers only its own."""
        tags = [integral.subdomain_data() for integral in form.integrals()]
        things = [*form.constants(), *form.coefficients(), *(tag for tag in tags if tag is not None)]
        return " ".join(self.number(thing) for thing in things)

    def vary(self, constant: dolfinx.fem.Constant, index: tuple[int, ...] = ()) -> None:
        """Leave an entry of a constant out of the values."""
        self._varied.setdefault(id(constant._cpp_object), set()).add(index)

    def leave_out(self, functions: Sequence[Any]) -> None:
        """Leave functions out of the values."""
        self._free |= {id(function) for function in functions}

    def modes(self, meanings: Sequence[tuple[Any, str]]) -> list[str]:
        """What functions are that are set to modes of the state, instead of the values that they hold now."""
        used = [(mode, text) for mode, text in meanings if any(mode is other for other in self.functions)]
        self._free |= {id(mode) for mode, _ in used}
        return [f"{self.number(mode)} {text}" for mode, text in used]

    def values(self, moments: Moments) -> list[str]:
        """Values of all constants, functions and boundary conditions, but for what is set later. Collective."""
        parts = [_text(self._fixed(constant._cpp_object)) for constant in self.constants]
        parts += [moments.of_function(f) for f in self.functions if id(f) not in self._free]
        for k, bc in enumerate(self.bcs):
            marked = dolfinx.fem.Function(self.unknown.function_space)
            dofs, owned = bc.dof_indices()
            marked.x.array[dofs[:owned]] = 1.0
            parts.append(moments.of_marks(marked) + (" held" if isinstance(bc, Held) else ""))
            if k not in self._free_bcs:
                parts.append(moments.of_function(self._prescribed(bc)))
        return parts

    def _fixed(self, constant: Any) -> np.ndarray:
        values = np.array(constant.value, dtype=np.float64)
        for index in self._varied.get(id(constant), ()):
            values[index] = 0.0
        return values

    def _prescribed(self, bc: dolfinx.fem.DirichletBC) -> dolfinx.fem.Function:
        """Values of a condition, zero where parameters set them."""
        function = dolfinx.fem.Function(self.unknown.function_space)
        if id(bc.g) not in self._varied:
            bc.set(function.x.array)
            return function
        now = bc.g.value.copy()
        bc.g.value[...] = self._fixed(bc.g)
        bc.set(function.x.array)
        bc.g.value[...] = now
        return function

    def effect(self, parameter: Parameter, binding: Binding, moments: Moments) -> list[str]:
        """What an own kind of parameter does to all these and to the mesh, at points of its bounds. Collective."""
        mesh = self.unknown.function_space.mesh
        owned = mesh.geometry.index_map().size_local
        sources = [*(c.value for c in self.constants), *(f.x.array for f in self.functions), mesh.geometry.x]
        sources += [bc.g.value if _is_constant(bc.g) else bc.g.x.array for bc in self.bcs]
        saved = [source.copy() for source in sources]
        low, high = parameter.bounds
        parts = []
        first: list[np.ndarray] = []
        for values in low + (high - low) * _probes(binding.count):
            together(mesh.comm, partial(binding.assign, values))
            fields = [function.copy() for function in self.functions]
            conditions = [self._prescribed(bc) for bc in self.bcs]
            constants = [np.array(constant.value, dtype=np.float64) for constant in self.constants]
            moved = mesh.geometry.x[:owned].copy()
            # what it did is recorded; the problem is left as it was found
            for source, before in zip(sources, saved, strict=True):
                source[...] = before
            now = [*constants, *(f.x.array for f in fields), *(f.x.array for f in conditions), moved]
            if first:
                parts += self._changes(first, now, constants, fields, conditions, moments)
            else:
                first = [array.copy() for array in now]
                parts += [_text(c) for c in constants] + [moments.of_function(f) for f in [*fields, *conditions]]
        return parts

    def _changes(
        self,
        first: list[np.ndarray],
        now: list[np.ndarray],
        constants: list[np.ndarray],
        fields: list[Any],
        conditions: list[Any],
        moments: Moments,
    ) -> list[str]:
        """Differences between two values of a parameter; what differs is left out of the values. Collective."""
        parts = []
        differences = [b - a for a, b in zip(first, now, strict=True)]
        changed = np.array([d.any() for d in differences])
        self.unknown.function_space.mesh.comm.Allreduce(MPI.IN_PLACE, changed, op=MPI.LOR)
        split = np.cumsum([len(constants), len(fields), len(conditions)])
        # a component of a constant that follows the parameter has no value of its own: only the change counts
        for k, constant in enumerate(self.constants):
            for index in zip(*np.nonzero(differences[k]), strict=True) if differences[k].ndim else [()]:
                if changed[k]:
                    self.vary(constant, tuple(int(i) for i in index))
            parts.append(_text(differences[k]))
        for j, field in enumerate(fields):
            k = split[0] + j
            if changed[k]:
                self._free.add(id(self.functions[j]))
                field.x.array[:] = differences[k]
                parts.append(f"function {j} {moments.of_function(field)}")
        for j, condition in enumerate(conditions):
            k = split[1] + j
            if changed[k]:
                self._free_bcs.add(j)
                condition.x.array[:] = differences[k]
                parts.append(f"condition {j} {moments.of_function(condition)}")
        if changed[-1]:
            parts.append(moments.of_nodes(differences[-1]))
        return parts


def _parameter(parameter: Parameter, binding: Binding, known: _Known, moments: Moments) -> list[str]:
    """What a parameter sets, and how."""
    parts = [type(parameter).__name__, *parameter.names]
    if isinstance(parameter, Scalar):
        known.vary(parameter.constant, parameter.index)
        return [*parts, f"{parameter.index} {known.number(parameter.constant)}"]
    if isinstance(parameter, Field):
        return [*parts, known.number(parameter.function), *_basis(parameter, moments)]
    if isinstance(parameter, Shape):
        mesh = known.unknown.function_space.mesh
        owned = mesh.geometry.index_map().size_local
        velocity = nodal_velocity(parameter, mesh)[:owned]
        return [*parts, f"{parameter.reference:.9g}", moments.of_nodes(velocity)]
    if (
        own := getattr(binding, "digest", None)
    ) is not None:  # a kind that sets nothing which forms hold says what it is
        return [*parts, str(own)]
    return [*parts, *known.effect(parameter, binding, moments)]


def _basis(parameter: Field, moments: Moments) -> list[str]:
    """What a field's coefficients do to it: each, or all in waves where they are its own values."""
    if not isinstance(parameter.basis, OwnValues):
        return [moments.of_function(shape) for shape in parameter.basis]
    function = parameter.function.copy()
    parts = [type(parameter.basis).__name__]
    assert parameter.own is not None
    for wave in (1.0, 0.37):
        values = parameter.own.basis @ np.cos(wave * np.arange(parameter.own.count))
        function.x.array[: len(values)] = values
        function.x.scatter_forward()
        parts.append(moments.of_function(function))
    return parts


def _probes(count: int) -> np.ndarray:
    """Points of the unit cube (k, count) that show what each of a few, or all of many, parameters do."""
    return np.random.default_rng(0).uniform(0.1, 0.9, (min(count, 8) + 2, count))


def _text(values: np.ndarray) -> str:
    return str([float(f"{value:.9g}") for value in np.atleast_1d(values).ravel()])


def _is_constant(value: Any) -> bool:
    return isinstance(value, dolfinx.cpp.fem.Constant_float64)


def _mesh(mesh: dolfinx.mesh.Mesh, moments: Moments) -> list[str]:
    """Nodes, and how cells connect them: their shapes, each in units of its own size, at their midpoints."""
    owned = mesh.geometry.x[: mesh.geometry.index_map().size_local]
    cells = mesh.topology.index_map(mesh.topology.dim)
    corners = mesh.geometry.x[mesh.geometry.dofmaps[0][: cells.size_local]]
    middles = corners.mean(axis=1)
    spread = corners - middles[:, None]
    inertia = np.einsum("cni,cnj->cij", spread, spread)
    inertia /= np.einsum("cii->c", inertia)[:, None, None]
    rows, columns = np.triu_indices(3)
    parts = [mesh.topology.cell_name(), str(cells.size_global), str(mesh.geometry.index_map().size_global)]
    return [
        *parts,
        moments.frame,
        moments.of_nodes(moments.relative(owned)),
        moments(middles, inertia[:, rows, columns]),
    ]


def _regions(tags: Sequence[tuple[Any, str]], mesh: dolfinx.mesh.Mesh, moments: Moments) -> list[str]:
    """What mesh tags mark, by value; or lists of integration entities, each with its number."""
    parts = []
    for data, kind in tags:
        if isinstance(data, dolfinx.mesh.MeshTags):
            owned = data.indices < mesh.topology.index_map(data.dim).size_local
            parts.append(_marks(mesh, data.dim, data.indices[owned], data.values[owned], moments))
        else:
            parts += [f"{number} {_entities(mesh, kind, np.asarray(flat), moments)}" for number, flat in data]
    return parts


def _entities(mesh: dolfinx.mesh.Mesh, kind: str, flat: np.ndarray, moments: Moments) -> str:
    """What integration entities are: cells, or cells each with the number of its facet or vertex."""
    tdim = mesh.topology.dim
    if kind == "cell":
        return _marks(mesh, tdim, flat, np.ones(len(flat)), moments)
    dim = 0 if kind == "vertex" else tdim - 1
    mesh.topology.create_connectivity(tdim, dim)
    parts = mesh.topology.connectivity(tdim, dim).array.reshape(len(mesh.geometry.dofmaps[0]), -1)
    cells, local = flat.reshape(-1, 4 if kind == "interior_facet" else 2)[:, :2].T
    return _marks(mesh, dim, parts[cells, local], np.ones(len(cells)), moments)


def _marks(mesh: dolfinx.mesh.Mesh, dim: int, indices: np.ndarray, values: np.ndarray, moments: Moments) -> str:
    mesh.topology.create_connectivity(dim, mesh.topology.dim)
    points = dolfinx.mesh.compute_midpoints(mesh, dim, indices.astype(np.int32))
    return moments(points, values[:, None].astype(np.float64))


FIRST = 10**9
"""From here on numbers have ten digits."""


def number_with_equal_digits() -> None:
    """Have UFL count on from `FIRST`; called once, when `fem` is imported."""
    before = ufl.Constant._counter
    ufl.Constant._counter = itertools.count(max(FIRST, 0 if before is None else next(before)))
