"""Samples that have been checked: what training works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from surrogate.checks import (
    check_bounds,
    check_directions,
    check_finite,
    check_inside,
    check_labels,
    check_names,
    check_shapes,
)

__all__ = [
    "FEWEST",
    "Data",
    "Samples",
    "as_points",
    "check_bounds",
    "check_finite",
    "check_inside",
    "check_names",
    "check_shapes",
]

Array = NDArray[np.float64]

FEWEST = 4


class Data(Protocol):
    """Anything with these attributes can be trained on.

    It may offer more: the mappings `units` and `provenance`, the arrays `directions` and `hessian_actions`, and
    `missing`, all as `Samples` describes them.
    """

    @property
    def x(self) -> ArrayLike:
        """Inputs (N, n)."""

    @property
    def y(self) -> ArrayLike:
        """Responses (N, m)."""

    @property
    def jacobian(self) -> ArrayLike | None:
        """Jacobians dy/dx (N, m, n), or None."""

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the n inputs."""

    @property
    def responses(self) -> tuple[str, ...]:
        """Names of the m responses."""

    @property
    def bounds(self) -> ArrayLike:
        """The box that the inputs live in, (n, 2)."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs, responses and Jacobians in physical units, checked as they come in.

    Attributes:
        x: Inputs (N, n).
        y: Responses (N, m).
        jacobian: Jacobians dy/dx (N, m, n), or None.
        parameters: Names of the n inputs.
        responses: Names of the m responses.
        bounds: The box that the inputs live in, (n, 2).
        units: Unit of each parameter and response that has one, by name.
        provenance: Where the samples came from, as plain values.
        directions: A direction for each sample in the space of inputs (N, n), in their units and of any length but
            zero, or None.
        hessian_actions: Hessian of each response times the sample's direction (N, m, n), or None. Entry (i, j) is
            Σ_k ∂²y_i/∂x_j∂x_k v_k. It needs directions, and Jacobians.
        missing: Whether NaN in `jacobian` and `hessian_actions` stands for a label that isn't there. Without it NaN
            is an accident, and refused.

    Raises:
        ValueError: If shapes don't fit together, names repeat, there are fewer than four samples, or one
            holds NaN or infinity or lies outside the bounds; the message names names and rows.
    """

    x: Array
    y: Array
    jacobian: Array | None
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    bounds: Array
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    directions: Array | None = None
    hessian_actions: Array | None = None
    missing: bool = False

    @classmethod
    def of(cls, data: Data, *, missing: bool | None = None) -> Self:
        """Take what training needs from any object that has it.

        Args:
            data: The object.
            missing: Whether NaN among its derivatives stands for a label that isn't there; by default as its attribute
                `missing` says, and not without one.

        Raises:
            TypeError: If the object lacks an attribute.
            ValueError: If what it holds is not usable, as the class says.
        """
        wanted = ("x", "y", "jacobian", "parameters", "responses", "bounds")
        lacking = [name for name in wanted if not hasattr(data, name)]
        if lacking:
            raise TypeError(f"{type(data).__name__} can't be trained on: it lacks {', '.join(lacking)}")
        return cls(
            x=_array(data.x),
            y=_array(data.y),
            jacobian=_optional(data.jacobian),
            parameters=tuple(data.parameters),
            responses=tuple(data.responses),
            bounds=_array(data.bounds),
            units=dict(getattr(data, "units", None) or {}),
            provenance=_provenance(data),
            directions=_optional(getattr(data, "directions", None)),
            hessian_actions=_optional(getattr(data, "hessian_actions", None)),
            missing=bool(getattr(data, "missing", False) if missing is None else missing),
        )

    def __post_init__(self) -> None:
        """Refuse samples that can't be trained on."""
        check_names(self.parameters, self.responses)
        labels = {"directions": self.directions, "hessian_actions": self.hessian_actions}
        check_shapes(self.x, self.y, self.jacobian, self.parameters, self.responses, **labels)
        if len(self.x) < FEWEST:
            raise ValueError(f"there are {len(self.x)} samples; expected at least {FEWEST}")
        check_bounds(self.bounds, self.parameters)
        check_finite(self.x, self.y, None)
        check_labels("jacobian", self.jacobian, missing=self.missing)
        check_labels("hessian_actions", self.hessian_actions, missing=self.missing)
        check_directions(self.directions, self.hessian_actions, self.jacobian)
        check_inside(self.x, self.bounds, self.parameters)

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """Which labels of the Jacobians are there (N, m, n); None without Jacobians."""
        return None if self.jacobian is None else ~np.isnan(self.jacobian)

    @property
    def complete(self) -> bool:
        """Whether no label is missing from the Jacobians and the actions."""
        return not any(
            labels is not None and np.isnan(labels).any() for labels in (self.jacobian, self.hessian_actions)
        )


def as_points(x: ArrayLike, parameters: tuple[str, ...]) -> Array:
    """Points (N, n) as an array.

    Raises:
        ValueError: If the shape is another, or one holds NaN or infinity.
    """
    points = np.asarray(x, dtype=np.float64)
    if points.ndim != 2 or points.shape[1] != len(parameters):
        raise ValueError(f"x has shape {points.shape}, expected (N, {len(parameters)}) for parameters {parameters}")
    if not np.isfinite(points).all():
        raise ValueError("x holds NaN or infinity")
    return points


def _provenance(data: Data) -> dict[str, Any]:
    """What the data says of itself, and the digest of the problem definition where its `description` has one."""
    digest = getattr(getattr(data, "description", None), "digest", "")
    return dict(getattr(data, "provenance", None) or {}) | ({"digest": digest} if digest else {})


def _array(values: ArrayLike) -> Array:
    return np.array(values, dtype=np.float64)


def _optional(values: ArrayLike | None) -> Array | None:
    return None if values is None else _array(values)
