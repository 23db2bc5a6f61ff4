"""Integrals by different quadrature rules don't disturb each other, wherever they stand and whatever is derived."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly import kernels

KINDS = {"cells": ufl.dx, "exterior": ufl.ds, "interior": ufl.dS}


def rule(mesh, measure, degree, **metadata):
    return measure(domain=mesh, metadata={"quadrature_degree": degree, **metadata})


def scalar_space(mesh, degree):
    return dolfinx.fem.functionspace(mesh, ("Lagrange", degree)), lambda u: u


def vector_space(mesh, degree):
    return dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,))), lambda u: u[0] + 0.5 * u[1]


def mixed_space(mesh, degree):
    parts = [basix.ufl.element("Lagrange", mesh.basix_cell(), d) for d in (degree, 1)]
    return dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element(parts)), lambda u: u[0] + 0.5 * u[1]


def mixing(space_of, degree, names):
    """A non-linear problem whose residual mixes rules on every kind of entity, and responses that do."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 3)
    space, part = space_of(mesh, degree)
    u, v, x = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.SpatialCoordinate(mesh)
    k, load = (dolfinx.fem.Constant(mesh, 1.0) for _ in range(2))
    field = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    basis = [field.copy() for _ in range(2)]
    for number, function in enumerate([field, *basis]):
        function.interpolate(lambda x, number=number: 1.0 + 0.3 * np.sin(3 * x[0] + number) * x[1])
    w = part(u)
    residual = (
        k * (1 + w**2) * ufl.inner(ufl.grad(u), ufl.grad(v)) * rule(mesh, ufl.dx, 4)
        + (field * ufl.inner(u, v) - load * x[0] * part(v)) * rule(mesh, ufl.dx, 1)
        + 0.3 * field * ufl.inner(u, v) * rule(mesh, ufl.ds, 2)
        - 0.1 * x[1] * w * part(v) * rule(mesh, ufl.ds, 1)
        + ufl.avg(w) * ufl.avg(part(v)) * rule(mesh, ufl.dS, 1)
        + ufl.avg(w) ** 2 * ufl.avg(part(v)) * rule(mesh, ufl.dS, 3)
    )
    integrals = {}
    for kind, measure in KINDS.items():
        value, weight = (ufl.avg(w), ufl.avg(field)) if kind == "interior" else (w, field)
        integrals[f"{kind} 1"] = weight * value * rule(mesh, measure, 1)
        integrals[f"{kind} 2"] = k * x[0] * value**2 * rule(mesh, measure, 2)
        integrals[f"{kind} vertices"] = value**2 * rule(mesh, measure, 1, quadrature_rule="vertex")
    problem = fem.Problem(
        residual,
        u,
        bcs=[],
        parameters=[
            fem.Scalar("k", k, (0.5, 2.0)),
            fem.Scalar("load", load, (0.5, 2.0)),
            fem.Field("field", field, basis, (-0.2, 0.2)),
            fem.Shape("stretch", lambda x: np.stack([x[0], 0.2 * x[0]]), (-0.2, 0.2), 0.0),
        ],
        responses=[fem.Response(name, integrals[name]) for name in names],
    )
    return problem, [integrals[name] for name in names]


