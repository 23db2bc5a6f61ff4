"""Time, the size of the present step, and the load factor are three things; conditions may be held."""

import re

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant, dirichletbc
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.output import write_path

DEGREE = {"quadrature_degree": 2}
TIMES = (0.3, 1.0, 1.5)
HASTY = fem.Newton(first_step=0.25)


def ends(space, *places):
    return [dolfinx.fem.locate_dofs_geometrical(space, lambda x, p=p: np.isclose(x[0], p)) for p in places]


def cooling(times=TIMES, *, power=1.0, newton=fem.Newton(), **path):  # noqa: B008  (frozen)
    """A lump of 400 K that gives off heat through its two ends: c T' = -2 h T^power."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 1)
    space = dolfinx.fem.functionspace(mesh, ("DG", 0))
    temperature, w = dolfinx.fem.Function(space, name="temperature"), ufl.TestFunction(space)
    temperature.x.array[:] = 400.0
    capacity, transfer, dt = Constant(mesh, 2.0), Constant(mesh, 0.5), Constant(mesh, 0.0)
    old = fem.internal_variable(mesh, "old", quadrature_degree=2)
    old.x.array[:] = 400.0
    dx, ds = ufl.dx(mesh, metadata=DEGREE), ufl.ds(mesh, metadata=DEGREE)
    loss = transfer * temperature**power
    return fem.Problem(
        capacity * (temperature - old) * w * dx + dt * loss * w * ds,
        temperature,
        bcs=[],
        parameters=[fem.Scalar("capacity", capacity, (1.0, 4.0)), fem.Scalar("transfer", transfer, (0.1, 1.0))],
        responses=[
            fem.Response("temperature", temperature * dx),
            fem.Response("heat", dt * loss * ds, at="sum"),
            fem.Response("early", temperature * dx, at=0),
        ],
        path=fem.LoadPath(times=times, step=dt, **path),
        history={old: temperature},
        newton=newton,
    )


def implicit_euler(steps, capacity, transfer):
    """Temperature after given steps of time, and its derivatives."""
    ratios = 1 + 2 * transfer / capacity * np.asarray(steps)
    temperature = 400 / ratios.prod()
    by_rate = -temperature * (np.asarray(steps) / ratios).sum()
    return temperature, np.array([-2 * transfer / capacity**2, 2 / capacity]) * by_rate


@pytest.mark.parametrize("newton", [fem.Newton(), HASTY])
@pytest.mark.parametrize("method", ["adjoint", "tangent"])
def test_a_lump_cools_by_the_steps_of_time_that_were_taken(newton, method):
    problem, x = cooling(newton=newton, stored_steps=2), [3.0, 0.7]
    (temperature, heat, early), jacobian = problem.evaluate(x, method=method)
    steps = list(problem.walk(x))
    sizes = [step.size for step in steps]
    assert sum(sizes) == pytest.approx(1.5, rel=1e-12)
    assert [step.time for step in steps if step.point is not None] == list(TIMES)
    expected, slope = implicit_euler(sizes, *x)
    assert temperature == pytest.approx(expected, rel=1e-12)
    assert heat == pytest.approx(x[0] * (400 - expected), rel=1e-12)
    assert early == pytest.approx(implicit_euler([s.size for s in steps if s.time <= TIMES[0]], *x)[0], rel=1e-12)
    assert jacobian[0] == pytest.approx(slope, rel=1e-10)
    assert jacobian[1] == pytest.approx([400 - expected - x[0] * slope[0], -x[0] * slope[1]], rel=1e-10)


@pytest.mark.parametrize("method", ["adjoint", "tangent"])
def test_an_initial_state_that_is_a_parameter_is_differentiated(method):
    """What the lump has lost is its internal variable: its temperature is in proportion to the first one."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 1)
    space = dolfinx.fem.functionspace(mesh, ("DG", 0))
    temperature, w = dolfinx.fem.Function(space), ufl.TestFunction(space)
    initial, dt = Constant(mesh, 0.0), Constant(mesh, 0.0)
    old = fem.internal_variable(mesh, "old", quadrature_degree=2)
    dx, ds = ufl.dx(mesh, metadata=DEGREE), ufl.ds(mesh, metadata=DEGREE)
    problem = fem.Problem(
        (temperature - (old + initial)) * w * dx + dt * temperature * w * ds,
        temperature,
        bcs=[],
        parameters=[fem.Scalar("initial", initial, (300.0, 500.0))],
        responses=[fem.Response("temperature", temperature * dx)],
        path=fem.LoadPath(times=TIMES, step=dt),
        history={old: temperature - initial},
    )
    left, _ = implicit_euler(np.diff([0, *TIMES]), 1.0, 1.0)
    response, jacobian = problem.evaluate([400.0], method=method)
    assert response == pytest.approx([left], rel=1e-12)
    assert jacobian == pytest.approx(np.array([[left / 400]]), rel=1e-12)


