"""How often the truth lies where the standard deviations say."""

from __future__ import annotations

from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
import torch

from surrogate.samples import Data

if TYPE_CHECKING:
    from surrogate.model import Surrogate

Array = NDArray[np.float64]


def coverage(surrogate: Surrogate, data: Data, *, level: float = 0.95) -> tuple[Array, Array | None] | None:
    """Share of samples within the surrogate's intervals, of values (m,) and of derivatives (m, n).

    Args:
        surrogate: Its module may offer `standard_deviation`.
        data: Samples that it hasn't seen.
        level: Share that an interval should hold, errors taken as normally distributed.

    Returns:
        Both shares; None for derivatives if the data holds none, and None for all without `standard_deviation`.
    """
    if not hasattr(surrogate.module, "standard_deviation"):
        return None
    x, scaling, reach = np.asarray(data.x), surrogate.scaling, NormalDist().inv_cdf(0.5 + level / 2)
    y, jacobian = surrogate.predict(x)
    with torch.no_grad():
        deviations = surrogate.module.standard_deviation(torch.from_numpy(scaling.scale_x(x)))  # type: ignore[operator]
    of_y, of_jacobian = (deviation.numpy() for deviation in deviations)
    values = np.abs(y - np.asarray(data.y)) <= reach * scaling.y_scale * of_y
    if data.jacobian is None or jacobian is None:
        return values.mean(axis=0), None
    slopes = np.abs(jacobian - np.asarray(data.jacobian)) <= reach * scaling.unscale_jacobian(of_jacobian)
    return values.mean(axis=0), slopes.mean(axis=0)
