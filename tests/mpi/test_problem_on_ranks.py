"""A problem distributed over all ranks; run serially these tests hold as well.

mpiexec -n 3 python -m pytest tests/mpi
"""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.library.cantilever import cantilever
from sobofem.fem.library.large_beam import large_beam
from sobofem.fem.library.mbb_beam import mbb_beam
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.library.random_block import random_block
from sobofem.fem.materials.elasticity import strain, stress
from sobofem.fem.output import picture, write_vtk

WORLD = MPI.COMM_WORLD


def small_cantilever(comm):
    return cantilever(comm, cells=(8, 2, 1))


def small_beam(comm):
    return large_beam(comm, cells=(4, 1, 1))


@pytest.mark.parametrize("build", [block, plate_with_hole, small_cantilever, random_block, small_beam])
def test_all_ranks_together_agree_with_one_alone(build):
    together, alone = build(WORLD), build(MPI.COMM_SELF)
    x, width = interior_point(alone, 11), np.diff(alone.bounds, axis=1)[:, 0]
    for method in ("adjoint", "tangent"):
        response, jacobian = together.evaluate(x, method=method)
        expected, expected_jacobian = alone.evaluate(x, method=method)
        assert response == pytest.approx(expected, rel=1e-9)
        assert np.abs((jacobian - expected_jacobian) * width).max() < 1e-9 * np.abs(expected_jacobian * width).max()
    assert together.digest == alone.digest


@pytest.mark.parametrize("build", [pytest.param(block, marks=pytest.mark.two_ranks), random_block])
def test_products_with_jacobian_and_hessian_are_those_of_one_rank(build):
    together, alone = build(WORLD), build(MPI.COMM_SELF)
    rng, x = np.random.default_rng(14), interior_point(alone, 14)
    weights = rng.uniform(0.5, 1.5, len(alone.responses)) / np.abs(alone.evaluate(x)[0])
    directions = rng.uniform(-1.0, 1.0, (2, len(x))) * np.diff(alone.bounds, axis=1)[:, 0]
    for call in (
        lambda problem: problem.jvp(x, directions),
        lambda problem: problem.vjp(x, weights),
        lambda problem: problem.hvp(x, weights, directions),
    ):
        expected = call(alone)
        assert np.abs(call(together) - expected).max() < 1e-8 * np.abs(expected).max()


@pytest.mark.two_ranks
def test_a_gentle_evaluation_is_that_of_one_rank():
    together, alone = small_beam(WORLD), small_beam(MPI.COMM_SELF)
    x = interior_point(alone, 4)
    response, jacobian = together.evaluate_gently(x)
    expected, expected_jacobian = alone.evaluate_gently(x)
    assert response == pytest.approx(expected, rel=1e-8)
    scale = np.abs(expected_jacobian).max(axis=1, keepdims=True)
    np.testing.assert_allclose(jacobian / scale, expected_jacobian / scale, atol=1e-7)
    weights = np.eye(len(response))
    np.testing.assert_allclose(together.vjp(x, weights) / scale, expected_jacobian / scale, atol=1e-7)


def test_every_rank_gets_the_same_arrays():
    problem = block(WORLD)
    response, jacobian = problem.evaluate(interior_point(problem, 12))
    for mine in (response, jacobian):
        assert np.array_equal(mine, WORLD.bcast(mine))


def test_points_that_differ_between_ranks_are_refused_on_every_rank():
    problem = block(WORLD)
    x = interior_point(problem, 13)
    x[0] += 1e-3 * WORLD.rank
    if WORLD.size == 1:
        problem.evaluate(x)
        return
    with pytest.raises(ValueError, match="x differ between the ranks"):
        problem.evaluate(x)


def bar_with_field(basis):
    mesh = dolfinx.mesh.create_unit_square(WORLD, 6, 6)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    modulus = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    modulus.x.array[:] = 1.0
    shape = dolfinx.fem.Function(modulus.function_space)
    shape.x.array[:] = basis
    stretch = fem.Shape("stretch", lambda x: np.stack([-2.0 * np.maximum(x[0] - 0.8, 0.0), 0 * x[0]]), (0.0, 2.0), 0.0)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        0.5 * modulus * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, left, space)],
        parameters=[fem.Field("modulus", modulus, [shape], (0.0, 1.0)), stretch],
        responses=[fem.Response("work", u * ufl.dx)],
    )


def test_nan_on_one_rank_raises_on_every_rank():
    problem = bar_with_field(np.nan if WORLD.rank == WORLD.size - 1 else 0.5)
    with pytest.raises(fem.NotConverged) as caught:
        problem.evaluate([0.5, 0.0])
    assert caught.value.reason


def test_a_mesh_inverted_on_one_rank_raises_on_every_rank_and_the_next_sample_is_sound():
    problem = bar_with_field(0.5)
    sound = problem.evaluate([0.5, 0.0])[0]
    with pytest.raises(fem.NotConverged, match="inside out"):
        problem.evaluate([0.5, 1.0])
    assert np.array_equal(problem.evaluate([0.5, 0.0])[0], sound)


