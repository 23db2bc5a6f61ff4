"""Time two or more things against each other, in turn, so that the machine's moods hit all alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import time

import numpy as np


def medians(things: Mapping[str, Callable[[], object]], *, repetitions: int = 15) -> dict[str, float]:
    """Median seconds of each thing; all are run once to warm up, then one after the other, again and again."""
    for thing in things.values():
        thing()
    seconds: dict[str, list[float]] = {name: [] for name in things}
    for _ in range(repetitions):
        for name, thing in things.items():
            start = time.perf_counter()
            thing()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}
