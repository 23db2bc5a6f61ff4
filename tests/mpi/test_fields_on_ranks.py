"""Fields and their derivatives, distributed over all ranks; run serially these tests hold as well.

mpiexec -n 2 python -m pytest tests/mpi/test_fields_on_ranks.py
"""

import functools
from types import SimpleNamespace

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.coupling.contract import Model, Products, describe
from sobofem.fem.fields import CellField, SolutionField
from sobofem.fem.library.hyperelastic_square import hyperelastic_square, log_modulus_field
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.library.random_block import random_block

WORLD = MPI.COMM_WORLD


def small_block(comm):
    return random_block(comm, cells=(5, 5), modes=4)


def displacement(problem):
    return SolutionField(problem)


def strains(problem):
    return CellField(problem, ufl.sym(ufl.grad(problem.unknown)))


def modulus_times_rotation(problem):
    """Depends on parameters by itself, besides through the unknown."""
    u = problem.unknown
    rotation = u[0].dx(1) - u[1].dx(0)
    coefficient = next((p for form in problem._system.integrals for p in form.coefficients() if p is not u), 1.0)
    return CellField(problem, coefficient * rotation**2 + u[0])


def von_mises(problem):
    return CellField(problem, "von_mises")


@functools.cache
def made(build, what, alone=False):
    """A problem and its field, built once for all tests."""
    problem = build(MPI.COMM_SELF if alone else WORLD)
    return problem, what(problem)


CASES = [
    (block, displacement),
    (block, strains),
    (block, modulus_times_rotation),
    (plate_with_hole, displacement),
    (plate_with_hole, von_mises),
    (small_block, displacement),
    (small_block, von_mises),
]
DISTRIBUTED = [
    case if case in (CASES[0], CASES[4], CASES[6]) else pytest.param(*case, marks=pytest.mark.two_ranks)
    for case in CASES
]
"""Of them each problem and kind of field once on three ranks."""


@pytest.mark.slow
@pytest.mark.parametrize(("build", "what"), CASES)
def test_derivatives_agree_with_central_differences(build, what):
    problem, field = made(build, what)
    x, width = interior_point(problem, 5), np.ptp(problem.bounds, axis=1)
    value, slopes = field.evaluate(x)
    assert value.shape == (field.size,) and slopes.shape == (field.size, len(x))
    step = 1e-4
    for j in range(0, len(x), 2):
        shift = step * width * (np.arange(len(x)) == j)
        ahead, behind = (field.evaluate(x + sign * shift, jacobian=False)[0] for sign in (1, -1))
        difference = (ahead - behind) / (2 * step)
        scaled = slopes[:, j] * width[j]
        assert np.abs(scaled - difference).max() < 2e-6 * max(np.abs(scaled).max(), np.abs(value).max())


@pytest.mark.parametrize(("build", "what"), DISTRIBUTED)
def test_all_ranks_together_agree_with_one_alone_in_value_and_order(build, what):
    problem, alone = made(build, what, alone=True)
    together = made(build, what)[1]
    x, width = interior_point(problem, 6), np.ptp(problem.bounds, axis=1)
    assert np.allclose(together.points, alone.points, rtol=0, atol=1e-9 * np.ptp(alone.points))
    assert np.allclose(together.mass, alone.mass, rtol=1e-9)
    (value, slopes), (expected, expected_slopes) = (field.evaluate(x) for field in (together, alone))
    assert np.abs(value - expected).max() < 1e-8 * np.abs(expected).max()
    assert np.abs((slopes - expected_slopes) * width).max() < 1e-8 * np.abs(expected_slopes * width).max()
    assert np.array_equal(slopes, WORLD.bcast(slopes))


