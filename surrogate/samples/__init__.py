"""Samples that have been checked: what training works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import Tensor

from sobofem.surrogate.samples import arrays, labelled
from sobofem.surrogate.samples.arrays import Array, optional
from sobofem.surrogate.samples.checks import (
    EXTRAPOLATE,
    check_bounds,
    check_directions,
    check_finite,
    check_inside,
    check_labels,
    check_names,
    check_shapes,
    check_values,
)

__all__ = [
    "MIN_SAMPLES",
    "Data",
    "Samples",
    "as_bounds",
    "as_points",
    "check_bounds",
    "check_finite",
    "check_inside",
    "check_names",
    "check_shapes",
]


MIN_SAMPLES = 4
"""Fewest samples that anything is learned from."""
OWN_RANGE = "the range of the samples"
"""What the provenance says of bounds that nobody gave."""
WIDEN = "widen the bounds, or give none to take the range of the samples"


class Data(Protocol):
    """Anything with these attributes can be trained on.

    Arrays may be anything that `Samples` takes. It may offer more: the mappings `units` and `provenance`, the arrays
    `directions` and `hessian_actions`, and `missing`, all as `Samples` describes them.
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
    def bounds(self) -> ArrayLike | None:
        """The box that the inputs live in, (n, 2), or None for the range of the samples."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs, responses and Jacobians in physical units, checked as they come in.

    Arrays may be given as anything that holds real numbers: arrays and tensors of any library, precision and device,
    lists, data frames. Columns with names are put into order by them, `d(response)/d(parameter)` those of a Jacobian;
    (N,) will do for one parameter or one response. What comes out is float64.

    Attributes:
        x: Inputs (N, n).
        y: Responses (N, m).
        jacobian: Jacobians dy/dx (N, m, n), or None.
        parameters: Names of the n inputs; by default those of the columns of `x`.
        responses: Names of the m responses; by default those of the columns of `y`.
        bounds: The box that the inputs live in, (n, 2), or a range for each name; by default that of the samples.
        units: Unit of each parameter and response that has one, by name.
        provenance: Where the samples came from, as plain values.
        directions: A direction for each sample in the space of inputs (N, n), in their units and of any length but
            zero, or None.
        hessian_actions: Hessian of each response times the sample's direction (N, m, n), or None. Entry (i, j) is
            Σ_k ∂²y_i/∂x_j∂x_k v_k. It needs directions, and Jacobians.
        missing: Whether NaN in `y`, `jacobian` and `hessian_actions` stands for a label that isn't there. Without it
            NaN is an accident, and refused.

    Raises:
        TypeError: If an array holds complex numbers, text or other objects.
        ValueError: If shapes or columns don't fit together, names repeat, there are fewer than four samples, or one
            holds NaN or infinity or lies outside the bounds; the message names names and rows.
    """

    x: Array
    y: Array
    jacobian: Array | None = None
    parameters: tuple[str, ...] = ()
    responses: tuple[str, ...] = ()
    bounds: Array = None  # type: ignore[assignment]  # an array from here on
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
            missing: Whether NaN among its labels stands for one that isn't there; by default as its attribute `missing`
                says, and not without one.

        Raises:
            TypeError: If the object lacks an attribute.
            ValueError: If what it holds is not usable, as the class says.
        """
        if isinstance(data, cls) and missing in (None, data.missing):
            return data
        wanted = ("x", "y", "jacobian", "parameters", "responses")
        lacking = [name for name in wanted if not hasattr(data, name)]
        if lacking:
            raise TypeError(
                f"{type(data).__name__} can't be trained on: it lacks {', '.join(lacking)}; "
                "make it surrogate.Samples(x, y, jacobian, parameters, responses, bounds)"
            )
        return cls(
            x=_copy(data.x),  # an array from there on
            y=_copy(data.y),
            jacobian=_copy(data.jacobian),
            parameters=data.parameters,
            responses=data.responses,
            bounds=optional(data, "bounds"),
            units=dict(optional(data, "units", {})),
            provenance=provenance_of(data),
            directions=_copy(optional(data, "directions")),
            hessian_actions=_copy(optional(data, "hessian_actions")),
            missing=bool(optional(data, "missing", False) if missing is None else missing),
        )

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.x)

    def __getitem__(self, row: int) -> dict[str, Tensor]:
        """One sample as tensors by name, in physical units, so that a `DataLoader` of PyTorch gives batches of them."""
        if not -len(self) <= row < len(self):
            raise IndexError(f"there is no sample {row}; there are {len(self)}")
        kinds = ("x", "y", "jacobian", "directions", "hessian_actions")
        return {name: torch.from_numpy(part[row]) for name in kinds if (part := getattr(self, name)) is not None}

    def __post_init__(self) -> None:
        """Make arrays of what came, and refuse samples that can't be trained on."""
        self._convert()
        labels = {"directions": self.directions, "hessian_actions": self.hessian_actions}
        check_shapes(self.x, self.y, self.jacobian, self.parameters, self.responses, **labels)
        if len(self.x) < MIN_SAMPLES:
            raise ValueError(f"there are {len(self.x)} samples; expected at least {MIN_SAMPLES}")
        check_finite(self.x, None, None)
        self._bound()
        check_values(self.y, self.responses, missing=self.missing)
        check_labels("jacobian", self.jacobian, missing=self.missing)
        check_labels("hessian_actions", self.hessian_actions, missing=self.missing)
        check_directions(self.directions, self.hessian_actions, self.jacobian)

    def _convert(self) -> None:
        """Names as text, and arrays in their order."""
        labels = {"jacobian": self.jacobian, "hessian_actions": self.hessian_actions}
        labelled.check_rows(x=self.x, y=self.y, directions=self.directions, **labels)
        parameters = arrays.names_of(self.parameters, "parameters") or labelled.column_names(self.x, "x")
        responses = arrays.names_of(self.responses, "responses") or labelled.column_names(self.y, "y")
        check_names(parameters, responses)
        found: dict[str, Any] = {
            "parameters": parameters,
            "responses": responses,
            "x": arrays.table(self.x, parameters, "x"),
            "y": arrays.table(self.y, responses, "y"),
        }
        if self.directions is not None:
            found["directions"] = arrays.table(self.directions, parameters, "directions")
        for name, given in labels.items():
            if given is not None:
                found[name] = arrays.jacobians(given, responses, parameters, name)
        for name, value in found.items():
            object.__setattr__(self, name, value)

    def _bound(self) -> None:
        """The bounds given, which hold all samples, or those of the samples."""
        given = self.bounds is not None
        bounds = as_bounds(self.bounds if given else np.stack((self.x.min(0), self.x.max(0)), 1), self.parameters)
        object.__setattr__(self, "bounds", bounds)
        if not given:
            object.__setattr__(self, "provenance", {**self.provenance, "bounds": OWN_RANGE})
        check_inside(self.x, bounds, self.parameters, remedy=WIDEN)

    @property
    def known(self) -> NDArray[np.bool_] | None:
        """Which labels of the Jacobians are there (N, m, n); None without Jacobians."""
        return None if self.jacobian is None else ~np.isnan(self.jacobian)

    @property
    def complete(self) -> bool:
        """Whether no label is missing."""
        labels = (self.y, self.jacobian, self.hessian_actions)
        return not any(kind is not None and np.isnan(kind).any() for kind in labels)


