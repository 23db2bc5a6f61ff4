"""From samples to the surrogate that suits them."""

from __future__ import annotations

from collections.abc import Callable

from surrogate.model import Surrogate
from surrogate.monitor import Progress
from surrogate.samples import Data
from surrogate.training import train


def fit(
    data: Data, *, seed: int = 0, device: str = "cpu", progress: Callable[[Progress], None] | None = None
) -> Surrogate:
    """Learn responses and, where the data holds them, their Jacobians."""
    return train(data, seed=seed, device=device, progress=progress)