@pytest.mark.slow
@pytest.mark.parametrize(("build", "what"), CASES)
def test_directions_and_weights_give_products_with_the_jacobian(build, what):
    problem, field = made(build, what)
    x, rng = interior_point(problem, 7), np.random.default_rng(1)
    width = np.ptp(problem.bounds, axis=1)
    slopes = field.evaluate(x)[1] * width
    V, W = rng.standard_normal((len(x), 3)), rng.standard_normal((2, field.size))
    along = field.evaluate(x, directions=width[:, None] * V)[1]
    assert np.abs(along - slopes @ V).max() < 1e-8 * np.abs(along).max()
    assert np.abs(field.jvp(x, width * V.T) - along.T).max() < 1e-12 * np.abs(along).max()
    assert field.jvp(x, width).shape == (field.size,) and field.vjp(x, W[0]).shape == (len(x),)
    found = field.vjp(x, W) * width
    assert np.abs(found - W @ slopes).max() < 1e-8 * np.abs(found).max()


def test_a_linear_displacement_is_found_at_its_places():
    """Prescribed on the whole boundary, u = (2 x + y, x - 3 y) times the amplitude solves elasticity without loads."""
    mesh = dolfinx.mesh.create_rectangle(WORLD, [(0.0, 0.0), (2.0, 1.0)], [5, 4])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, amplitude = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    x = ufl.SpatialCoordinate(mesh)
    wanted = amplitude * ufl.as_vector((2 * x[0] + x[1], x[0] - 3 * x[1]))
    problem = fem.Problem(
        0.5 * ufl.inner(u - wanted, u - wanted) * ufl.dx(metadata={"quadrature_degree": 4}),
        u,
        bcs=[],
        parameters=[fem.Scalar("amplitude", amplitude, (0.5, 2.0))],
        responses=[fem.Response("mean", u[0] * ufl.dx)],
    )
    field = SolutionField(problem)
    value, slope = field.evaluate([1.5])
    X, Y = field.points.T
    exact = np.stack([2 * X + Y, X - 3 * Y], axis=1).ravel()
    assert np.allclose(value, 1.5 * exact, atol=1e-10) and np.allclose(slope[:, 0], exact, atol=1e-10)
    assert field.mass.sum() == pytest.approx(2 * 2.0) and field.mass.min() > 0
    gradient = CellField(problem, ufl.grad(u))
    assert np.allclose(gradient.evaluate([1.5])[0].reshape(-1, 4), 1.5 * np.array([2.0, 1.0, 1.0, -3.0]), atol=1e-9)
    assert gradient.mass.sum() == pytest.approx(4 * 2.0)
    outlines = gradient.outlines([1.5])
    assert outlines.shape == (40, 3, 2)
    assert np.allclose(outlines.mean(axis=1), gradient.points)


@pytest.mark.two_ranks
def test_weights_are_those_of_the_mesh_as_loaded_whatever_shape_it_has_now():
    problem, before = made(plate_with_hole, von_mises)
    problem.evaluate([70e3, 0.3, 100.0, 50.0, 30.0, 15.0], jacobian=False)
    after = von_mises(problem)
    assert np.array_equal(before.mass, after.mass) and np.array_equal(before.points, after.points)
    assert after.mass.sum() == pytest.approx(100.0**2 - np.pi * 20.0**2 / 4, rel=1e-3)
    a, b = np.diff(after.outlines([70e3, 0.3, 100.0, 50.0, 30.0, 15.0]), axis=1).transpose(1, 2, 0)
    area = 0.5 * np.abs(a[0] * b[1] - a[1] * b[0]).sum()
    assert area == pytest.approx(100.0**2 - np.pi * 30.0 * 15.0 / 4, rel=1e-3)


@pytest.mark.two_ranks
def test_a_field_is_a_model_that_knows_what_it_is():
    (plate, stress), (other, moved) = made(plate_with_hole, von_mises), made(plate_with_hole, displacement)
    assert plate.digest == other.digest
    for model in (stress, moved):
        assert isinstance(model, Model) and isinstance(model, Products)
        assert len(model.responses) == model.size
        assert describe(model).label("young") == "young [MPa]"
        assert np.array_equal(model.bounds, plate.bounds)
    assert (stress.responses[0], moved.responses[1]) == ("von_mises_1", "displacement_2")
    assert len({stress.digest, moved.digest, CellField(plate, plate.fields["von_mises"] ** 2).digest}) == 3
    assert stress.digest == made(plate_with_hole, von_mises, alone=True)[1].digest


