"""The base class of predictors, and what they learn from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.contract import Array
from sobofem.coupling.models.corrected import Correction

Rows = NDArray[np.intp]

Prediction = Callable[[Array], tuple[Array, Array]]
"""Maps a scaled point (p,) to scaled responses (r,) and their slopes (r, p)."""


@dataclass(frozen=True, eq=False)
class Known:
    """Samples in scaled units, about one of them.

    Attributes:
        z: Inputs in the unit box (N, p).
        y: Responses less those at the center, over their reference slopes (N, r).
        slopes: dy/dz (N, r, p).
        center: Which sample the search stands at.
        radius: Half the width of the trust region.
        weights: Of the responses in the objective (r,).
        x: The samples in physical units (N, n).
        columns: Which inputs z are (p,).
        offset: Responses at the center, over their reference slopes (r,).
    """

    z: Array
    y: Array
    slopes: Array
    center: int
    radius: float
    weights: Array
    x: Array
    columns: Rows
    offset: Array

    @property
    def here(self) -> Array:
        """The center (p,)."""
        return self.z[self.center]

    @property
    def unseen(self) -> int:
        """Number of directions from the center in which there need not be a sample."""
        return self.z.shape[1] - len(self.z) + 1

    def nearest(self, count: int) -> Rows:
        """Numbers of the samples nearest to the center, which is the first."""
        distance = np.linalg.norm(self.z - self.here, axis=1)
        distance[self.center] = -1.0
        return np.argsort(distance, kind="stable")[:count]


class Predictor(ABC):
    """A way to predict responses from samples: derive from it, define `learn`, and pass it as `minimize(predictors=)`.

    It may remember what it learned from fewer samples. One that raises anything but `ArithmeticError` is left out.

    Attributes:
        name: What messages and pictures call it; by default the name of its class.
        local: Whether its predictions have all digits near the center; others are not asked in a small trust region.
        bold: Whether it follows curvature of any sign, also where no sample has seen any.
        transformed: Whether it learns in other coordinates; it must then have been better than others to lead.
    """

    name: str
    local: bool = False
    bold: bool = False
    transformed: bool = False

    def __init_subclass__(cls) -> None:
        """Name a class after itself, where it has no name of its own."""
        super().__init_subclass__()
        cls.name = cls.__dict__.get("name", cls.__name__)

    @abstractmethod
    def learn(self, known: Known) -> Prediction:
        """Predictions of the responses, made to agree with the center to first order by `corrected`.

        Raises:
            ArithmeticError: If these samples can't be learned from.
        """


def corrected(prediction: Prediction, known: Known) -> Prediction:
    """A prediction shifted and tilted to agree with the center in values and slopes.

    It raises ArithmeticError where it predicts NaN or infinity.

    Raises:
        ValueError: If predictions have other shapes than responses (r,) and slopes (r, p).
    """
    here, truth = known.here, known.slopes[known.center]
    own, own_slopes = prediction(here)
    if np.shape(own) != truth.shape[:1] or np.shape(own_slopes) != truth.shape:
        raise ValueError(
            f"predictions have shapes {np.shape(own)} and {np.shape(own_slopes)}, expected {truth.shape[:1]} and "
            f"{truth.shape}: responses and their slopes"
        )
    correction = Correction(here, known.y[known.center] - own, truth - own_slopes)

    def agreeing(z: Array) -> tuple[Array, Array]:
        y, slopes = correction(z, *prediction(z))
        assert slopes is not None
        if not (np.isfinite(y).all() and np.isfinite(slopes).all()):
            raise ArithmeticError("a prediction is not finite")
        return y, slopes

    return agreeing