MILD = np.array([3.0, 0.15])


def cooled():
    """c T' = -2 h T^1.25 has T^-0.25 = T0^-0.25 + h t / (2 c)."""
    return (400**-0.25 + 0.5 * MILD[1] / MILD[0] * 1.5) ** -4


def test_cutbacks_come_closer_to_the_closed_form():
    """Parts of a step are doubled after each success: in first order the error is that of the sum of their squares."""
    times = np.linspace(0, 1.5, 4)[1:]
    problems = [cooling(times, power=1.25, newton=fem.Newton(first_step=part)) for part in (1.0, 1 / 4, 1 / 16)]
    errors = np.array([problem.evaluate(MILD, jacobian=False)[0][0] for problem in problems]) - cooled()
    squares = np.array([sum(step.size**2 for step in problem.walk(MILD)) for problem in problems])
    assert errors / errors[0] == pytest.approx(squares / squares[0], rel=0.1)


@pytest.mark.slow
def test_newton_s_cutbacks_and_a_gentle_second_try_answer_the_same_problem():
    problem = cooling(power=1.25)
    whole = problem.evaluate(MILD)[0][0]
    assert problem.evaluate_gently(MILD)[0][0] == pytest.approx(whole, rel=1e-12)
    few, fewer = (cooling(power=1.25, newton=fem.Newton(max_iterations=k, rtol=1e-12)) for k in (2, 1))
    with pytest.raises(fem.NotConverged, match="time 0"):
        fewer.evaluate(MILD)
    for evaluate, walk in ((few.evaluate, few.walk), (fewer.evaluate_gently, fewer.walk)):
        (cut, *_), jacobian = evaluate(MILD)
        assert len(list(walk(MILD))) > len(TIMES)
        assert abs(cut - cooled()) < abs(whole - cooled()) < 0.2 * cooled()
        ahead, back = (evaluate(MILD * [1 + h, 1.0], jacobian=False)[0] for h in (1e-4, -1e-4))
        assert jacobian[:, 0] == pytest.approx((ahead - back) / (2e-4 * MILD[0]), rel=1e-5)


