"""Discretization against a manufactured solution and a patch."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pandas as pd
import pytest
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import plane_stress, strain, stress


def displacement_error(degree, cells):
    """L2 error of a plane-strain problem whose exact solution is prescribed on the boundary and by a body force."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, cells, cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,)))
    u = dolfinx.fem.Function(space)
    x = ufl.SpatialCoordinate(mesh)
    exact = ufl.as_vector((ufl.sin(2 * x[0]) * ufl.cos(x[1]), ufl.exp(0.5 * x[0]) * x[1] ** 2))
    young = dolfinx.fem.Constant(mesh, 2.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 8})
    force = -ufl.div(stress(strain(exact), young, 0.3))
    energy = 0.5 * ufl.inner(stress(strain(u), young, 0.3), strain(u)) * dx - ufl.inner(force, u) * dx

    boundary = dolfinx.fem.Function(space)
    boundary.interpolate(dolfinx.fem.Expression(exact, space.element.interpolation_points))
    mesh.topology.create_connectivity(1, 2)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    dofs = dolfinx.fem.locate_dofs_topological(space, 1, facets)
    problem = fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(boundary, dofs)],
        parameters=[fem.Scalar("young", young, (1.0, 3.0))],
        responses=[fem.Response("error", ufl.inner(u - exact, u - exact) * dx, lambda square: square**0.5)],
    )
    (error,), _ = problem.evaluate([2.3], jacobian=False)
    return error


@pytest.mark.slow
@pytest.mark.parametrize("degree", [1, 2])
def test_displacement_error_falls_with_the_order_plus_one(degree):
    coarse, fine = displacement_error(degree, 12), displacement_error(degree, 24)
    assert np.log2(coarse / fine) == pytest.approx(degree + 1, abs=0.1)


@pytest.mark.slow
def test_prescribed_stretch_reproduces_uniaxial_stress_exactly():
    """Patch test: a bar stretched by a Dirichlet parameter, its reaction, and the derivative of the reaction."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [3.0, 2.0]], [3, 2])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    young, poisson, pull = (dolfinx.fem.Constant(mesh, value) for value in (5.0, 0.25, 0.1))
    sigma = plane_stress(strain(u), young, poisson)
    collapsed = [space.sub(i).collapse()[0] for i in range(2)]

    def fixed(value, component, coordinate, position):
        dofs = dolfinx.fem.locate_dofs_geometrical(
            (space.sub(component), collapsed[component]), lambda x: np.isclose(x[coordinate], position)
        )[0]
        return dolfinx.fem.dirichletbc(value, dofs, space.sub(component))

    problem = fem.Problem(
        0.5 * ufl.inner(sigma, strain(u)) * ufl.dx,
        u,
        bcs=[fixed(0.0, 0, 0, 0.0), fixed(pull, 0, 0, 3.0), fixed(0.0, 1, 1, 0.0)],
        parameters=[
            fem.Scalar("young", young, (1.0, 10.0)),
            fem.Scalar("poisson", poisson, (0.1, 0.4)),
            fem.Scalar("pull", pull, (0.0, 1.0)),
        ],
        responses=[
            fem.Response("reaction", sigma[0, 0] * 3.0 * ufl.dx, lambda moment: moment / 9.0),
            fem.average("narrowing", u[1], ufl.dx),
        ],
    )
    response, jacobian = problem.evaluate([4.0, 0.3, 0.6])
    assert response == pytest.approx([4.0 * 0.2 * 2.0, -0.3 * 0.2 * 1.0], rel=1e-12)
    assert jacobian == pytest.approx(np.array([[0.4, 0.0, 4.0 * 2 / 3], [0.0, -0.2, -0.1]]), rel=1e-12, abs=1e-12)
    for named in (dict, pd.Series):
        assert problem.jvp(named({"pull": 0.6, "young": 4.0, "poisson": 0.3}), np.eye(3)) == pytest.approx(jacobian.T)
        assert problem.evaluate(named({"pull": 0.6, "young": 4.0, "poisson": 0.3}))[0] == pytest.approx(response)
    with pytest.raises(ValueError, match="x has entries named pull, nu, young; expected young, poisson, pull"):
        problem.evaluate({"pull": 0.6, "nu": 0.3, "young": 4.0})
    for x in (np.ma.array([4.0, 0.3, 0.6], mask=[False, True, False]), np.array([4.0, 0.3 + 1j, 0.6])):
        with pytest.raises(ValueError, match="x hold complex numbers or masked entries"):
            problem.evaluate(x)


@pytest.mark.slow
@pytest.mark.parametrize("solver", [fem.SYMMETRIC, fem.MULTIGRID])
def test_a_body_of_nanometres_or_far_from_the_origin_deforms_as_any_other(solver):
    def mean(size, origin):
        corners = [[origin, origin], [origin + 2 * size, origin + size]]
        mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, corners, [8, 4])
        space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
        u, mu, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 0.1)
        e, dx = ufl.sym(ufl.grad(u)), ufl.dx(mesh, metadata={"quadrature_degree": 2})
        held = dolfinx.fem.locate_dofs_geometrical(
            space, lambda x: np.isclose(x[0], origin, rtol=0.0, atol=1e-3 * size)
        )
        problem = fem.Problem(
            mu * (ufl.inner(e, e) + 0.5 * ufl.tr(e) ** 2) * dx - pull * u[0] / size * dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(np.zeros(2), held, space)],
            parameters=[fem.Scalar("mu", mu, (0.5, 2.0)), fem.Scalar("pull", pull, (0.05, 0.2))],
            responses=[fem.average("u", u[0], dx)],
            solver=solver,
        )
        response, slope = problem.evaluate([1.0, 0.1])
        return np.append(response, slope) / size

    usual = mean(1.0, 0.0)
    for size, origin in ((1e-9, 0.0), (1.0, 4e6), (1e-3, 1e4)):
        np.testing.assert_allclose(mean(size, origin), usual, rtol=1e-7)
