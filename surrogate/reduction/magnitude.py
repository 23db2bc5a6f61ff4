"""Responses as their size and their direction, for fields whose size varies by much more than their shape does.

With y = log ‖c‖ and the direction d = c / ‖c‖ of coefficients c, a change of c relative to its size is that of y along
c and that of d across it: squared errors of (y, d) are squared relative errors of the field, sample by sample. What
grows like an exponential of the inputs, as a displacement does with the logarithm of a modulus, is straight in y.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sobofem.surrogate import files
from sobofem.surrogate.model import evaluate_by_batch
from sobofem.surrogate.reduction.field_surrogate import Predicting, uncertain
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.arrays import Array, optional

SIZE = "log_size"
"""Name of the logarithm of the size; directions are called as the responses."""


def relative(data: Samples) -> Samples:
    """The samples with 1 + m responses: log ‖y‖ and y / ‖y‖, with their Jacobians by the chain rule.

    Args:
        data: Samples whose responses have one unit, such as coefficients of an uncentered `ReducedBasis`.

    Raises:
        ValueError: If labels are missing, or all responses of a sample are zero.
    """
    size = np.linalg.norm(data.y, axis=1)
    if data.missing or not (np.isfinite(size) & (size > 0.0)).all():
        raise ValueError("a size needs all responses of a sample, not all of them zero; leave others out")
    direction = data.y / size[:, None]
    slopes = None
    if data.jacobian is not None:
        scaled = data.jacobian / size[:, None, None]
        growth = np.einsum("nm,nmk->nk", direction, scaled)
        slopes = np.concatenate((growth[:, None], scaled - direction[:, :, None] * growth[:, None]), axis=1)
    y = np.column_stack((np.log(size), direction))
    units = {name: unit for name, unit in data.units.items() if name in data.parameters}
    return Samples(data.x, y, slopes, data.parameters, (SIZE, *data.responses), data.bounds, units, data.provenance)


KIND = "sobofem-relative-surrogate"


@dataclass(frozen=True, eq=False)
class RelativeSurrogate:
    """A `Model` of responses from one of their size and direction.

    Attributes:
        surrogate: Of log ‖y‖ and y / ‖y‖, trained on `relative(data)`.

    Raises:
        ValueError: If its responses are others.
    """

    surrogate: Predicting

    def __post_init__(self) -> None:
        """Refuse a surrogate of something else."""
        if (found := tuple(self.surrogate.responses))[0] != SIZE:
            raise ValueError(
                f"the surrogate predicts {found[0]!r} first, expected {SIZE!r}: train it on relative(data)"
            )

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""
        return tuple(self.surrogate.parameters)

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""
        return tuple(self.surrogate.responses)[1:]

    @property
    def bounds(self) -> Array:
        """The box that the inputs live in, (n, 2)."""
        return self.surrogate.bounds

    @property
    def units(self) -> dict[str, str]:
        """Unit of each parameter that has one, by name."""
        return dict(optional(self.surrogate, "units", {}))

    @property
    def provenance(self) -> dict[str, Any]:
        """Where its training data came from, and how it was chosen, as plain values."""
        return dict(optional(self.surrogate, "provenance", {}))

    evaluate = evaluate_by_batch

    def predict(self, x: ArrayLike, *, jacobian: bool = True, extrapolate: bool = False) -> tuple[Array, Array | None]:
        """Responses (N, m) and, unless declined, dy/dx (N, m, n) at points x (N, n).

        Args:
            x: Points, one a row.
            jacobian: Whether to differentiate.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        found, slopes = self.surrogate.predict(x, jacobian=jacobian, extrapolate=extrapolate)
        size = np.exp(found[:, :1])
        y = size * found[:, 1:]
        if slopes is None:
            return y, None
        return y, y[:, :, None] * slopes[:, :1] + size[:, :, None] * slopes[:, 1:]

    def standard_deviation(self, x: ArrayLike, *, extrapolate: bool = False) -> tuple[Array, Array]:
        """Standard deviations of responses (N, m) and of dy/dx (N, m, n) at x (N, n), to first order.

        Size, direction and their slopes are taken as independent.

        Args:
            x: Points, one a row.
            extrapolate: Allow points outside the training bounds, where predictions are unreliable.

        Raises:
            TypeError: If the surrogate knows no uncertainty.
            ValueError: If x has the wrong shape, holds NaN or lies outside the bounds.
        """
        deviation, of_slopes = map(np.asarray, uncertain(self.surrogate).standard_deviation(x, extrapolate=extrapolate))
        y, dy = self.predict(x, extrapolate=extrapolate)
        found, slopes = self.surrogate.predict(x, extrapolate=extrapolate)
        assert dy is not None and slopes is not None  # they were asked for
        size = np.exp(found[:, :1])
        own, direction = deviation[:, :1], deviation[:, 1:]
        terms = (
            dy * own[:, :, None],
            y[:, :, None] * of_slopes[:, :1],
            (size * direction)[:, :, None] * slopes[:, :1],
            size[:, :, None] * of_slopes[:, 1:],
        )
        return np.hypot(y * own, size * direction), np.sqrt(sum(term**2 for term in terms))

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file; `surrogate.load` reads it.

        Raises:
            ValueError: If the surrogate can't be saved.
            OSError: If the file can't be written.
        """
        files.write(path, {"surrogate": files.to_bytes_tensor(self.surrogate)}, {}, kind=KIND)


@files.reader(KIND)
def unpack(stored: files.Stored) -> RelativeSurrogate:
    """The surrogate that `RelativeSurrogate.save` stored.

    Raises:
        KeyError: If something is missing.
        ValueError: If something is damaged.
    """
    return RelativeSurrogate(files.from_bytes_tensor(stored, "surrogate"))
