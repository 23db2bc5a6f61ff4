"""Which products of its Jacobian are stored with a sample: J v and Jᵀ w, with random vectors or with given ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Description, Model, Products, Sampled
from sobofem.coupling.models.evaluation import checked_products

_DIRECTIONS, _PRODUCT_DIRECTIONS, _WEIGHTS = 0x5B0F, 0x5B10, 0x5B11  # streams of random numbers


@dataclass(frozen=True, eq=False)
class Multiplied:
    """What a sample's Jacobian is multiplied with.

    Attributes:
        directions: How many random directions v, others for each sample; or these, the same for all, (k, n).
        weights: How many random weights w of the responses; or these, (r, m).
    """

    directions: int | Array = 0
    weights: int | Array = 0

    @classmethod
    def of_vectors(cls, directions: int | ArrayLike, weights: int | ArrayLike) -> Multiplied:
        """Numbers of vectors, or vectors as anything that makes an array."""
        vectors = (
            int(each) if isinstance(each, int | np.integer) else np.asarray(each) for each in (directions, weights)
        )
        return cls(*vectors)

    def __post_init__(self) -> None:
        for name in ("directions", "weights"):
            given = getattr(self, name)
            if isinstance(given, int):
                if given < 0:
                    raise ValueError(f"{given} {name} were asked for")
                continue
            found = np.array(given, dtype=np.float64)
            if found.ndim != 2 or not found.size or not np.isfinite(found).all():
                raise ValueError(f"{name} have shape {found.shape}, expected rows of finite numbers")
            object.__setattr__(self, name, found)

    def __bool__(self) -> bool:
        """Whether there are any."""
        return any(not isinstance(each, int) or each > 0 for each in (self.directions, self.weights))

    def check(self, description: Description) -> None:
        """Refuse vectors that don't fit a model.

        Raises:
            ValueError: With the numbers.
        """
        pairs = (("directions", description.parameters, "parameters"), ("weights", description.responses, "responses"))
        for name, names, what in pairs:
            if isinstance(given := getattr(self, name), np.ndarray) and given.shape[1] != len(names):
                raise ValueError(f"{name} have shape {given.shape}, for {len(names)} {what}")

    def none_yet(self, n: int, m: int) -> dict[str, Any]:
        """The products of no samples, for a dataset of n parameters and m responses."""
        found: dict[str, Any] = {}
        of = (("jvp_directions", "jvp", self.directions, n, m), ("vjp_weights", "vjp", self.weights, m, n))
        for factor, product, given, inner, outer in of:
            own = isinstance(given, int)
            if own and not given:
                continue
            count = given if isinstance(given, int) else len(given)
            found |= {factor: np.zeros((0, count, inner)) if own else given, product: np.zeros((0, count, outer))}
        return found

    def of(self, model: Model, x: Array, row: int) -> dict[str, Array]:
        """The products of a row's sample at x (n,), and the vectors that only it has. Collective on the model's ranks.

        Raises:
            ValueError: If the model's products have wrong shapes, or hold NaN or infinity.
        """
        if not self:
            return {}
        found: dict[str, Array] = {}
        v = self.directions
        if isinstance(v, int) and v:
            v = found["jvp_directions"] = directions(model, v, row)
        w = self.weights
        if isinstance(w, int) and w:
            m = len(model.responses)
            w = np.random.default_rng([_WEIGHTS, row]).normal(size=(w, m)) / np.sqrt(m)
            found["vjp_weights"] = w
        assert isinstance(model, Products)
        if isinstance(v, np.ndarray):
            found["jvp"] = checked_products(model, "jvp", x, v, len(model.responses))
        if isinstance(w, np.ndarray):
            found["vjp"] = checked_products(model, "vjp", x, w, len(model.parameters))
        return found


NOTHING = Multiplied()


def directions(model: Model, count: int, row: int) -> Array:
    """Random directions (count, n) of a row, the same whoever draws them.

    Where the model draws its own inputs, as different as these are; else spread evenly over the sphere of the unit box
    and scaled with the bounds.
    """
    if isinstance(model, Sampled):
        one, other = np.split(np.asarray(model.sample(2 * count, [_PRODUCT_DIRECTIONS, row])), 2)
        return np.asarray((one - other) / np.sqrt(2.0), dtype=np.float64)
    return on_sphere(np.random.default_rng([_PRODUCT_DIRECTIONS, row]), model.bounds, count)


def direction(row: int, bounds: ArrayLike) -> Array:
    """The direction (n,) in which the Jacobian of a row's sample is differentiated, the same whoever computes it.

    It is drawn at random on the sphere of the unit box, and scaled with the bounds (n, 2).
    """
    return on_sphere(np.random.default_rng([_DIRECTIONS, row]), bounds, 1)[0]


def on_sphere(random: np.random.Generator, bounds: ArrayLike, count: int) -> Array:
    """Directions (count, n) on the sphere of the unit box, scaled with the bounds (n, 2)."""
    low, high = np.asarray(bounds, dtype=np.float64).T
    drawn = random.normal(size=(count, len(low)))
    return np.asarray((high - low) * drawn / np.linalg.norm(drawn, axis=1, keepdims=True), dtype=np.float64)
