"""What functions hold when a problem is made is where every evaluation starts."""

from mpi4py import MPI
import basix.ufl
import dolfinx
from dolfinx.fem import Constant, dirichletbc
import numpy as np
import pytest
import ufl

from sobofem import fem

DEGREE = {"quadrature_degree": 4}


def wall(exponent=-0.5, *, guess=300.0, newton=fem.Newton(rtol=1e-13), path=None):  # noqa: B008  (frozen)
    """A wall between 300 K and some 600 K with conductivity k (T / 300 K)^exponent: at 0 K it has no equilibrium."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 40)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    temperature, w = dolfinx.fem.Function(space), ufl.TestFunction(space)
    temperature.x.array[:] = guess
    k, hot = Constant(mesh, 15.0), Constant(mesh, 600.0)
    left, right = (dolfinx.fem.locate_dofs_geometrical(space, lambda x, p=p: np.isclose(x[0], p)) for p in (0.0, 1.0))
    flux = k * (temperature / 300.0) ** exponent * temperature.dx(0)
    dx = ufl.dx(metadata=DEGREE)
    return fem.Problem(
        flux * w.dx(0) * dx,
        temperature,
        bcs=[fem.held(dirichletbc(np.float64(300), left, space)), dirichletbc(hot, right, space)],
        parameters=[fem.Scalar("k", k, (10, 20)), fem.Scalar("hot", hot, (500, 700))],
        responses=[fem.Response("flux", flux * dx), fem.Response("mean", temperature * dx)],
        newton=newton,
        **({"path": path} if path else {}),
    )


def wall_flux(k, hot, exponent):
    return k * 300.0**-exponent * (hot ** (exponent + 1) - 300 ** (exponent + 1)) / (exponent + 1)


@pytest.mark.slow
@pytest.mark.parametrize("exponent", [-0.5, 0.5, 1.0])
def test_conduction_in_kelvin_from_an_initial_guess_matches_the_analytical_flux(exponent):
    k, hot = x = [14.0, 620.0]
    (flux, _), jacobian = wall(exponent).evaluate(x)
    assert flux == pytest.approx(wall_flux(*x, exponent), rel=1e-4)
    by_hot = k * (hot / 300) ** exponent
    assert jacobian[0] == pytest.approx([flux / k, by_hot], rel=1e-3)
    with pytest.raises(fem.NotConverged):
        wall(exponent, guess=0.0).evaluate(x)


@pytest.mark.slow
def test_every_evaluation_starts_from_the_initial_guess_whatever_was_evaluated_before():
    problem, x = wall(path=fem.LoadPath((0.9, 1.0))), [14.0, 620.0]
    first = problem.evaluate(x)
    problem._arguments.bounds[1] = (-100, 700)
    with pytest.raises(fem.NotConverged):
        problem.evaluate([14.0, -50.0])
    problem.unknown.x.array[:] = np.nan
    next(problem.walk([12.0, 510.0]))
    for again in (problem.evaluate(x), problem.evaluate(x, method="tangent")):
        assert np.array_equal(again[0], first[0])
        assert again[1] == pytest.approx(first[1], rel=1e-10)
    gentle = problem.evaluate_gently(x)
    assert gentle[0] == pytest.approx(first[0], rel=1e-10)
    assert problem.vjp(x, np.eye(2)) == pytest.approx(first[1], rel=1e-9)
    problem.unknown.x.array[:] = 0.0
    assert problem.jvp(x, np.eye(2)).T == pytest.approx(first[1], rel=1e-9)
    ends = [problem.evaluate([14.0, 620.0 + h])[1][0] for h in (0.01, -0.01)]
    assert problem.hvp(x, [1.0, 0.0], [0.0, 1.0]) == pytest.approx((ends[0] - ends[1]) / 0.02, rel=1e-5)


def test_a_guess_that_is_the_solution_already_is_taken_for_it():
    """Its residual is round-off of 300 K, which no tolerance relative to the first residual would accept."""
    problem = wall(guess=np.linspace(500.0, 500.0, 41))
    problem._arguments.bounds[1] = (200, 700)
    problem.evaluate([10.0, 300.0])  # the same temperature at both ends
    assert np.abs(problem.unknown.x.array - 300.0).max() < 1e-9
    again = wall(guess=300.0)
    again._arguments.bounds[1] = (200, 700)
    assert again.evaluate([10.0, 300.0])[0] == pytest.approx([0.0, 300.0], abs=1e-9)


def cubic(guess=0.0):
    """u³ - u = load at every point: three equilibria, and the guess decides which."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    element = basix.ufl.mixed_element([basix.ufl.element("DG", "triangle", 1), basix.ufl.element("DG", "triangle", 0)])
    space = dolfinx.fem.functionspace(mesh, element)
    both, (v, w) = dolfinx.fem.Function(space), ufl.TestFunctions(space)
    both.sub(0).interpolate(lambda x: np.full(x.shape[1], guess))
    u, p = ufl.split(both)
    load, dx = Constant(mesh, 0.1), ufl.dx(metadata={"quadrature_degree": 3})
    return fem.Problem(
        (u**3 - u - load) * v * dx + (p - u) * w * dx,
        both,
        bcs=[],
        parameters=[fem.Scalar("load", load, (-0.3, 0.3))],
        responses=[fem.Response("mean", p * dx)],
    )