def bar(path, *, newton=fem.Newton(), rate_of=None):  # noqa: B008  (frozen)
    """A bar of Norton's material, whose end is pulled by a constant traction; `path` makes its load path of (mesh)."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    young, traction, rate = Constant(mesh, 10.0), Constant(mesh, 2.0), Constant(mesh, 0.01)
    creep = fem.internal_variable(mesh, "creep", quadrature_degree=2)
    dx, ds = ufl.dx(mesh, metadata=DEGREE), ufl.ds(mesh, metadata=DEGREE)
    stress = young * (u.dx(0) - creep)
    x = ufl.SpatialCoordinate(mesh)
    load, passed = path(mesh)
    factor = load.factor if load.factor is not None else 1.0
    return fem.Problem(
        stress * v.dx(0) * dx - factor * traction * x[0] * v * ds,
        u,
        bcs=[dirichletbc(0.0, ends(space, 0.0)[0], space)],
        parameters=[
            fem.Scalar("young", young, (5.0, 20.0)),
            fem.Scalar("traction", traction, (1.0, 3.0)),
            fem.Scalar("rate", rate, (0.001, 0.1)),
        ],
        responses=[fem.Response("end", x[0] * u * ds), fem.Response("first", x[0] * u * ds, at=0)],
        path=load,
        history={creep: creep + passed * rate * stress**3},
        newton=newton,
    )


def held_load(mesh):
    dt = Constant(mesh, 0.0)
    return fem.LoadPath(times=(2.0, 4.0, 9.0), step=dt), dt


def loaded_then_held(mesh):
    """Loads within no time worth mentioning, then holds them: equal load factors while time advances."""
    dt, factor = Constant(mesh, 0.0), Constant(mesh, 0.0)
    return fem.LoadPath((1.0, 1.0, 1.0), factor, times=(1e-12, 4.0, 9.0), step=dt), dt


def loaded_from_the_start(mesh):
    dt, factor = Constant(mesh, 0.0), Constant(mesh, 0.0)
    return fem.LoadPath((1.0, 1.0), factor, times=(4.0, 9.0), step=dt, start=1.0), dt


@pytest.mark.parametrize("path", [held_load, loaded_then_held, loaded_from_the_start])
@pytest.mark.parametrize("newton", [fem.Newton(), HASTY])
def test_a_bar_creeps_under_a_held_load_by_norton_s_law(path, newton):
    """Under constant stress the rule is exact, however the time is divided; a step's creep is seen in the next one."""
    problem, x = bar(path, newton=newton), [8.0, 1.5, 0.02]
    young, traction, rate = x
    steps = list(problem.walk(x))
    before_first, time = (steps[n].time - steps[n].size for n in ([s.point for s in steps].index(0), -1))
    (end, first), jacobian = problem.evaluate(x)
    assert first == pytest.approx(traction / young + rate * traction**3 * before_first, rel=1e-9)
    assert end == pytest.approx(traction / young + rate * traction**3 * time, rel=1e-9)
    slope = [-traction / young**2, 1 / young + 3 * rate * traction**2 * time, traction**3 * time]
    assert jacobian[0] == pytest.approx(slope, rel=1e-9)
    assert problem.vjp(x, [1.0, 0.0]) == pytest.approx(slope, rel=1e-9)


