"""Fields in and out on one mesh, as training sees them: arrays, or files of which rows are read; and their scaling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import re
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np

from sobofem.surrogate.operators.mesh import Mesh, Numbers
from sobofem.surrogate.samples import arrays
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import CONSTANT_SPREAD

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


FAR = 10.0
"""Deviations from the mean of a channel beyond which an input that never varies would drown the others."""


@dataclass(frozen=True, eq=False)
class FieldScaling:
    """Affine maps of nodal fields: x̃ = (x - center) / scale.

    Nodal inputs that never vary have their value for a centre where they are far from the channel's mean, as all of a
    channel may be that is a constant.

    Nodal outputs that never vary, such as prescribed displacements, have their value for a centre, and a scale of zero:
    predictions keep them exactly.

    Attributes:
        input_center: (P, c_in).
        input_scale: (P, c_in), positive.
        output_center: (P, c_out).
        output_scale: (P, c_out), positive, but zero where outputs never vary.
        low: Least nodal inputs seen (P, c_in).
        high: Largest nodal inputs seen (P, c_in).
    """

    input_center: Array
    input_scale: Array
    output_center: Array
    output_scale: Array
    low: Array
    high: Array

    @classmethod
    def from_data(cls, samples: OperatorSamples, rows: Numbers) -> Self:
        """Mean zero and variance one of each channel over the samples of these rows and the nodes where it varies.

        Output channels of the same unit, or of the same vector by their names, `u_x` and `u_y`, share the scale of the
        largest: an error of one counts as that of another.

        Raises:
            ValueError: If no output varies at all.
        """
        x, y = _Moments.of(samples, "inputs", rows), _Moments.of(samples, "outputs", rows)
        if not y.varies.any():
            raise ValueError(f"the outputs {', '.join(samples.output_names)} don't vary over the {len(rows)} samples")
        scales = _shared(y.deviation, samples.output_names, samples.units)
        far = ~x.varies & (np.abs(x.low - x.mean) > FAR * x.deviation)
        return cls(
            input_center=np.where(far, x.low, x.mean),
            input_scale=np.broadcast_to(x.deviation, x.low.shape).copy(),
            output_center=np.where(y.varies, y.mean, y.low),
            output_scale=np.where(y.varies, scales, 0.0),
            low=x.low,
            high=np.where(x.varies, x.high, x.low),  # rounding is no variation
        )

    def scale_inputs(self, x: Array) -> Array:
        """Scaled inputs (..., P, c_in)."""
        return (x - self.input_center) / self.input_scale

    def scale_outputs(self, y: Array) -> Array:
        """Scaled outputs (..., P, c_out), zero where they never vary."""
        return (y - self.output_center) * self._inverse

    def unscale_outputs(self, y: Array) -> Array:
        """Outputs (..., P, c_out) of scaled ones."""
        return self.output_center + self.output_scale * y

    def scale_derivatives(self, dy: Array) -> Array:
        """Derivatives of the scaled outputs, of those of the outputs (..., P, c_out)."""
        return dy * self._inverse

    @property
    def varied(self) -> np.ndarray:
        """Which nodal inputs vary over the samples (P, c_in)."""
        return self.low < self.high

    @property
    def norm_scale(self) -> Array:
        """What scaled errors are multiplied by (c_out,) to be in units of the channels."""
        largest: Array = self.output_scale.max(axis=0)
        return np.where(largest > 0.0, largest, 1.0)

    @property
    def _inverse(self) -> Array:
        varies = self.output_scale > 0.0
        return varies / np.where(varies, self.output_scale, 1.0)


@dataclass(frozen=True, eq=False)
class _Moments:
    """What there is to know of a nodal field's channels.

    Attributes:
        low, high: Least and largest values (P, c).
        varies: Which values vary over the samples (P, c).
        mean, deviation: Of each channel over what varies (c,); zero and one where nothing does.
    """

    low: Array
    high: Array
    varies: np.ndarray
    mean: Array
    deviation: Array

    @classmethod
    def of(cls, samples: OperatorSamples, name: str, rows: Numbers) -> Self:
        """Of these rows of an array."""
        low = high = sums = None
        for part in samples.chunks(name, rows):
            least, most, total = part.min(axis=0), part.max(axis=0), part.sum(axis=0)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
            sums = total if sums is None else sums + total
        assert low is not None and high is not None and sums is not None
        size = np.maximum(np.abs(low), np.abs(high)).max(axis=0)
        varies = high - low > CONSTANT_SPREAD * size
        count = np.maximum(varies.sum(axis=0), 1) * len(rows)
        mean = np.where(varies, sums, 0.0).sum(axis=0) / count
        squares = sum(
            np.where(varies, part - mean, 0.0).__pow__(2).sum(axis=(0, 1)) for part in samples.chunks(name, rows)
        )
        deviation = np.sqrt(squares / count)
        return cls(low, high, varies, mean, np.where(deviation > 0.0, deviation, 1.0))


def _shared(deviations: Array, names: Sequence[str], units: Mapping[str, str]) -> Array:
    """The largest deviation among the channels of the same unit or vector, for each (c,); of any other its own."""
    found = [units.get(name, "") or f"that of {_COMPONENT.sub('', name)}" for name in names]
    return np.array([max(d for d, unit in zip(deviations, found, strict=True) if unit == own) for own in found])


_COMPONENT = re.compile("_[xyz]$")
