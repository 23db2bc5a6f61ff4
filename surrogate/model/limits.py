"""What limits a surrogate, response by response, and what to do about it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.samples.arrays import Array

GOOD = 0.01
"""Error on samples not seen, as a share of the spread of a response, below which nothing need be done about it."""
USELESS = 0.95
"""The same error from which on nothing was learned, and noise is not told from too few samples."""
NOISE_SHARE = 0.5
"""Share of the error on samples not seen that the scatter of the labels must be, to be what limits it."""
NO_EFFECT = 0.01
"""Share of a response's slopes, over the ranges of the parameters, up to which a parameter does not matter to it."""
POINTS = 256
"""Points of the box at which slopes are looked at."""


def limits(surrogate: Surrogate) -> list[str]:
    """Sentences on what limits the accuracy of each response, as far as its training tells, and on what helps.

    Errors are those on samples that training had not seen; where it held none out, nothing is known of them. Noise is
    what a Gaussian process took for it, which with exact labels is what is too rough for the number of samples.
    """
    provenance = surrogate.provenance
    held_out = provenance.get("held_out")
    if held_out is None:
        known = ["what limits it is not known: no sample was held out (`fit` does, and `train` with validation=0.2)"]
        return [*(known if "samples" in provenance else []), *_without_effect(surrogate)]
    return [*(_of_response(surrogate, name, held_out.get(name, {})) for name in held_out), *_without_effect(surrogate)]


def _of_response(surrogate: Surrogate, name: str, errors: Mapping[str, float | None]) -> str:
    error, provenance = errors.get("values"), surrogate.provenance
    if error is None:
        return f"{name}: no value to judge it by"
    found = f"{name}: errs by {100 * error:.2g} % of its spread"
    if error < GOOD:
        return f"{found}; nothing limits it for most purposes"
    doubts = provenance.get("doubts", {})
    if by := doubts.get("slopes of all samples", {}).get(name):
        return (
            f"{found}; its slopes by {', '.join(by)} contradict its values: kinks, jumps, or wrong slopes. Run "
            "`sobofem verify --derivatives`; model the parts between kinks each on its own, or compute more "
            "samples near them"
        )
    budget = provenance.get("budget", {})
    if missed := budget.get("missed"):
        return (
            f"{found}; {budget['seconds']:g} s were too short for {', '.join(missed)}: train in more time "
            "(`--budget`), before you compute more samples"
        )
    n, N = len(surrogate.parameters), provenance.get("samples", 0)
    if error >= USELESS:
        return (
            f"{found}: nothing of it was learned. {N} samples of {n} parameters are by far too few, or it is noise, or "
            "depends on what is no parameter; compute one point twice, and look whether the answers agree"
        )
    if (scatter := _scatter(surrogate, name)) >= NOISE_SHARE * error:
        return (
            f"{found}, and its labels scatter by about {100 * scatter:.2g} %: noise, or features finer than the "
            "distance of the samples. Tighten the solver's tolerance and keep its mesh the same; four times as many "
            "samples halve what noise leaves"
        )
    fewer = f"{N} samples of {n} parameters are too few for it"
    slopes = "" if errors.get("slopes") is not None else ", or derivatives with them, each worth many samples"
    return f"{found}; {fewer}: compute more (`sobofem infill` says where){slopes}"


def _scatter(surrogate: Surrogate, name: str) -> float:
    """What was taken for noise of a response, as a share of its spread; 0 where nothing was."""
    levels: Mapping[str, Any] = surrogate.provenance.get("noise", {}).get("values", {})
    scale = float(surrogate.scaling.y_scale[surrogate.responses.index(name)])
    return float(levels.get(name) or 0.0) / scale


def _without_effect(surrogate: Surrogate) -> list[str]:
    """A sentence on the parameters that matter to no response, if there are any."""
    idle = effects(surrogate).max(axis=0) < NO_EFFECT
    names = [name for name, no_effect in zip(surrogate.parameters, idle, strict=True) if no_effect]
    if not names or len(names) == len(idle):
        return []
    return [
        f"{', '.join(names)} changes no response by more than {100 * NO_EFFECT:g} % of what the others do: leave "
        f"{'it' if len(names) == 1 else 'them'} out or fixed, and the same samples tell more of the others"
    ]


def effects(surrogate: Surrogate) -> Array:
    """How much each parameter changes each response (m, n): its slopes over its range, as a share of the largest."""
    low, high = surrogate.bounds.T
    points = np.random.default_rng(0).uniform(low, high, (POINTS, len(low)))
    _, jacobian = surrogate.predict(points)
    assert jacobian is not None
    sizes = np.sqrt(np.mean((jacobian * (high - low)) ** 2, axis=0))
    largest = sizes.max(axis=1, keepdims=True)
    shares: Array = sizes / np.where(largest > 0.0, largest, 1.0)
    return shares
