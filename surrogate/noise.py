"""What training knows of noise and of errors, as plain values for the provenance."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor

from surrogate.scaling import Scaling

Array = NDArray[np.float64]


def noise_record(noise: Array, scaling: Scaling, parameters: Sequence[str], responses: Sequence[str]) -> dict[str, Any]:
    """Standard deviations of the labels' noise as plain values: of `values` by response, of `slopes` by parameter, too.

    Args:
        noise: Of scaled values, then slopes (m, 1 + n); NaN where there is no estimate, which becomes None.
        scaling: Of the labels.
        parameters: Names of the n inputs.
        responses: Names of the m responses.
    """
    values, slopes = noise[:, 0] * scaling.y_scale, scaling.unscale_jacobian(noise[:, 1:])
    return {
        "values": dict(zip(responses, map(_plain, values), strict=True)),
        "slopes": {
            response: dict(zip(parameters, map(_plain, row), strict=True))
            for response, row in zip(responses, slopes, strict=True)
        },
    }


def relative_errors(errors: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Root mean square errors of values and of slopes over all inputs (m,), (m,); NaN where nothing is known.

    Values' are relative to their standard deviation, slopes' to their root mean square: 1 is as good as a constant.

    Args:
        errors: Of values, then slopes (N, m, 1 + n).
        labels: Likewise.
        known: Which labels are there (N, m, 1 + n).
    """
    squares, sizes = (torch.where(known, part.square(), 0.0) for part in (errors, labels))
    count, sums = known[..., 0].sum(0), torch.where(known, labels, 0.0)[..., 0].sum(0)
    values = squares[..., 0].sum(0) / (sizes[..., 0].sum(0) - sums.square() / count)
    return values.sqrt(), (squares[..., 1:].sum((0, 2)) / sizes[..., 1:].sum((0, 2))).sqrt()


def held_out_record(values: Tensor, slopes: Tensor, responses: Sequence[str]) -> dict[str, dict[str, float | None]]:
    """Errors on samples not seen as plain values, by response and kind; None where there is no label.

    Args:
        values: Relative errors of values (m,).
        slopes: Relative errors of slopes (m,).
        responses: Names of the m responses.
    """
    pairs = zip(responses, values.tolist(), slopes.tolist(), strict=True)
    return {name: {"values": _plain(value), "slopes": _plain(slope)} for name, value, slope in pairs}


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