ALL = [f"{kind} {which}" for kind in KINDS for which in ("1", "2", "vertices")]
SOME = ["cells 1", "cells 2", "exterior 2", "interior 1"]
POINT = [1.1, 0.9, 0.1, -0.05, 0.06]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("space_of", "degree"),
    [(scalar_space, 1), *(pytest.param(space, 2, marks=pytest.mark.slow) for space in (vector_space, mixed_space))],
)
def test_an_integral_is_the_same_alone_together_and_by_a_form_of_its_own(space_of, degree):
    problem, integrals = mixing(space_of, degree, ALL)
    values, jacobian = problem.evaluate(POINT, method="adjoint")
    plain = [dolfinx.fem.assemble_scalar(dolfinx.fem.form(integral)) for integral in integrals]
    np.testing.assert_allclose(values, plain, rtol=1e-12)
    np.testing.assert_allclose(problem.evaluate(POINT, method="tangent")[1], jacobian, rtol=1e-9, atol=1e-12)
    direction = np.array([0.3, -0.4, 0.1, 0.1, 0.1])
    np.testing.assert_allclose(problem.jvp(POINT, direction), jacobian @ direction, rtol=1e-9)
    np.testing.assert_allclose(problem.vjp(POINT, np.ones(len(ALL))), jacobian.sum(axis=0), rtol=1e-9)
    for name in SOME:
        single, _ = mixing(space_of, degree, [name])
        y, slope = single.evaluate(POINT)
        np.testing.assert_allclose(y, values[ALL.index(name)], rtol=1e-11)
        np.testing.assert_allclose(slope[0], jacobian[ALL.index(name)], rtol=1e-9, atol=1e-12)


@pytest.mark.slow
def test_second_derivatives_of_integrals_by_many_rules_are_those_of_each():
    names = ["cells 1", "cells 2"]
    together, _ = mixing(scalar_space, 1, names)
    direction = np.array([0.3, -0.4, 0.1, 0.1, 0.1])
    product = together.hvp(POINT, [1.0, 1.0], direction)
    alone = [mixing(scalar_space, 1, [name])[0].hvp(POINT, [1.0], direction) for name in names]
    np.testing.assert_allclose(product, np.sum(alone, axis=0), rtol=1e-8)
    h = 1e-5
    ahead, behind = (together.vjp(POINT + s * h * direction, [1.0, 1.0]) for s in (1, -1))
    np.testing.assert_allclose((ahead - behind) / (2 * h), product, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_derivatives_of_a_residual_of_many_rules_agree_with_differences():
    problem, _ = mixing(scalar_space, 1, SOME)
    h, steps = 1e-5, np.eye(len(POINT))
    differences = [
        (problem.evaluate(POINT + h * e, jacobian=False)[0] - problem.evaluate(POINT - h * e, jacobian=False)[0])
        / (2 * h)
        for e in steps
    ]
    jacobian = problem.evaluate(POINT)[1]
    np.testing.assert_allclose(np.array(differences).T, jacobian, rtol=1e-6, atol=1e-7)


@pytest.mark.slow
def test_prescribed_values_are_lifted_by_all_rules_of_a_tangent():
    """u − u'' = 0 with u(0) = 1 on linear elements, u v integrated at one point: a system of three entries a row."""
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 4, [0.0, 1.0])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, end = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    stiffness = u.dx(0) * v.dx(0) * rule(mesh, ufl.dx, 2) + u * v * rule(mesh, ufl.dx, 1)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        stiffness,
        u,
        bcs=[dolfinx.fem.dirichletbc(end, left, space)],
        parameters=[fem.Scalar("end", end, (0.5, 2.0))],
        responses=[fem.Response("tip", u * ufl.dx(mesh))],
    )
    h = 0.25
    beside, own = -1 / h + h / 4, 1 / h + h / 4  # of one cell
    matrix = np.diag([own, 2 * own, 2 * own, 2 * own, own]) + beside * (np.eye(5, k=1) + np.eye(5, k=-1))
    exact = np.ones(5)
    exact[1:] = np.linalg.solve(matrix[1:, 1:], -matrix[1:, 0])
    response, slope = problem.evaluate([1.0])
    np.testing.assert_allclose(response, h * (exact.sum() - 0.5 * (exact[0] + exact[-1])), rtol=1e-12)
    np.testing.assert_allclose(slope[0], response, rtol=1e-10)


