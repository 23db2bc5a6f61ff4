"""A surrogate as a function inside another computation: its derivatives up to the third, and a digest of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import is_dataclass
import hashlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
import torch

from sobofem.surrogate.device import neutral
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.networks.base import as_network_module
from sobofem.surrogate.samples import as_points
from sobofem.surrogate.samples.arrays import Array

CHUNK = 256
"""Points that go through a network at once: what it makes of them stays in the processor's cache."""


@neutral()
def derivatives(surrogate: Surrogate, x: ArrayLike, order: int) -> tuple[Array, ...]:
    """Responses (N, m) and their derivatives up to an order, (N, m, n), (N, m, n, n), ..., in physical units.

    In closed form for perceptrons, by automatic differentiation for other networks. Points outside the training bounds
    are not refused.

    Args:
        surrogate: The model.
        x: Points (N, n), one a row.
        order: 2 or 3.

    Raises:
        ValueError: If x has the wrong shape or holds NaN, or the order is another.
    """
    if order not in (2, 3):
        raise ValueError(f"order is {order!r}, expected 2 or 3; `predict` gives the first derivatives")
    scaling, n, m = surrogate.scaling, len(surrogate.parameters), len(surrogate.responses)
    points = scaling.scale_x(as_points(x, surrogate.parameters, None))
    found = tuple(np.empty((len(points), m, *(k * (n,)))) for k in range(order + 1))
    module = as_network_module(surrogate.module)
    for start in range(0, len(points), CHUNK):
        rows = slice(start, start + CHUNK)
        for whole, part in zip(found, module.derivatives(torch.from_numpy(points[rows]), order), strict=True):
            whole[rows] = part.numpy()
    found[0][:] = scaling.unscale_y(found[0])
    factor = scaling.y_scale
    for array in found[1:]:
        factor = factor[..., None] / scaling.x_scale
        array *= factor
    return found


def digest(surrogate: Surrogate) -> str:
    """A text that changes with all that decides predictions: weights, scaling, bounds, names, and kinds of layers."""
    content = hashlib.sha256()
    for part in surrogate.module.modules():
        # buffers that no file holds decide as well, and so do plain attributes of a module of one's own
        own = {**vars(part), **part._parameters, **part._buffers}
        kept = {name: value for name, value in own.items() if not name.startswith("_")}
        content.update(repr(type(part).__qualname__).encode())
        content.update(_content(kept))
    content.update(repr((surrogate.network, surrogate.parameters, surrogate.responses)).encode())
    content.update(_content({**vars(surrogate.scaling), "bounds": surrogate.bounds}))
    return content.hexdigest()[:16]


def _content(value: Any) -> bytes:
    """What tells a value from others: numbers, texts, arrays, and what is made of these; of all else its name."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray) and value.dtype != object:
        return repr((value.shape, str(value.dtype))).encode() + np.ascontiguousarray(value).tobytes()
    if is_dataclass(value) and not isinstance(value, type):
        value = vars(value)
    if isinstance(value, Mapping):
        return b"{%s}" % b",".join(_content(key) + b":" + _content(value[key]) for key in sorted(value, key=repr))
    if isinstance(value, list | tuple):
        return b"[%s]" % b",".join(map(_content, value))
    if value is None or isinstance(value, bool | int | float | complex | str | bytes | np.generic):
        return repr(value).encode()
    return str(getattr(value, "__qualname__", type(value).__qualname__)).encode()