def as_points(x: Any, parameters: tuple[str, ...], bounds: Array | None = None) -> Array:
    """Points (N, n) as an array, in the order of the parameters where columns have names.

    Args:
        x: Points, one a row, as anything that holds numbers; one point by names is one row.
        parameters: Names of the n inputs.
        bounds: The box (n, 2) that they must lie in, where they must.

    Raises:
        TypeError: If it holds complex numbers, text or other objects.
        ValueError: If the shape or the columns are others, or one holds NaN or infinity or lies outside the bounds.
    """
    points = arrays.table(x, parameters, "x")
    if points.ndim != 2 or points.shape[1] != len(parameters):
        raise ValueError(f"x has shape {points.shape}, expected (N, {len(parameters)}) for parameters {parameters}")
    check_finite(points, None, None, remedy="give finite numbers")
    if bounds is not None:
        check_inside(points, bounds, parameters, remedy=EXTRAPOLATE)
    return points


def as_bounds(bounds: Any, parameters: tuple[str, ...]) -> Array:
    """Bounds (n, 2) as an array of their own, in the order of the parameters where they have names.

    Raises:
        TypeError: If they hold complex numbers, text or other objects.
        ValueError: If the shape or the names are others, or a range is not finite or not ordered.
    """
    found = np.array(arrays.box(bounds, parameters))
    check_bounds(found, parameters)
    return found


def provenance_of(data: Data) -> dict[str, Any]:
    """What the data says of itself, and the digest of the problem definition where its `description` has one."""
    digest = optional(optional(data, "description"), "digest", "")
    return dict(optional(data, "provenance", {})) | ({"digest": digest} if digest else {})


def _copy(values: Any) -> Any:
    """Arrays of NumPy of their own where they can be written to: what the caller does to his is no concern of ours."""
    owner = values
    while isinstance(owner, np.ndarray) and not owner.flags.writeable:  # a view may belong to one that is written to
        owner = owner.base
    return values.copy() if isinstance(owner, np.ndarray) else values
