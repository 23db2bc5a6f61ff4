"""Load paths, cutbacks, and what a solve that fails leaves behind."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.load_path import march
from sobofem.fem.materials.hyperelasticity import deformation_gradient, neo_hooke


def stretched(path=None, *, newton=None, at=("end",), cells=4):
    """A neo-Hookean block, clamped on both sides, pulled apart and sheared by prescribed displacements."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, cells, cells)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space)
    mu, pull, shear = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 0.2, 0.1))
    bcs = []
    for place, values in ((0.0, (0.0, 0.0)), (1.0, (pull, shear))):
        for component, value in enumerate(values):
            dofs = dolfinx.fem.locate_dofs_geometrical(
                (space.sub(component), space.sub(component).collapse()[0]),
                lambda x, place=place: np.isclose(x[0], place),
            )[0]
            constant = value if isinstance(value, dolfinx.fem.Constant) else dolfinx.fem.Constant(mesh, value)
            bcs.append(dolfinx.fem.dirichletbc(constant, dofs, space.sub(component)))
    energy = neo_hooke(deformation_gradient(u), mu, 2.0) * ufl.dx(degree=4)
    return fem.Problem(
        energy,
        u,
        bcs=bcs,
        parameters=[
            fem.Scalar("mu", mu, (0.5, 2.0)),
            fem.Scalar("pull", pull, (-0.9, 4.0)),
            fem.Scalar("shear", shear, (-2.0, 2.0)),
        ],
        responses=[fem.Response(f"energy_{k}", energy, at=when) for k, when in enumerate(at)],
        newton=newton or fem.Newton(),
        **({"path": path} if path else {}),
    )


@pytest.mark.slow
def test_a_distant_state_is_reached_by_cutting_back_and_is_that_of_many_small_steps():
    once, often = stretched(), stretched(fem.LoadPath.monotonic(20))
    x = [1.3, -0.5, 0.4]
    found, jacobian = once.evaluate(x)
    expected, expected_jacobian = often.evaluate(x)
    assert found == pytest.approx(expected, rel=1e-9)
    assert jacobian == pytest.approx(expected_jacobian, rel=1e-7)


def test_a_part_of_the_way_lies_between_the_points_at_its_ends():
    path = fem.LoadPath([1.0, 3.0, 2.0])
    assert [path.between(point, 0.0, 0.25).factor for point in range(3)] == [0.25, 1.5, 2.75]


def test_newton_converges_quadratically():
    problem = stretched()
    problem.evaluate([1.0, 0.3, 0.1], jacobian=False)
    residuals = problem._equilibrium.residuals
    orders = [
        np.log(c / b) / np.log(b / a)
        for a, b, c in zip(residuals[-4:-2], residuals[-3:-1], residuals[-2:], strict=True)
    ]
    assert residuals[-1] < 1e-9 * residuals[0]
    assert max(orders) > 1.8


@pytest.mark.slow
def test_responses_at_points_of_the_path_are_those_of_problems_loaded_so_far():
    path = fem.LoadPath((0.5, 1.0, 0.25))
    problem = stretched(path, at=("end", 0, 1, "sum"))
    x = np.array([0.8, 0.3, 0.2])
    response, jacobian = problem.evaluate(x)
    alone = stretched()
    parts = [alone.evaluate(x * [1.0, t, t]) for t in (0.5, 1.0, 0.25)]
    chained = [slope[0] * [1.0, t, t] for (_, slope), t in zip(parts, (0.5, 1.0, 0.25), strict=True)]
    energies = [value[0] for value, _ in parts]
    assert response == pytest.approx([energies[2], energies[0], energies[1], sum(energies)], rel=1e-9)
    expected = np.array([chained[2], chained[0], chained[1], sum(chained)])
    for method in ("adjoint", "tangent"):
        assert problem.evaluate(x, method=method)[1] == pytest.approx(expected, rel=1e-7)
    directions, weights = np.array([[0.3, 1.0, -0.5], [1.0, 0.0, 2.0]]), np.array([1.0, -2.0, 0.5, 0.1])
    assert problem.jvp(x, directions) == pytest.approx(directions @ jacobian.T, rel=1e-7)
    assert problem.vjp(x, weights) == pytest.approx(weights @ jacobian, rel=1e-7)
    with pytest.raises(NotImplementedError, match="before"):
        problem.hvp(x, weights, directions)