@pytest.mark.slow
def test_a_guess_chooses_among_equilibria_and_the_digest_knows_it():
    roots = np.sort(np.roots([1.0, 0.0, -1.0, -0.2]).real)
    problems = {guess: cubic(guess) for guess in (-1.0, 0.0, 1.0)}
    for root, problem in zip(roots, problems.values(), strict=True):
        (mean,), jacobian = problem.evaluate([0.2])
        assert mean == pytest.approx(root, rel=1e-9)
        assert jacobian[0, 0] == pytest.approx(1 / (3 * root**2 - 1), rel=1e-8)
    assert len({problem.digest for problem in problems.values()}) == 3
    assert cubic(1.0).digest == problems[1.0].digest


def poisson(guess):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k = dolfinx.fem.Function(space), Constant(mesh, 1.0)
    u.x.array[:] = guess
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        (0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) - u) * ufl.dx,
        u,
        bcs=[dirichletbc(0.0, dofs, space)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("mean", u * ufl.dx)],
    )


def test_a_linear_problem_has_one_answer_and_one_digest_whatever_its_guess():
    plain, guessed = poisson(0.0), poisson(1e12)
    assert guessed.digest == plain.digest
    for one, other in zip(plain.evaluate([0.7]), guessed.evaluate([0.7]), strict=True):
        assert np.array_equal(one, other)


