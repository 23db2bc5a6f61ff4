"""Samples of the hyperelastic square with a random modulus, along a few coordinates of it: solved once, then read.

The first 16 samples give both bases: modes of fields and of their derivatives along draws of the modulus, and the
active subspace of the modulus in its own covariance. All others need no more than derivatives along that. Test samples
have derivatives along 128 further draws, by which Jacobians are judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from scipy.sparse import csr_matrix

from sobofem.surrogate import Samples
from sobofem.surrogate.reduction import Subspace, active_subspace, linear_subspace
from sobofem.surrogate.reduction.modes import Product, leading_modes

if TYPE_CHECKING:
    from sobofem.fem import Problem
    from sobofem.fem.fields import BilaplacianField, SolutionField

FIRST = 16
"""Samples that bases are made from."""
MODES, COORDINATES, DRAWN = 128, 96, 128
"""Modes of the field; coordinates of the modulus; fresh draws that judge Jacobians."""
SNAPSHOTS, PUBLISHED = 64, (64, 16)
"""Fields of the published output basis; its modes, and the published number of coordinates."""
TRAIN_SEED, TEST_SEED, DRAW_SEED = 1, 2, 3


@dataclass(frozen=True, eq=False)
class SquareData:
    """What surrogates are trained on and judged by. M values of a field, r modes, k coordinates, T test samples.

    Attributes:
        x: Log-moduli of training samples (N, n).
        u: Displacements (N, M).
        slopes: Derivatives along the coordinates of both output bases' coefficients, these one after the other
            (N, r + r', k).
        unseen: Log-moduli of test samples (T, n).
        truth: Displacements (T, M).
        drawn: Fresh draws of the modulus (n, 128).
        along_drawn: Derivatives along them, projected on `span` (T, q, 128).
        sizes: Squared Frobenius norms of what was projected (T,).
        along_lift: Derivatives of both bases' coefficients along the lifts of the active subspace and of the
            Karhunen-Loève basis (T, r + r', k + k).
        span: Orthonormal columns (M, q), in the Euclidean product, of the modes of both output bases.
        mass: Consistent mass (M, M).
        stiffness: Stiffness (M, M).
        active: Lift (n, k) of the active subspace.
        encoder: Its rows (k, n).
        modes: Modes of fields and derivatives (M, r), orthonormal in the mass.
        published: Those of 64 fields, not centered.
        principal: Lift (n, k) of the Karhunen-Loève basis.
        principal_encoder: Its rows (k, n).
    """

    x: np.ndarray
    u: np.ndarray
    slopes: np.ndarray
    unseen: np.ndarray
    truth: np.ndarray
    drawn: np.ndarray
    along_drawn: np.ndarray
    sizes: np.ndarray
    along_lift: np.ndarray
    span: np.ndarray
    mass: csr_matrix
    stiffness: csr_matrix
    active: np.ndarray
    encoder: np.ndarray
    modes: np.ndarray
    published: np.ndarray
    principal: np.ndarray
    principal_encoder: np.ndarray

    @classmethod
    def load(cls, path: Path) -> Self:
        """From a file."""
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        size = arrays["u"].shape[1]
        for name in ("mass", "stiffness"):
            parts = [arrays.pop(f"{name}_{part}") for part in ("data", "indices", "indptr")]
            arrays[name] = csr_matrix(tuple(parts), shape=(size, size))
        return cls(**arrays)

    def save(self, path: Path) -> None:
        """To a file, under another name until it is whole."""
        arrays = dict(vars(self))
        for name in ("mass", "stiffness"):
            matrix = arrays.pop(name)
            arrays |= {f"{name}_{part}": getattr(matrix, part) for part in ("data", "indices", "indptr")}
        partial = path.with_suffix(".part.npz")
        np.savez(partial, **arrays)
        partial.rename(path)


def solved(folder: Path, *, cells: int, train: int, test: int) -> SquareData:
    """The data of a mesh, read where they are there, else solved and kept.

    Args:
        folder: Where files are kept.
        cells: Along each side of the square.
        train: Number of training samples.
        test: Number of test samples.
    """
    path = folder / f"square-{cells}-{train}-{test}.npz"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        generate(cells=cells, train=train, test=test).save(path)
    return SquareData.load(path)


def generate(*, cells: int, train: int, test: int) -> SquareData:
    """Solve all samples."""
    from mpi4py import MPI

    from sobofem.fem.fields import SolutionField
    from sobofem.fem.library.hyperelastic_square import hyperelastic_square, log_modulus_field

    problem = hyperelastic_square(MPI.COMM_SELF, cells=(cells, cells))
    field, prior = SolutionField(problem), log_modulus_field(problem)
    mass = field.consistent_mass
    x, unseen = prior.sample(train, seed=TRAIN_SEED), prior.sample(test, seed=TEST_SEED)
    drawn = prior.sample(DRAWN, seed=DRAW_SEED).T
    principal = karhunen_loeve(problem, prior)
    modes, active = bases(field, prior, principal, x[:FIRST])
    fields = np.stack([field.evaluate(m, jacobian=False)[0] for m in x[:SNAPSHOTS]])
    published = leading_modes(
        lambda: [fields.T], Product.of(mass, field.size), rank=PUBLISHED[0], tolerance=0.5
    ).vectors
    both = np.hstack((modes, published))
    span, duals = np.linalg.qr(both)[0], mass @ both
    u, slopes = map(np.stack, zip(*(_along(field, m, active.lift, duals) for m in x), strict=True))
    lifts = np.hstack((active.lift, principal.lift))
    truth, along_lift = map(np.stack, zip(*(_along(field, m, lifts, duals) for m in unseen), strict=True))
    whole = (field.evaluate(m, directions=drawn)[1] for m in unseen)
    along_drawn, sizes = map(np.stack, zip(*((span.T @ D, (D**2).sum()) for D in whole), strict=True))
    return SquareData(
        x=x,
        u=u,
        slopes=slopes,
        unseen=unseen,
        truth=truth,
        drawn=drawn,
        along_drawn=along_drawn,
        sizes=sizes,
        along_lift=along_lift,
        span=span,
        mass=mass,
        stiffness=field.stiffness,
        active=active.lift,
        encoder=active.project,
        modes=modes,
        published=published,
        principal=principal.lift,
        principal_encoder=principal.project,
    )


def karhunen_loeve(problem: Problem, prior: BilaplacianField) -> Subspace:
    """The coordinates of the random field's own modes, of variance one."""
    modes, variances = prior.modes(COORDINATES)
    roots = np.sqrt(variances)
    rows = (prior.mass @ modes / roots).T
    return linear_subspace(modes * roots, problem.parameters, problem.bounds, project=rows)


def bases(
    field: SolutionField, prior: BilaplacianField, principal: Subspace, x: np.ndarray
) -> tuple[np.ndarray, Subspace]:
    """Modes (M, r) of the field and its derivatives, and the active subspace, of samples x (N, n)."""
    product = Product.of(field.consistent_mass, field.size)
    pairs = [field.evaluate(m, directions=principal.lift) for m in x]
    snapshots = [np.column_stack(pair) for pair in pairs]
    modes = leading_modes(lambda: snapshots, product, rank=MODES, tolerance=0.5).vectors
    dual = product(modes)
    gradients = np.stack([field.vjp(m, dual.T) for m in x])
    names = tuple(f"mode_{k}" for k in range(1, MODES + 1))
    values = np.stack([u for u, _ in pairs]) @ dual
    samples = Samples(x, values, gradients, field.parameters, names, field.bounds)
    ones = np.ones(MODES)
    return modes, active_subspace(samples, dimension=COORDINATES, importance=ones, covariance=prior.covariance)


def _along(field: SolutionField, m: np.ndarray, directions: np.ndarray, duals: np.ndarray) -> tuple[np.ndarray, ...]:
    """The field (M,) and its coefficients' derivatives along directions (q, k)."""
    u, slopes = field.evaluate(m, directions=directions)
    return u, duals.T @ slopes
