"""What goes wrong in a solve raises, says why, and leaves the problem usable; a caller's mistake names its fix."""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
from scipy.integrate import quad
from test_plasticity import sheared
import ufl

from sobofem import fem
from sobofem.fem.fields import SolutionField
from sobofem.fem.materials.elasticity import strain, stress


def bar(*, supported=True, response=None, parameters=None):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    young = dolfinx.fem.Constant(mesh, 1.0)
    load = dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh)
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        0.5 * ufl.inner(stress(strain(u), young, 0.3), strain(u)) * dx - load * u[0] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)] if supported else [],
        parameters=parameters(mesh, young, load) if parameters else [fem.Scalar("young", young, (-1.0, 2.0))],
        responses=[response(u, dx) if response else fem.Response("mean", u[0] * dx)],
    )


@pytest.mark.slow
def test_a_body_that_can_move_freely_is_reported_as_such():
    with pytest.raises(fem.NotConverged, match="rigid motion") as caught:
        bar(supported=False).evaluate([1.0])
    assert caught.value.reason
    assert caught.value.load_factor == 0.0


def test_a_stiffness_of_zero_raises_and_the_next_sample_is_sound():
    problem = bar()
    sound = problem.evaluate([1.5])[0]
    with pytest.raises(fem.NotConverged):
        problem.evaluate([0.0])
    assert np.array_equal(problem.evaluate([1.5])[0], sound)


def test_a_response_without_a_real_value_raises():
    problem = bar(response=lambda u, dx: fem.Response("root", u[0] * dx, lambda mean: ufl.sqrt(mean)))
    problem.evaluate([1.0])
    with pytest.raises(fem.NotConverged, match=r"complex|finite|value"):
        problem.evaluate([-0.5])


def test_a_response_that_is_nan_is_named():
    problem = bar(response=lambda u, dx: fem.Response("bad", ufl.ln(u[0] - 100.0) * dx))
    with pytest.raises(fem.NotConverged, match="bad"):
        problem.evaluate([1.0])


def test_a_mesh_turned_inside_out_raises_and_the_next_sample_is_sound():
    def parameters(mesh, young, load):
        del mesh, load
        return [fem.Scalar("young", young, (1.0, 2.0)), fem.Shape("squeeze", lambda x: -x, (0.0, 1.5), reference=0.0)]

    problem = bar(parameters=parameters)
    sound = problem.evaluate([1.5, 0.5])[0]
    with pytest.raises(fem.NotConverged, match="inside out"):
        problem.evaluate([1.5, 1.0])
    assert np.array_equal(problem.evaluate([1.5, 0.5])[0], sound)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(8,\)"),
        (np.full(8, np.nan), "'drag' is nan"),
        ([9.0, 0.1, 0, 0, 0, 0, 0, 0], r"'drag' is 9, outside its bounds \[1, 5\]"),
    ],
)
def test_a_wrong_point_is_refused_in_the_callers_words(x, message):
    with pytest.raises(ValueError, match=message):
        block(cells=2).evaluate(x)


def test_an_unknown_method_is_refused():
    problem = block(cells=2)
    with pytest.raises(ValueError, match="adjoint"):
        problem.evaluate(interior_point(problem, 1), method="magic")


def test_a_parameter_that_enters_nowhere_is_refused():
    def parameters(mesh, young, load):
        del load
        return [fem.Scalar("young", young, (1, 2)), fem.Scalar("lost", dolfinx.fem.Constant(mesh, 1.0), (0, 1))]

    with pytest.raises(ValueError, match=r"\['lost'\] enter neither"):
        bar(parameters=parameters)


@pytest.mark.parametrize(
    ("names", "bounds", "message"),
    [(("a", "a"), (0.5, 1.0), "repeat"), (("a", "b"), (1.0, 0.5), "lower before upper")],
)
def test_repeated_names_and_reversed_bounds_are_refused(names, bounds, message):
    def parameters(mesh, young, load):
        del mesh
        return [fem.Scalar(names[0], young, bounds), fem.Scalar(names[1], load, bounds)]

    with pytest.raises(ValueError, match=message):
        bar(parameters=parameters)


def test_a_component_that_does_not_fit_its_constant_is_refused():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    with pytest.raises(ValueError, match="one index per axis"):
        fem.Scalar("load", dolfinx.fem.Constant(mesh, (1.0, 2.0)), (0, 1))


