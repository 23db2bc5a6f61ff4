"""Another guide's second-order expansion about the center, which the nearest samples set right."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coupling.contract import Array
from coupling.optimize.guides.base import Guide, Known, Prediction
from coupling.optimize.guides.quasi_newton import expansion, nearest_secants

STEP = 1e-3
"""Of the differences of slopes that make Hessians, as a share of the box."""


@dataclass(frozen=True, eq=False)
class Expanded:
    """Hessians of another guide, updated by the secants from the center to the samples: for the last few steps.

    A process on ever nearer samples foretells curvature but no digits; an expansion has them all.

    Attributes:
        guide: Where the Hessians are from; asked second, it remembers what it has learned.
        name: What messages call it.
    """

    guide: Guide
    name: str = "expansion"
    local: bool = True
    bold: bool = True
    transformed: bool = False

    def learn(self, known: Known) -> Prediction:
        """A quadratic for each response."""
        prediction = self.guide.learn(known)
        here, p = known.here, known.z.shape[1]
        columns = [(prediction(here + e)[1] - prediction(here - e)[1]) / (2.0 * STEP) for e in STEP * np.eye(p)]
        hessians: Array = np.stack(columns, axis=2)
        hessians = 0.5 * (hessians + hessians.transpose(0, 2, 1))
        return expansion(known, nearest_secants(known, hessians))
