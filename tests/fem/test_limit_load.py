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


def truss(
    comm=MPI.COMM_SELF,
    *,
    path=None,
    rise=RISE,
    side=0.0,
    spring=0.0,
    residual=False,
    held=True,
    newton=fem.Newton(),  # noqa: B008
    at_ends=None,
):
    """Two bars of Green's strain that lean on each other; a force moves their apex down, and one a little aside.

    By symmetry z = rise - w follows from load = stiffness z (rise² - z²) / L³, with L² = SPAN² + rise².
    """
    element = basix.ufl.element("Lagrange", "interval", 1, shape=(2,))
    points = np.array([[-SPAN, 0.0], [0.0, rise], [SPAN, 0.0]])
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
    apex = dolfinx.mesh.locate_entities(mesh, 0, lambda x: x[1] > 0.5 * rise)
    tags = dolfinx.mesh.meshtags(mesh, 0, apex, np.full(len(apex), 7, dtype=np.int32))
    dP = ufl.Measure("dP", domain=mesh, subdomain_data=tags)(7)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 1})
    energy = 0.5 * stiffness * green**2 * dx - t * weight * (-u[1] + aside * u[0]) * dP
    if spring:
        energy += 0.25 * spring * u[0] ** 4 * dP
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


@pytest.mark.slow
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


@pytest.mark.slow
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
        (lambda t, c: fem.LimitLoad(factor=t, increment="small"), ValueError, "increment is 'small'"),
        (
            lambda t, c: fem.LimitLoad(factor=t, max_steps=20.5),
            ValueError,
            "max_steps 20.5; expected .* a whole number",
        ),
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


@pytest.mark.slow
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


