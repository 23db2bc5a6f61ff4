"""Velocities of shapes, in every form that one may have."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem

DX = ufl.dx(metadata={"quadrature_degree": 2})


def stretch(x):
    return np.stack([x[0], 0.5 * x[1]])


def membrane(velocity):
    """A loaded membrane, held at its left, that `velocity` stretches; velocity is made from its mesh."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_WORLD, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    held = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) * DX - u * DX,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, held, space)],
        parameters=[fem.Shape("s", velocity(mesh), (0.0, 1.0), 0.0)],
        responses=[fem.Response("volume", u * DX)],
    )


def function(mesh, element, values=stretch):
    moving = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    moving.interpolate(values)
    return moving


def half(mesh):
    x = ufl.SpatialCoordinate(mesh)
    return ufl.as_vector([x[0], 0.5 * x[1]])


def test_a_velocity_is_a_function_of_points_a_function_of_the_mesh_or_an_expression():
    """Stretched by 1 + s and 1 + s/2: the volume is (1 + s)³ (1 + s/2) / 3, but for discretization."""
    kinds = [
        lambda mesh: stretch,
        lambda mesh: function(mesh, ("Lagrange", 1, (2,))),
        lambda mesh: function(mesh, ("Lagrange", 2, (2,))),
        half,
    ]
    problems = [membrane(kind) for kind in kinds]
    results = [np.append(*problem.evaluate([0.2])) for problem in problems]
    exact = [1.2**3 * 1.1 / 3, (3 * 1.2**2 * 1.1 + 1.2**3 * 0.5) / 3]
    np.testing.assert_allclose(results[0], exact, rtol=0.05)
    np.testing.assert_allclose(results[1:], np.tile(results[0], (3, 1)), rtol=1e-11)
    assert len({problem.digest for problem in problems}) == 1


def test_a_later_change_of_a_function_does_not_change_the_shape():
    made = []
    problem = membrane(lambda mesh: made.append(function(mesh, ("Lagrange", 1, (2,)))) or made[0])
    before = problem.evaluate([0.2], jacobian=False)[0]
    made[0].x.array[:] = 0.0
    assert problem.evaluate([0.2], jacobian=False)[0] == pytest.approx(before)


@pytest.mark.parametrize(
    ("velocity", "error", "message"),
    [
        (lambda mesh: function(mesh, ("DG", 0, (2,))), ValueError, "jumps between cells; project"),
        (lambda mesh: function(mesh, ("Lagrange", 1), lambda x: x[0]), ValueError, r"has shape \(\), expected \(2,\)"),
        (lambda mesh: half(dolfinx.mesh.create_unit_square(mesh.comm, 2, 2)), ValueError, "lives on another mesh"),
        (lambda mesh: lambda x: np.array([1.0, 0.0]), ValueError, "that of the points it is given"),
        (lambda mesh: np.zeros((25, 2)), TypeError, r"maps points \(gdim, k\) to velocities .*UFL expression"),
        (lambda mesh: ufl.as_vector([0.0, 0.0]) * ufl.CellVolume(mesh), ValueError, "vanishes on the whole mesh"),
    ],
)
def test_what_is_no_velocity_is_refused_with_what_is_one(velocity, error, message):
    with pytest.raises(error, match=message):
        membrane(velocity)
