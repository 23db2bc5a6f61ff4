"""What samples must be, to be trained on: each check a function that raises or returns nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from numbers import Integral
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sobofem.surrogate.samples.arrays import Array

OUTSIDE = 1e-9
"""How far, relative to the width of the box, points may lie outside: their rounding, and that of the bounds."""
SINGLE = 4.0 * float(np.finfo(np.float32).eps)
"""How far, relative to the larger bound, numbers in single precision may lie outside; not beyond `SLIGHTLY`."""
SLIGHTLY = 1e-3
"""Most of the width of the box that rounding to single precision may account for."""
BLOCK = 65_536
"""Rows that are looked at together."""
EXTRAPOLATE = "predict(x, extrapolate=True) answers there all the same, where nothing was learned"


def check_seed(seed: object) -> None:
    """Check that a seed is a whole number.

    Raises:
        ValueError: If it isn't.
    """
    if not isinstance(seed, Integral):
        raise ValueError(f"seed is {seed!r}; expected a whole number")


def check_names(parameters: tuple[str, ...], responses: tuple[str, ...]) -> None:
    """Check that no name occurs twice.

    Raises:
        ValueError: If one does.
    """
    names = parameters + responses
    repeated = sorted(name for name, count in Counter(names).items() if count > 1)
    if repeated:
        raise ValueError(f"names of parameters and responses must differ, but these repeat: {repeated}")


def check_shapes(
    x: Array,
    y: Array,
    jacobian: Array | None,
    parameters: tuple[str, ...],
    responses: tuple[str, ...],
    *,
    directions: Array | None = None,
    hessian_actions: Array | None = None,
) -> None:
    """Check that samples (N, n), (N, m) and (N, m, n) fit together and to the names.

    Raises:
        ValueError: If they don't; the message tells the shape that came and the one expected.
    """
    n, m = len(parameters), len(responses)
    if not n or not m:
        raise ValueError(f"there are {n} parameters and {m} responses; expected at least one of each")
    N = len(x) if x.ndim else 0
    expected = {
        "x": (x, (N, n)),
        "y": (y, (N, m)),
        "jacobian": (jacobian, (N, m, n)),
        "directions": (directions, (N, n)),
        "hessian_actions": (hessian_actions, (N, m, n)),
    }
    for name, (array, shape) in expected.items():
        if array is not None and array.shape != shape:
            raise ValueError(
                f"{name} has shape {array.shape}, expected {shape} for {N} samples, "
                f"parameters {parameters} and responses {responses}"
            )


def check_finite(x: Array, y: Array | None, jacobian: Array | None, *, remedy: str = "leave those samples out") -> None:
    """Check that samples hold neither NaN nor infinity.

    Raises:
        ValueError: If one does; the message names the rows.
    """
    for name, array in (("x", x), ("y", y), ("jacobian", jacobian)):
        if array is not None:
            _refuse(array, _not_finite, f"{name} holds NaN or infinity", remedy)


def check_values(y: Array, responses: tuple[str, ...], *, missing: bool) -> None:
    """Check that responses (N, m) are finite, or NaN where that means that they are missing.

    Raises:
        ValueError: If they aren't, or one has no value at all; the message names it, or the rows.
    """
    check_labels("y", y, missing=missing)
    if (unknown := np.isnan(y).all(axis=0)).any():
        raise ValueError(f"{responses[int(np.argmax(unknown))]!r} has no value in any sample, NaN only; leave it out")


def check_labels(name: str, labels: Array | None, *, missing: bool) -> None:
    """Check that responses (N, m) or derivatives (N, m, n) are finite, or NaN where that means that they are missing.

    Raises:
        ValueError: If they aren't, or all are missing; the message names the rows.
    """
    if labels is None:
        return
    if not missing:
        remedy = "leave those samples out, or say missing=True if NaN stands for a label that isn't there"
        _refuse(labels, _not_finite, f"{name} holds NaN or infinity", remedy)
        return
    _refuse(labels, np.isinf, f"{name} holds infinity", "write NaN for a label that isn't there")
    if np.isnan(labels).all():
        raise ValueError(f"{name} holds no label, NaN only; give None instead")


def check_directions(directions: Array | None, hessian_actions: Array | None, jacobian: Array | None) -> None:
    """Check that every action of a Hessian has a direction, and Jacobians beside it.

    Raises:
        ValueError: If one of the three is missing, or a direction is zero or not finite; the message names the rows.
    """
    if directions is None and hessian_actions is None:
        return
    if directions is None or hessian_actions is None or jacobian is None:
        lacking = "directions" if directions is None else "hessian_actions" if hessian_actions is None else "jacobian"
        raise ValueError(f"{lacking} is None; expected jacobian, directions and hessian_actions together")
    useless = ~np.isfinite(directions).all(axis=1) | ~directions.any(axis=1)
    labelled = ~np.isnan(hessian_actions).all(axis=(1, 2))
    _refuse(useless & labelled, np.asarray, "directions are zero, NaN or infinite", "give vectors of any other length")


def check_bounds(bounds: Array, parameters: tuple[str, ...]) -> None:
    """Check that bounds (n, 2) are finite and ordered.

    Raises:
        ValueError: If they aren't; the message names the parameter.
    """
    if bounds.shape != (len(parameters), 2):
        raise ValueError(
            f"bounds has shape {bounds.shape}, expected {(len(parameters), 2)} for parameters {parameters}"
        )
    ordered = np.isfinite(bounds).all(axis=1) & (bounds[:, 0] < bounds[:, 1])
    if not ordered.all():
        worst = int(np.argmin(ordered))
        low, high = bounds[worst]
        remedy = "; a parameter that never varies is left out of the data" if low == high else ""
        raise ValueError(
            f"bounds of {parameters[worst]!r} are [{low:g}, {high:g}]; expected finite, lower before upper{remedy}"
        )


def check_inside(x: Array, bounds: Array, parameters: tuple[str, ...], *, remedy: str = "") -> None:
    """Check that inputs lie in the box, give or take a relative 1e-9 of its width.

    Numbers in single precision may be on its faces but for their rounding.

    Args:
        x: Inputs (N, n).
        bounds: The box (n, 2).
        parameters: Names of the n inputs, for the message.
        remedy: What to do, for the message.

    Raises:
        ValueError: If one doesn't; the message names the parameter, its range and the rows.
    """
    low, high = bounds.T
    slack = OUTSIDE * (high - low)
    outside = (x < low - slack) | (x > high + slack)
    if outside.any():
        single = x == x.astype(np.float32)
        rounding = np.minimum(SINGLE * np.maximum(np.abs(low), np.abs(high)), SLIGHTLY * (high - low))
        outside &= ~single | (x < low - rounding) | (x > high + rounding)
    if outside.any():
        k = int(np.argmax(outside.any(axis=0)))
        rows = np.flatnonzero(outside[:, k])
        raise ValueError(
            f"{parameters[k]!r} is {x[rows[0], k]:.10g} in {in_words(rows)}, "
            f"outside its bounds [{low[k]:g}, {high[k]:g}]" + (f"; {remedy}" if remedy else "")
        )


def in_words(rows: NDArray[np.intp]) -> str:
    """Row numbers, the first five of them, for a message."""
    shown = ", ".join(str(row) for row in rows[:5])
    return f"row {shown}" if len(rows) == 1 else f"{len(rows)} rows ({shown}{', …' if len(rows) > 5 else ''})"


def _not_finite(array: Array) -> NDArray[np.bool_]:
    return ~np.isfinite(array)


def _refuse(array: NDArray[Any], is_bad: Callable[[Any], NDArray[np.bool_]], what: str, remedy: str) -> None:
    """Raise if anything (N, ...) is bad; a part after the other, since it may be larger than the memory."""
    parts = np.split(array, range(BLOCK, len(array), BLOCK))
    rows = np.flatnonzero(np.concatenate([is_bad(part).any(axis=tuple(range(1, part.ndim))) for part in parts]))
    if len(rows):
        raise ValueError(f"{what} in {in_words(rows)}; {remedy}")


def check_count(name: str, count: object) -> None:
    """Check that a count is a whole number of at least one; `ValueError` names it."""
    if not isinstance(count, Integral) or count < 1:
        raise ValueError(f"{name} is {count!r}; expected a whole number of at least 1")


def check_counts(owner: object, *names: str, optional: tuple[str, ...] = ()) -> None:
    """Check that these attributes are whole numbers of at least one, the optional ones where they aren't None."""
    given = names + tuple(name for name in optional if vars(owner)[name] is not None)
    for name in given:
        check_count(f"{name} of {type(owner).__name__}", vars(owner)[name])