def relaxing(start):
    """An internal variable that halves in each of two steps, from `start`; the unknown follows it."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    space = dolfinx.fem.functionspace(mesh, ("DG", 0))
    u, w, k = dolfinx.fem.Function(space), ufl.TestFunction(space), Constant(mesh, 0.5)
    q = fem.internal_variable(mesh, "q", quadrature_degree=2)
    q.x.array[:] = start
    dx = ufl.dx(metadata={"quadrature_degree": 2})

    def build():
        u.x.array[:] = 0.0
        return fem.Problem(
            (u - k * q) * w * dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.1, 0.9))],
            responses=[fem.Response("left", u * dx)],
            path=fem.LoadPath((0.5, 1.0)),
            history={q: u},
        )

    return build, q


@pytest.mark.slow
def test_internal_variables_evolve_from_what_they_held_when_the_problem_was_made():
    build, q = relaxing(8.0)
    problem = build()
    for method in ("adjoint", "tangent"):
        response, jacobian = problem.evaluate([0.4], method=method)
        assert response == pytest.approx([8 * 0.4**2], rel=1e-12)
        assert jacobian == pytest.approx(np.array([[16 * 0.4]]), rel=1e-12)
    again = build()  # on the same function, in which the first problem left something
    assert again.digest == problem.digest != relaxing(7.0)[0]().digest
    assert again.evaluate([0.4])[0] == pytest.approx(response, rel=1e-12)
    q.x.array[:] = 2.0
    assert problem.evaluate([0.4])[0] == pytest.approx(response, rel=1e-12)
    q.x.array[:] = 2.0
    assert build().evaluate([0.4])[0] == pytest.approx(response / 4, rel=1e-12)
    assert problem.evaluate([0.4])[0] == pytest.approx(response, rel=1e-12)


@pytest.mark.slow
def test_a_local_unknown_is_solved_from_what_it_held_when_the_problem_was_made():
    """g² = q at every point has two roots."""

    def root(start):
        mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
        space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        u, w, load = dolfinx.fem.Function(space), ufl.TestFunction(space), Constant(mesh, 4.0)
        own = fem.LocalUnknown(mesh, quadrature_degree=2, name="root")
        own.function.x.array[:] = start
        value = own.solving(lambda g: g**2 - load)
        dx = ufl.dx(metadata={"quadrature_degree": 2})

        def build():
            u.x.array[:] = 0.0
            return fem.Problem(
                (u - value) * w * dx,
                u,
                bcs=[],
                parameters=[fem.Scalar("load", load, (1.0, 9.0))],
                responses=[fem.Response("mean", u * dx)],
                local=[own],
            )

        return build

    digests = []
    for start in (1.0, -1.0):
        build = root(start)
        for _ in range(2):
            problem = build()
            response, jacobian = problem.evaluate([4.0])
            assert response == pytest.approx([2.0 * start], rel=1e-12)
            assert jacobian == pytest.approx(np.array([[0.25 * start]]), rel=1e-10)
            digests.append(problem.digest)
    assert digests[0] == digests[1] != digests[2] == digests[3]
    own, other = problem, problem._equilibrium.points.local[0].function
    other.x.array[:] = 1.0
    assert build().evaluate([4.0])[0] == pytest.approx([2.0], rel=1e-12)
    assert own.evaluate([4.0])[0] == pytest.approx([-2.0], rel=1e-12)
    with pytest.raises(fem.NotConverged):
        root(0.0)().evaluate([4.0])  # where the equation has no slope


def test_values_to_start_from_that_are_not_finite_are_refused():
    with pytest.raises(ValueError, match="starts from what it holds"):
        wall(guess=np.nan)
    with pytest.raises(ValueError, match="'q' holds values that are not finite"):
        relaxing(np.inf)[0]()


def test_what_would_change_what_is_started_from_is_refused():
    build, q = relaxing(1.0)
    problem = build()
    arguments = {"bcs": [], "responses": [fem.Response("r", problem.unknown * ufl.dx)]}
    form = (problem.unknown**2 + q) * ufl.dx(metadata={"quadrature_degree": 2})
    with pytest.raises(ValueError, match="'f' sets 'q', which changes in every load step"):
        fem.Problem(
            form,
            problem.unknown,
            parameters=[fem.Field("f", q, [q.copy()], (0.0, 1.0))],
            history={q: problem.unknown},
            **arguments,
        )
    other = poisson(0.0)
    dofs = np.arange(1, dtype=np.int32)
    k = Constant(other.mesh, 1.0)
    with pytest.raises(ValueError, match="prescribes the unknown itself"):
        fem.Problem(
            k * other.unknown**2 * ufl.dx,
            other.unknown,
            bcs=[dirichletbc(other.unknown, dofs)],
            parameters=[fem.Scalar("k", k, (1.0, 2.0))],
            responses=[fem.Response("r", other.unknown * ufl.dx)],
        )


def bar_with_field():
    """A bar of length 1, a function of ones on it, and x."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 4)
    more = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    slope = dolfinx.fem.Function(more.function_space)
    more.x.array[:] = 1.0
    slope.interpolate(lambda x: x[0])
    return mesh, more, slope


def stretched(mesh, more, slope):
    """The integral of a field 1 + a x, with x as loaded, over a bar of length 1 + s."""
    u, dx = dolfinx.fem.Function(more.function_space), ufl.dx(mesh)
    return fem.Problem(
        (0.5 * u**2 - more * u) * dx,
        u,
        bcs=[],
        parameters=[
            fem.Shape("s", lambda x: x[:1], (-0.5, 0.5), reference=0.0),
            fem.Field("a", more, [slope], (-1.0, 1.0)),
        ],
        responses=[fem.Response("sum", u * dx)],
    )


@pytest.mark.slow
def test_a_problem_does_not_begin_on_the_mesh_and_with_the_field_that_another_one_left():
    given, digests = bar_with_field(), set()
    for _ in range(3):  # as the cell of a notebook
        problem = stretched(*given)
        digests.add(problem.digest)
        found, _ = problem.evaluate([0.2, 0.4], jacobian=False)
        assert found == pytest.approx((1 + 0.5 * 0.4) * 1.2, rel=1e-12)
        assert given[0].geometry.x[:, 0].max() == pytest.approx(1.2)
    assert len(digests) == 1


def test_what_was_changed_after_another_problem_is_what_a_problem_begins_with():
    mesh, more, slope = bar_with_field()
    stretched(mesh, more, slope).evaluate([0.2, 0.4])
    mesh.geometry.x[:, 0] = np.linspace(0.0, 2.0, 5)
    more.x.array[:] = 3.0
    assert stretched(mesh, more, slope).evaluate([0.5, 0.0])[0] == pytest.approx(3.0 * 3.0, rel=1e-12)
