"""From samples of a field, or of the coefficients of its modes, to a surrogate: bases and their sizes chosen.

What decides is the error of samples not seen, relative to each sample's own size, in values and derivatives. Whether
more coordinates of the inputs would help is known beforehand: derivatives along all other directions tell what these
are worth (`Subspace.unresolved`). So coordinates are doubled only while what they don't see counts beside that error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sobofem.surrogate.device import undisturbed
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.reduction import (
    FieldSamples,
    FieldSurrogate,
    ProjectedSurrogate,
    RelativeSurrogate,
    Subspace,
    active_subspace,
    by_variance,
    reduced_basis,
    relative,
)
from sobofem.surrogate.reduction.cases import CasesSurrogate, cases_of
from sobofem.surrogate.reduction.field_surrogate import Predicting
from sobofem.surrogate.reduction.modes import Mass
from sobofem.surrogate.reduction.process import MAX_ROWS, fit_process, rows_of
from sobofem.surrogate.samples import MIN_SAMPLES, Data, Samples
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.checks import check_seed
from sobofem.surrogate.training.optimizers import LBFGS, Adam, Optimizer
from sobofem.surrogate.training.train import train

PARTS, MOST_HELD_OUT, FEW = 4, 64, 48
"""Into how many parts samples fall, one of which is held out, or each in turn where there are few in all; and how many
samples are held out at most."""
FEW_INPUTS, FIRST, MOST = 8, 16, 128
"""Inputs up to which all are seen; coordinates to begin with; and the most of them."""
COUNTS = 0.5
"""Share of the error from which on what the coordinates don't see is worth more of them."""
LEFT_OUT = 0.01
"""Share of the slopes that no number of coordinates sees."""
NEARLY_ZERO, SMALL = 1e-6, 0.1
"""Size of a sample, over the largest, that has no logarithm; and over the mean, below which errors are no longer
measured by it."""
TOLERANCE, FINE, MOST_MODES = 3e-3, 1e-4, 128
"""What the modes of a field may leave out, and where samples fall into cases, which are learned that well; and how many
there are at most."""
QUICK: tuple[Optimizer, ...] = (Adam(), LBFGS(120))
"""Of candidates."""
LONG: tuple[Optimizer, ...] = (Adam(), LBFGS(400))
"""Of the one that was chosen."""


