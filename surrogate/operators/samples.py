"""Fields in and out on one mesh, as training sees them: arrays, or files of which rows are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from sobofem.surrogate.operators.mesh import Mesh, Numbers
from sobofem.surrogate.samples import arrays
from sobofem.surrogate.samples.arrays import Array

_PRODUCTS = ("directions", "derivatives", "weights", "gradients")
NUMBERS_AT_ONCE = 4_000_000
"""Numbers of a field that are read at once where all of them are gone through."""


@runtime_checkable
class OperatorData(Protocol):
    """What `train_operator` takes: these attributes, and where there are products of the Jacobians, those, too."""

    @property
    def mesh(self) -> Any:
        """With `points` (P, d), `cells` (C, corners) and `cell`, as `Mesh`."""

    @property
    def inputs(self) -> Any:
        """Nodal fields (N, P, c_in): an array, a memory map or a dataset of HDF5."""

    @property
    def outputs(self) -> Any:
        """Nodal fields (N, P, c_out), likewise."""

    @property
    def input_names(self) -> tuple[str, ...]:
        """Names of the input channels."""

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the output channels."""


@dataclass(frozen=True, eq=False)
class OperatorSamples:
    """N pairs of nodal fields on a mesh, and products of the Jacobian between them.

    Arrays may be memory maps or datasets of HDF5: rows are read as they are needed.

    Attributes:
        mesh: The mesh, with P nodes.
        inputs: (N, P, c_in).
        outputs: (N, P, c_out).
        directions: k directions of each sample (N, k, P, c_in), or None.
        derivatives: Derivatives of the outputs along them (N, k, P, c_out), or None.
        weights: r weights of the nodal outputs of each sample (N, r, P, c_out), or None.
        gradients: Gradients of the sums with these weights by the inputs (N, r, P, c_in), or None.
        input_names: Names of the input channels.
        output_names: Names of the output channels.
        units: Unit of each channel that has one, by name.
        provenance: Where the samples are from.
    """

    mesh: Mesh
    inputs: Any
    outputs: Any
    directions: Any = None
    derivatives: Any = None
    weights: Any = None
    gradients: Any = None
    input_names: tuple[str, ...] = ()
    output_names: tuple[str, ...] = ()
    units: Mapping[str, str] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check shapes and names; missing names are numbered."""
        mesh = Mesh.of(self.mesh)
        shapes = {name: _shape(getattr(self, name), name) for name in ("inputs", "outputs")}
        N, P = shapes["inputs"][0], len(mesh)
        for name, shape in shapes.items():
            if len(shape) != 3 or shape[:2] != (N, P) or not N:
                raise ValueError(f"{name} have shape {shape}, expected (N, {P}, channels) for a mesh of {P} nodes")
        c_in, c_out = shapes["inputs"][2], shapes["outputs"][2]
        for pair, channels in (
            (("directions", "derivatives"), (c_in, c_out)),
            (("weights", "gradients"), (c_out, c_in)),
        ):
            self._check_products(pair, channels, N, P)
        names = {}
        for what, count in (("input", c_in), ("output", c_out)):
            given = tuple(getattr(self, f"{what}_names")) or tuple(f"{what}{k}" for k in range(count))
            if len(given) != count or len(set(given)) < count:
                raise ValueError(f"{what}_names are {given}, expected {count} different names")
            names[f"{what}_names"] = given
        vars(self).update(mesh=mesh, **names)

    @classmethod
    def of(cls, data: OperatorData) -> Self:
        """Anything with these attributes, checked.

        Raises:
            TypeError: If it lacks one that it must have.
            ValueError: If shapes or names don't fit together.
        """
        if isinstance(data, cls):
            return data
        wanted = ("mesh", "inputs", "outputs", "input_names", "output_names")
        if missing := [name for name in wanted if not hasattr(data, name)]:
            raise TypeError(f"{type(data).__name__} holds no fields to train on: it lacks {', '.join(missing)}")
        more: dict[str, Any] = {name: getattr(data, name, None) for name in _PRODUCTS}
        more |= {name: tuple(getattr(data, name)) for name in wanted[3:]}
        more |= {name: dict(getattr(data, name, None) or {}) for name in ("units", "provenance")}
        return cls(mesh=data.mesh, inputs=data.inputs, outputs=data.outputs, **more)

    def __len__(self) -> int:
        """Number of samples."""
        return int(self.inputs.shape[0])

    def chunks(self, name: str, rows: Numbers) -> Iterator[Array]:
        """These rows (sorted) of an array, a part after the other, in float64."""
        values = getattr(self, name)
        size = max(1, NUMBERS_AT_ONCE // max(1, int(np.prod(values.shape[1:]))))
        for start in range(0, len(self), size):
            stop = min(start + size, len(self))
            wanted = rows[(rows >= start) & (rows < stop)] - start
            if len(wanted):
                yield _finite(arrays.numbers(values[start:stop], name)[wanted], name)

    def read(self, name: str, rows: Numbers) -> Array:
        """These rows (sorted) of an array, in float64."""
        return _finite(arrays.numbers(getattr(self, name)[rows], name), name)

    def _check_products(self, pair: tuple[str, str], channels: tuple[int, int], N: int, P: int) -> None:
        found = {name: getattr(self, name) for name in pair}
        if all(values is None for values in found.values()):
            return
        if any(values is None for values in found.values()):
            raise ValueError(f"{' and '.join(pair)} come together; one of them is missing")
        k = _shape(found[pair[0]], pair[0])[1]
        for name, c in zip(pair, channels, strict=True):
            shape = _shape(found[name], name)
            if shape != (N, k, P, c) or not k:
                raise ValueError(f"{name} have shape {shape}, expected {(N, max(k, 1), P, c)}")


def _shape(values: Any, name: str) -> tuple[int, ...]:
    shape = getattr(values, "shape", None)
    if shape is None:
        raise TypeError(f"{name} is a {type(values).__name__}; expected an array")
    return tuple(int(size) for size in shape)


def _finite(values: Array, name: str) -> Array:
    if not np.isfinite(values).all():
        raise ValueError(f"{name} hold NaN or infinity; leave such samples out")
    return values
