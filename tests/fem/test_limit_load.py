"""Limit loads and paths through them, against the closed forms of a flat truss, and by Taylor's theorem."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem

SPAN, RISE = 1.0, 0.2
X = np.array([2.0, 1.5, 0.0])


def truss(comm=MPI.COMM_SELF, *, path=None, side=0.0, residual=False, held=True, newton=fem.Newton(), at_ends=None):  # noqa: B008
    """Two bars of Green's strain that lean on each other; a force moves their apex down, and one a little aside.

    By symmetry z = RISE - w follows from load = stiffness z (RISE² - z²) / L³, with L² = SPAN² + RISE².
    """
    element = basix.ufl.element("Lagrange", "interval", 1, shape=(2,))
    points = np.array([[-SPAN, 0.0], [0.0, RISE], [SPAN, 0.0]])
    cells = np.array([[0, 1], [1, 2]], dtype=np.int64)
    if comm.rank:
        points, cells = np.zeros((0, 2)), np.zeros((0, 2), dtype=np.int64)
    mesh = dolfinx.mesh.create_mesh(comm, cells, element, points)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    stiffness, weight, aside, t = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 1.0, side, 0.0))
    along = ufl.Jacobian(mesh)[:, 0]
    along = along / ufl.sqrt(ufl.inner(along, along))
    stretched = along + ufl.dot(ufl.grad(u), along)
    green = 0.5 * (ufl.inner(stretched, stretched) - 1.0)
    apex = dolfinx.mesh.locate_entities(mesh, 0, lambda x: x[1] > 0.5 * RISE)
    tags = dolfinx.mesh.meshtags(mesh, 0, apex, np.full(len(apex), 7, dtype=np.int32))
    dP = ufl.Measure("dP", domain=mesh, subdomain_data=tags)(7)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 1})
    energy = 0.5 * stiffness * green**2 * dx - t * weight * (-u[1] + aside * u[0]) * dP
    ends = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.abs(x[0]) > 0.5 * SPAN)
    conditions = [at_ends(space, ends) if at_ends else dolfinx.fem.dirichletbc(np.zeros(2), ends, space)]
    path = (path or (lambda t, control: fem.LimitLoad(factor=t, increment=0.001)))(t, -u[1] * dP)
    at = {"at": 0} if len(path.points) > 1 else {}
    return fem.Problem(
        ufl.derivative(energy, u, ufl.TestFunction(space)) if residual else energy,
        u,
        bcs=conditions if held else [],
        parameters=[
            fem.Scalar("stiffness", stiffness, (0.5, 4.0)),
            fem.Scalar("weight", weight, (0.5, 4.0)),
            fem.Scalar("aside", aside, (-0.5, 0.5)),
        ],
        responses=[
            path.load_factor("limit", **at),
            fem.Response("down", -u[1] * dP, **at),
            fem.Response("over", u[0] * dP, **at),
            fem.Response("energy", 0.5 * stiffness * green**2 * dx, **at),
        ],
        path=path,
        newton=newton,
    )


LENGTH = np.hypot(SPAN, RISE)


def carried(z, stiffness, weight):
    """Load factor at the height z of the apex."""
    return stiffness * z * (RISE**2 - z**2) / LENGTH**3 / weight


@pytest.mark.parametrize("residual", [False, True])
def test_the_limit_load_of_a_truss_and_its_derivatives_are_the_closed_ones(residual):
    problem = truss(residual=residual)
    z = RISE / np.sqrt(3)
    limit, stored = carried(z, *X[:2]), 2.0 * (RISE**2 - z**2) ** 2 / 4 / LENGTH**3
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(X, method=method)
        np.testing.assert_allclose(y, [limit, RISE - z, 0.0, stored], rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(jacobian[0], [limit / X[0], -limit / X[1], 0.0], rtol=1e-8, atol=1e-8)
        np.testing.assert_allclose(jacobian[1], 0.0, atol=1e-8)  # where it snaps is a matter of shape alone
        np.testing.assert_allclose(jacobian[3], [stored / X[0], 0.0, 0.0], rtol=1e-7, atol=1e-9)
    assert problem.negative_pivots == (None if residual else 0)
    assert not problem.stability.crossings


def test_all_derivatives_at_a_limit_point_pass_taylor():
    problem, x, step = truss(), np.array([2.0, 1.5, 0.02]), np.array([0.3, -0.2, 0.01])
    y, jacobian = problem.evaluate(x)
    remainders = []
    for share in (0.2, 0.1, 0.05):
        moved, _ = problem.evaluate(x + share * step, jacobian=False)
        remainders.append(np.abs(moved - y - share * jacobian @ step))
    rates = np.log2(np.array(remainders[:-1]) / np.array(remainders[1:]))
    assert (rates > 1.85).all()
    np.testing.assert_allclose(problem.vjp(x, np.eye(4)), jacobian, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(problem.jvp(x, step), jacobian @ step, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("at", [(0.02,), (0.2, 0.3, 0.02), (0.38,)])
def test_a_controlled_path_goes_through_limit_points(at):
    problem = truss(path=lambda t, control: fem.ControlledPath(at, factor=t, control=control))
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(X, method=method)
        z = RISE - at[0]
        np.testing.assert_allclose(y[:3], [carried(z, *X[:2]), at[0], 0.0], rtol=1e-8, atol=1e-10)
        slope = carried(z, *X[:2]) * np.array([1 / X[0], -1 / X[1]])
        np.testing.assert_allclose(jacobian[0, :2], slope, rtol=1e-8, atol=1e-10)
        np.testing.assert_allclose(jacobian[1], 0.0, atol=1e-10)


def test_beyond_the_limit_point_the_state_counts_as_unstable():
    problem = truss(path=lambda t, control: fem.ControlledPath([0.2], factor=t, control=control))
    problem.evaluate(X, jacobian=False)
    assert problem.negative_pivots == 1
    refusing = truss(
        path=lambda t, control: fem.ControlledPath([0.2], factor=t, control=control),
        newton=fem.Newton(unstable="refuse"),
    )
    with pytest.raises(fem.NotConverged, match="unstable"):
        refusing.evaluate(X)


def test_what_has_no_limit_or_no_load_is_a_failure_with_its_reason():
    pulled = truss(path=lambda t, control: fem.LimitLoad(factor=t, increment=-0.001, max_steps=20))
    with pytest.raises(fem.NotConverged, match="no limit point up to load factor -"):
        pulled.evaluate(X)
    with pytest.raises(fem.NotConverged, match="singular"):
        truss(held=False).evaluate(X)


@pytest.mark.parametrize(
    ("path", "error", "message"),
    [
        (lambda t, c: fem.LimitLoad(), ValueError, "needs factor=Constant"),
        (lambda t, c: fem.LimitLoad([0.5], factor=t), ValueError, "has no points"),
        (lambda t, c: fem.LimitLoad(factor=t, increment=0.0), ValueError, "increment is 0.0"),
        (lambda t, c: fem.LimitLoad(factor=t, times=[1.0], step=t), ValueError, "has no times|same Constant"),
        (lambda t, c: fem.ControlledPath([0.1], factor=t), TypeError, "form of rank 0"),
        (lambda t, c: fem.ControlledPath([0.1], factor=t, control=t * ufl.dx), ValueError, "linear in the unknown"),
    ],
)
def test_paths_that_make_no_sense_are_refused(path, error, message):
    with pytest.raises(error, match=message):
        truss(path=path)


def test_second_derivatives_are_refused_in_words():
    with pytest.raises(NotImplementedError, match="difference jvp or vjp"):
        truss().hvp(X, np.eye(4)[0], X)


def test_the_digest_knows_which_path_it_is():
    paths = [
        lambda t, c: fem.LimitLoad(factor=t, increment=0.001),
        lambda t, c: fem.ControlledPath([0.1], factor=t, control=c),
        lambda t, c: fem.ControlledPath([0.1], factor=t, control=2 * c),
        lambda t, c: fem.ControlledPath([0.2], factor=t, control=c),
    ]
    assert len({truss(path=path).digest for path in paths}) == 4
    assert truss().digest == truss().digest


def test_ends_that_are_held_elsewhere_change_no_limit_and_those_that_would_follow_the_load_are_refused():
    def moved(space, ends):
        return dolfinx.fem.dirichletbc(np.array([0.01, 0.02]), ends, space)

    y, jacobian = truss(at_ends=lambda *where: fem.held(moved(*where))).evaluate(X)
    expected, slopes = truss().evaluate(X)
    np.testing.assert_allclose(y[[0, 3]], expected[[0, 3]], rtol=1e-8)
    np.testing.assert_allclose(y[1:3], expected[1:3] + np.array([-0.02, 0.01]), rtol=1e-8)
    np.testing.assert_allclose(jacobian, slopes, rtol=1e-7, atol=1e-9)
    with pytest.raises(ValueError, match=r"make the condition fem.held"):
        truss(at_ends=moved).evaluate(X)


@pytest.mark.parametrize("remembers", [False, True])
def test_what_is_linear_or_has_a_memory_is_refused(remembers):
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, t = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 0.0)
    old, k = fem.internal_variable(mesh, "old", quadrature_degree=2), dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(metadata={"quadrature_degree": 2})
    with pytest.raises(ValueError, match="without a memory" if remembers else "linear problem has no limit"):
        fem.Problem(
            (k * u + (u**3 - old if remembers else 0.0) - t) * v * dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.0, 1.0))],
            responses=[fem.Response("u", u * dx)],
            path=fem.LimitLoad(factor=t),
            history={old: u} if remembers else None,
        )


def test_a_second_try_and_repeated_evaluations_find_the_same_limit():
    problem = truss()
    y, jacobian = problem.evaluate(X)
    for found in (problem.evaluate_gently(X), problem.evaluate(X)):
        np.testing.assert_allclose(found[0], y, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[1], jacobian, rtol=1e-7, atol=1e-10)
    values, plain, _ = problem.recompute(X)
    np.testing.assert_allclose(values, plain, rtol=1e-10, atol=1e-12)