def test_several_integrals_need_a_rule_to_combine_them():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    area = 1.0 * ufl.dx(mesh)
    with pytest.raises(ValueError, match="combine"):
        fem.Response("two", (area, area))


def test_a_high_estimated_quadrature_degree_asks_for_an_explicit_one():
    def root(u, dx):
        return fem.Response("root", ufl.inner(u, u) ** 6 * dx)

    with pytest.raises(ValueError, match="quadrature_degree"):
        bar(response=root)


def limited(newton=fem.Newton(), response=None):  # noqa: B008  (frozen)
    """A cord that can't stretch to more than its double: Newton's first step leads far beyond, and must be cut."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 32)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    stiffness, load = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    end = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        -stiffness * ufl.ln(1 - ufl.inner(ufl.grad(u), ufl.grad(u))) * dx - load * u * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, end, space)],
        parameters=[fem.Scalar("stiffness", stiffness, (0.5, 2.0)), fem.Scalar("load", load, (1.0, 2000.0))],
        responses=[response(u, dx) if response else fem.average("mean", u, dx)],
        newton=newton,
    )


def mean_of_cord(stiffness, load):
    """Mean displacement of the cord: 2 stiffness s / (1 - s²) = load (1 - x) for its stretch s."""

    def stretch(x):
        pull = load / stiffness * (1 - x)
        return pull / (1 + np.hypot(1, pull))

    return quad(lambda x: (1 - x) * stretch(x), 0.0, 1.0, epsabs=1e-13)[0]


HARD = np.array([1.3, 700.0])  # where the cord's first step leads too far


@pytest.mark.slow
def test_a_gentle_evaluation_finds_the_equilibrium_that_evaluate_did_not():
    problem = limited()
    with pytest.raises(fem.NotConverged):
        problem.evaluate(HARD)
    response, jacobian = problem.evaluate_gently(HARD)
    assert response == pytest.approx(mean_of_cord(*HARD), rel=1e-4)
    slope = [(mean_of_cord(*(HARD + h)) - mean_of_cord(*(HARD - h))) / (2 * h.sum()) for h in np.diag([1e-2, 1e1])]
    assert jacobian[0] == pytest.approx(slope, rel=1e-2)
    assert problem.evaluate_gently(HARD, jacobian=False)[1] is None


@pytest.mark.slow
def test_a_field_is_found_gently_where_its_problem_is():
    field = SolutionField(limited())
    with pytest.raises(fem.NotConverged):
        field.evaluate(HARD)
    displacement, jacobian = field.evaluate_gently(HARD)
    ends = [field.evaluate_gently(HARD + np.array([0.0, h]), jacobian=False)[0] for h in (10.0, -10.0)]
    assert jacobian[:, 1] == pytest.approx((ends[0] - ends[1]) / 20.0, rel=1e-2, abs=1e-9)
    assert field.mass @ displacement == pytest.approx(mean_of_cord(*HARD), rel=1e-3)
    assert field.negative_pivots == 0
    with pytest.raises(fem.NotConverged):
        field.evaluate(HARD)  # no trace is left


@pytest.mark.slow
def test_a_gentle_jacobian_leaves_remainders_of_second_order():
    problem, direction = limited(), np.array([0.5, -300.0])
    response, jacobian = problem.evaluate_gently(HARD)
    steps = np.array([0.2, 0.1, 0.05])
    ahead = [problem.evaluate_gently(HARD + h * direction, jacobian=False)[0] for h in steps]
    remainders = [abs(y - response - h * jacobian @ direction)[0] for y, h in zip(ahead, steps, strict=True)]
    assert np.log2(np.divide(remainders[:-1], remainders[1:])) == pytest.approx(2.0, abs=0.1)


@pytest.mark.slow
def test_products_after_a_gentle_evaluation_are_those_of_its_jacobian():
    problem, directions = limited(), np.array([[0.3, 100.0], [-0.1, 50.0]])
    _, jacobian = problem.evaluate_gently(HARD)
    assert problem.jvp(HARD, directions) == pytest.approx(directions @ jacobian.T, rel=1e-7)
    problem.evaluate_gently(0.9 * HARD)
    problem.evaluate_gently(HARD, jacobian=False)
    assert problem.vjp(HARD, [2.0]) == pytest.approx(2.0 * jacobian[0], rel=1e-7)
    curvature = problem.hvp(HARD, [1.0], directions[0])
    ends = [problem.evaluate_gently(HARD + s * 1e-3 * directions[0])[1][0] for s in (1, -1)]
    assert curvature == pytest.approx((ends[0] - ends[1]) / 2e-3, rel=1e-4)


def test_after_a_gentle_evaluation_settings_are_those_from_before_even_if_it_failed():
    problem = limited(newton=fem.Newton(max_iterations=1, smallest_step=1.0))
    for attempt, iterations in ((problem.evaluate, 1), (problem.evaluate_gently, 2), (problem.evaluate, 1)):
        with pytest.raises(fem.NotConverged, match=f"stopped after {iterations} iterations"):
            attempt(np.array([1.3, 20.0]))
    sound = limited()
    sound.evaluate_gently(HARD)
    with pytest.raises(fem.NotConverged):
        sound.evaluate(HARD)
    with pytest.raises(fem.NotConverged):
        sound.vjp(HARD, [1.0])  # of the last evaluation, which was not gentle


def test_a_gentle_evaluation_is_refused_a_wrong_point_and_names_an_undefined_response():
    problem = limited(response=lambda u, dx: fem.Response("bad", ufl.ln(u - 100.0) * dx))
    with pytest.raises(ValueError, match="outside its bounds"):
        problem.evaluate_gently([1.0, -5.0])
    with pytest.raises(fem.NotConverged, match="bad"):
        problem.evaluate_gently([1.0, 5.0])


def test_where_evaluate_works_a_gentle_evaluation_gives_the_same():
    problem, x = limited(), [0.8, 30.0]
    expected, expected_jacobian = problem.evaluate(x)
    response, jacobian = problem.evaluate_gently(x)
    assert response == pytest.approx(expected, rel=1e-9)
    assert jacobian == pytest.approx(expected_jacobian, rel=1e-7)


def test_a_linear_problem_is_evaluated_gently_as_ever():
    problem = bar()
    for one, other in zip(problem.evaluate([1.5]), problem.evaluate_gently([1.5]), strict=True):
        assert np.array_equal(one, other)


@pytest.mark.slow
def test_a_gentle_evaluation_with_history_takes_the_same_steps_and_differentiates_them():
    hasty, patient = sheared(newton=fem.Newton(rtol=1e-12, max_iterations=4, smallest_step=0.25)), sheared()
    low, high = patient.bounds.T  # at this point four iterations are too few, and eight with a line search enough
    x = low + np.array([0.78, 0.20, 0.62, 0.48, 0.62, 0.18, 0.19, 0.27, 0.84]) * (high - low)
    with pytest.raises(fem.NotConverged):
        hasty.evaluate(x)
    response, jacobian = hasty.evaluate_gently(x)
    expected, expected_jacobian = patient.evaluate(x)
    assert response == pytest.approx(expected, rel=1e-9)
    width = np.diff(patient.bounds, axis=1)[:, 0]
    scale = np.abs(expected_jacobian * width).max(axis=1, keepdims=True)
    assert (np.abs((jacobian - expected_jacobian) * width) < 1e-8 * scale).all()
    assert (np.abs((hasty.vjp(x, np.eye(len(response))) - jacobian) * width) < 1e-8 * scale).all()
    assert (np.abs(hasty.jvp(x, np.diag(width)).T - jacobian * width) < 1e-8 * scale).all()
    assert [step.point for step in hasty.walk(x)] == [step.point for step in patient.walk(x)]


@pytest.mark.slow
def test_a_gentle_evaluation_with_cutbacks_in_its_history_differentiates_them_too():
    problem = sheared(path=fem.LoadPath([1.0, 0.3]), newton=fem.Newton(rtol=1e-12, max_iterations=2), at=0)
    x = interior_point(problem, 32)
    with pytest.raises(fem.NotConverged):
        problem.evaluate(x)
    _, jacobian = problem.evaluate_gently(x)
    steps = list(problem.walk(x))
    assert sum(step.point is None for step in steps) >= 2
    direction = 1e-6 * np.diff(problem.bounds, axis=1)[:, 0]
    ahead, back = (problem.evaluate_gently(x + s * direction, jacobian=False)[0] for s in (1, -1))
    assert (ahead - back) / 2 == pytest.approx(jacobian @ direction, rel=1e-5)


def test_a_first_step_shorter_than_the_smallest_is_refused():
    with pytest.raises(ValueError, match="first_step"):
        fem.Newton(smallest_step=0.1, first_step=0.05)


def test_a_missing_mesh_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.xdmf"):
        fem.read_mesh(tmp_path / "nothing.xdmf", MPI.COMM_SELF)
