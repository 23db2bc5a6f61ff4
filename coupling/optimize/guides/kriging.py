"""Gaussian processes with gradients on what the model has said, refined with every solve."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import scipy.optimize

from coupling.contract import Array
from coupling.optimize.guides.base import Known, Prediction
from coupling.optimize.guides.evidence import Evidence

LEARNED_FROM, MOST = 300, 1000
"""Labels of a response that length scales are learned from, and that a process takes; the nearest of more."""

ITERATIONS = 20


@dataclass
class GaussianProcess:
    """An interpolating process for each response (Morris et al. 1993); length scales go on from the last fit's.

    Attributes:
        name: What messages call it.
        theta: Logarithms of length scales by response, of the last fit.
    """

    name: str = "Gaussian process"
    local: bool = False
    bold: bool = False
    transformed: bool = False
    theta: dict[int, Array] = field(default_factory=dict)
    _last: tuple[Known, Prediction] | None = None

    def learn(self, known: Known) -> Prediction:
        """Posterior means given the samples nearest to the center.

        Raises:
            ArithmeticError: If a covariance can't be factorized.
        """
        if self._last is not None and self._last[0] is known:
            return self._last[1]
        p = known.z.shape[1]
        rows = known.nearest(max(MOST // (1 + p), 4))
        few = rows[: max(LEARNED_FROM // (1 + p), 4)]
        means = []
        for r in range(known.y.shape[1]):
            theta = self._scales(Evidence(known.z[few] - 0.5, known.y[few, r], known.slopes[few, r]), r)
            means.append(Evidence(known.z[rows] - 0.5, known.y[rows, r], known.slopes[rows, r]).condition(theta))

        def predict(z: Array) -> tuple[Array, Array]:
            values, slopes = zip(*(mean(z - 0.5) for mean in means), strict=True)
            return np.array(values), np.array(slopes)

        self._last = (known, predict)
        return predict

    def _scales(self, evidence: Evidence, r: int) -> Array:
        """From the last fit's scales; where samples have doubled, the more likely of that and one from the prior's."""
        known = r in self.theta and self.theta[r].shape == evidence.start.shape
        starts = [self.theta[r]] if known else []
        if not known or len(evidence.z).bit_count() == 1:
            starts.append(evidence.start)
        ends = [
            scipy.optimize.minimize(
                evidence,
                start,
                jac=True,
                method="L-BFGS-B",
                bounds=[(s - 6.0, s + 5.0) for s in evidence.start],
                options={"maxiter": ITERATIONS, "ftol": 1e-6},
            )
            for start in starts
        ]
        self.theta[r] = min(ends, key=lambda end: end.fun).x
        return self.theta[r]
