"""Samples that have been checked: what training works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

FEWEST = 4
OUTSIDE = 1e-9


class Data(Protocol):
    """Anything with these attributes can be trained on; `units` and `provenance` are optional mappings."""

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

    @classmethod
    def of(cls, data: Data) -> Self:
        """Take what training needs from any object that has it.

        Raises:
            TypeError: If the object lacks an attribute.
            ValueError: If what it holds is not usable, as the class says.
        """
        wanted = ("x", "y", "jacobian", "parameters", "responses", "bounds")
        missing = [name for name in wanted if not hasattr(data, name)]
        if missing:
            raise TypeError(f"{type(data).__name__} can't be trained on: it lacks {', '.join(missing)}")
        return cls(
            x=_array(data.x),
            y=_array(data.y),
            jacobian=None if data.jacobian is None else _array(data.jacobian),
            parameters=tuple(data.parameters),
            responses=tuple(data.responses),
            bounds=_array(data.bounds),
            units=dict(getattr(data, "units", None) or {}),
            provenance=_provenance(data),
        )

    def __post_init__(self) -> None:
        """Refuse samples that can't be trained on."""
        check_names(self.parameters, self.responses)
        check_shapes(self.x, self.y, self.jacobian, self.parameters, self.responses)
        if len(self.x) < FEWEST:
            raise ValueError(f"there are {len(self.x)} samples; expected at least {FEWEST}")
        check_bounds(self.bounds, self.parameters)
        check_finite(self.x, self.y, self.jacobian)
        check_inside(self.x, self.bounds, self.parameters)


def check_names(parameters: tuple[str, ...], responses: tuple[str, ...]) -> None:
    """Check that no name occurs twice.

    Raises:
        ValueError: If one does.
    """
    names = parameters + responses
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")


def check_shapes(
    x: Array, y: Array, jacobian: Array | None, parameters: tuple[str, ...], responses: tuple[str, ...]
) -> None:
    """Check that samples (N, n), (N, m) and (N, m, n) fit together and to the names.

    Raises:
        ValueError: If they don't; the message tells the shape that came and the one expected.
    """
    n, m = len(parameters), len(responses)
    if not n or not m:
        raise ValueError(f"there are {n} parameters and {m} responses; expected at least one of each")
    N = len(x) if x.ndim else 0
    for name, array, shape in (("x", x, (N, n)), ("y", y, (N, m)), ("jacobian", jacobian, (N, m, n))):
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {shape} for {N} samples, "
                f"parameters {parameters} and responses {responses}"
            )


def check_finite(x: Array, y: Array, jacobian: Array | None) -> None:
    """Check that samples hold neither NaN nor infinity.

    Raises:
        ValueError: If one does; the message names the rows.
    """
    for name, array in (("x", x), ("y", y), ("jacobian", jacobian)):
        if array is None:
            continue
        bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
        if len(bad):
            raise ValueError(f"{name} holds NaN or infinity in {_rows(bad)}; leave those samples out")


def check_bounds(bounds: Array, parameters: tuple[str, ...]) -> None:
    """Check that bounds (n, 2) are finite and ordered.

    Raises:
        ValueError: If they aren't; the message names the parameter.
    """
    if bounds.shape != (len(parameters), 2):
        raise ValueError(
            f"bounds has shape {bounds.shape}, expected {(len(parameters), 2)} for parameters {parameters}"
        )
    ordered = np.isfinite(bounds).all(axis=1) & (bounds[:, 0] < bounds[:, 1])
    if not ordered.all():
        worst = int(np.argmin(ordered))
        low, high = bounds[worst]
        raise ValueError(
            f"bounds of {parameters[worst]!r} are [{low:g}, {high:g}]; expected finite, lower before upper"
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


def check_inside(x: Array, bounds: Array, parameters: tuple[str, ...]) -> None:
    """Check that inputs lie in the box, give or take a relative 1e-9 of its width.

    Args:
        x: Inputs (N, n).
        bounds: The box (n, 2).
        parameters: Names of the n inputs, for the message.

    Raises:
        ValueError: If one doesn't; the message names the parameter, its range and the rows.
    """
    low, high = bounds.T
    slack = OUTSIDE * (high - low)
    outside = (x < low - slack) | (x > high + slack)
    if outside.any():
        k = int(np.argmax(outside.any(axis=0)))
        rows = np.flatnonzero(outside[:, k])
        raise ValueError(
            f"{parameters[k]!r} is {x[rows[0], k]:.10g} in {_rows(rows)}, outside its bounds [{low[k]:g}, {high[k]:g}]"
        )


def _provenance(data: Data) -> dict[str, Any]:
    """What the data says of itself, and the digest of the problem definition where its `description` has one."""
    digest = getattr(getattr(data, "description", None), "digest", "")
    return dict(getattr(data, "provenance", None) or {}) | ({"digest": digest} if digest else {})


def _array(values: ArrayLike) -> Array:
    return np.array(values, dtype=np.float64)


def _rows(rows: NDArray[np.intp]) -> str:
    shown = ", ".join(str(row) for row in rows[:5])
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown}{', …' if len(rows) > 5 else ''})"