@pytest.mark.two_ranks
def test_picture_and_vtk_hold_the_whole_plate(tmp_path):
    problem = plate_with_hole(WORLD)
    problem.evaluate([70e3, 0.3, 100.0, 50.0, 30.0, 15.0], jacobian=False)
    shown = picture(problem, "von_mises")
    path = write_vtk(problem, WORLD.bcast(tmp_path) / "plate.pvd")
    if WORLD.rank == 0:
        corner, edge, other = (shown.points[shown.triangles[:, i]].T for i in range(3))
        a, b = edge - corner, other - corner
        area = 0.5 * np.abs(a[0] * b[1] - a[1] * b[0]).sum()
        assert area == pytest.approx(100.0**2 - np.pi * 30.0 * 15.0 / 4, rel=1e-3)
        assert 120.0 < shown.values.max() < 200.0
        assert path.is_file()
        assert list(path.parent.glob("*.vtu"))


@pytest.mark.two_ranks
def test_the_picture_of_a_body_is_its_whole_surface():
    problem = small_cantilever(WORLD)
    high, wide = 40.0, 20.0
    problem.evaluate([210e3, 0.3, 1000.0, 0.0, high, high, wide], jacobian=False)
    shown = picture(problem)
    if WORLD.rank == 0:
        corner, edge, other = (shown.points[shown.triangles[:, i]] for i in range(3))
        area = 0.5 * np.linalg.norm(np.cross(edge - corner, other - corner), axis=1).sum()
        assert area == pytest.approx(2 * (200.0 * high + 200.0 * wide + high * wide))
        assert shown.name == "von_mises" and len(shown.values) == len(shown.points)


@pytest.mark.two_ranks
def test_the_picture_of_quadrilaterals_covers_each_of_them_once():
    beam = mbb_beam(WORLD, cells=(6, 3))
    density = np.linspace(0.1, 1.0, 18)
    volume = beam.evaluate(density, jacobian=False)[0][beam.responses.index("volume")]
    shown = picture(beam)
    if WORLD.rank == 0:
        corner, edge, other = (shown.points[shown.triangles[:, i]].T for i in range(3))
        a, b = edge - corner, other - corner
        signed = a[0] * b[1] - a[1] * b[0]
        assert 0.5 * np.abs(signed).sum() == pytest.approx(18.0) and (np.abs(signed) > 0.1).all()
        mean = (np.abs(signed) / 2 * shown.values[shown.triangles].mean(axis=1)).sum() / 18.0
        assert mean == pytest.approx(volume)


@pytest.mark.two_ranks
def test_unknown_fields_are_refused_in_pictures():
    with pytest.raises(ValueError, match="von_mises"):
        picture(plate_with_hole(WORLD), "stress")


@pytest.mark.parametrize("bad", [np.nan, 99.0])
def test_a_point_that_is_wrong_on_one_rank_is_refused_on_every_rank(bad):
    problem = block(WORLD)
    x = interior_point(problem, 14)
    if WORLD.rank == WORLD.size - 1:
        x[0] = bad
    with pytest.raises(ValueError, match="outside its bounds"):
        problem.evaluate(x)


@pytest.mark.two_ranks
def test_weights_that_are_wrong_on_one_rank_are_refused_on_every_rank():
    problem = block(WORLD)
    x, weights = interior_point(problem, 14), np.ones(len(problem.responses))
    if WORLD.rank == WORLD.size - 1:
        weights[0] = np.nan
    with pytest.raises(ValueError, match="of finite numbers"):
        problem.vjp(x, weights)
    directions = np.ones((1 + WORLD.rank, len(x)))
    if WORLD.size > 1:
        with pytest.raises(ValueError, match="directions differ"):
            problem.jvp(x, directions)


def test_basis_functions_set_on_owned_nodes_alone_are_completed():
    def build(comm, owned_only):
        mesh = dolfinx.mesh.create_unit_square(comm, 6, 6)
        space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        u, modulus, shape = (dolfinx.fem.Function(space) for _ in range(3))
        modulus.x.array[:] = 1.0
        shape.interpolate(lambda x: np.cos(x[0] + x[1]))
        if owned_only:
            shape.x.array[space.dofmap.index_map.size_local :] = 0.0
        left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
        return fem.Problem(
            0.5 * modulus * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(0.0, left, space)],
            parameters=[fem.Field("modulus", modulus, [shape], (0.0, 1.0))],
            responses=[fem.Response("work", u * ufl.dx)],
        )

    response, jacobian = build(WORLD, owned_only=True).evaluate([0.5])
    expected, slope = build(MPI.COMM_SELF, owned_only=False).evaluate([0.5])
    assert response == pytest.approx(expected, rel=1e-9)
    assert jacobian == pytest.approx(slope, rel=1e-9)