@pytest.mark.two_ranks
def test_a_field_costs_no_solve_where_the_responses_were_evaluated():
    problem, stress = made(small_block, von_mises)
    x = interior_point(problem, 8)
    problem.evaluate(x)
    walks = problem._evaluation.walks
    stress.evaluate(x)
    displacement(problem).evaluate(x)
    assert problem._evaluation.walks == walks


@pytest.mark.two_ranks
def test_what_has_no_field_is_refused_on_every_rank():
    plate, field = made(plate_with_hole, displacement)
    with pytest.raises(ValueError, match="unknown field 'heat'; the problem has von_mises"):
        CellField(plate, "heat")
    x = interior_point(plate, 1)
    bad = np.zeros((6, 2)) if WORLD.rank else np.zeros((5, 2))
    with pytest.raises(ValueError, match=r"directions have shape \(5, 2\), expected \(6, k\)"):
        field.evaluate(x, directions=bad)
    with pytest.raises(ValueError, match=r"weights have shape \(2, 7\), expected \(k, "):
        field.vjp(x, np.zeros((2, 7)))
    with pytest.raises(ValueError, match="outside its bounds"):
        field.evaluate(10 * x)
    with pytest.raises(NotImplementedError, match="depend on the whole load path"):
        displacement(SimpleNamespace(history={"plastic_strain": "what it becomes"}))


def density(comm, basis, space):
    """A cantilever whose modulus has a value in each cell, or at each node."""
    cells = dolfinx.mesh.CellType.quadrilateral
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [3.0, 1.0]], [12, 5], cell_type=cells)
    V = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, rho = dolfinx.fem.Function(V), dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, space))
    rho.x.array[:] = 0.1
    strain = ufl.sym(ufl.grad(u))
    weight = u[1] * ufl.dx(mesh)
    clamped = dolfinx.fem.locate_dofs_geometrical(V, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        (1e-2 + rho**3) * ufl.inner(strain, strain) * ufl.dx - weight,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, V)],
        parameters=[fem.Field("rho", rho, basis, (0.1, 0.9))],
        responses=[fem.Response("sag", weight), fem.Response("mass", rho * ufl.dx(mesh))],
    )


@pytest.mark.parametrize(
    ("basis", "space"),
    [
        (fem.OwnValues(share=lambda x: np.array([x[0], abs(x[1] - 0.5), x[2]])), ("DG", 0)),
        (fem.DensityFilter(radius=0.6, where=lambda x: x[0] > 0.3), ("DG", 0)),
        (fem.HelmholtzFilter(radius=0.6), ("Lagrange", 1)),
    ],
)
def test_fields_of_own_values_are_the_same_on_any_number_of_ranks(basis, space):
    alone, together = density(MPI.COMM_SELF, basis, space), density(WORLD, basis, space)
    assert together.parameters == alone.parameters and together.digest == alone.digest
    x = np.random.default_rng(0).uniform(0.2, 0.8, len(alone.parameters))
    for found, expected in zip(together.evaluate(x), alone.evaluate(x), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-9)
    v, weights = np.cos(x * 7), np.array([1.0, -2.0])
    np.testing.assert_allclose(together.jvp(x, v), alone.jvp(x, v), rtol=1e-8)
    product = alone.hvp(x, weights, v)
    np.testing.assert_allclose(together.hvp(x, weights, v), product, atol=1e-8 * abs(product).max())


def test_samples_of_a_random_field_and_matrices_of_norms_are_the_same_on_any_number_of_ranks():
    found = []
    for comm in (WORLD, MPI.COMM_SELF):
        problem = hyperelastic_square(comm, cells=(6, 5))
        prior, field = log_modulus_field(problem), SolutionField(problem)
        m = prior.sample(2, seed=3)
        u, slope = field.evaluate(m[0], directions=m[1:].T)
        found.append((prior.points, m, *prior.modes(4), field.consistent_mass @ u, field.stiffness @ slope))
    for together, alone in zip(*found, strict=True):
        np.testing.assert_allclose(together, alone, rtol=1e-8, atol=1e-9 * np.abs(alone).max())
