"""The displacement of a block whose random modulus has 60 coefficients: how few coordinates do, and what they leave."""

from __future__ import annotations

import time

from mpi4py import MPI
import numpy as np
from rich.table import Table
import torch

from sobofem.fem.fields import SolutionField
from sobofem.fem.library.random_block import BOUND, random_block
from sobofem.surrogate import LBFGS, Adam, Samples, ValuesOnly, train
from sobofem.surrogate.reduction import (
    FieldSamples,
    FieldSurrogate,
    ProjectedSurrogate,
    ReducedBasis,
    Subspace,
    active_subspace,
    by_variance,
    reduced_basis,
)

INPUTS, SAMPLES, UNSEEN, MODES = 60, 48, 40, 0.02
OPTIMIZERS = (Adam(), LBFGS(200))


def table() -> Table:
    """Errors on unseen blocks as shares of the field's deviation, and what the subspace foretells of them."""
    torch.set_num_threads(1)
    field = SolutionField(random_block(MPI.COMM_SELF, cells=(8, 8), modes=INPUTS))
    data, unseen = _samples(field, SAMPLES, 1), _samples(field, UNSEEN, 2)
    basis = reduced_basis(data, tolerance=MODES, mass=field.mass)
    coefficients, others = basis.reduce(data), basis.reduce(unseen)
    title = f"{field.size} values, {basis.rank} modes, {SAMPLES} solves with derivatives by {INPUTS} coefficients"
    shown = Table("coordinates", "left out, foretold", "Sobolev", "values only", "training [s]", title=title)
    for tolerance in (0.3, 0.15, 0.08, 0.04):
        ones, scale = np.ones(basis.rank), data.x.std(axis=0)
        subspace = active_subspace(coefficients, tolerance=tolerance, importance=ones, scale=scale)
        left = np.linalg.norm(subspace.unresolved(others) * others.y.std(axis=0)) / np.linalg.norm(others.y.std(axis=0))
        reduced = subspace.reduce(coefficients)
        errors, seconds = _trained(basis, subspace, reduced, unseen, field.mass)
        shown.add_row(str(subspace.dimension), f"{left:.3f}", *errors, seconds)
    errors, seconds = _trained(basis, None, coefficients, unseen, field.mass)
    shown.add_row(f"all {INPUTS}", "0", *errors, seconds)
    return shown


def _samples(field: SolutionField, count: int, seed: int) -> FieldSamples:
    """Fields for independent normal coefficients, cut off at the bounds."""
    x = np.random.default_rng(seed).standard_normal((count, INPUTS)).clip(-BOUND, BOUND)
    fields, slopes = zip(*map(field.evaluate, x), strict=True)
    return FieldSamples(x, np.array(fields), slopes, field.parameters, field.bounds, field.name)


def _trained(
    basis: ReducedBasis, subspace: Subspace | None, reduced: Samples, unseen: FieldSamples, mass: np.ndarray
) -> tuple[list[str], str]:
    """Errors with derivatives and without, and the seconds that training with derivatives took."""
    errors, seconds, weight = [], [], np.sqrt(mass)
    for weighting in (by_variance(reduced), by_variance(reduced, ValuesOnly())):
        start = time.perf_counter()
        network = train(reduced, weighting=weighting, optimizers=OPTIMIZERS)
        seconds.append(time.perf_counter() - start)
        model = FieldSurrogate(basis, ProjectedSurrogate(subspace, network) if subspace else network)
        error = np.linalg.norm((model.predict(unseen.x)[0] - unseen.fields) * weight)
        errors.append(f"{error / np.linalg.norm((unseen.fields - basis.mean) * weight):.3f}")
    return errors, f"{seconds[0]:.1f}"
