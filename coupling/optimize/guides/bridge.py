"""A trained surrogate, and a Gaussian process of what the model says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from coupling.contract import Array, Model, SampleFailure
from coupling.optimize.frame import Frame
from coupling.optimize.guides.base import Guide, Known, Prediction
from coupling.optimize.guides.kriging import GaussianProcess


@dataclass
class Bridge:
    """A surrogate plus what a second guide learns of its errors, values and slopes, at all samples.

    Attributes:
        surrogate: The trained one.
        frame: The task in scaled units.
        errors: Learns the differences.
        name: What messages call it.
    """

    surrogate: Model
    frame: Frame
    errors: Guide = field(default_factory=GaussianProcess)
    name: str = "surrogate"
    local: bool = False
    bold: bool = False
    transformed: bool = False
    _seen: dict[bytes, tuple[Array, Array]] = field(default_factory=dict)

    def learn(self, known: Known) -> Prediction:
        """The surrogate, corrected at every sample."""
        at = [self._remembered(x) for x in known.x]
        offset = at[known.center][0]
        values = np.array([value for value, _ in at]) - offset
        slopes = np.array([slope for _, slope in at])[:, :, known.columns]
        difference = replace(known, y=known.y - values, slopes=known.slopes - slopes)
        errors = self.errors.learn(difference)
        frame = self.frame
        columns = known.columns

        def predict(z: Array) -> tuple[Array, Array]:
            x = known.x[known.center].copy()
            x[columns] = frame.low[columns] + np.clip(z, 0.0, 1.0) * frame.span[columns]
            value, slope = self._scaled(x)
            error, error_slope = errors(z)
            return value - offset + error, slope[:, columns] + error_slope

        return predict

    def _remembered(self, x: Array) -> tuple[Array, Array]:
        key = x.tobytes()
        if key not in self._seen:
            self._seen[key] = self._scaled(x)
        return self._seen[key]

    def _scaled(self, x: Array) -> tuple[Array, Array]:
        """Responses (r,) over their slopes, and derivatives (r, n) per width of the box.

        Raises:
            ArithmeticError: If the surrogate has no answer, as a coarser model may, or none that is finite.
        """
        low, high = np.asarray(self.surrogate.bounds, dtype=np.float64).T
        try:
            y, jacobian = self.surrogate.evaluate(np.clip(x, low, high))
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            raise ArithmeticError(f"the surrogate has no answer: {error.reason}") from error
        assert jacobian is not None
        if not (np.isfinite(y).all() and np.isfinite(jacobian).all()):
            raise ArithmeticError("the surrogate foretells what is not finite")
        frame = self.frame
        return y[frame.used] / frame.slopes, jacobian[frame.used] * frame.span / frame.slopes[:, None]
