"""The beam in large deflection against the elastica, and its derivatives."""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import interior_point
import pytest
from scipy.integrate import solve_ivp
from scipy.optimize import brentq
from scipy.stats import qmc
import ufl

from sobofem import fem
from sobofem.coupling.models.taylor import taylor_test
from sobofem.fem.library.large_beam import SIZE, large_beam
from sobofem.fem.materials.hyperelasticity import deformation_gradient, neo_hooke


@pytest.fixture(scope="module")
def beam():
    return large_beam(MPI.COMM_SELF)


def elastica(load):
    """Shortening and deflection of the tip, over the length, of a cantilever under a dead force across it.

    Args:
        load: Force times squared length over bending stiffness [-].
    """

    def bent(curvature):
        """Angle, curvature and place along the beam, from the wall to the tip."""

        def slope(_, state):
            return [state[1], -load * np.cos(state[0]), np.cos(state[0]), np.sin(state[0])]

        return solve_ivp(slope, (0.0, 1.0), [0.0, curvature, 0.0, 0.0], rtol=1e-10, atol=1e-12).y[:, -1]

    curvature = brentq(lambda c: bent(c)[1], 0.5 * load / (1 + load), load, xtol=1e-12)
    _, _, x, y = bent(curvature)
    return 1.0 - x, y


def slender_beam(slenderness):
    """A beam of unit length in plane strain with Poisson's ratio zero, which makes it one in plane stress, too."""
    height = 1 / slenderness
    corners = [(0.0, -height / 2), (1.0, height / 2)]
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, corners, (40, 1), dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, load = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    wall, tip = (
        dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x, at=at: np.isclose(x[0], at)) for at in (0.0, 1.0)
    )
    tags = dolfinx.mesh.meshtags(mesh, 1, tip, np.ones(len(tip), dtype=np.int32))
    metadata = {"quadrature_degree": 4}
    dx, ds = ufl.dx(mesh, metadata=metadata), ufl.ds(mesh, subdomain_data=tags, metadata=metadata)
    stiffness = height**3 / 12  # with Young's modulus one
    energy = neo_hooke(deformation_gradient(u), 0.5, 0.0) * dx - load * stiffness / height * u[1] * ds(1)
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), dolfinx.fem.locate_dofs_topological(space, 1, wall), space)],
        parameters=[fem.Scalar("load", load, (0.1, 4.0))],
        responses=[
            fem.average("shortening", -u[0], ds(1)),
            fem.average("deflection", u[1], ds(1)),
        ],
    )


def test_elastica_has_its_tabulated_deflection():
    assert elastica(2.0) == pytest.approx((0.16064, 0.49346), abs=2e-5)  # Mattiasson's table


@pytest.mark.slow
def test_a_slender_beam_bends_as_the_elastica():
    problem = slender_beam(100.0)
    for load in (1.0, 3.0):
        response, jacobian = problem.evaluate([load])
        assert response == pytest.approx(elastica(load), rel=0.003)
        slope = (np.array(elastica(load + 1e-3)) - elastica(load - 1e-3)) / 2e-3
        assert jacobian[:, 0] == pytest.approx(slope, rel=0.01)


@pytest.mark.slow
def test_the_beam_bends_as_the_elastica_in_both_directions(beam):
    stiffness = 2.0 * 20.0**4 / 12
    shortening, deflection = SIZE[0] * np.array(elastica(np.hypot(1.2, 0.4) * SIZE[0] ** 2 / stiffness))
    response, _ = beam.evaluate([2.0, 0.3, -1.2, 0.4, 0.0, 20.0, 20.0], jacobian=False)
    assert -response[0] == pytest.approx(shortening, rel=0.03)
    assert np.hypot(*response[1:3]) == pytest.approx(deflection, rel=0.02)
    assert response[2] / response[1] == pytest.approx(-1 / 3, rel=0.005)  # a bent square section has axes


@pytest.mark.slow
def test_mass_is_that_of_a_bar(beam):
    response, _ = beam.evaluate([2.0, 0.3, -1.0, 0.0, 1e-4, 19.0, 21.5], jacobian=False)
    assert response[5] == pytest.approx(1.1e-3 * SIZE[0] * 19.0 * 21.5, rel=1e-12)


@pytest.mark.slow
def test_both_methods_agree_on_the_beam(beam):
    x = interior_point(beam, 31)
    _, adjoint = beam.evaluate(x, method="adjoint")
    _, tangent = beam.evaluate(x, method="tangent")
    scale = np.abs(adjoint * np.diff(beam.bounds)[:, 0]).max(axis=1, keepdims=True)
    assert (np.abs((adjoint - tangent) * np.diff(beam.bounds)[:, 0]) < 1e-9 * scale).all()


@pytest.mark.slow
def test_derivatives_of_the_beam_pass_taylor():
    problem = large_beam(MPI.COMM_SELF, cells=(5, 1, 1))
    report = taylor_test(problem, point=interior_point(problem, 32), directions=2)
    assert report.passed, report


@pytest.mark.slow
def test_the_whole_box_has_an_equilibrium():
    problem = large_beam(MPI.COMM_SELF, cells=(5, 1, 1))
    low, high = problem.bounds.T
    corners = np.random.default_rng(33).integers(0, 2, (7, 7))
    weakest = [[0, 0, 0, 1, 1, 0, 0]]
    for part in np.vstack([qmc.LatinHypercube(7, rng=34).random(12), corners, weakest]):
        response, _ = problem.evaluate(low + part * (high - low), jacobian=False)
        assert 0.1 * SIZE[0] < -response[1] < SIZE[0]
