"""Scaling of fields, channel by channel, and which of their values never change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import re
from typing import Self

import numpy as np

from sobofem.surrogate.operators.mesh import Numbers
from sobofem.surrogate.operators.samples import OperatorSamples
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import CONSTANT_SPREAD

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
