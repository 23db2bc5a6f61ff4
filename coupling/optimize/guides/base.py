"""What a guide is, and what it learns from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from coupling.contract import Array

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
    columns: Array
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


class Guide(Protocol):
    """A way to predict from samples; it may remember what it learned from fewer of them."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def local(self) -> bool:
        """Whether its predictions have all digits near the center."""

    @property
    def bold(self) -> bool:
        """Whether it follows curvature of any sign, also where no sample has seen any."""

    @property
    def transformed(self) -> bool:
        """Whether it learns in other coordinates, which must prove themselves."""

    def learn(self, known: Known) -> Prediction:
        """Predictions of the responses, made to agree with the center to first order by `corrected`.

        Raises:
            ArithmeticError: If these samples can't be learned from.
        """


def corrected(prediction: Prediction, known: Known) -> Prediction:
    """A prediction shifted and tilted to agree with the center in values and slopes (Alexandrov et al. 2001).

    It raises ArithmeticError where it foretells NaN or infinity.
    """
    here, truth = known.here, known.slopes[known.center]
    own, own_slopes = prediction(here)
    shift, tilt = known.y[known.center] - own, truth - own_slopes

    def agreeing(z: Array) -> tuple[Array, Array]:
        y, slopes = prediction(z)
        y, slopes = y + shift + tilt @ (z - here), slopes + tilt
        if not (np.isfinite(y).all() and np.isfinite(slopes).all()):
            raise ArithmeticError("a guide foretells what is not finite")
        return y, slopes

    return agreeing
