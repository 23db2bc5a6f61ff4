"""Samples that fall into cases, in each of which other inputs are at work: a load here, or there, or elsewhere.

Forces at one of many nodes are many inputs of which few are not zero. A function of all of them is then known on a few
planes through zero alone, and on each of these it is a function of few variables: a surrogate of each learns it from a
fraction of the samples. Derivatives by the inputs at rest are labels as well, and are learned with the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sobofem.surrogate import files
from sobofem.surrogate.model import evaluate_by_batch
from sobofem.surrogate.reduction.field_surrogate import Predicting
from sobofem.surrogate.samples import MIN_SAMPLES, as_points
from sobofem.surrogate.samples.arrays import Array


def cases_of(x: Array) -> list[np.ndarray]:
    """The rows of each case of inputs (N, n): those in which the same inputs are not zero; none where there are none.

    No case is part of another: where a grid of values holds zero, it does not fall apart. A sample without any load
    belongs to each.
    """
    loaded = (x != 0.0).any(axis=1)
    active, case = np.unique(x[loaded] != 0.0, axis=0, return_inverse=True)
    case = case.ravel()
    sizes = np.bincount(case)
    if len(active) < 2 or sizes.min() < MIN_SAMPLES or active.all(axis=0).any():
        return []
    counts = active.sum(axis=1)
    shared = active.astype(np.float64) @ active.T
    if (shared - np.diag(counts) == counts[:, None]).any():
        return []
    rows, at_rest = np.flatnonzero(loaded), np.flatnonzero(~loaded)[:1]  # further ones are the same point
    return [np.sort(np.concatenate((rows[case == k], at_rest))) for k in range(len(active))]


KIND = "sobofem-surrogate-of-cases"


@dataclass(frozen=True, eq=False)
class CasesSurrogate:
    """A `Model` that asks the surrogate of the case that a point belongs to.

    Attributes:
        active: Which inputs are not zero in each case (K, n).
        surrogates: Of each, of the same parameters and responses.
        provenance: Where the training data came from, as plain values.

    Raises:
        ValueError: If these don't fit together.
    """

    active: np.ndarray
    surrogates: tuple[Predicting, ...]
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse surrogates of different things."""
        names = {(tuple(each.parameters), tuple(each.responses)) for each in self.surrogates}
        if len(names) != 1 or self.active.shape != (len(self.surrogates), len(self.parameters)):
            raise ValueError("the surrogates of the cases have different parameters or responses, or not one each")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return tuple(self.surrogates[0].parameters)

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""
        return tuple(self.surrogates[0].responses)

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogates[0].bounds

    evaluate = evaluate_by_batch

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n), as `Surrogate.predict`.

        Raises:
            ValueError: As there, or if a point belongs to no case.
        """
        points = as_points(x, self.parameters, None if extrapolate else self.bounds)
        found = self._cases(points)
        N, m, n = len(points), len(self.responses), len(self.parameters)
        y, dy = np.empty((N, m)), np.empty((N, m, n)) if jacobian else None
        for case in np.unique(found):
            own = found == case
            values, slopes = self.surrogates[case].predict(points[own], jacobian=jacobian, extrapolate=extrapolate)
            y[own] = values
            if dy is not None and slopes is not None:
                dy[own] = slopes
        return y, dy

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file; `surrogate.load` reads it.

        Raises:
            ValueError: If a surrogate can't be saved.
            OSError: If the file can't be written.
        """
        tensors = {f"surrogate_{k}": files.to_bytes_tensor(each) for k, each in enumerate(self.surrogates)}
        record = {"active": self.active.astype(int).tolist(), "provenance": dict(self.provenance)}
        files.write(path, tensors, record, kind=KIND)

    def _cases(self, points: Array) -> np.ndarray:
        """The case of each point (N,): of those that hold all that is not zero there, the first."""
        outside = (points != 0.0).astype(np.float64) @ ~self.active.T
        fits = outside == 0.0
        if not (known := fits.any(axis=1)).all():
            k = int(np.argmin(known))
            names = [name for name, value in zip(self.parameters, points[k], strict=True) if value != 0.0]
            shown = ", ".join(names[:4]) + (", ..." if len(names) > 4 else "")
            raise ValueError(
                f"in point {k} {shown} are not zero together, which they are in none of the {len(self.active)} cases "
                "that the samples fall into; generate samples with such inputs"
            )
        found: np.ndarray = fits.argmax(axis=1)
        return found


@files.reader(KIND)
def unpack(stored: files.Stored) -> CasesSurrogate:
    """The surrogate that `CasesSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    active = np.array(files.entry(stored.record, "active", list))
    if active.ndim != 2 or not np.isin(active, (0, 1)).all():
        raise ValueError("its cases are no table of zeros and ones")
    surrogates = tuple(files.from_bytes_tensor(stored, f"surrogate_{k}") for k in range(len(active)))
    return CasesSurrogate(active.astype(bool), surrogates, files.entry(stored.record, "provenance", dict))