def rod(*, path=None, newton=fem.Newton(), memory=False, guess=300.0, both=False):  # noqa: B008  (frozen)
    """Conductivity k T: the flux is k (right² - left²) / 2, exact at the nodes. The left wall is held."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 5)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    temperature, w = dolfinx.fem.Function(space), ufl.TestFunction(space)
    temperature.x.array[:] = guess
    k, wall, hot = Constant(mesh, 0.1), Constant(mesh, 300.0), Constant(mesh, 600.0)
    left, right = ends(space, 0.0, 1.0)
    dx = ufl.dx(mesh, metadata=DEGREE)
    flux = k * temperature * temperature.dx(0)
    last = fem.internal_variable(mesh, "last", quadrature_degree=2)
    form = flux * w.dx(0) * dx + (0 * last * w * dx if memory else 0)
    conditions = [fem.held(dirichletbc(wall, left, space)), dirichletbc(wall if both else hot, right, space)]
    names = {"k": (k, (0.05, 0.2)), "wall": (wall, (200.0, 400.0))} | ({} if both else {"hot": (hot, (500.0, 700.0))})
    return fem.Problem(
        form,
        temperature,
        bcs=conditions,
        parameters=[fem.Scalar(name, *what) for name, what in names.items()],
        responses=[
            fem.Response("flux", flux * dx),
            *([fem.Response("before", flux * dx, at=0)] if path and len(path.points) > 1 else []),
            *([fem.Response("last", last * dx)] if memory else []),
        ],
        newton=newton,
        **({"history": {last: temperature}} if memory else {}),
        **({"path": path} if path else {}),
    )


@pytest.mark.parametrize("memory", [False, True])
def test_a_held_wall_keeps_its_value_while_the_other_follows_the_load_factor(memory):
    problem = rod(path=fem.LoadPath((0.8, 1.1)), memory=memory, newton=fem.Newton(first_step=0.5, rtol=1e-12))
    k, wall, hot = x = [0.12, 310.0, 550.0]
    response, jacobian = problem.evaluate(x, method="adjoint")
    for row, factor in enumerate((1.1, 0.8)):
        flux = k * ((factor * hot) ** 2 - wall**2) / 2
        slope = [flux / k, -k * wall, k * factor**2 * hot]
        assert response[row] == pytest.approx(flux, rel=1e-9)
        assert jacobian[row] == pytest.approx(slope, rel=1e-8)
    directions = np.array([[0.01, 3.0, -5.0], [0.0, 1.0, 0.0]])
    for found in (problem.evaluate(x, method="tangent")[1] @ directions.T, problem.jvp(x, directions).T):
        assert found == pytest.approx(jacobian @ directions.T, rel=1e-8, abs=1e-8)
    assert problem.vjp(x, np.eye(len(response))) == pytest.approx(jacobian, rel=1e-8, abs=1e-8)


def test_one_parameter_may_prescribe_a_held_value_and_one_that_follows():
    path = fem.LoadPath((1.7,))
    problem = rod(path=path, both=True, newton=fem.Newton(rtol=1e-13))
    k, wall = x = [0.12, 310.0]
    (flux,), jacobian = problem.evaluate(x)
    assert flux == pytest.approx(k * wall**2 * (1.7**2 - 1) / 2, rel=1e-9)
    assert jacobian[0] == pytest.approx([flux / k, 2 * flux / wall], rel=1e-8)
    curvature = [[0.0, 2 * flux / wall / k], [2 * flux / wall / k, 2 * flux / wall**2]]
    assert problem.hvp(x, [1.0], np.eye(2)) == pytest.approx(np.array(curvature), rel=1e-7, abs=1e-6)


def test_prescribed_values_go_from_the_initial_state_to_the_first_point():
    problem = rod(memory=True, newton=HASTY)
    seen = [problem.unknown.x.array[[0, -1]].tolist() for _ in problem.walk([0.1, 320.0, 700.0])]
    assert seen == [pytest.approx([320.0, hot], rel=1e-12) for hot in (400.0, 600.0, 700.0)]


def test_paths_in_equal_steps_take_times_and_load_from_nothing():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 1)
    path = fem.LoadPath.cyclic([1.0, -1.0], 2, times=(1.0, 2.0, 4.0, 8.0), step=Constant(mesh, 0.0))
    assert [(s.factor, s.time, s.size) for s in map(path.between, range(4))] == [
        (0.5, 1.0, 1.0),
        (1.0, 2.0, 1.0),
        (0.0, 4.0, 2.0),
        (-1.0, 8.0, 4.0),
    ]
    ramp, held = (
        make(times=(2.0,), step=path.step) for make in (lambda **t: fem.LoadPath.monotonic(1, **t), fem.LoadPath)
    )
    assert [p.between(0, 0.0, 0.5).factor for p in (ramp, held)] == [0.5, 1.0]


def test_a_wall_may_follow_the_time():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, time, k = dolfinx.fem.Function(space), Constant(mesh, 0.0), Constant(mesh, 2.0)
    left, right = ends(space, 0.0, 1.0)
    problem = fem.Problem(
        0.5 * k * u.dx(0) ** 2 * ufl.dx,
        u,
        bcs=[dirichletbc(0.0, left, space), fem.held(dirichletbc(time, right, space))],
        parameters=[fem.Scalar("k", k, (1.0, 3.0))],
        responses=[fem.Response(f"energy_{p}", 0.5 * k * u.dx(0) ** 2 * ufl.dx, at=p) for p in (0, 1)],
        path=fem.LoadPath((0.4, 0.9), times=(2.0, 3.0), time=time),
    )
    response, jacobian = problem.evaluate([2.5])
    assert response == pytest.approx([5.0, 11.25], rel=1e-12)
    assert jacobian[:, 0] == pytest.approx([2.0, 4.5], rel=1e-12)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda c, d: fem.LoadPath(times=(0.0, 1.0), step=c), "at 0, is not among them"),
        (lambda c, d: fem.LoadPath(times=(1.0, 1.0), step=c), "increasing"),
        (lambda c, d: fem.LoadPath((1.0, 2.0), times=(1.0, 2.0, 3.0), time=c), "2 points and 3 times"),
        (lambda c, d: fem.LoadPath((1.0, 2.0), step=c), r"needs times=\[\.\.\.\]"),
        (lambda c, d: fem.LoadPath(times=(1.0, 2.0)), "needs step=Constant"),
        (lambda c, d: fem.LoadPath(times=(1.0, np.inf), step=c), "finite"),
        (lambda c, d: fem.LoadPath(times=(1.0,), step=c, time=c), "the same Constant"),
        (lambda c, d: fem.LoadPath(start=np.nan), "start"),
        (lambda c, d: bar(lambda mesh: (fem.LoadPath(times=(1.0,), step=Constant(mesh, 0.0)), 1.0)), "step enters"),
        (lambda c, d: bar(lambda mesh: (fem.LoadPath(times=(1.0,), time=Constant(mesh, 0.0)), 1.0)), "time enters"),
    ],
)
def test_what_makes_no_time_is_refused(make, message):
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    with pytest.raises(ValueError, match=message):
        make(Constant(mesh, 0.0), mesh)


def test_a_step_of_time_is_no_parameter_and_held_takes_conditions_alone():
    def path(mesh):
        dt = Constant(mesh, 0.5)
        path.parameter = fem.Scalar("dt", dt, (0.1, 1.0))
        return fem.LoadPath(times=(1.0,), step=dt), dt

    problem = bar(path)
    arguments = {"bcs": [], "responses": [fem.Response("r", problem.unknown * ufl.dx)], "path": problem.path}
    with pytest.raises(ValueError, match="'dt' is the load path's step"):
        fem.Problem(problem.unknown**2 * ufl.dx, problem.unknown, parameters=[path.parameter], **arguments)
    with pytest.raises(TypeError, match="made by dolfinx"):
        fem.held(1.0)


@pytest.mark.slow
def test_the_digest_knows_times_held_conditions_and_no_values_that_the_path_sets():
    first = cooling()
    digest = first.digest
    first.evaluate([3.0, 0.7])
    assert cooling().digest == digest != cooling(times=(0.3, 1.0, 1.6)).digest
    assert len({rod().digest, rod(both=True).digest, rod(path=fem.LoadPath(start=1.0)).digest}) == 3


def test_a_series_for_paraview_has_the_times_of_the_path(tmp_path):
    file = write_path(cooling(), [3.0, 0.7], tmp_path / "cooling.pvd", points=[0, 2])
    assert [float(time) for time in re.findall(r'timestep="([^"]+)"', file.read_text())] == [0.3, 1.5]


def test_a_step_of_time_that_is_a_number_is_no_answer_where_steps_are_divided():
    def path(mesh):
        factor = Constant(mesh, 0.0)
        return fem.LoadPath((1.0, 1.0, 1.0), factor), 3.0

    x = [8.0, 1.5, 0.02]
    whole = bar(path)
    assert whole.evaluate(x)[0][0] == pytest.approx(1.5 / 8 + 0.02 * 1.5**3 * 6, rel=1e-9)
    with pytest.raises(fem.NotConverged, match=r"times=\[\.\.\.\]"):
        bar(path, newton=HASTY).evaluate(x)
