"""What was measured: values of responses, and how far they may be off."""

from __future__ import annotations

from collections.abc import Sequence
import csv
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike
import scipy.linalg

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.own_arrays import as_numbers
from sobofem.coupling.dataset.tables import read_table

COLUMNS = ("response", "value", "sd", "at")


@dataclass(frozen=True, eq=False)
class Measurements:
    """K measured values, each of one response; a response may have been measured several times.

    Attributes:
        responses: Names of what was measured, (K,).
        values: What was found, (K,), in the units of the responses.
        deviations: Standard deviations of the measurement errors, (K,), or only their ratios where the noise is to be
            learned; ones by default.
        covariance: Covariance of the measurement errors, (K, K), instead of `deviations`.
        at: Where on an axis each value belongs, (K,), such as displacements: for pictures alone.
    """

    responses: tuple[str, ...]
    values: Array
    deviations: Array | None = None
    covariance: Array | None = None
    at: Array | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "responses", tuple(self.responses))
        K = len(self.responses)
        if not K:
            raise ValueError("there are no measurements; expected at least one")
        for name, shape in (("values", (K,)), ("deviations", (K,)), ("covariance", (K, K)), ("at", (K,))):
            given = getattr(self, name)
            if given is None:
                continue
            array = as_numbers(given, name, self.responses, self.responses)
            if array.shape != shape:
                raise ValueError(f"{name} have shape {array.shape}, expected {shape} for {K} measurements")
            if not np.isfinite(array).all():
                raise ValueError(f"{name} hold NaN or infinity; leave out what was not measured")
            array.setflags(write=False)
            object.__setattr__(self, name, array)
        if self.deviations is not None and self.covariance is not None:
            raise ValueError("deviations and a covariance are given; expected one of them")
        if self.deviations is not None and not (self.deviations > 0.0).all():
            k = int(np.argmin(self.deviations))
            raise ValueError(f"the deviation of {self.responses[k]} is {self.deviations[k]:g}; expected positive ones")
        _ = self._root  # a covariance that is none is refused here

    def __len__(self) -> int:
        return len(self.responses)

    @classmethod
    def read(cls, path: str | Path) -> Measurements:
        """Read a CSV file with the columns `response`, `value`, `sd` and `at`; the last two may be absent.

        Semicolons, tabs, decimal commas and the encodings of spreadsheets are read as well: `coupling.dataset.tables`.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If a column is missing or unknown, or a cell is no number; the message names the line.
        """
        table = read_table(path)
        table = replace(table, header=tuple(name.lower() for name in table.header))
        known = {"response", "value"} <= set(table.header) <= set(COLUMNS)
        if not known or len(set(table.header)) < len(table.header):
            raise ValueError(
                f"{path} has the columns {', '.join(table.header)}; expected response,value and perhaps sd and at in "
                "its first line"
            )
        if not table.rows:
            raise ValueError(f"{path} holds no measurements below its header")
        arrays = {name: np.array(table.numbers(name)) for name in table.header if name != "response"}
        responses = table.column("response")
        for line, name, sd in zip(table.lines, responses, arrays.get("sd", ()), strict=False):
            if not sd > 0.0:
                raise ValueError(
                    f"{path}, line {line}: the deviation of {name} is {sd:g}; expected positive ones, small where a "
                    "measurement is nearly exact"
                )
        try:
            return cls(tuple(responses), arrays["value"], arrays.get("sd"), at=arrays.get("at"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def write(self, path: str | Path) -> None:
        """Write a CSV file that `read` reads.

        Raises:
            ValueError: If there is a covariance, which the file can't hold.
        """
        if self.covariance is not None:
            raise ValueError("a covariance does not fit into a CSV file of measurements")
        columns = [("response", self.responses), ("value", self.values), ("sd", self.deviations), ("at", self.at)]
        given = [(name, column) for name, column in columns if column is not None]
        with Path(path).open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow([name for name, _ in given])
            writer.writerows(zip(*(np.asarray(column).tolist() for _, column in given), strict=True))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What looks like a mistake, in sentences: measurements that are given twice, digit for digit."""
        places = np.zeros(len(self)) if self.at is None else self.at
        given = list(
            zip(self.responses, self.values.tolist(), self.standard_deviation.tolist(), places.tolist(), strict=True)
        )
        twice = {one: given.count(one) for one in given if self.covariance is None}
        return tuple(
            f"{name} = {value:g} is given {count} times and counts as so many independent measurements"
            for (name, value, *_), count in twice.items()
            if count > 1
        )

    @cached_property
    def standard_deviation(self) -> Array:
        """Standard deviation of each measurement alone, (K,)."""
        if self.covariance is not None:
            return np.sqrt(np.diag(self.covariance))
        return np.ones(len(self)) if self.deviations is None else self.deviations

    @cached_property
    def _root(self) -> Array:
        """Cholesky factor of the covariance, (K, K), or standard deviations, (K,)."""
        if self.covariance is None:
            return self.standard_deviation
        if not np.allclose(self.covariance, self.covariance.T, rtol=1e-10, atol=0.0):
            raise ValueError("the covariance of the measurements is not symmetric")
        try:
            return np.asarray(scipy.linalg.cholesky(self.covariance, lower=True))
        except scipy.linalg.LinAlgError as error:
            raise ValueError(f"the covariance of the measurements is not positive definite: {error}") from error

    def whitened(self, differences: Array) -> Array:
        """Differences (K,) or (K, n) in standard deviations, uncorrelated."""
        if self._root.ndim == 2:
            return np.asarray(scipy.linalg.solve_triangular(self._root, differences, lower=True))
        return differences / (self._root if differences.ndim == 1 else self._root[:, None])

    def with_added_noise(self, deviations: Array) -> Measurements:
        """The same with independent errors (K,) added: those of the model that the measurements are compared with."""
        if self.covariance is not None:
            return replace(self, covariance=self.covariance + np.diag(deviations**2))
        return replace(self, deviations=np.hypot(self.standard_deviation, deviations))

    def indices(self, responses: Sequence[str]) -> np.ndarray:
        """Which of a model's responses each measurement is of, (K,).

        Raises:
            ValueError: If the model has no such response.
        """
        names = list(responses)
        if unknown := sorted(set(self.responses) - set(names)):
            raise ValueError(f"measured are {', '.join(unknown)}, but the model's responses are {', '.join(names)}")
        return np.array([names.index(name) for name in self.responses])


def synthetic(y: ArrayLike, responses: Sequence[str], sd: ArrayLike, *, seed: int = 0) -> Measurements:
    """Responses (m,) as an experiment would find them: with independent normal errors of deviation `sd` (m,) or ()."""
    truth = np.asarray(y, dtype=np.float64)
    deviations = np.broadcast_to(np.asarray(sd, dtype=np.float64), truth.shape)
    errors = np.random.default_rng(seed).standard_normal(truth.shape)
    return Measurements(tuple(responses), truth + deviations * errors, deviations)
