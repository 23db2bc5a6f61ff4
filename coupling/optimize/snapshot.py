"""What a search among many inputs keeps of its samples, and what it remembers besides, as plain values.

Hundreds of points and Jacobians of a hundred thousand inputs fill a memory, and a file that is written anew after each
solve. Such a search needs few of them; what it has learned of the others is kept as numbers, so that it goes on from
there exactly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.optimize.acceptance import Filter
from sobofem.coupling.optimize.separable import SeparableSelection
from sobofem.coupling.optimize.solution import Step

if TYPE_CHECKING:
    from sobofem.coupling.optimize.trust_region import TrustRegion

LAST = 3
"""Samples that are kept besides the best one and the one that the search stands at: the last ones."""

LAST_FAILURES = 16
"""Failed points that are kept: the last ones."""

VERSION = 2
"""Of what is remembered: a search that finds another one goes on from the samples alone."""

PLAIN = ("radius", "message", "_center", "_searches_left", "_in_a_row", "_outside")
"""Attributes of a trust region that are numbers or texts."""

SECOND_ORDER = ("checked_at", "length", "escapes", "flat_tries", "by_products")
"""Those of what it does at first-order points. Curvatures are not kept: the same products give them again."""


def forget(region: TrustRegion, given: int, failed_before: int) -> tuple[NDArray[np.intp], slice]:
    """Have a search go on with few samples: those given, the best, its center, certified optima and the last ones.

    Args:
        region: The search, which has begun.
        given: How many samples it was given.
        failed_before: How many failed points.

    Returns:
        The numbers of the samples that are left, increasing; and which failed points are forgotten.
    """
    solved, center = region.solved, region._center
    assert center is not None
    count, failed = len(solved), len(solved.failed)
    last = range(max(count - LAST, 0), count)
    kept = np.array(sorted({*range(given), *last, solved.best(), center, *_optima(region)}), dtype=np.intp)
    failures = slice(failed_before, max(failed_before, failed - LAST_FAILURES))
    solved.forget(kept, failures)
    place = {int(i): k for k, i in enumerate(kept)}
    checked = region.second_order.checked_at
    region._center, region._resumed = place[center], {place[i] for i in region._resumed if i in place}
    region.second_order.checked_at = None if checked is None else place.get(checked)
    for k, step in enumerate(region.path):
        if len(step.x):
            region.path[k] = replace(step, x=np.zeros(0))
    return kept, failures


def _optima(region: TrustRegion) -> list[int]:
    """The numbers of the samples that are certified optima."""
    return [i for i, x in enumerate(region.solved.x) if x.tobytes() in region.optima]


def remembered(region: TrustRegion) -> dict[str, Any]:
    """All that a search among many inputs knows besides its samples, while no answer is pending."""
    scaled, doubtful, selection = region.scaled, region.second_order.suspects, region.selection
    assert isinstance(selection, SeparableSelection)
    return {
        "version": VERSION,
        **{name: getattr(region, name) for name in PLAIN},
        "slopes": scaled.slopes.tolist(),
        "slope": scaled.slope,
        "steepened": sorted(scaled.steepened),
        "filter": region._filter.pairs,
        "resumed": sorted(region._resumed),
        "optima": _optima(region),
        "doubtful": None if doubtful is None else np.flatnonzero(doubtful).tolist(),
        "drawn": region.second_order.rng.bit_generator.state,
        "second_order": {name: getattr(region.second_order, name) for name in SECOND_ORDER},
        "failed_starts": region.failed_starts,
        "selection": selection.remembered(),
        "path": [asdict(replace(step, x=step.x.tolist(), y=step.y.tolist())) for step in region.path],
    }


def recall(region: TrustRegion, known: Mapping[str, Any]) -> None:
    """Put a search where `remembered` was taken of it; its samples are those that were kept then."""
    for name in PLAIN:
        setattr(region, name, known[name])
    scaled, doubtful, selection = region.scaled, known["doubtful"], region.selection
    assert isinstance(selection, SeparableSelection)
    scaled.slopes, scaled.slope = np.array(known["slopes"]), known["slope"]
    scaled.steepened = set(known["steepened"])
    region._filter = Filter([(float(h), float(f)) for h, f in known["filter"]])
    region._resumed = set(known["resumed"])
    region.optima = {region.solved.x[i].tobytes(): region.solved.judged(i) for i in known["optima"]}
    for name, value in known["second_order"].items():
        setattr(region.second_order, name, value)
    region.second_order.suspects = None if doubtful is None else np.isin(np.arange(scaled.size), doubtful)
    region.second_order.rng.bit_generator.state = known["drawn"]
    region.failed_starts = list(known["failed_starts"])
    selection.recall(known["selection"])
    region.path = [Step(**{**step, "x": np.array(step["x"]), "y": np.array(step["y"])}) for step in known["path"]]
    region.left = max(region.left - len(region.path), 0)
