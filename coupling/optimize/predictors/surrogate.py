"""A trained surrogate, and a Gaussian process of what the model says otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from sobofem.coupling.contract import Array, Model, SampleFailure
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor
from sobofem.coupling.optimize.predictors.gaussian_process import GaussianProcess
from sobofem.coupling.optimize.scaled_task import ScaledTask


@dataclass
class CorrectedSurrogate(Predictor):
    """A surrogate plus what a second predictor learns of its errors, values and slopes, at all samples.

    Attributes:
        surrogate: The trained one.
        scaled: The task in scaled units.
        errors: Learns the differences.
    """

    surrogate: Model
    scaled: ScaledTask
    errors: Predictor = field(default_factory=GaussianProcess)
    name = "surrogate"
    _seen: dict[bytes, tuple[Array, Array]] = field(default_factory=dict)

    def learn(self, known: Known) -> Prediction:
        """The surrogate, corrected at every sample."""
        at = [self._remembered(x) for x in known.x]
        offset = at[known.center][0]
        values = np.array([value for value, _ in at]) - offset
        slopes = np.array([slope for _, slope in at])[:, :, known.columns]
        difference = replace(known, y=known.y - values, slopes=known.slopes - slopes)
        errors = self.errors.learn(difference)
        scaled = self.scaled
        columns = known.columns

        def predict(z: Array) -> tuple[Array, Array]:
            x = known.x[known.center].copy()
            x[columns] = scaled.low[columns] + np.clip(z, 0.0, 1.0) * scaled.span[columns]
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
            raise ArithmeticError("the surrogate's prediction is not finite")
        scaled = self.scaled
        return y[scaled.used] / scaled.slopes, jacobian[scaled.used] * scaled.span / scaled.slopes[:, None]
