"""Samples whose responses are fields: thousands of values each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from sobofem.surrogate.samples import Data, arrays, as_bounds, check_inside, check_names, labelled
from sobofem.surrogate.samples.arrays import Array, optional


@dataclass(frozen=True, eq=False)
class FieldSamples:
    """Inputs, fields and their Jacobians in physical units.

    Inputs and fields may be given as anything that holds real numbers, as those of `Samples`; columns of the inputs are
    put into order by name. The Jacobians are read one sample at a time, so that they may lie on disk: a memory map, a
    dataset of h5py, or any sequence of N arrays (M, n).

    Attributes:
        x: Inputs (N, n).
        fields: Fields (N, M), one a row.
        jacobian: Jacobians dfield/dx (N, M, n), or None.
        parameters: Names of the n inputs.
        bounds: The box that the inputs live in, (n, 2).
        name: What the field is called.
        units: Unit of the field and of each parameter that has one, by name.
        provenance: Where the samples came from, as plain values.

    Raises:
        ValueError: If shapes don't fit together, names repeat, or something holds NaN or lies outside the bounds.
    """

    x: Array
    fields: Array
    jacobian: Array | Sequence[Array] | None
    parameters: tuple[str, ...]
    bounds: Array
    name: str = "field"
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, data: Data, name: str = "field") -> Self:
        """The responses of any data taken as the values of one field, in order.

        Args:
            data: Such as a dataset that `sobofem generate` made with a field of a problem for its model.
            name: What the field is called.

        Raises:
            ValueError: If what it holds doesn't fit together.
        """
        units = optional(data, "units", {})
        return cls(
            x=data.x,  # type: ignore[arg-type]  # an array from there on
            fields=data.y,  # type: ignore[arg-type]  # likewise
            jacobian=data.jacobian,  # type: ignore[arg-type]  # (N, m, n), checked as it is read
            parameters=data.parameters,
            bounds=data.bounds,  # type: ignore[arg-type]  # an array from there on
            name=name,
            units={key: unit for key, unit in units.items() if key in data.parameters},
            provenance=dict(optional(data, "provenance", {})),
        )

    def __post_init__(self) -> None:
        """Refuse samples that don't fit together."""
        parameters = arrays.names_of(self.parameters, "parameters") or labelled.column_names(self.x, "x")
        check_names(parameters, (self.name,))
        found = {
            "parameters": parameters,
            "x": arrays.table(self.x, parameters, "x"),
            "fields": arrays.numbers(self.fields, "fields"),
            "bounds": as_bounds(self.bounds, parameters),
        }
        for name, value in found.items():
            object.__setattr__(self, name, value)
        N, n = len(self.x), len(self.parameters)
        if self.x.shape != (N, n) or not n:
            raise ValueError(f"x has shape {self.x.shape}, expected (N, {n}) for parameters {self.parameters}")
        if self.fields.ndim != 2 or len(self.fields) != N or not self.fields.size:
            raise ValueError(f"fields have shape {self.fields.shape}, expected ({N}, M) for {N} samples")
        if self.jacobian is not None and len(self.jacobian) != N:
            raise ValueError(f"there are {len(self.jacobian)} Jacobians for {N} samples")
        for name, array in (("x", self.x), ("fields", self.fields)):
            if not np.isfinite(array).all():
                row = int(np.argmin(np.isfinite(array).all(axis=1)))
                raise ValueError(f"{name} hold NaN or infinity in row {row}; leave that sample out")
        check_inside(self.x, self.bounds, self.parameters)

    @property
    def scale(self) -> Array:
        """Standard deviation of each input in a uniform sample of the box, (n,): what derivatives are measured by."""
        return np.ptp(self.bounds, axis=1) / np.sqrt(12.0)

    def slopes(self) -> Iterator[Array]:
        """The Jacobians (M, n), sample by sample; none where there are none.

        Raises:
            ValueError: If one has another shape, or holds NaN or infinity.
        """
        shape = (self.fields.shape[1], len(self.parameters))
        for row, given in enumerate(() if self.jacobian is None else self.jacobian):
            slope = arrays.numbers(given, f"jacobian of row {row}")
            if slope.shape != shape:
                raise ValueError(
                    f"jacobian of row {row} has shape {slope.shape}, expected {shape}: (values, parameters)"
                )
            if not np.isfinite(slope).all():
                raise ValueError(f"jacobian holds NaN or infinity in row {row}; leave that sample out")
            yield slope