def test_a_line_search_finds_the_same_state():
    x = [1.0, 0.6, 0.5]
    searching = stretched(newton=fem.Newton(growth=2.0))
    assert searching.evaluate(x, jacobian=False)[0] == pytest.approx(
        stretched().evaluate(x, jacobian=False)[0], rel=1e-9
    )


def test_an_impossible_load_raises_with_the_part_that_was_passed_and_leaves_the_problem_usable():
    problem = stretched(fem.LoadPath.monotonic(4), newton=fem.Newton(smallest_step=0.25))
    problem._arguments.bounds[1] = (-2.0, 4.0)
    x = [1.0, 0.2, 0.1]
    before = problem.evaluate(x)
    with pytest.raises(fem.NotConverged, match="of the load path") as caught:
        problem.evaluate([1.0, -1.5, 0.0])  # through itself
    assert 0.25 <= caught.value.load_factor < 1.0
    assert problem.evaluate(x)[1] == pytest.approx(before[1], rel=1e-9)


@pytest.mark.slow
def test_newton_s_method_that_runs_away_is_cut_back():
    """The slope of this energy falls to zero beyond a unit gradient, and so does the residual's derivative."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, load = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    factor = dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(metadata={"quadrature_degree": 2})
    energy = (-ufl.ln(1 - ufl.inner(ufl.grad(u), ufl.grad(u))) - factor * load * u) * dx
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        ufl.derivative(energy, u, v),
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space)],
        parameters=[fem.Scalar("load", load, (0.1, 60.0))],
        responses=[fem.Response("mean", u * ufl.dx)],
        path=fem.LoadPath((1.0,), factor=factor),
    )
    (mean,), _ = problem.evaluate([5.0], jacobian=False)
    assert 0.0 < mean < 0.5
    assert np.linalg.norm(problem._equilibrium.residuals[-1]) < 1e-10


def test_walk_stops_at_every_point_with_the_state_there():
    problem = stretched(fem.LoadPath.cyclic([1.0, -0.5], 2))
    seen = [(step.factor, step.point, np.abs(problem.unknown.x.array).max()) for step in problem.walk([1.0, 0.4, 0.0])]
    assert [(factor, point) for factor, point, _ in seen] == [(0.5, 0), (1.0, 1), (0.25, 2), (-0.5, 3)]
    assert [size for *_, size in seen] == pytest.approx([0.2, 0.4, 0.1, 0.2], rel=1e-6)


def test_march_halves_what_fails_and_doubles_what_succeeds():
    tried, state = [], [0.0]

    def attempt(goal):
        tried.append(goal)
        if goal - state[0] > 0.3:
            raise fem.NotConverged("too far", reason="test")
        state[0] = goal

    assert list(march(attempt, smallest=0.1)) == [0.25, 0.5, 0.75, 1.0]
    assert tried == [1.0, 0.5, 0.25, 0.75, 0.5, 1.0, 0.75, 1.0]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: fem.LoadPath(()), "at least one"),
        (lambda: fem.LoadPath((1.0, np.nan)), "finite"),
        (lambda: fem.LoadPath.cyclic([1.0], 0), "at least 1"),
        (lambda: fem.LoadPath((1.0,), stored_steps=1), "at least 2"),
        (lambda: fem.Newton(rtol=0.0), "rtol"),
        (lambda: fem.Newton(growth=0.5), "growth"),
        (lambda: stretched(at=(3,)), "point 3 of a load path of 1 points"),
        (lambda: stretched(at=("begin",)), "expected 'end', 'sum'"),
    ],
)
def test_what_makes_no_path_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
