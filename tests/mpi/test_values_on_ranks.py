"""Values, digests and refusals are the same on any number of ranks."""

from pathlib import Path
import sys

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.geometry import extension, reach
from sobofem.fem.library.composite_cell import composite_cell
from sobofem.fem.library.loaded_column import loaded_column
from sobofem.fem.library.shallow_arch import shallow_arch

sys.path.append(str(Path(__file__).parents[1] / "fem"))
import test_bonded
import test_constraints
import test_cyclic
import test_digest
import test_limit_load
import test_maxima
import test_modes
import test_mortar
import test_moving_ties
import test_shape
import test_submeshes
import test_ties
import test_zero_mean

WORLD = MPI.COMM_WORLD


def dotted(comm):
    """A square on springs, with loads and responses at vertices, and integrals by several rules."""
    mesh = dolfinx.mesh.create_unit_square(comm, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    points = dolfinx.mesh.locate_entities(mesh, 0, lambda x: np.isclose(x[0], x[1]))
    tags = dolfinx.mesh.meshtags(mesh, 0, points, np.full(len(points), 3, dtype=np.int32))
    at_points = ufl.Measure("dP", domain=mesh, subdomain_data=tags)(3)

    def dx(degree):
        return ufl.dx(mesh, metadata={"quadrature_degree": degree})

    residual = k * ufl.inner(ufl.grad(u), ufl.grad(v)) * dx(2) + u * v * dx(1) - k**2 * v * at_points
    return fem.Problem(
        residual,
        u,
        bcs=[],
        parameters=[fem.Scalar("k", k, (0.5, 2.0)), fem.Shape("size", lambda x: x.copy(), (-0.2, 0.2), 0.0)],
        responses=[
            fem.Response("sum", u * at_points),
            fem.Response("squares", u**2 * at_points),
            fem.Response("mean", u * dx(1)),
            fem.Response("square", u**2 * dx(2)),
        ],
    )


def test_maxima_are_those_of_one_rank():
    both = [test_maxima.strip(comm) for comm in (WORLD, MPI.COMM_SELF)]
    for problem in both:
        problem.evaluate([2.0])
    several, one = map(test_maxima.maxima, both)
    assert several == pytest.approx(one, rel=1e-12)


@pytest.fixture(scope="module")
def pair():
    return dotted(WORLD), dotted(MPI.COMM_SELF)


def test_integrals_over_vertices_and_by_many_rules_are_those_of_one_rank(pair):
    results = [(*problem.evaluate([1.3, 0.1]), problem.recompute([1.3, 0.1])[1]) for problem in pair]
    for together, alone in zip(*results, strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("part", [None, 1])
def test_the_digest_of_a_problem_on_ranks_is_that_of_one(part):
    assert test_digest.problem(WORLD, part=part).digest == test_digest.problem(part=part).digest


@pytest.mark.two_ranks
def test_functions_as_velocities_are_those_of_one_rank():
    test_shape.test_a_velocity_is_a_function_of_points_a_function_of_the_mesh_or_an_expression()


@pytest.mark.two_ranks
def test_a_jump_is_refused_on_every_rank():
    mesh = dolfinx.mesh.create_unit_square(WORLD, 4, 4)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    a = dolfinx.fem.Constant(mesh, 0.5)
    soft = ufl.conditional(ufl.lt(ufl.SpatialCoordinate(mesh)[0], a), 1.0, 0.1)
    with pytest.raises(ValueError, match="jumps where parameter 'a'"):
        fem.Problem(
            (soft * u**2 - u) * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("a", a, (0.2, 0.8))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )


def test_frequencies_and_buckling_loads_on_ranks_are_those_of_one_with_their_derivatives():
    x = [70e3, 2.7e-9, 100.0, 22.0, 15.0]
    problems = [loaded_column(comm, cells=(12, 1)) for comm in (WORLD, MPI.COMM_SELF)]
    assert problems[0].digest == problems[1].digest
    together, alone = ([problem.evaluate(x), problem.evaluate(x, method="tangent")] for problem in problems)
    for (y, jacobian), (expected, expected_jacobian) in zip(together, alone, strict=True):
        np.testing.assert_allclose(y, expected, rtol=1e-9)
        scale = np.abs(expected_jacobian).max(axis=1, keepdims=True)
        np.testing.assert_allclose(jacobian / scale, expected_jacobian / scale, atol=1e-7)
    products = [problem.hvp(x, 1.0 / alone[0][0], np.diag(x)) @ np.diag(x) for problem in problems]
    np.testing.assert_allclose(products[0], products[1], atol=1e-7 * np.abs(products[1]).max())


def test_a_periodic_cell_on_ranks_is_that_of_one_with_its_tangent():
    x = [0.2, -0.05, 0.2, 1.0, 20.0, 0.3]
    problems = [composite_cell(comm, cells=4) for comm in (WORLD, MPI.COMM_SELF)]
    assert problems[0].digest == problems[1].digest
    (y, jacobian), (expected, expected_jacobian) = (problem.evaluate(x) for problem in problems)
    np.testing.assert_allclose(y, expected, rtol=1e-8)
    np.testing.assert_allclose(jacobian, expected_jacobian, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("degree", [1, 2])
def test_a_periodic_cell_whose_faces_do_not_match_on_ranks_is_that_of_one(degree):
    how = {"pinned": (0.0, 0.0), "skew": 0.5, "degree": degree}
    same_on_ranks([test_ties.laminate(comm, **how) for comm in (WORLD, MPI.COMM_SELF)], test_ties.POINT)


@pytest.mark.parametrize("gdim", [2, 3])
def test_bonded_parts_on_ranks_are_those_of_one(gdim):
    same_on_ranks([test_mortar.bar(comm, gdim) for comm in (WORLD, MPI.COMM_SELF)], [1.5, 4.0])


def test_bonded_layers_that_end_on_periodic_faces_or_are_pulled_on_ranks_are_those_of_one():
    comms = (WORLD, MPI.COMM_SELF)
    same_on_ranks([test_bonded.layered_cell(comm, skew=1.0) for comm in comms], [0.1, 0.2, 0.3])
    same_on_ranks([test_bonded.layers(comm, lifted=False) for comm in comms], [0.1])


def test_a_mean_that_is_given_on_ranks_is_that_of_one():
    same_on_ranks([test_zero_mean.cantilever(True, comm, given=True) for comm in (WORLD, MPI.COMM_SELF)], [0.1, 0.7])


def test_modes_whose_ties_move_on_ranks_are_those_of_one():
    def bend(x):
        return np.stack([x[0] * x[1] ** 2, x[0] ** 2])

    ties = [fem.Roller(lambda x: np.isclose(x[0], 1.0))]
    same_on_ranks([test_modes.panel(ties, bend, pull=True, comm=comm) for comm in (WORLD, MPI.COMM_SELF)], [0.1])


def same_on_ranks(problems, x, *, rtol=1e-8):
    """Digest, values and Jacobian by both methods, of a problem on all ranks and on one."""
    assert problems[0].digest == problems[1].digest
    together, alone = ([problem.evaluate(x), problem.evaluate(x, method="tangent")] for problem in problems)
    for (y, jacobian), (expected, expected_jacobian) in zip(together, alone, strict=True):
        np.testing.assert_allclose(y, expected, rtol=rtol, atol=1e-10)
        scale = np.maximum(np.abs(expected_jacobian).max(axis=1, keepdims=True), 1e-6)  # what is controlled has zeros
        np.testing.assert_allclose(jacobian / scale, expected_jacobian / scale, atol=10 * rtol)
    assert problems[0].negative_pivots == problems[1].negative_pivots


def test_rollers_on_ranks_are_those_of_one():
    problems = [test_constraints.inclined(comm, degree=2, held="corner") for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [80.0, 1.2])


@pytest.mark.parametrize("hinged", [False, True])
def test_a_rigid_face_on_ranks_is_that_of_one(hinged):
    problems = [test_constraints.beam(comm, cells=(8, 2), hinged=hinged) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [0.3, 0.2, -0.4, 80.0])


@pytest.mark.parametrize(("gdim", "solver"), [(2, None), (3, None), (2, test_zero_mean.GMRES)])
def test_a_body_that_floats_on_ranks_is_that_of_one(gdim, solver):
    problems = [
        test_zero_mean.piece(gdim, comm, balanced=False, solver=solver, linear=solver is not None)
        for comm in (WORLD, MPI.COMM_SELF)
    ]
    same_on_ranks(problems, [10.0, 1.0])


@pytest.mark.parametrize(("gdim", "rigid"), [(2, True), (3, "above")])
def test_ties_that_move_on_ranks_are_those_of_one(gdim, rigid):
    problems = [test_moving_ties.block(gdim, comm, rigid=rigid) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [8.0, 1.2, 0.3])


def test_ties_that_move_with_a_history_on_ranks_are_those_of_one():
    path = fem.LoadPath([0.4, 1.0])
    problems = [test_moving_ties.block(2, comm, creep=True, path=path) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [8.0, 1.2, 0.3])


@pytest.mark.parametrize("pressure", [False, True])
def test_a_sector_on_ranks_is_that_of_one(pressure):
    problems = [test_cyclic.sector(4, pressure=pressure, comm=comm) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, test_cyclic.POINT)


def test_functions_on_parts_of_the_mesh_on_ranks_are_those_of_one():
    problems = [test_submeshes.heated(comm=comm) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, test_submeshes.POINT)
    products = [problem.hvp(test_submeshes.POINT, [1.0, 2.0], np.ones(6)) for problem in problems]
    np.testing.assert_allclose(*products, rtol=1e-8, atol=1e-10)


def test_a_periodic_cell_without_a_pin_on_ranks_is_that_of_one():
    def means(u):
        return [fem.ZeroMean(u[0] * ufl.dx, u[1] * ufl.dx)]

    problems = [test_ties.laminate(comm, pin=False, also=means) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, test_ties.POINT)


@pytest.mark.parametrize("at", [None, [0.1, 0.25]])
def test_limit_loads_and_controlled_paths_on_ranks_are_those_of_one(at):
    def path(t, control):
        return fem.ControlledPath(at, factor=t, control=control)

    problems = [test_limit_load.truss(comm, path=path if at else None) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [2.0, 1.5, 0.02], rtol=1e-7)


def test_a_branch_on_ranks_is_that_of_one():
    same_on_ranks([test_limit_load.steep([0.5], comm) for comm in (WORLD, MPI.COMM_SELF)], [2.0, 1.5, 0.0], rtol=1e-7)


def test_a_shallow_arch_on_ranks_is_that_of_one():
    problems = [shallow_arch(comm, cells=(12, 1)) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [70e3, 2.0, 0.05, 0.05], rtol=1e-6)


def test_mesh_motions_and_how_far_they_reach_on_ranks_are_those_of_one():
    ends = []
    for comm in (WORLD, MPI.COMM_SELF):
        mesh = test_shape.grooved(comm)
        moving = extension(mesh, test_shape.bump)
        ends.append(list(reach(mesh, [fem.Shape("s", moving, (0.0, 1.0), 0.0)])["s"]))
    np.testing.assert_allclose(ends[0], ends[1], rtol=1e-9)


def test_ties_that_fail_on_one_rank_are_refused_on_every_rank():
    last = WORLD.rank == WORLD.size - 1
    for ties in (
        [fem.Periodic(test_constraints.at_end, lambda x: np.nan * x if last else x)],
        [fem.Periodic(lambda x: True if last else test_constraints.at_end(x), lambda x: x)],
        [fem.Roller(test_constraints.at_end, lambda x: 1 / 0 if last else np.ones_like(x))],
        [fem.Rigid(lambda x: None if last else test_constraints.at_end(x))],
    ):
        with pytest.raises((ValueError, RuntimeError, ZeroDivisionError)):
            test_constraints.beam(WORLD, cells=(4, 1), rigid=False, also=ties)


def test_images_that_fail_on_one_rank_are_refused_on_every_rank_where_faces_do_not_match():
    def of_corners(x):
        return np.where(np.isclose(x[1], 0.0), np.nan, x - [[1.0], [0.0]])

    def of_all(x):
        if WORLD.rank and x.shape[1] > 4:  # more than the middles of this rank's own facets
            raise KeyError("no image")
        return x - [[1.0], [0.0]]

    def on_the_right(x):
        return np.isclose(x[0], 1.0)

    for image in (of_corners, of_all):
        with pytest.raises((ValueError, RuntimeError, KeyError)):
            test_ties.laminate(WORLD, ties=[fem.Periodic(on_the_right, image)], skew=0.5)


@pytest.mark.two_ranks
def test_own_values_whose_marks_fail_on_one_rank_are_refused_on_every_rank():
    mesh = dolfinx.mesh.create_unit_square(WORLD, 2, 2)
    density = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    with pytest.raises(ValueError, match="a truth value each"):
        fem.Field("density", density, fem.OwnValues(where=lambda x: x[0] if WORLD.rank else x[0] > 0.5), (0.0, 1.0))


def test_values_prescribed_on_both_sides_of_a_tie_are_compared_across_ranks():
    for above, fits in ((0.7, True), (0.2, False)):
        mesh = dolfinx.mesh.create_unit_square(WORLD, 4, 1)
        space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
        u, source = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
        values = [dolfinx.fem.Constant(mesh, value) for value in (0.7, above)]
        bcs = [
            dolfinx.fem.dirichletbc(
                value, dolfinx.fem.locate_dofs_geometrical(space, lambda x, k=k: np.isclose(x[0], k)), space
            )
            for k, value in enumerate(values)
        ]
        problem = fem.Problem(
            (ufl.inner(ufl.grad(u), ufl.grad(u)) - source * u) * ufl.dx,
            u,
            bcs=bcs,
            ties=[fem.Periodic(lambda x: np.isclose(x[0], 1.0), lambda x: x - np.array([[1.0], [0.0]]))],
            parameters=[fem.Scalar("source", source, (-1.0, 1.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )
        if fits:
            assert problem.evaluate([0.0])[0][0] == pytest.approx(0.7)
        else:
            with pytest.raises(ValueError, match="prescribe 2 values other than those"):
                problem.evaluate([0.0])
