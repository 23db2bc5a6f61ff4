"""Goodness of fit: whether residuals as large as these are to be expected if model and deviations are right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sobofem.coupling.calibration.task import Objective, Point
from sobofem.coupling.contract import Array

SIGNIFICANCE = 0.01
"""Probability below which a fit is called impossible, by all residuals together, by one of them or by a prior."""

MOVES = 0.1
"""Change of the residuals over the whole box, in standard deviations, from which on a direction can lessen them."""

SHOWN = 5
"""Measurements that a message names."""


@dataclass(frozen=True)
class Residual:
    """One measurement against the model.

    Attributes:
        number: Of the measurement, from 1.
        response: What was measured.
        measured: The value found.
        model: The model's.
        deviations: The difference in standard deviations of the measurement; where these are only ratios, in those
            that the other residuals tell.
        moved: Whether any parameter moves the response.
    """

    number: int
    response: str
    measured: float
    model: float
    deviations: float
    moved: bool

    def __str__(self) -> str:
        """As a clause."""
        still = "" if self.moved else ", and no parameter moves it"
        return (
            f"{self.response} (measurement {self.number}) is {self.model:.5g} by the model and {self.measured:.5g} "
            f"measured, {abs(self.deviations):.1f} standard deviations apart{still}"
        )


@dataclass(frozen=True)
class Goodness:
    """A χ² test of all residuals, and of each alone.

    Attributes:
        chi2: Sum of squared residuals in standard deviations, and of distances from the centres of normal priors.
        freedom: Measurements and normal priors less the directions that the measurements or these determine.
        tested_with: Degrees of freedom that the test was made with: `freedom`, or, where none is left, the number of
            measurements and normal priors, with which residuals are at most expected to be as large; 0 for no test.
        probability: Of residuals as large, by that; NaN where the size of the noise is learned from them.
        outliers: Measurements that alone are off by more than chance allows among so many, the worst first.
        strained: Distance from the centres of their normal priors, in standard deviations, of parameters that are
            farther off than chance allows among so many; a good fit of many measurements would hide them in χ².
    """

    chi2: float
    freedom: int
    tested_with: int
    probability: float
    outliers: tuple[Residual, ...]
    strained: Mapping[str, float] = field(default_factory=dict)

    @property
    def impossible(self) -> bool:
        """Whether chance alone does not explain the residuals, and how far the estimate is from its priors."""
        return bool(self.probability < SIGNIFICANCE or self.outliers or self.strained)

    def verdict(self) -> str:
        """What to think of the fit, in a sentence or two."""
        spare = "degree" if self.freedom == 1 else "degrees"
        words = f"chi² is {self.chi2:.1f} for {self.freedom} {spare} of freedom"
        if not self.tested_with:
            words = f"the size of the noise is learned, with {self.freedom} {spare} of freedom"
        elif self.freedom < 1:
            words = f"chi² is {self.chi2:.1f}, with no degree of freedom left"
            if not self.impossible:
                return f"{words}: whether the model explains the measurements can't be tested"
        if self.tested_with:
            words += f" (probability of more: {'at most ' if self.freedom < 1 else ''}{self.probability:.2g})"
        if not self.impossible:
            return words
        off = [str(residual) for residual in self.outliers[:SHOWN]]
        off += [f"{len(self.outliers) - SHOWN} measurements more"] if len(self.outliers) > SHOWN else []
        off += [f"{n} is {d:.1f} standard deviations from its prior" for n, d in self.strained.items()]
        too_small = (
            "their deviations are too small, or a prior is wrong" if self.strained else "their deviations are too small"
        )
        return f"the model does not explain the measurements, or {too_small}: {words}" + (
            f". Off by more than chance allows: {'; '.join(off)}" if off else ""
        )

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "explained": not self.impossible,
            "chi2": self.chi2,
            "degrees_of_freedom": self.freedom,
            "tested_with": self.tested_with,
            "probability": None if np.isnan(self.probability) else self.probability,
            "off_by_more_than_chance": [vars(residual) for residual in self.outliers],
            "far_from_their_priors": dict(self.strained),
        }


def goodness(objective: Objective, point: Point, free: np.ndarray) -> Goodness:
    """Test the residuals at an estimate.

    Args:
        objective: The task on the model that gave the estimate.
        point: The estimate.
        free: Which parameters no bound holds, (n,).
    """
    from scipy.stats import chi2, norm

    precision = objective.coordinates.precision
    informed = int((precision > 0.0).sum())
    known = np.vstack([point.slope / objective.factor(point), np.diag(precision)])[:, free]
    determined = int((np.linalg.svd(known, compute_uv=False) > MOVES).sum()) if free.any() else 0
    total = len(point.residual) + informed
    prior = point.prior_residual
    size, freedom = point.chi2 + float(prior @ prior), total - determined
    outliers = _outliers(objective, point, freedom)
    names = objective.coordinates.parameters
    strained = {
        n: float(abs(d))
        for n, d in zip(names, prior, strict=True)
        if 2.0 * norm.sf(abs(d)) * max(informed, 1) < SIGNIFICANCE
    }
    if objective.task.noise == "unknown":
        return Goodness(size, freedom, 0, float("nan"), outliers, strained)
    tested = freedom if freedom > 0 else total
    return Goodness(size, freedom, tested, float(chi2.sf(size, tested)), outliers, strained)


def _outliers(objective: Objective, point: Point, freedom: int) -> tuple[Residual, ...]:
    """Residuals that none of so many would have by chance (Bonferroni); at a learned noise by that of the others."""
    from scipy.stats import norm, t

    data, rows = objective.task.measurements, objective.rows
    off: Array = (point.y[rows] - data.values) / data.standard_deviation
    if objective.task.noise == "known":
        chance = 2.0 * norm.sf(np.abs(off))
    elif freedom < 2:
        return ()
    else:
        others = np.maximum(point.chi2 - off**2, np.finfo(float).tiny) / (freedom - 1)
        off = off / np.sqrt(others)
        chance = 2.0 * t.sf(np.abs(off), freedom - 1)
    worst = [int(k) for k in np.argsort(-np.abs(off)) if chance[k] * len(off) < SIGNIFICANCE]
    moved = np.abs(point.dy[rows] * objective.coordinates.slope(point.u)).max(axis=1) > 0.0
    return tuple(
        Residual(
            k + 1,
            data.responses[k],
            float(data.values[k]),
            float(point.y[rows[k]]),
            float(off[k]),
            bool(moved[k]),
        )
        for k in worst
    )
