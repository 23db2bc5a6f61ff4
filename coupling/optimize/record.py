"""How well a guide has foretold of late."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

RECENT = 3
"""Solves that a guide is judged by."""


@dataclass
class Record:
    """What is known of one guide.

    Attributes:
        errors: Logarithms of the errors of the slopes that it foretold, in scaled units.
        bends: The same errors over the lengths of the steps: curvatures that it was wrong by.
    """

    errors: list[float] = field(default_factory=list)
    bends: list[float] = field(default_factory=list)

    def add(self, error: float, length: float) -> None:
        """Take down an error of slopes after a step of some length."""
        self.errors.append(float(np.log(error + 1e-12)))
        self.bends.append(error / max(length, 1e-12))

    @property
    def rank(self) -> float:
        """The lower the better; what has not been tried comes first."""
        return float(np.mean(self.errors[-RECENT:] or [-np.inf]))

    def doubt(self, distance: float) -> float:
        """By how much an objective that it foretells at a distance may be wrong; infinite where nothing is known."""
        return 0.5 * max(self.bends[-RECENT:], default=np.inf) * distance**2
