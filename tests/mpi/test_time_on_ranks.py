"""Initial states, held conditions and steps of time, distributed over all ranks; run serially these tests hold as well.

mpiexec -n 3 python -m pytest tests/mpi
"""

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant, dirichletbc
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly.stacking import owned_size

WORLD = MPI.COMM_WORLD
DEGREE = {"quadrature_degree": 2}


def oven(comm, *, part=0.5, memory=True):
    """A plate whose conductivity needs a positive temperature, between held, following and convective boundaries.

    The guess is set on owned nodes alone. One parameter prescribes a held value and one that follows the load factor;
    where two conditions meet, the second wins.
    """
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [2.0, 1.0]], [4, 2])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    temperature, w = dolfinx.fem.Function(space), ufl.TestFunction(space)
    temperature.x.array[: owned_size(space)] = 300.0
    k, wall, transfer, dt = (Constant(mesh, value) for value in (2.0, 300.0, 5.0, 0.0))
    time, sides = Constant(mesh, 0.0), []
    for axis, place in ((0, 0.0), (0, 2.0), (1, 0.0)):
        sides.append(dolfinx.fem.locate_dofs_geometrical(space, lambda x, a=axis, p=place: np.isclose(x[a], p)))
    hot, uniform, linear = (dolfinx.fem.Function(space) for _ in range(3))
    for function, values in (
        (hot, lambda x: 400 + 0 * x[0]),
        (uniform, lambda x: 1 + 0 * x[0]),
        (linear, lambda x: x[1]),
    ):
        function.interpolate(values)
    old = fem.internal_variable(mesh, "old", quadrature_degree=2)
    old.interpolate(lambda x: 300.0 + 10.0 * x[0])
    dx, ds = ufl.dx(mesh, metadata=DEGREE), ufl.ds(mesh, metadata=DEGREE)
    flow = k * ufl.sqrt(300.0 / temperature) * ufl.grad(temperature)
    loss = transfer * (temperature - 290.0 - 10.0 * time)
    storage = (temperature - old) * w * dx if memory else 0
    return fem.Problem(
        storage + dt * ufl.inner(flow, ufl.grad(w)) * dx + dt * loss * w * ds,
        temperature,
        bcs=[
            dirichletbc(wall, sides[0], space),
            fem.held(dirichletbc(hot, np.setdiff1d(sides[1], sides[2]))),
            fem.held(dirichletbc(wall, sides[2], space)),
        ],
        parameters=[
            fem.Scalar("k", k, (1.0, 3.0)),
            fem.Scalar("wall", wall, (280.0, 350.0)),
            fem.Scalar("transfer", transfer, (2.0, 8.0)),
            fem.Field("hot", hot, [uniform, linear], (-40.0, 40.0)),
            fem.Shape("height", lambda x: np.stack([0 * x[0], x[1] * x[0]]), (-0.1, 0.1), 0.0),
        ],
        responses=[
            fem.average("temperature", temperature, dx),
            fem.Response("heat", dt * loss * ds, at="sum" if memory else "end"),
            fem.average("before", temperature, dx, at=0 if memory else "end"),
        ],
        path=fem.LoadPath((1.1, 1.1, 0.9), times=(0.1, 0.2, 0.4), time=time, step=dt, stored_steps=3),
        newton=fem.Newton(first_step=part, rtol=1e-12),
        **({"history": {old: temperature}} if memory else {}),
    )


def steady(comm):
    return oven(comm, memory=False)


@pytest.mark.parametrize(("build", "method"), [(oven, "adjoint"), (oven, "tangent"), (steady, "auto")])
def test_all_ranks_together_agree_with_one_alone(build, method):
    together, alone = build(WORLD), build(MPI.COMM_SELF)
    x = [1.7, 310.0, 4.0, 10.0, -20.0, 0.05]
    response, jacobian = together.evaluate(x, method=method)
    expected, expected_jacobian = alone.evaluate(x, method=method)
    width = np.diff(alone.bounds, axis=1)[:, 0]
    scale = np.abs(expected_jacobian * width).max(axis=1, keepdims=True)
    assert response == pytest.approx(expected, rel=1e-9)
    assert (np.abs((jacobian - expected_jacobian) * width) < 1e-8 * scale).all()
    assert together.digest == alone.digest


@pytest.mark.slow
@pytest.mark.parametrize("build", [oven, steady])
def test_derivatives_are_those_of_differences(build):
    problem, x = build(WORLD), np.array([1.7, 310.0, 4.0, 10.0, -20.0, 0.05])
    direction = np.diff(problem.bounds, axis=1)[:, 0] * np.random.default_rng(3).uniform(-1.0, 1.0, len(x))
    slopes = problem.jvp(x, direction)
    ahead, back = (problem.evaluate(x + s * direction, jacobian=False)[0] for s in (1e-5, -1e-5))
    assert (ahead - back) / 2e-5 == pytest.approx(slopes, rel=1e-6, abs=1e-6 * np.abs(slopes).max())


@pytest.mark.two_ranks
def test_values_that_are_not_finite_on_one_rank_are_refused_by_all():
    mesh = dolfinx.mesh.create_unit_square(WORLD, 3, 3)
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), Constant(mesh, 1.0)
    u.x.array[:1] = np.nan if WORLD.rank == WORLD.size - 1 else 0.0
    with pytest.raises(ValueError, match="not finite"):
        fem.Problem(
            k * (u - 1) ** 2 * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (1.0, 2.0))],
            responses=[fem.Response("r", u * ufl.dx)],
        )
