"""Problems with a history, distributed over all ranks; run serially these tests hold as well.

mpiexec -n 3 python -m pytest tests/mpi
"""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.fem.library.notched_specimen import notched_specimen
from sobofem.fem.materials import plasticity
from sobofem.fem.output import picture, write_path

WORLD = MPI.COMM_WORLD


def strip(comm, *, weakness=0.5, stored_steps=1000):
    """A strip that is stretched and let go; a field of parameters weakens its yield stress."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [3.0, 1.0]], [9, 3])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v, pull = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 0.02)
    strength = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    strength.x.array[:] = 1.0
    basis = [dolfinx.fem.Function(strength.function_space) for _ in range(3)]
    for k, function in enumerate(basis):
        function.interpolate(lambda x, k=k: weakness * np.cos(k * x[0] + x[1]))
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=200.0,
        poisson=0.3,
        hardening=plasticity.voce_hardening(strength, 0.5, 40.0, 2.0),
        kinematic=1.0,
    )
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 3.0))
    right = dolfinx.fem.locate_dofs_topological(space.sub(0), 1, facets)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), left, space),
            dolfinx.fem.dirichletbc(pull, right, space.sub(0)),
        ],
        parameters=[
            fem.Scalar("pull", pull, (0.01, 0.04)),
            fem.Field("strength", strength, basis, (-0.3, 0.3)),
            fem.Shape("waist", lambda x: np.stack([0 * x[0], -x[1] * np.sin(x[0])]), (0.0, 0.2), 0.0),
        ],
        responses=[
            fem.Response("stress", after.stress[0, 0] * dx, at=2),
            fem.Response("work", after.work * dx, at="sum"),
            fem.p_norm("strain", after.accumulated, dx, p=4),
        ],
        path=fem.LoadPath([0.3, 0.6, 1.0, 0.8, 0.4], stored_steps=stored_steps),
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(rtol=1e-12, growth=1.0),
    )


def few_stored(comm):
    return strip(comm, stored_steps=2)


def specimen(comm):
    return notched_specimen(comm, steps=3)


def linear_hardening(z, order):
    """1 + 3 p, with its derivatives."""
    return [1.0 + 3.0 * z[:, 0], np.full_like(z, 3.0), np.zeros((len(z), 1, 1))][: order + 1]


def one_cell(comm):
    """A square of one cell, so that all ranks but one have none; other code computes how it hardens."""
    mesh = dolfinx.mesh.create_unit_square(comm, 1, 1, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, v, pull = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 3.0)
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=200.0,
        poisson=0.3,
        hardening=fem.ExternalFunction(mesh, linear_hardening, quadrature_degree=2, digest="linear", orders=2),
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    bottom = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[1], 0.0))
    factor = dolfinx.fem.Constant(mesh, 0.0)
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx - factor * pull * v[1] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), bottom, space)],
        parameters=[fem.Scalar("pull", pull, (2.0, 4.0))],
        responses=[fem.Response("stretch", u[1] * dx)],
        path=fem.LoadPath.monotonic(2, factor=factor),
        history=plasticity.history(before, after),
        local=[before.multiplier],
    )


@pytest.mark.parametrize(
    ("build", "methods"),
    [
        (strip, ("adjoint", "tangent")),
        pytest.param(few_stored, ("adjoint",), marks=pytest.mark.two_ranks),
        pytest.param(specimen, ("auto",), marks=pytest.mark.two_ranks),
        (one_cell, ("adjoint", "tangent")),
    ],
)
def test_all_ranks_together_agree_with_one_alone(build, methods):
    together, alone = build(WORLD), build(MPI.COMM_SELF)
    x, width = interior_point(alone, 21), np.diff(alone.bounds, axis=1)[:, 0]
    for method in methods:
        response, jacobian = together.evaluate(x, method=method)
        expected, expected_jacobian = alone.evaluate(x, method=method)
        scale = np.abs(expected_jacobian * width).max(axis=1, keepdims=True)
        assert response == pytest.approx(expected, rel=1e-9)
        assert (np.abs((jacobian - expected_jacobian) * width) < 1e-8 * scale).all()
        for mine in (response, jacobian):
            assert np.array_equal(mine, WORLD.bcast(mine))
    assert together.digest == alone.digest


@pytest.mark.two_ranks
def test_products_with_the_jacobian_are_the_same_on_ranks():
    together, alone = strip(WORLD), strip(MPI.COMM_SELF)
    x = interior_point(alone, 22)
    rng = np.random.default_rng(22)
    directions, weights = rng.normal(size=(2, len(x))), rng.normal(size=(2, len(alone.responses)))
    assert together.jvp(x, directions) == pytest.approx(alone.jvp(x, directions), rel=1e-7)
    assert together.vjp(x, weights) == pytest.approx(alone.vjp(x, weights), rel=1e-7)


def test_a_material_that_fails_on_one_rank_raises_on_every_rank_and_the_next_sample_is_sound():
    problem = strip(WORLD, weakness=np.nan if WORLD.rank == WORLD.size - 1 else 0.5)
    with pytest.raises(fem.NotConverged) as caught:
        problem.evaluate([0.02, 0.1, 0.1, 0.1, 0.1])
    assert caught.value.reason
    assert len(set(WORLD.allgather(str(caught.value)))) == 1
    sound = strip(WORLD)
    x = interior_point(sound, 23)
    response, _ = sound.evaluate(x, jacobian=False)
    with pytest.raises(fem.NotConverged):
        problem.evaluate([0.02, 0.1, 0.1, 0.1, 0.1])
    assert sound.evaluate(x, jacobian=False)[0] == pytest.approx(response, rel=1e-11)


@pytest.mark.two_ranks
def test_a_sample_remembers_nothing_of_the_one_before():
    problem = strip(WORLD)
    x = interior_point(problem, 24)
    first, _ = problem.evaluate(x, jacobian=False)
    problem.evaluate(interior_point(problem, 25), jacobian=False)
    assert problem.evaluate(x, jacobian=False)[0] == pytest.approx(first, rel=1e-11)


@pytest.mark.two_ranks
def test_a_series_for_paraview_is_written_by_all_ranks(tmp_path):
    problem = strip(WORLD)
    path = write_path(problem, interior_point(problem, 26), WORLD.bcast(tmp_path) / "strip", points=[0, 4])
    if WORLD.rank == 0:
        assert path.read_text().count("<DataSet") == 2


@pytest.mark.two_ranks
def test_a_picture_of_plastic_strain_is_whole():
    problem = specimen(WORLD)
    problem.evaluate(problem.bounds.mean(axis=1), jacobian=False)
    shown = picture(problem, "equivalent_plastic_strain")
    if WORLD.rank == 0:
        corner, edge, other = (shown.points[shown.triangles[:, i]].T for i in range(3))
        a, b = edge - corner, other - corner
        area = 0.5 * np.abs(a[0] * b[1] - a[1] * b[0]).sum()
        assert area == pytest.approx(10.0 * 15.0 - 4.0 * 1.05 - np.pi / 4 * 1.05**2, rel=1e-3)
        assert 0.03 < shown.values.max() < 0.08
