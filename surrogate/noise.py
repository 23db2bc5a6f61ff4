"""What training has estimated of the labels' noise, in physical units."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