@pytest.mark.two_ranks
def test_a_velocity_that_fails_on_one_rank_is_refused_on_every_rank():
    def velocity(x):
        if WORLD.rank == WORLD.size - 1:
            raise RuntimeError("no velocity here")
        return 0.1 * x

    mesh = dolfinx.mesh.create_unit_square(WORLD, 6, 6)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    with pytest.raises(ValueError, match="no velocity here"):
        fem.Shape("s", velocity, (0.0, 1.0), reference=0.0).bind(u, [])


def test_ranks_may_compile_for_themselves_and_together_in_any_order():
    factor = 1.0 + WORLD.bcast(np.random.default_rng().random())
    alone = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    together = dolfinx.mesh.create_unit_square(WORLD, 3, 3)
    if WORLD.rank == WORLD.size - 1:
        compile_form(factor * ufl.dx(alone), MPI.COMM_SELF)
        compile_form(2 * factor * ufl.dx(alone), MPI.COMM_SELF)
    form = compile_form(3 * factor * ufl.dx(together), WORLD)
    area = WORLD.allreduce(dolfinx.fem.assemble_scalar(form), op=MPI.SUM)
    assert area == pytest.approx(3 * factor)


@pytest.mark.two_ranks
def test_a_closed_problem_says_so_and_leaves_others_alone():
    first, second = block(WORLD), block(WORLD)
    x = interior_point(first, 15)
    expected = first.evaluate(x)[0]
    first.close()
    first.close()
    for call in (lambda: first.evaluate(x), lambda: first.vjp(x, np.ones(len(first.responses)))):
        with pytest.raises(ValueError, match="closed"):
            call()
    assert second.evaluate(x)[0] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("solver", [fem.SYMMETRIC, fem.DIRECT, {"ksp_type": "cg", "pc_type": "jacobi"}])
def test_a_free_translation_is_named_on_every_rank(solver):
    mesh = dolfinx.mesh.create_rectangle(WORLD, [[0.0, 0.0], [2.0, 1.0]], [6, 3])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, k, x = dolfinx.fem.Function(space, name="u"), dolfinx.fem.Constant(mesh, 1.0), ufl.SpatialCoordinate(mesh)
    part = space.sub(0).collapse()[0]
    dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(0), part), lambda x: np.isclose(x[0], 0.0))[0]
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    problem = fem.Problem(
        0.5 * ufl.inner(stress(strain(u), k, 0.3), strain(u)) * dx - (x[0] - 1.0) * u[0] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space.sub(0))],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("r", u[0] * dx)],
        solver=solver,
    )
    with pytest.raises(fem.NotConverged, match="a translation of u along y") as caught:
        problem.evaluate([1.0])
    assert len(set(WORLD.allgather(str(caught.value)))) == 1
    problem.close()


CUT_OFF = """<Xdmf><Domain><Grid>
<Geometry GeometryType="XY"><DataItem Dimensions="3 2">0 0 1 0 0 1</DataItem></Geometry>
<Topology TopologyType="Mixed"><DataItem DataType="Int">4 0 1 2 1</DataItem></Topology>
</Grid></Domain></Xdmf>"""


@pytest.mark.two_ranks
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<Xdmf><Domain/></Xdmf>", "no grid with points and cells"),
        (CUT_OFF, "IndexError"),
        (CUT_OFF.replace("4 0 1 2 1", "4 0 1 7"), "points 0 to 7"),
    ],
)
def test_a_mesh_file_that_is_broken_raises_on_every_rank(tmp_path, text, message):
    path = WORLD.bcast(tmp_path / "broken.xdmf")
    if WORLD.rank == 0:
        path.write_text(text)
    WORLD.barrier()
    with pytest.raises(ValueError, match=message):
        fem.read_mesh(path, WORLD)


class Fragile(fem.Scalar):
    """A parameter of one's own, which the last rank can't set beyond a limit."""

    def bind(self, unknown, bcs):
        return FragileBinding(super().bind(unknown, bcs))


class FragileBinding:
    def __init__(self, whole):
        self.whole = whole

    def __getattr__(self, name):
        return getattr(self.whole, name)

    def assign(self, values):
        if values[0] > 1.5 and WORLD.rank == WORLD.size - 1:
            raise FloatingPointError("too large here")
        self.whole.assign(values)


def scalar_problem(kind, high, combine=None):
    mesh = dolfinx.mesh.create_unit_square(WORLD, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        (0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) - u) * ufl.dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, dofs, space)],
        parameters=[kind("k", k, (0.5, high))],
        responses=[fem.Response("r", [u * ufl.dx], combine)],
    )


def test_code_of_the_user_that_fails_on_one_rank_raises_on_every_rank():
    problem = scalar_problem(Fragile, 2.0)
    expected = problem.evaluate([1.0])[0]
    with pytest.raises((FloatingPointError, RuntimeError), match="too large here"):
        problem.evaluate([1.8])
    assert problem.evaluate([1.0])[0] == pytest.approx(expected)
    problem.close()

    def undefined(integral):
        if WORLD.rank == WORLD.size - 1:
            raise ValueError("not on this one")
        return integral

    with pytest.raises(ValueError, match="not on this one"):
        scalar_problem(fem.Scalar, 2.0, undefined)
