"""A stress field by a reduced basis: what derivatives in basis and training, and weights by importance are worth."""

from __future__ import annotations

from mpi4py import MPI
import numpy as np
from rich.table import Table
import torch

from sobofem.fem.fields import CellField
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.surrogate import LBFGS, Adam, Fixed, PerChannel, ValuesOnly, train
from sobofem.surrogate.reduction import FieldSamples, FieldSurrogate, by_variance, reduced_basis

SAMPLES, UNSEEN, SEEDS, TOLERANCE = 32, 100, (0, 1), 0.01


def table() -> Table:
    """Errors on unseen plates, as shares of the field's deviation and of its derivatives'; median over seeds."""
    torch.set_num_threads(1)
    problem = plate_with_hole(MPI.COMM_SELF)
    stress = CellField(problem, "von_mises")
    data, unseen = _samples(problem, stress, SAMPLES, 1), _samples(problem, stress, UNSEEN, 2)
    basis = reduced_basis(data, tolerance=TOLERANCE, mass=stress.mass)
    plain = reduced_basis(data, rank=min(basis.rank, SAMPLES - 1), mass=stress.mass, derivatives=0.0)
    reduced = basis.reduce(data)
    title = f"von Mises stress in {stress.size} cells, {SAMPLES} solves, {basis.rank} modes"
    shown = Table("what", "values", "derivatives", title=title)
    for name, found in (("left out by the modes", basis), ("... by those of fields alone", plain)):
        shown.add_row(name, *(f"{share:.4f}" for share in found.truncation(unseen)))
    arms = {
        "by variance, fixed": by_variance(reduced, Fixed()),
        "by variance, per channel": by_variance(reduced, PerChannel()),
        "per channel": PerChannel(),
        "fixed": Fixed(),
        "by variance, values only": by_variance(reduced, ValuesOnly()),
    }
    for name, weighting in arms.items():
        found = []
        for seed in SEEDS:
            network = train(reduced, weighting=weighting, optimizers=(Adam(), LBFGS(1000)), seed=seed)
            found.append(_errors(FieldSurrogate(basis, network), unseen, stress.mass))
        shown.add_row(name, *(f"{share:.4f}" for share in np.median(found, axis=0)))
    return shown


def _samples(problem, stress: CellField, count: int, seed: int) -> FieldSamples:
    low, high = problem.bounds.T
    x = np.random.default_rng(seed).uniform(low, high, size=(count, len(low)))
    fields, slopes = map(np.array, zip(*map(stress.evaluate, x), strict=True))
    return FieldSamples(x, fields, slopes, problem.parameters, problem.bounds, "von_mises")


def _errors(model: FieldSurrogate, unseen: FieldSamples, mass: np.ndarray) -> tuple[float, float]:
    field, slopes = model.predict(unseen.x, jacobian=True)
    weight, by_input = np.sqrt(mass), unseen.scale * np.sqrt(mass)[:, None]
    deviation, truth = unseen.fields - unseen.fields.mean(axis=0), np.array(unseen.jacobian)
    value = np.linalg.norm((field - unseen.fields) * weight) / np.linalg.norm(deviation * weight)
    return float(value), float(np.linalg.norm((slopes - truth) * by_input) / np.linalg.norm(truth * by_input))
