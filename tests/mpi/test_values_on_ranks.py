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
import test_constraints
import test_digest
import test_limit_load
import test_shape

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


def test_a_periodic_cell_on_ranks_is_that_of_one_with_its_tangent():
    x = [0.2, -0.05, 0.2, 1.0, 20.0, 0.3]
    problems = [composite_cell(comm, cells=4) for comm in (WORLD, MPI.COMM_SELF)]
    assert problems[0].digest == problems[1].digest
    (y, jacobian), (expected, expected_jacobian) = (problem.evaluate(x) for problem in problems)
    np.testing.assert_allclose(y, expected, rtol=1e-8)
    np.testing.assert_allclose(jacobian, expected_jacobian, rtol=1e-7, atol=1e-7)


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


@pytest.mark.parametrize("at", [None, [0.1, 0.25]])
def test_limit_loads_and_controlled_paths_on_ranks_are_those_of_one(at):
    def path(t, control):
        return fem.ControlledPath(at, factor=t, control=control)

    problems = [test_limit_load.truss(comm, path=path if at else None) for comm in (WORLD, MPI.COMM_SELF)]
    same_on_ranks(problems, [2.0, 1.5, 0.02], rtol=1e-7)


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
