"""Points that the model draws itself: where inputs are fields, no box is what they are spread over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model, Sampled

KIND = "own"


@dataclass(frozen=True)
class OwnDesign:
    """A recipe for points that a model draws by its `sample(count, seed)`.

    Attributes:
        samples: Number of points N.
        seed: Seed.
    """

    samples: int
    seed: int
    kind = KIND

    def points(self, bounds: ArrayLike, parameters: Sequence[str]) -> Array:
        """None without the model.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"a design {KIND!r} is drawn by the model, which `sobofem generate` alone lets it do")

    def drawn(self, model: Model | None) -> Array:
        """The points (N, n). Collective on the model's ranks.

        Raises:
            TypeError: If the model draws none.
            ValueError: If it draws others than N finite ones.
        """
        if not isinstance(model, Sampled):
            raise TypeError(
                f"{type(model).__name__} has no sample(count, seed), by which a design {KIND!r} is drawn; take another"
            )
        found = np.array(model.sample(self.samples, self.seed), dtype=np.float64)
        expected = (self.samples, len(model.parameters))
        if found.shape != expected or not np.isfinite(found).all():
            raise ValueError(f"sample returned an array of shape {found.shape}, expected finite numbers {expected}")
        return found


@dataclass(frozen=True, eq=False)
class Drawn:
    """Points that a recipe gave, and what it is.

    Attributes:
        found: The points (N, n).
        kind: Of the recipe.
        seed: Of the recipe.
    """

    found: Array
    kind: str
    seed: int | None

    def points(self, bounds: ArrayLike, parameters: Sequence[str]) -> Array:
        """The points."""
        return self.found