@pytest.mark.slow
def test_a_second_try_and_repeated_evaluations_find_the_same_limit():
    problem = truss()
    y, jacobian = problem.evaluate(X)
    for found in (problem.evaluate_gently(X), problem.evaluate(X)):
        np.testing.assert_allclose(found[0], y, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found[1], jacobian, rtol=1e-7, atol=1e-10)
    values, plain, _ = problem.recompute(X)
    np.testing.assert_allclose(values, plain, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("increment", [1e-5, pytest.param(0.05, marks=pytest.mark.slow), 10.0])
@pytest.mark.parametrize("side", [pytest.param(0.0, marks=pytest.mark.slow), 0.4])
def test_the_first_limit_point_is_found_however_far_beyond_it_the_first_step_would_lead(increment, side):
    x = [2.0, 1.5, side]
    found = truss(path=lambda t, control: fem.LimitLoad(factor=t, increment=increment)).evaluate(x, jacobian=False)[0]
    np.testing.assert_allclose(found, truss().evaluate(x, jacobian=False)[0], rtol=1e-8, atol=1e-12)


@pytest.mark.slow
def test_a_truss_that_is_only_pulled_is_followed_without_warnings_until_it_is_given_up():
    pulled = truss(path=lambda t, control: fem.LimitLoad(factor=t, increment=-0.1, max_steps=400))
    with np.errstate(all="raise"), pytest.raises(fem.NotConverged, match=r"no limit point|lost"):
        pulled.evaluate(X)


def test_a_control_that_the_load_does_not_move_is_named_as_a_reason():
    def aside(t, control):
        (integral,) = control.integrals()
        dP = ufl.Measure("dP", domain=control.ufl_domain(), subdomain_data=integral.subdomain_data())(7)
        return fem.ControlledPath([0.01], factor=t, control=control.coefficients()[0][0] * dP)

    with pytest.raises(fem.NotConverged, match="control that the load moves"):
        truss(path=aside).evaluate(X)


def test_a_controlled_path_leads_back_to_where_nothing_moves():
    problem = truss(path=lambda t, control: fem.ControlledPath([0.1, 0.0, 0.05], factor=t, control=control))
    steps = [(step.factor, -problem.unknown.x.array.min()) for step in problem.walk(X)]
    expected = [(carried(RISE - down, *X[:2]), down) for down in (0.1, 0.0, 0.05)]
    np.testing.assert_allclose(steps, expected, rtol=1e-8, atol=1e-12)


STEEP = 2.0
"""Rise of a truss whose apex leaves the middle, at z² = rise² - 2 SPAN², before it snaps at z² = rise² / 3."""

CUBE = np.hypot(SPAN, STEEP) ** 3


def steep(at=None, comm=MPI.COMM_SELF, *, bifurcation=0.02, down=False, **others):
    """A steep truss to its limit load, or to places of its apex beside the middle (or below)."""
    if at is None:
        return truss(comm, rise=STEEP, path=lambda t, control: fem.LimitLoad(factor=t, increment=0.02), **others)

    def beside(t, control):
        control = control if down else to_the_side(control)
        return fem.ControlledPath(at, factor=t, control=control, bifurcation=bifurcation)

    return truss(comm, rise=STEEP, path=beside, **others)


def to_the_side(control):
    """The displacement to the right in place of the one down."""
    (integral,) = control.integrals()
    return ufl.Form([integral.reconstruct(integrand=control.coefficients()[0][0])])


@pytest.mark.parametrize("side", [0.1, -0.5, 1.2])
def test_a_path_leaves_by_the_branch_at_a_bifurcation_where_it_is_asked_to(side):
    """There x² + z² = rise² - 2 SPAN², and the load is 2 stiffness SPAN² z / L³: it falls as the apex moves aside."""
    z = np.sqrt(STEEP**2 - 2 * SPAN**2 - side**2)
    load = 2 * X[0] * SPAN**2 * z / CUBE / X[1]
    problem = steep([side])
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(X, method=method)
        np.testing.assert_allclose(y[:3], [load, STEEP - z, side], rtol=1e-8)
        np.testing.assert_allclose(jacobian[0, :2], [load / X[0], -load / X[1]], rtol=1e-7)
    assert problem.negative_pivots == 1
    # by a force s aside: a x + 2 SPAN² x = m s and a z = -m, with a = x² + z² - rise², m = load weight L³ / stiffness
    change = -2 * SPAN**2 * (z**2 - SPAN**2) / side
    expected = [change * X[0] / CUBE / X[1], change / 2 / (z**2 - SPAN**2), 0.0]
    np.testing.assert_allclose(jacobian[:3, 2], expected, rtol=1e-7, atol=1e-9)
    with pytest.raises(fem.NotConverged, match="a limit point comes before any bifurcation"):
        problem.evaluate([*X[:2], 1e-4])  # an imperfect one has no bifurcation


@pytest.mark.slow
@pytest.mark.parametrize("way", [1.0, pytest.param(-1.0, marks=pytest.mark.slow)])
def test_the_limit_load_of_a_branch_that_rises_is_the_closed_one_to_either_side(way):
    """With a spring c x³ aside z² = rise² - 2 SPAN² - D x², D = 1 + c L³ / stiffness, and load (A + c x²) z."""
    A = 2 * X[0] * SPAN**2 / CUBE
    c, B = 2 * A, STEEP**2 - 2 * SPAN**2
    D = 1 + c * CUBE / X[0]
    square = (c * B - A * D / 2) / (1.5 * c * D)
    z = np.sqrt(B - D * square)
    problem = truss(
        rise=STEEP,
        spring=c,
        path=lambda t, control: fem.LimitLoad(factor=t, increment=0.02, branch=way * to_the_side(control)),
    )
    y, jacobian = problem.evaluate(X, method="adjoint")
    np.testing.assert_allclose(y[:3], [(A + c * square) * z / X[1], STEEP - z, way * np.sqrt(square)], rtol=1e-8)
    np.testing.assert_allclose(problem.evaluate(X, method="tangent")[1], jacobian, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(jacobian[0, 1], -y[0] / X[1], rtol=1e-8)
    ahead, behind = (problem.evaluate([X[0] + h, *X[1:]], jacobian=False)[0] for h in (1e-4, -1e-4))
    np.testing.assert_allclose(jacobian[:, 0], (ahead - behind) / 2e-4, rtol=1e-6, atol=1e-8)


def test_a_branch_along_which_the_load_falls_has_no_limit_load():
    problem = truss(
        rise=STEEP, path=lambda t, control: fem.LimitLoad(factor=t, increment=0.02, branch=to_the_side(control))
    )
    with pytest.raises(fem.NotConverged, match="carries no more than at the bifurcation"):
        problem.evaluate(X)


def test_a_branch_that_a_form_does_not_see_is_named_so():
    problem = truss(rise=STEEP, path=lambda t, control: fem.LimitLoad(factor=t, increment=0.02, branch=control))
    with pytest.raises(fem.NotConverged, match="the branch of the path does not see the mode"):
        problem.evaluate(X)


@pytest.mark.parametrize("bifurcation", [1e-4, *(pytest.param(b, marks=pytest.mark.slow) for b in (0.1, 5.0))])
def test_a_bifurcation_shortly_before_a_limit_point_is_found_by_steps_that_would_pass_both(bifurcation):
    found = steep([0.3], bifurcation=bifurcation).evaluate(X, jacobian=False)[0]
    np.testing.assert_allclose(found, steep([0.3]).evaluate(X, jacobian=False)[0], rtol=1e-8)


def test_a_first_point_that_names_no_side_of_a_bifurcation_is_refused():
    with pytest.raises(fem.NotConverged, match="put one before it that says to which side"):
        steep([0.0, 0.1]).evaluate(X)


def test_where_nothing_branches_or_the_control_does_not_see_it_that_is_said():
    with pytest.raises(fem.NotConverged, match="does not see the mode"):
        steep([0.5], down=True).evaluate(X)
    with pytest.raises(fem.NotConverged, match="a limit point comes before"):
        truss(path=lambda t, c: fem.ControlledPath([0.1], factor=t, control=c, bifurcation=0.001)).evaluate(X)
    with pytest.raises(ValueError, match="found by negative pivots"):
        steep([0.5], residual=True).evaluate(X)
    with pytest.raises(ValueError, match=r"bifurcation is 0\.0"):
        steep([0.5], bifurcation=0.0)


def test_small_imperfections_lower_the_buckling_load_by_their_power_of_two_thirds():
    """Koiter's law for a structure that is symmetric: the perfect one carries ever less on the branch that leaves."""
    problem, z = steep(), np.sqrt(STEEP**2 - 2 * SPAN**2)
    perfect = 2 * X[0] * SPAN**2 * z / CUBE / X[1]
    sides = np.array([4e-5, 1e-5, 2.5e-6])
    loads = np.array([problem.evaluate([*X[:2], side])[0][0] for side in sides])
    powers = np.log((perfect - loads)[:-1] / (perfect - loads)[1:]) / np.log(4.0)
    np.testing.assert_allclose(powers, 2 / 3, rtol=1e-2)
    assert (loads < perfect).all() and problem.negative_pivots == 0
    mirrored = problem.evaluate([*X[:2], -sides[1]])[0][0]
    np.testing.assert_allclose(mirrored, loads[1], rtol=1e-8)


def test_a_perfect_steep_truss_passes_the_bifurcation_and_counts_it():
    problem = steep()
    y, _ = problem.evaluate(X)
    snap = STEEP / np.sqrt(3)
    np.testing.assert_allclose(y[0], X[0] * snap * (STEEP**2 - snap**2) / CUBE / X[1], rtol=1e-9)
    assert problem.negative_pivots == 1 and problem.stability.lost


def test_a_limit_point_beyond_a_bifurcation_counts_as_unstable_and_is_refused_in_these_words():
    with pytest.raises(fem.NotConverged, match="the equilibrium is unstable: its tangent has 1 negative"):
        steep(newton=fem.Newton(unstable="refuse")).evaluate(X)
