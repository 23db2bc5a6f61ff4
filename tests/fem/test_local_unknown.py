"""Equations at the quadrature points, without any memory: a bar whose strain is an implicit function of its stress."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
from scipy.optimize import brentq
import ufl

from sobofem import fem
from sobofem.fem.solving.history import in_order

EXPONENT = 5


def power(z, order):
    """z^5 of one argument, with its derivatives."""
    factors = np.cumprod([1, *range(EXPONENT, EXPONENT - order, -1)])
    return [(f * z[:, 0] ** (EXPONENT - k)).reshape(-1, *k * (1,)) for k, f in enumerate(factors)]


def ramberg_osgood(external=False):
    """A bar of unit length: strain = stress / E + k (stress / E)^5, so that the stress has no closed form."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
    function = fem.ExternalFunction(mesh, power, quadrature_degree=1, digest="power") if external else None
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    young, k, load = (dolfinx.fem.Constant(mesh, value) for value in (2.0, 3.0, 1.5))
    elastic = fem.LocalUnknown(mesh, quadrature_degree=1)
    stress = young * elastic.solving(lambda e: e + k * (function(e) if function else e**EXPONENT) - u.dx(0))
    right = dolfinx.mesh.meshtags(mesh, 0, np.array([3], dtype=np.int32), np.array([1], dtype=np.int32))
    end = ufl.ds(mesh, subdomain_data=right)(1)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        stress * v.dx(0) * ufl.dx(degree=1) - load * v * end,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, left, space)],
        parameters=[
            fem.Scalar("young", young, (1.0, 3.0)),
            fem.Scalar("k", k, (1.0, 5.0)),
            fem.Scalar("load", load, (0.5, 2.5)),
        ],
        responses=[
            fem.Response("elongation", u * end),
            fem.Response("energy", stress * u.dx(0) * ufl.dx(degree=1)),
        ],
        local=[elastic],
    )


@pytest.mark.slow
@pytest.mark.parametrize("external", [False, True])
def test_the_bar_is_as_long_as_its_law_says_and_so_are_the_derivatives(external):
    problem = ramberg_osgood(external)
    for young, k, load in ([1.2, 3.0, 0.7], [2.5, 1.5, 2.2]):
        e = load / young
        (elongation, energy), jacobian = problem.evaluate([young, k, load])
        length = e + k * e**EXPONENT
        assert elongation == pytest.approx(length, rel=1e-9)
        assert energy == pytest.approx(load * length, rel=1e-9)
        slope = 1 + EXPONENT * k * e ** (EXPONENT - 1)
        expected = [-slope * e / young, e**EXPONENT, slope / young]
        assert jacobian[0] == pytest.approx(expected, rel=1e-8)
        assert jacobian[1] == pytest.approx(
            [load * expected[0], load * expected[1], length + load * expected[2]], rel=1e-8
        )


def test_the_local_solution_is_that_of_a_scalar_solver():
    problem = ramberg_osgood()
    problem.evaluate([1.2, 3.0, 0.7])
    (elastic,) = problem._equilibrium.points.local
    strain = brentq(lambda e: e + 3.0 * e**EXPONENT - problem.unknown.x.array.max(), 0.0, 10.0, xtol=1e-15)
    assert elastic.function.x.array == pytest.approx(strain, rel=1e-10)


def test_second_derivatives_are_refused_rather_than_wrong():
    with pytest.raises(NotImplementedError, match="local unknowns"):
        ramberg_osgood().hvp([1.2, 3.0, 0.7], [1.0, 0.0], [1.0, 0.0, 0.0])


@pytest.mark.slow
def test_an_equation_without_a_solution_means_no_equilibrium():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    local = fem.LocalUnknown(mesh, quadrature_degree=1)
    root = local.solving(lambda e: e**2 + k)
    problem = fem.Problem(
        (u.dx(0) * v.dx(0) + root * v) * ufl.dx(degree=1),
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, np.array([0], dtype=np.int32), space)],
        parameters=[fem.Scalar("k", k, (-1.0, 2.0))],
        responses=[fem.Response("mean", u * ufl.dx)],
        local=[local],
    )
    with pytest.raises(fem.NotConverged):
        problem.evaluate([1.0])
    with pytest.raises(ValueError, match="a second one needs its own"):
        local.solving(lambda e: e - 1)


@pytest.mark.slow
@pytest.mark.parametrize("turn", [1, -1])
def test_local_unknowns_may_need_each_other_in_turn_and_stand_in_any_order(turn):
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    first, second = (fem.LocalUnknown(mesh, quadrature_degree=1, name=name) for name in ("first", "second"))
    cube = first.solving(lambda e: e**3 + e - k)
    root = second.solving(lambda e: e**3 + cube * e - cube)
    problem = fem.Problem(
        (u.dx(0) * v.dx(0) + u * v - root * v) * ufl.dx(degree=1),
        u,
        bcs=[],
        parameters=[fem.Scalar("k", k, (0.5, 20.0))],
        responses=[fem.average("mean", u, ufl.dx(mesh, degree=1))],
        local=[first, second][::turn],
    )
    for value in (1.0, 15.0, 2.0):
        (mean,), jacobian = problem.evaluate([value])
        a = brentq(lambda e, value=value: e**3 + e - value, 0.0, 10.0, xtol=1e-15)
        b = brentq(lambda e, a=a: e**3 + a * e - a, 0.0, 10.0, xtol=1e-15)
        assert mean == pytest.approx(b, rel=1e-10)
        assert jacobian[0, 0] == pytest.approx((1 - b) / (3 * b**2 + a) / (3 * a**2 + 1), rel=1e-9)


def test_local_unknowns_in_a_circle_are_refused():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
    first, second = (fem.LocalUnknown(mesh, quadrature_degree=1, name=name) for name in ("first", "second"))
    first.solving(lambda e: e - second.function)
    second.solving(lambda e: e - 0.5 * first.function)
    with pytest.raises(ValueError, match="need each other"):
        in_order([first, second])
