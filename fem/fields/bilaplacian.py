"""Gaussian random fields whose precision is that of a differential operator squared: any mesh, any number of nodes.

With mass M, stiffness K and mass of the boundary B of a space of scalars,

    A = γ K + δ M + √(γδ)/1.42 B,    covariance C = A⁻¹ M A⁻¹,    precision R = A M⁻¹ A,

that of the solution of (δ - γ∇²) m = white noise, a Matérn field of smoothness 2 - d/2 in d dimensions (Lindgren, Rue
and Lindström 2011). The boundary's term keeps the standard deviation there about what it is inside (Villa, Petra and
Ghattas 2021, whose 1.42 it is; Daon and Stadler 2018). It is the prior of derivative-informed neural operators.
"""

from __future__ import annotations

from math import gamma, pi, sqrt

import dolfinx
import numpy as np
from scipy.sparse import csc_matrix, csr_matrix
from scipy.sparse.linalg import LinearOperator, SuperLU, eigsh, splu
import ufl

from sobofem.fem.fields.base import Gathering

ROBIN = 1.42
"""Divisor of √(γδ) in the boundary's term."""


class BilaplacianField:
    """A Gaussian random field with mean zero at the nodes of a space. Making one is collective, using it is not.

    Nodes are in the order of `OwnValues`: a sample is what a `Field` of own values takes for its parameters. Matrices
    are sparse, the same on every rank, and factorized once.

    Args:
        space: Scalars, continuous.
        std: Standard deviation far from the boundary.
        length: Distance in the mesh's unit at which the correlation has fallen to 0.14: √(8ν γ/δ) with ν = 2 - d/2.

    Attributes:
        points: Places of the nodes (n, gdim).
        diffusion: γ.
        reaction: δ.
        mass: Consistent mass matrix M (n, n).
        operator: A (n, n).

    Raises:
        ValueError: If the space is not one of continuous scalars, or a number is not positive.
    """

    points: np.ndarray

    def __init__(self, space: dolfinx.fem.FunctionSpace, *, std: float, length: float) -> None:
        if space.value_shape != () or space.ufl_element() not in ufl.H1:
            raise ValueError(f"a bilaplacian field needs continuous scalars, such as ('Lagrange', 1); got {space}")
        if not (std > 0 and length > 0):
            raise ValueError(f"std is {std:g}, length {length:g}; expected positive numbers")
        mesh = space.mesh
        self.diffusion, self.reaction = coefficients(std, length, mesh.topology.dim)
        owned = space.dofmap.index_map.size_local
        gathering = Gathering(mesh.comm, space.tabulate_dof_coordinates()[:owned, : mesh.geometry.dim], 1)
        self.points = gathering.points
        u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
        robin = sqrt(self.diffusion * self.reaction) / ROBIN
        bilaplacian = self.diffusion * ufl.inner(ufl.grad(u), ufl.grad(v)) * ufl.dx
        self.mass: csr_matrix = gathering.matrix(u * v * ufl.dx)
        self.operator: csr_matrix = gathering.matrix(
            bilaplacian + self.reaction * u * v * ufl.dx + robin * u * v * ufl.ds
        )
        self._operator, self._mass = factorized(self.operator), factorized(self.mass)
        self._root = cholesky(self._mass)

    def sample(self, count: int, *, seed: int) -> np.ndarray:
        """Fields (count, n), the first of which are the same for a larger count. They hold A⁻¹ L ξ with L Lᵀ = M."""
        noise = np.random.default_rng(seed).standard_normal((count, len(self.points)))
        return self._operator.solve(self._root @ noise.T).T

    def covariance(self, columns: np.ndarray) -> np.ndarray:
        """C times columns (n, k)."""
        return self._operator.solve(self.mass @ self._operator.solve(columns))

    def precision(self, columns: np.ndarray) -> np.ndarray:
        """R times columns (n, k)."""
        return self.operator @ self._mass.solve(self.operator @ columns)

    def modes(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Karhunen-Loève modes ψ (n, count) and their variances (count,), falling: C M ψ = λ ψ, ψᵀ M ψ = 1.

        They are those of A ψ = λ^(-1/2) M ψ.

        Raises:
            ValueError: If there are not so many.
        """
        n = len(self.points)
        if not 0 < count < n:
            raise ValueError(f"{count} modes of a field of {n} nodes; expected at least 1 and less than {n}")
        start = np.random.default_rng(0).standard_normal(n)  # no symmetry, which the modes of a box have
        inverse = LinearOperator((n, n), matvec=self._operator.solve)
        roots, vectors = eigsh(self.operator, count, M=self.mass, sigma=0.0, OPinv=inverse, v0=start)
        order = np.argsort(roots)
        vectors = vectors[:, order]
        return vectors * np.sign(start @ vectors), roots[order] ** -2.0


def coefficients(std: float, length: float, dim: int) -> tuple[float, float]:
    """Diffusion γ and reaction δ of the field in the whole space that has this standard deviation and length."""
    smoothness = 2.0 - dim / 2
    kappa = sqrt(8.0 * smoothness) / length
    diffusion = sqrt(gamma(smoothness) / (4.0 * pi) ** (dim / 2)) / (std * kappa**smoothness)
    return diffusion, diffusion * kappa**2


def factorized(matrix: csr_matrix) -> SuperLU:
    """The factors of a symmetric positive definite matrix, without pivoting."""
    options = {"SymmetricMode": True}
    return splu(csc_matrix(matrix), permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0.0, options=options)


def cholesky(factors: SuperLU) -> csr_matrix:
    """L with L Lᵀ the matrix, rows in its order.

    Raises:
        ArithmeticError: If the matrix was not symmetric and positive definite.
    """
    pivots = factors.U.diagonal()
    if not ((pivots > 0.0).all() and np.array_equal(factors.perm_r, factors.perm_c)):
        raise ArithmeticError("the mass matrix is not positive definite: the mesh has cells that are turned inside out")
    return csr_matrix(factors.L.multiply(np.sqrt(pivots)))[factors.perm_r]
