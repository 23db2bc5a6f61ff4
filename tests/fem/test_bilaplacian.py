"""The bilaplacian random field: its matrices, samples and modes against closed forms and each other."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest

from sobofem.fem.fields import BilaplacianField
from sobofem.fem.fields.bilaplacian import coefficients
from sobofem.fem.library.hyperelastic_square import DIFFUSION, REACTION, hyperelastic_square, log_modulus_field


def rectangle(cells=(14, 9), degree=1):
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(1.0, -1.0), (4.0, 1.0)], cells)
    return dolfinx.fem.functionspace(mesh, ("Lagrange", degree))


@pytest.fixture(scope="module")
def field():
    return BilaplacianField(rectangle(degree=2), std=0.7, length=1.2)


def test_precision_undoes_the_covariance_and_both_are_what_the_matrices_say(field):
    columns = np.random.default_rng(0).standard_normal((len(field.points), 3))
    np.testing.assert_allclose(field.precision(field.covariance(columns)), columns, atol=1e-9)
    A, M = field.operator.toarray(), field.mass.toarray()
    np.testing.assert_allclose(field.precision(columns), A @ np.linalg.solve(M, A @ columns), rtol=1e-8, atol=1e-8)
    assert M.sum() == pytest.approx(3.0 * 2.0)
    robin = A.sum() - field.reaction * 6.0  # the stiffness of a constant is none
    assert robin == pytest.approx(10.0 * np.sqrt(field.diffusion * field.reaction) / 1.42)


def test_samples_have_the_covariance_of_the_field_whatever_their_number(field):
    noise = np.eye(len(field.points))
    root = field._operator.solve(field._root @ noise)
    np.testing.assert_allclose(root @ root.T, field.covariance(noise), atol=1e-12)
    few, many = (field.sample(count, seed=3) for count in (2, 5))
    np.testing.assert_allclose(few, many[:2], rtol=0, atol=1e-12)
    assert not np.allclose(few, field.sample(2, seed=4))


def test_modes_are_the_eigenvectors_of_the_covariance(field):
    modes, variances = field.modes(7)
    np.testing.assert_allclose(modes.T @ (field.mass @ modes), np.eye(7), atol=1e-10)
    np.testing.assert_allclose(field.covariance(field.mass @ modes), modes * variances, atol=1e-10)
    M = field.mass.toarray()
    dense = np.sort(np.linalg.eigvals(field.covariance(M)).real)[::-1]
    np.testing.assert_allclose(variances, dense[:7], rtol=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("dim", [1, 2, 3])
def test_far_from_the_boundary_the_standard_deviation_is_what_was_asked_for(dim):
    comm, std, length = MPI.COMM_SELF, 1.5, 2.0
    mesh = {
        1: lambda: dolfinx.mesh.create_interval(comm, 200, [0.0, 10.0]),
        2: lambda: dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (8.0, 8.0)], (48, 48)),
        3: lambda: dolfinx.mesh.create_box(comm, [(0.0, 0.0, 0.0), (4.0, 4.0, 4.0)], (14, 14, 14)),
    }[dim]()
    field = BilaplacianField(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)), std=std, length=length)
    middle = np.argmin(np.linalg.norm(field.points - field.points.mean(axis=0), axis=1))
    impulse = np.eye(1, len(field.points), middle).T
    covariance = field.covariance(impulse)[:, 0]
    assert np.sqrt(covariance[middle]) == pytest.approx(std, rel=0.12 if dim == 3 else 0.02)
    if dim < 3:  # where the mesh is fine enough
        distances = np.linalg.norm(field.points - field.points[middle], axis=1)
        at_length = covariance[np.argmin(np.abs(distances - length))] / covariance[middle]
        assert at_length == pytest.approx(0.14, abs=0.03)


def test_the_field_of_the_square_is_the_published_one():
    problem = hyperelastic_square(MPI.COMM_SELF, cells=(16, 16))
    field = log_modulus_field(problem)
    assert (field.diffusion, field.reaction) == pytest.approx((DIFFUSION, REACTION))
    assert coefficients(2.0, 0.5, 2)[0] * coefficients(2.0, 0.5, 2)[1] == pytest.approx(1 / (16 * np.pi))
    n = len(field.points)
    covariance = field.covariance(np.eye(n))
    assert np.sqrt(covariance[n // 2, n // 2]) == pytest.approx(2.28, abs=0.05)
    share = field.modes(16)[1].sum() / field.mass.multiply(covariance).sum()
    assert share == pytest.approx(0.941, abs=0.03)  # of 64 x 64 cells, where more of it is short


def test_a_field_of_vectors_and_a_length_of_zero_are_refused():
    vectors = dolfinx.fem.functionspace(rectangle().mesh, ("Lagrange", 1, (2,)))
    with pytest.raises(ValueError, match="needs continuous scalars"):
        BilaplacianField(vectors, std=1.0, length=1.0)
    with pytest.raises(ValueError, match="length 0; expected positive"):
        BilaplacianField(rectangle(), std=1.0, length=0.0)
    with pytest.raises(ValueError, match="150 modes of a field of 150 nodes"):
        BilaplacianField(rectangle(), std=1.0, length=1.0).modes(150)
