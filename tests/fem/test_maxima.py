"""Largest values of what p-norms stand for."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.maxima import maxima


def strip(comm=MPI.COMM_SELF, *, degree=2):
    """-s u'' = 1 between ends at zero: u = x (1 - x) / 2 s, which quadratic elements hold."""
    mesh = dolfinx.mesh.create_unit_square(comm, 8, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", degree)))
    s = dolfinx.fem.Constant(mesh, 1.0)
    ends = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda p: np.isclose(p[0], 0.0) | np.isclose(p[0], 1.0))
    bc = dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_topological(u.function_space, 1, ends), u.function_space)
    left = dolfinx.mesh.locate_entities(mesh, 2, lambda p: p[0] <= 0.25 + 1e-9)
    cells = dolfinx.mesh.meshtags(mesh, 2, left, np.full(len(left), 7, dtype=np.int32))
    right = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda p: np.isclose(p[0], 1.0))
    facets = dolfinx.mesh.meshtags(mesh, 1, right, np.full(len(right), 3, dtype=np.int32))
    dx, ds = ufl.dx(mesh), ufl.Measure("ds", mesh, subdomain_data=facets)
    flux = s**2 * u.dx(0) ** 2
    return fem.Problem(
        (0.5 * s * ufl.inner(ufl.grad(u), ufl.grad(u)) - u) * dx,
        u,
        bcs=[bc],
        parameters=[fem.Scalar("s", s, (0.5, 4.0))],
        responses=[
            fem.p_norm("everywhere", u, dx, p=4),
            fem.p_norm("left", u, ufl.Measure("dx", mesh, subdomain_data=cells)(7), p=4),
            fem.p_norm("flux at the right", flux, ds(3), p=4),
            fem.p_norm("flux around", flux, ufl.ds(mesh), p=4),
            fem.p_norm("through facets", ufl.dot(s * ufl.grad(u), ufl.FacetNormal(mesh)) ** 2, ds(3), p=4),
            fem.average("mean", u, dx),
        ],
    )


@pytest.mark.slow
@pytest.mark.parametrize("s", [1.0, 2.0])
def test_they_are_those_of_the_closed_form_in_cells_and_on_facets_and_more_than_the_p_norm(s):
    problem = strip()
    y, _ = problem.evaluate([s])
    found = maxima(problem)
    assert found == pytest.approx(
        {"everywhere": 0.125 / s, "left": 0.09375 / s, "flux at the right": 0.25, "flux around": 0.25}
    )
    means = dict(zip(problem.responses, y, strict=True))
    assert all(means[name] <= value * (1.0 + 1e-9) for name, value in found.items())
    assert means["everywhere"] < 0.95 * found["everywhere"]


@pytest.mark.slow
def test_means_at_other_points_of_the_path_have_none():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    k = dolfinx.fem.Constant(mesh, 1.0)
    problem = fem.Problem(
        (u**2 / 2 - k * u) * ufl.dx,
        u,
        bcs=[],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.p_norm("first", u, ufl.dx, p=4, at=0), fem.p_norm("last", u, ufl.dx, p=4)],
        path=fem.LoadPath([0.5, 1.0]),
    )
    problem.evaluate([2.0])
    assert maxima(problem) == pytest.approx({"last": 2.0})
