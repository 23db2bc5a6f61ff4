"""The Karhunen-Loève basis against closed forms, and against the covariance that it expands."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
from scipy.optimize import brentq
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.fields.random_field import edge_modes, karhunen_loeve, leading_orders

SIZES = (3.0, 2.0)
LENGTHS = (1.4, 0.7)


def rectangle(cells=(12, 8), degree=2):
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(1.0, -1.0), (1.0 + SIZES[0], -1.0 + SIZES[1])], cells)
    return dolfinx.fem.functionspace(mesh, ("Lagrange", degree))


def exponential_frequency(order, width, length):
    """Frequency of the sine or cosine that is an eigenfunction of the exponential covariance on an interval."""
    half, low = 0.5 * width, order * np.pi / width
    if order % 2 == 0:
        return brentq(lambda w: np.cos(w * half) - length * w * np.sin(w * half), low, low + np.pi / width)
    return brentq(lambda w: length * w * np.cos(w * half) + np.sin(w * half), low, low + np.pi / width)


def test_eigenvalues_and_functions_of_the_exponential_covariance_match_their_closed_form():
    width, length = 2.5, 0.8
    modes = edge_modes(-1.0, -1.0 + width, 12, length=length)
    x = np.linspace(0.0, width, 7)
    for order in range(12):
        w = exponential_frequency(order, width, length)
        assert modes.eigenvalues[order] == pytest.approx(2 * length / (1 + (length * w) ** 2), rel=1e-10)
        wave = (np.cos, np.sin)[order % 2]
        sign = (-1) ** order
        expected = wave(w * (x - width / 2)) / np.sqrt(width / 2 + sign * np.sin(w * width) / (2 * w))
        assert modes.evaluate(order, x - 1.0) == pytest.approx(expected * np.sign(expected[-1]), abs=1e-8)


def test_eigenfunctions_of_the_squared_exponential_covariance_satisfy_their_integral_equation():
    modes = edge_modes(0.0, 4.0, 8, length=0.9, covariance="squared exponential")
    y, weights = np.polynomial.legendre.leggauss(80)
    y, weights = 2 + 2 * y, 2 * weights
    for order in range(8):
        smoothed = np.exp(-0.5 * ((y[:, None] - y) / 0.9) ** 2) @ (weights * modes.evaluate(order, y))
        assert smoothed == pytest.approx(modes.eigenvalues[order] * modes.evaluate(order, y), abs=1e-12)


@pytest.mark.parametrize("covariance", ["exponential", "squared exponential"])
def test_functions_are_orthogonal_with_their_eigenvalues_as_squared_norms(covariance):
    space = rectangle()
    basis = karhunen_loeve(space, 6, length=LENGTHS, std=0.4, covariance=covariance)
    edges = [edge_modes(0.0, s, 6, length=c, covariance=covariance) for s, c in zip(SIZES, LENGTHS, strict=True)]
    orders = leading_orders([edge.eigenvalues for edge in edges], 6)
    eigenvalues = [0.4**2 * edges[0].eigenvalues[i] * edges[1].eigenvalues[j] for i, j in orders]
    one, other = dolfinx.fem.Function(space), dolfinx.fem.Function(space)
    product = compile_form(one * other * ufl.dx(space.mesh, metadata={"quadrature_degree": 4}), MPI.COMM_SELF)
    gram = np.zeros((6, 6))
    for i, j in np.ndindex(6, 6):
        one.x.array[:], other.x.array[:] = basis[i].x.array, basis[j].x.array
        gram[i, j] = dolfinx.fem.assemble_scalar(product)
    assert gram == pytest.approx(np.diag(eigenvalues), abs=1e-3 * eigenvalues[0])
    assert eigenvalues == sorted(eigenvalues, reverse=True)


@pytest.mark.slow
def test_many_modes_recover_the_covariance_and_the_variance():
    space = rectangle(cells=(4, 3), degree=1)
    basis = karhunen_loeve(space, 80, length=LENGTHS, std=0.4, covariance="squared exponential")
    values = np.array([shape.x.array for shape in basis])
    x = space.tabulate_dof_coordinates()[:, :2]
    distance = (x[:, None, :] - x) / LENGTHS
    expected = 0.4**2 * np.exp(-0.5 * (distance**2).sum(axis=-1))
    assert values.T @ values == pytest.approx(expected, abs=1e-6)


def test_eigenvalues_sum_up_to_the_length_of_the_interval():
    assert edge_modes(0.0, 3.0, 40, length=1.0, covariance="squared exponential").eigenvalues.sum() == pytest.approx(
        3.0, rel=1e-12
    )
    missing = 3.0 - edge_modes(0.0, 3.0, 40, length=1.0).eigenvalues.sum()
    assert missing == pytest.approx(2 * 3.0**2 / (np.pi**2 * 40), rel=0.05)  # the tail of 2 / w², w = k π / 3


def test_equal_eigenvalues_come_in_a_fixed_order_and_signs_are_fixed():
    edge = edge_modes(0.0, 1.0, 6, length=0.5)
    assert leading_orders([edge.eigenvalues] * 2, 5) == [(0, 0), (0, 1), (1, 0), (0, 2), (2, 0)]
    assert (edge.coefficients.sum(axis=0) > 0).all()  # at the upper end every Legendre polynomial is one
    rounded = edge_modes(0.1, 1.1, 6, length=0.5)
    assert leading_orders([edge.eigenvalues, rounded.eigenvalues], 5) == leading_orders([edge.eigenvalues] * 2, 5)


def test_a_basis_on_cells_holds_the_values_at_midpoints():
    space = dolfinx.fem.functionspace(rectangle((3, 2)).mesh, ("DG", 0))
    first = karhunen_loeve(space, 1, length=0.5)[0]
    x = space.tabulate_dof_coordinates()
    edges = [edge_modes(a, a + s, 1, length=0.5) for a, s in zip((1.0, -1.0), SIZES, strict=True)]
    expected = np.prod([np.sqrt(e.eigenvalues[0]) * e.evaluate(0, x[:, i]) for i, e in enumerate(edges)], axis=0)
    assert first.x.array == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"length": -1.0}, "positive"),
        ({"length": 1.0, "modes": 0}, "positive"),
        ({"length": 1.0, "std": 0.0}, "positive"),
        ({"length": 1.0, "covariance": "matern"}, "squared exponential"),
    ],
)
def test_impossible_fields_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        karhunen_loeve(rectangle((2, 2)), **{"modes": 3, **arguments})


def test_vector_spaces_are_refused():
    mesh = rectangle((2, 2)).mesh
    with pytest.raises(ValueError, match="scalars"):
        karhunen_loeve(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))), 3, length=1.0)
