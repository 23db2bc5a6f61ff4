"""Gaussian random fields: the Karhunen-Loève basis of a stationary covariance that is a product over the axes.

On a box such a covariance has eigenfunctions that are products of eigenfunctions on the box's edges. Those solve

    ∫ k(|x - y|) φ(y) dy = λ φ(x),    k(t) = exp(-t/length)  or  exp(-t²/(2 length²)),

by Galerkin's method in Legendre polynomials, accurate to round-off though the exponential has a kink. They depend on
the box alone, not on the mesh or its distribution.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mpi4py import MPI
import dolfinx
import numpy as np
from numpy.polynomial import legendre

COVARIANCES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exponential": lambda t: np.exp(-t),
    "squared exponential": lambda t: np.exp(-0.5 * t**2),
}
"""Correlation [-] at a distance in correlation lengths."""

DEGREE = 30  # of the polynomials, for the first eigenfunction; two more for each further one
TIE = 9  # decimals to which eigenvalues, relative to the largest, count as equal


def karhunen_loeve(
    space: dolfinx.fem.FunctionSpace,
    modes: int,
    *,
    length: float | Sequence[float],
    std: float = 1.0,
    covariance: str = "exponential",
) -> list[dolfinx.fem.Function]:
    """The first functions f_k of a Gaussian field Σ ξ_k f_k with independent standard normal ξ_k. Collective.

    The covariance std² Π k(|x_i - y_i|/length_i) is expanded on the box around the mesh. With equal lengths it is
    isotropic only if it is squared exponential. f_k holds the root of its eigenvalue; eigenvalues fall. On any number
    of ranks the functions are the same: each edge's eigenfunctions are positive at the edge's upper end, and of equal
    eigenvalues those of lower order along the first axis come first.

    Args:
        space: A space of scalar functions.
        modes: How many functions.
        length: Correlation length in the mesh's unit, one or one per axis.
        std: Standard deviation of the field at every point (of all its modes together).
        covariance: "exponential" for rough fields, "squared exponential" for smooth ones.

    Raises:
        ValueError: If the space is not one of scalars, or a number is not positive.
    """
    mesh = space.mesh
    lengths = np.broadcast_to(np.asarray(length, dtype=np.float64), (mesh.geometry.dim,))
    if space.value_shape != ():
        raise ValueError(f"the space has values of shape {space.value_shape}, expected scalars")
    if modes < 1 or not std > 0 or not (lengths > 0).all():
        raise ValueError(f"modes is {modes}, std {std:g}, length {lengths.tolist()}; expected positive numbers")
    low, high = bounding_box(mesh)
    edges = [
        edge_modes(a, b, modes, length=scale, covariance=covariance)
        for a, b, scale in zip(low, high, lengths, strict=True)
    ]
    functions = []
    for orders in leading_orders([edge.eigenvalues for edge in edges], modes):
        function = dolfinx.fem.Function(space)
        function.interpolate(lambda x, orders=orders: std * _product(edges, orders, x))
        function.x.scatter_forward()
        functions.append(function)
    return functions


@dataclass(frozen=True, eq=False)
class EdgeModes:
    """Eigenpairs of a covariance on an interval.

    Attributes:
        low: Where the interval begins.
        high: Where it ends.
        eigenvalues: Falling, (k,), in the unit of length.
        coefficients: Of the Legendre polynomials on [-1, 1] that make the eigenfunctions, (degree + 1, k).
    """

    low: float
    high: float
    eigenvalues: np.ndarray
    coefficients: np.ndarray

    def evaluate(self, order: int, x: np.ndarray) -> np.ndarray:
        """Eigenfunction of an order from 0 on, at points (p,); its square integrates to one over the interval."""
        middle, half = 0.5 * (self.low + self.high), 0.5 * (self.high - self.low)
        return legendre.legval((x - middle) / half, self.coefficients[:, order])


def edge_modes(low: float, high: float, modes: int, *, length: float, covariance: str = "exponential") -> EdgeModes:
    """Eigenpairs of a covariance of variance one on the interval (low, high).

    Raises:
        ValueError: If the covariance is unknown.
    """
    if covariance not in COVARIANCES:
        raise ValueError(f"covariance is {covariance!r}, expected one of {sorted(COVARIANCES)}")
    half = 0.5 * (high - low)
    degree = DEGREE + 2 * modes
    scale = np.sqrt((np.arange(degree + 1) + 0.5) / half)  # of polynomials to norm one on the interval
    matrix = half**2 * scale[:, None] * scale * _galerkin(COVARIANCES[covariance], half / length, degree)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    coefficients = scale[:, None] * vectors[:, ::-1][:, :modes]
    coefficients *= np.sign(legendre.legval(1.0, coefficients))
    return EdgeModes(low, high, np.maximum(eigenvalues[::-1][:modes], 0.0), coefficients)


def _galerkin(correlation: Callable[[np.ndarray], np.ndarray], ratio: float, degree: int) -> np.ndarray:
    """Integrals of P_m(x) k(ratio |x - y|) P_n(y) over [-1, 1]², by distance t = x - y: no integrand has a kink."""
    distances, weights = legendre.leggauss(2 * degree + int(np.ceil(8 * ratio)))
    points, inner = legendre.leggauss(degree + 1)
    matrix = np.zeros((degree + 1, degree + 1))
    for t, weight in zip(1.0 + distances, weights, strict=True):
        half = 1.0 - 0.5 * t  # x runs over [t - 1, 1]
        x = 0.5 * t + half * points
        ahead, behind = legendre.legvander(x, degree), legendre.legvander(x - t, degree)
        matrix += weight * correlation(ratio * t) * half * (ahead.T * inner) @ behind
    return matrix + matrix.T


def leading_orders(eigenvalues: Sequence[np.ndarray], modes: int) -> list[tuple[int, ...]]:
    """Orders along the axes, from 0 on, of the products with the largest eigenvalues, largest first."""
    orders = list(_candidates(len(eigenvalues), modes))
    products = [np.prod([values[i] for values, i in zip(eigenvalues, order, strict=True)]) for order in orders]
    ranked = sorted(zip(-np.round(np.array(products) / max(products), TIE), orders, strict=True))
    return [order for _, order in ranked[:modes]]


def _candidates(axes: int, modes: int) -> Iterator[tuple[int, ...]]:
    """Orders that fewer than `modes` others certainly precede: those that are lower along every axis."""
    if axes == 0:
        yield ()
        return
    for first in range(modes):
        for rest in _candidates(axes - 1, modes // (first + 1)):
            yield (first, *rest)


def _product(edges: Sequence[EdgeModes], orders: Sequence[int], x: np.ndarray) -> np.ndarray:
    """Product of eigenfunctions and roots of eigenvalues over the axes at points (3, p)."""
    value = np.ones(x.shape[1])
    for axis, (edge, order) in enumerate(zip(edges, orders, strict=True)):
        value *= np.sqrt(edge.eigenvalues[order]) * edge.evaluate(order, x[axis])
    return value


def bounding_box(mesh: dolfinx.mesh.Mesh) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest coordinates of a mesh, (gdim,) each. Collective."""
    x = mesh.geometry.x[:, : mesh.geometry.dim]
    low, high = np.empty(x.shape[1]), np.empty(x.shape[1])
    mesh.comm.Allreduce(x.min(axis=0, initial=np.inf), low, op=MPI.MIN)
    mesh.comm.Allreduce(x.max(axis=0, initial=-np.inf), high, op=MPI.MAX)
    return low, high