@undisturbed()
def fit_field(
    data: FieldSamples,
    *,
    mass: Mass = None,
    covariance: Mass = None,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> FieldSurrogate:
    """Learn a field and its derivatives: modes, coordinates of the inputs, what learns, all chosen by the samples.

    Modes of fields and derivatives leave out 0.3 % at most, or are 128; 0.01 % where samples fall into cases, such as
    loads here or there. What their coefficients are learned by, `fit_coefficients` says.

    Args:
        data: Samples of the field.
        mass: The inner product of fields, as `reduced_basis` takes it.
        covariance: That of the inputs, as `active_subspace` takes it.
        seed: Of the samples held out, and of the networks.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate, whose `provenance["choice"]` tells what was tried, with which errors, and why it ended there.

    Raises:
        KeyboardInterrupt: After Ctrl-C.
        ValueError: If the data can't be learned from.
    """
    basis = reduced_basis(
        data,
        tolerance=FINE if data.jacobian is not None and cases_of(data.x) else TOLERANCE,
        most=MOST_MODES,
        mass=mass,
        centered=False,
        correlated=covariance is not None,
        seed=seed,
    )
    coefficients = basis.reduce(data)
    return FieldSurrogate(basis, fit_coefficients(coefficients, covariance=covariance, seed=seed, progress=progress))


@undisturbed()
def fit_coefficients(
    data: Data, *, covariance: Mass = None, seed: int = 0, progress: ProgressCallback | None = None
) -> Predicting:
    """Learn coefficients of a field's modes: by size and direction or as they are, in as many coordinates as it takes.

    By a process of values and slopes (`fit_process`) where these are no more than it can take, else by a network. Where
    samples fall into cases, each with other inputs that are not zero, by a process of each (`CasesSurrogate`).

    Args:
        data: What an uncentered `ReducedBasis` made of fields; squares of coefficients add up to the field's.
        covariance: That of the inputs, as `active_subspace` takes it.
        seed: Of the samples held out, and of the networks.
        progress: Called every few steps with a `Progress`.

    Returns:
        The surrogate, whose `provenance["choice"]` tells what was tried, with which errors, and why it ended there.

    Raises:
        ValueError: If the data can't be learned from.
    """
    samples = Samples.of(data)
    check_seed(seed)
    if cases := _cases(samples):
        return _of_cases(samples, cases)
    search = _Search(_split(samples, seed), covariance, seed, progress)
    best, why = search.best()
    record = {"choice": {"tried": [str(trial) for trial in search.trials], "taken": str(best), "because": why}}
    whole = replace(samples, provenance={**samples.provenance, **record})
    subspace = _first(_coordinates(samples, covariance), best.coordinates) if best.coordinates else None
    return _trained(whole, subspace, sized=best.sized, optimizers=LONG, seed=seed, progress=progress)


def _cases(samples: Samples) -> list[np.ndarray]:
    """Rows of the cases that samples fall into, where a process can learn each."""
    return [] if samples.jacobian is None or samples.missing else cases_of(samples.x)


def _of_cases(samples: Samples, cases: Sequence[np.ndarray]) -> CasesSurrogate:
    """A process of each case, of as many of its samples as it can take."""
    active = np.stack([(samples.x[rows] != 0.0).any(axis=0) for rows in cases])
    most = MAX_ROWS // (1 + active.sum(axis=1))
    learned = tuple(fit_process(_rows(samples, rows[:count])) for rows, count in zip(cases, most, strict=True))
    why = f"samples fall into {len(cases)} cases, in each of which other inputs are not zero"
    if (most < [len(rows) for rows in cases]).any():
        why += f"; of each {most.min()} samples were taken, more than which are too many"
    record = {"choice": {"tried": [], "taken": "a process of each case", "because": why}}
    return CasesSurrogate(active, learned, {**samples.provenance, **record})


@dataclass(frozen=True)
class Trial:
    """A candidate and how it did on samples not seen.

    Attributes:
        sized: Whether it learned sizes and directions.
        coordinates: How many it saw; 0 for all inputs.
        unseen: Estimated relative error by what the coordinates don't see.
        values: Relative error of values.
        slopes: That of Jacobians; nothing without any.
    """

    sized: bool
    coordinates: int
    unseen: float
    values: float
    slopes: float

    @property
    def score(self) -> float:
        """What candidates are compared by."""
        return self.values + self.slopes

    def __str__(self) -> str:
        what = "size and direction" if self.sized else "coefficients"
        where = f"{self.coordinates} coordinates" if self.coordinates else "all inputs"
        left = f", {self.unseen:.2g} not seen by them" if self.coordinates else ""
        return f"{what} of {where}: error {self.values:.2g}, of Jacobians {self.slopes:.2g}{left}"


@dataclass
class _Search:
    """The candidates, one after the other.

    Attributes:
        parts: Pairs of samples to learn from and others to judge by.
        trials: Those so far.
    """

    parts: Sequence[tuple[Samples, Samples]]
    covariance: Mass
    seed: int
    progress: ProgressCallback | None

    def __post_init__(self) -> None:
        self.trials: list[Trial] = []
        first = self.parts[0][0]
        many = first.jacobian is not None and len(first.parameters) > FEW_INPUTS
        self._all = [_coordinates(learning, self.covariance) for learning, _ in self.parts] if many else []

    def best(self) -> tuple[Trial, str]:
        """The best candidate, and why no other was tried."""
        most = min((subspace.dimension for subspace in self._all), default=0)
        sizes = (True, False) if all(_has_sizes(samples) for pair in self.parts for samples in pair) else (False,)
        best = min((self._try(min(FIRST, most), sized) for sized in sizes), key=lambda trial: trial.score)
        if not most:
            return best, "there are few inputs, or no Jacobians to find coordinates by"
        while best.unseen > COUNTS * best.values:
            if (k := min(2 * best.coordinates, most)) == best.coordinates:
                return best, "there are no more coordinates to take"
            further = self._try(k, best.sized)
            if further.score >= best.score:
                return best, f"{k} coordinates would be no better"
            best = further
        return best, "what the coordinates don't see is less than half of the error"

    def _try(self, k: int, sized: bool) -> Trial:
        settings: dict[str, Any] = {"sized": sized, "optimizers": QUICK, "seed": self.seed, "progress": self.progress}
        rows = []
        for number, (learning, unseen) in enumerate(self.parts):
            subspace = _first(self._all[number], k) if k else None
            y, slopes = _trained(learning, subspace, **settings).predict(unseen.x, extrapolate=True)
            off = 0.0
            if unseen.jacobian is not None and slopes is not None:
                width = np.ptp(unseen.bounds, axis=1)  # so that units of the inputs make no difference
                off = relative_error((slopes - unseen.jacobian) * width, unseen.jacobian * width)
            rows.append((_not_seen(unseen, subspace) if subspace else 0.0, relative_error(y - unseen.y, unseen.y), off))
        trial = Trial(sized, k, *np.mean(rows, axis=0).tolist())
        self.trials.append(trial)
        return trial


def _trained(
    samples: Samples,
    subspace: Subspace | None,
    *,
    sized: bool,
    optimizers: Sequence[Optimizer],
    seed: int,
    progress: ProgressCallback | None,
) -> Predicting:
    """What learns the samples, put together with what reduces them."""
    labels = samples if subspace is None else subspace.reduce(samples)
    labels = relative(labels) if sized else labels
    learned: Predicting
    if _few_labels(labels):
        learned = fit_process(labels)
    else:
        network = train(labels, weighting=by_variance(labels), optimizers=optimizers, seed=seed, progress=progress)
        if network.history.interrupted:  # half a search is none, and the next training would go on in its place
            raise KeyboardInterrupt
        learned = network
    model = RelativeSurrogate(learned) if sized else learned
    return model if subspace is None else ProjectedSurrogate(subspace, model)


def _few_labels(samples: Samples) -> bool:
    """Whether a process learns them, which takes seconds and errs less than a network."""
    return samples.jacobian is not None and not samples.missing and rows_of(samples.x) <= MAX_ROWS


def _coordinates(samples: Samples, covariance: Mass) -> Subspace:
    """All coordinates that matter, by gradients of sizes and directions where there are any."""
    labels = relative(samples) if _has_sizes(samples) else samples
    ones = np.ones(len(labels.responses))
    return _first(active_subspace(labels, tolerance=LEFT_OUT, importance=ones, covariance=covariance), MOST)


def _first(subspace: Subspace, k: int) -> Subspace:
    """The same with its first k coordinates alone."""
    return replace(subspace, lift=subspace.lift[:, :k], project=subspace.project[:k])


def _has_sizes(samples: Samples) -> bool:
    """Whether responses have a size in every sample: labels that are there, and not all of them nearly zero."""
    sizes = np.linalg.norm(samples.y, axis=1)
    return not samples.missing and bool(sizes.min() > NEARLY_ZERO * sizes.max())


def _not_seen(samples: Samples, subspace: Subspace) -> float:
    """Relative error by what varies along other directions, by the gradients of samples not seen."""
    sized = _has_sizes(samples)
    labels = relative(samples) if sized else samples
    error = np.linalg.norm(subspace.unresolved(labels) * np.nanstd(labels.y, axis=0))
    return float(error if sized else error / np.sqrt((samples.y**2).sum(axis=1).mean()))


def relative_error(off: Array, labels: Array) -> float:
    """Mean over samples of the error's norm over that of the labels, where these are not much smaller than others."""
    axes = tuple(range(1, labels.ndim))
    sizes = np.sqrt((labels**2).sum(axis=axes))
    ratios = np.sqrt((off**2).sum(axis=axes)) / np.maximum(sizes, SMALL * np.sqrt((sizes**2).mean()))
    return float(ratios.mean())


def _split(samples: Samples, seed: int) -> list[tuple[Samples, Samples]]:
    """Pairs of samples to learn from, and others to judge by.

    Raises:
        ValueError: If there are too few.
    """
    N = len(samples.x)
    if N < 2 * MIN_SAMPLES:
        raise ValueError(f"there are {N} samples; expected {2 * MIN_SAMPLES} or more, some of which are held out")
    parts = np.array_split(np.random.default_rng(seed).permutation(N), min(PARTS, N // MIN_SAMPLES))
    taken = parts if N <= FEW else [parts[0][:MOST_HELD_OUT]]
    return [(_rows(samples, np.setdiff1d(np.arange(N), held)), _rows(samples, np.sort(held))) for held in taken]


def _rows(samples: Samples, rows: Array) -> Samples:
    jacobian = None if samples.jacobian is None else samples.jacobian[rows]
    return replace(samples, x=samples.x[rows], y=samples.y[rows], jacobian=jacobian)