@pytest.mark.slow
def test_integrals_beside_those_of_internal_variables_have_rules_of_their_own():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    values = []
    for names in (["creep", "mean", "square"], ["creep"], ["mean"], ["square"]):
        u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
        old = fem.internal_variable(mesh, "old", quadrature_degree=1)
        x = ufl.SpatialCoordinate(mesh)
        residual = (k * u - 0.5 * old - x[0] ** 2) * v * rule(mesh, ufl.dx, 1)
        residual += k * u.dx(0) * v.dx(0) * (1 + u**2) * rule(mesh, ufl.dx, 4)
        every = {"creep": old * u * rule(mesh, ufl.dx, 1), "mean": u * rule(mesh, ufl.dx, 1)}
        every["square"] = u**2 * rule(mesh, ufl.dx, 2)
        problem = fem.Problem(
            residual,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response(name, every[name]) for name in names],
            path=fem.LoadPath([1.0, 1.0, 1.0]),
            history={old: old + 0.3 * u},
        )
        found = problem.evaluate([1.2], method="tangent"), problem.evaluate([1.2], method="adjoint")
        np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-10)
        values.append(np.column_stack(found[0]))
    np.testing.assert_allclose(values[0], np.vstack(values[1:]), rtol=1e-11)


@pytest.mark.slow
def test_a_point_load_deflects_a_string_as_it_should():
    """A string under tension T with a load P at its middle: u(1/2) = P / (4 T), and work P² / (4 T)."""
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 10, [0.0, 1.0])
    middle = dolfinx.mesh.locate_entities(mesh, 0, lambda x: np.isclose(x[0], 0.5))
    tags = dolfinx.mesh.meshtags(mesh, 0, middle, np.full(len(middle), 7, dtype=np.int32))
    at_middle = ufl.Measure("dP", domain=mesh, subdomain_data=tags)(7)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    u, tension, load = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 1.0)
    ends = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0] * (1 - x[0]), 0.0))
    problem = fem.Problem(
        0.5 * tension * u.dx(0) ** 2 * ufl.dx - load * u * at_middle,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, ends, space)],
        parameters=[
            fem.Scalar("T", tension, (0.5, 2.0)),
            fem.Scalar("P", load, (0.5, 2.0)),
            fem.Shape("length", lambda x: x.copy(), (0.5, 2.0), 1.0),
        ],
        responses=[
            fem.Response("mean", u * ufl.dx),
            fem.Response("deflection", u * at_middle),
            fem.Response("work", load * u * at_middle),
            fem.Response("square", u**2 * at_middle),
        ],
    )
    t, p, length = 1.5, 1.2, 1.1
    d = p * length / (4 * t)
    response, jacobian = problem.evaluate([t, p, length])
    np.testing.assert_allclose(response, [d * length / 2, d, p * d, d**2], rtol=1e-10)
    relative = [[-1, 1, 2], [-1, 1, 1], [-1, 2, 1], [-2, 2, 2]]  # exponents of t, p and length
    np.testing.assert_allclose(jacobian, response[:, None] * relative / [t, p, length], rtol=1e-9)
    hessian = problem.hvp([t, p, length], [0.0, 1.0, 0.0, 0.0], np.eye(3))
    powers = np.array([-1, 1, 1])
    exact = d * (np.outer(powers, powers) - np.diag(powers)) / np.outer([t, p, length], [t, p, length])
    np.testing.assert_allclose(hessian, exact, rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_a_plain_assembly_finds_a_kernel_that_mixes_rules(monkeypatch):
    names = ["cells 1", "cells 2"]
    values, again, size = mixing(scalar_space, 1, names)[0].recompute(POINT)
    np.testing.assert_allclose(values, again, rtol=1e-12)
    assert (size >= np.abs(values)).all()
    monkeypatch.setattr(kernels, "by_rule", lambda form: [form])
    wrong, again, _ = mixing(scalar_space, 1, names)[0].recompute(POINT)
    if not kernels._mixes_rules_rightly():
        assert abs(wrong / again - 1).max() > 1e-4


@pytest.mark.slow
def test_sums_over_the_load_path_agree_with_plain_assemblies():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 4)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    k = dolfinx.fem.Constant(mesh, 1.0)
    old = fem.internal_variable(mesh, "old", quadrature_degree=2)
    dx = rule(mesh, ufl.dx, 2)
    problem = fem.Problem(
        (k * u - old - ufl.SpatialCoordinate(mesh)[0]) * ufl.TestFunction(u.function_space) * dx,
        u,
        bcs=[],
        parameters=[fem.Scalar("k", k, (1.0, 2.0))],
        responses=[
            fem.Response("all", u * old * dx, at="sum"),
            fem.Response("ratio", (u * dx, u**2 * dx), lambda a, b: a / b, at=1),
        ],
        path=fem.LoadPath([0.3, 0.6, 1.0]),
        history={old: 0.5 * old + 0.2 * u},
    )
    values, again, _ = problem.recompute([1.5])
    np.testing.assert_allclose(values, again, rtol=1e-12)
    np.testing.assert_allclose(values, problem.evaluate([1.5], jacobian=False)[0], rtol=1e-12)


