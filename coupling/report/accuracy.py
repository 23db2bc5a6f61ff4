"""How far a surrogate is from samples it has not seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol
import warnings

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.models.matching import require_same_names

FLAT_SPREAD_SHARE = 0.1
"""Share of a response's root mean square slope below which the spread of one of its derivatives is too small to judge
an error by: the response hardly depends on that parameter, and its derivative need only be as small."""


class Batch(Protocol):
    """A model that predicts many points at once, as `Surrogate` does."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n parameters."""

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""

    def predict(self, x: Array, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """Responses (N, m) and Jacobians (N, m, n) at points (N, n)."""


@dataclass(frozen=True)
class Errors:
    """Normalized root mean square errors over a set of samples.

    Attributes:
        parameters: Names of the n parameters.
        responses: Names of the m responses.
        values: Error of each response over its standard deviation (m,).
        derivatives: Error of each Jacobian entry over its standard deviation (m, n), or None without
            Jacobians in the data; NaN where none of the samples has a label.
        flat: Entries (m, n) that hardly vary over the samples: their error is divided by `FLAT_SPREAD_SHARE` times the
            root mean square slope of their response, all slopes taken over the ranges of their parameters.
        samples: Number of samples.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    values: Array
    derivatives: Array | None
    flat: NDArray[np.bool_] | None
    samples: int

    @property
    def value(self) -> float:
        """Median over responses."""
        return float(np.median(self.values))

    @property
    def derivative(self) -> float:
        """Median over Jacobian entries; NaN without Jacobians in the data."""
        return float("nan") if self.derivatives is None else float(np.nanmedian(self.derivatives))

    def rows(self) -> list[list[str]]:
        """The table: a heading, one row per response, and the medians."""
        heading = ["response", "value", *(f"d/d {name}" for name in self.parameters)]
        if self.derivatives is None or self.flat is None:
            body = [[name, f"{e:.3g}"] for name, e in zip(self.responses, self.values, strict=True)]
            return [heading[:2], *body, ["median", f"{self.value:.3g}"]]
        body = [
            [name, f"{e:.3g}", *(f"{_cell(d)}{'*' if flat else ''}" for d, flat in zip(row, flats, strict=True))]
            for name, e, row, flats in zip(self.responses, self.values, self.derivatives, self.flat, strict=True)
        ]
        medians = [_cell(d) for d in _medians(self.derivatives)]
        return [heading, *body, ["median", f"{self.value:.3g}", *medians]]

    def markdown(self) -> str:
        """The table in Markdown, with a sentence on how to read it."""
        heading, *body = ["| " + " | ".join(row) + " |" for row in self.rows()]
        rule = "|" + "---|" * len(self.rows()[0])
        lines = [
            f"Root mean square errors over {self.samples} samples, each divided by the standard deviation of what",
            "it measures over those samples: 1 is as good as predicting the mean.",
            "",
            heading,
            rule,
            *body,
        ]
        if self.flat is not None and self.flat.any():
            lines += [
                "",
                f"\\* hardly varies over these samples: divided by {FLAT_SPREAD_SHARE:g} times the root mean square "
                "slope of",
                "its response, slopes taken over the parameters' ranges.",
            ]
        return "\n".join(lines) + "\n"


def errors(model: Batch, data: Any) -> Errors:
    """Normalized errors of a model on samples; of a response that doesn't vary they are relative to its size.

    Args:
        model: Anything with `parameters`, `responses` and `predict`.
        data: Samples with `x`, `y`, `jacobian` or None, `parameters`, `responses` and `bounds`.

    Raises:
        ValueError: If the names differ, or there are fewer than two samples.
    """
    require_same_names("the surrogate", model, data, whose="the data")
    if len(data.x) < 2:
        raise ValueError(f"there are {len(data.x)} samples to judge by; expected at least 2")
    _check_labels(data)
    spread = np.nanstd(data.y, axis=0)
    size = np.nanmax(np.abs(data.y), axis=0)
    spread = np.where(spread <= 1e-12 * size, np.where(size > 0.0, size, 1.0), spread)
    y, jacobian = model.predict(data.x, jacobian=data.jacobian is not None)
    derivatives, flat = None, None
    if jacobian is not None:
        derivatives, flat = _derivative_errors(jacobian, data.jacobian, np.ptp(data.bounds, axis=1))
    return Errors(
        tuple(data.parameters),
        tuple(data.responses),
        values=_rms(y - data.y) / spread,
        derivatives=derivatives,
        flat=flat,
        samples=len(data.x),
    )


def _check_labels(data: Any) -> None:
    """Check that every response has values to judge by.

    Raises:
        ValueError: If one has none.
    """
    known = (~np.isnan(data.y)).sum(axis=0)
    if (known < 2).any():
        k = int(np.argmin(known))
        raise ValueError(f"{data.responses[k]!r} has {known[k]} values to judge by; expected at least 2")


def _derivative_errors(predicted: Array, true: Array, ranges: Array) -> tuple[Array, NDArray[np.bool_]]:
    """Errors (m, n) of Jacobians (N, m, n), and which entries are flat; everything over the ranges."""
    predicted, true = predicted * ranges, true * ranges
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # of entries without a label: NaN
        slope = np.sqrt(np.nanmean(true**2, axis=(0, 2)))[:, None]
        spread = np.nanstd(true, axis=0)
    measure = np.maximum(spread, FLAT_SPREAD_SHARE * slope)
    return _rms(predicted - true) / np.where(measure <= 0.0, 1.0, measure), spread <= FLAT_SPREAD_SHARE * slope


def _cell(error: float) -> str:
    return "no label" if np.isnan(error) else f"{error:.3g}"


def _medians(errors: Array) -> list[float]:
    """Median of each column, over the entries that could be judged; NaN without any."""
    known = [column[~np.isnan(column)] for column in errors.T]
    return [float(np.median(column)) if len(column) else float("nan") for column in known]


def _rms(residual: Array) -> Array:
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):  # where there is no label at all
        return np.asarray(np.sqrt(np.nanmean(residual**2, axis=0)))