def test_a_gradient_at_a_vertex_is_refused():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    k = dolfinx.fem.Constant(mesh, 1.0)
    with pytest.raises(ValueError, match="differs from cell to cell around a vertex"):
        fem.Problem(
            0.5 * k * u**2 * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("slope", u.dx(0) * ufl.dP(mesh))],
        )


@pytest.mark.slow
def test_a_form_of_two_sets_of_tags_is_that_of_one_with_their_pairs():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 2)
    mesh.topology.create_connectivity(1, 2)
    facets = np.sort(dolfinx.mesh.exterior_facet_indices(mesh.topology))
    first, second = np.arange(len(facets)) % 2, np.arange(len(facets)) % 3 // 2
    both, a, b = (
        ufl.ds(mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 1, facets, ids.astype(np.int32)))
        for ids in (first + 2 * second, first, second)
    )
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)

    def answers(measures):
        load = sum((weight * k**2 * u * ds for weight, ds in measures[1:]), measures[0][0] * k**2 * u * measures[0][1])
        problem = fem.Problem(
            (0.5 * u**2 + 0.5 * ufl.inner(ufl.grad(u), ufl.grad(u))) * ufl.dx - load,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("load", load)],
        )
        y, jacobian = problem.evaluate([1.3])
        return [y, jacobian[0], problem.hvp([1.3], [1.0], [1.0])]

    separate = answers([(1.0, a(1)), (2.0, b(1))])
    np.testing.assert_allclose(separate, answers([(1.0, both(1)), (2.0, both(2)), (3.0, both(3))]), rtol=1e-12)


def test_what_lives_on_another_mesh_is_refused_in_words():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    part, *_ = dolfinx.mesh.create_submesh(mesh, 2, np.arange(4, dtype=np.int32))
    u, k = (dolfinx.fem.Function(dolfinx.fem.functionspace(m, ("Lagrange", 1))) for m in (mesh, part))
    scale = dolfinx.fem.Constant(mesh, 1.0)
    for load, message in ((k * u * ufl.dx(mesh), "f lives on another"), (u * ufl.dx(part), "over another mesh")):
        with pytest.raises(ValueError, match=message):
            fem.Problem(
                scale * u**2 * ufl.dx(mesh) - load,
                u,
                bcs=[],
                parameters=[fem.Scalar("scale", scale, (0.5, 2.0))],
                responses=[fem.Response("mean", u * ufl.dx(mesh))],
            )


def test_integrals_over_facets_of_prisms_are_refused_in_words():
    corners = [(0.0, 0.0, 0.0), (1.0, 1.0, 1.0)]
    mesh = dolfinx.mesh.create_box(MPI.COMM_SELF, corners, (1, 1, 1), dolfinx.mesh.CellType.prism)
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    with pytest.raises(ValueError, match="facets of prisms and pyramids"):
        fem.Problem(
            0.5 * u**2 * ufl.dx - k * u * ufl.ds,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )
