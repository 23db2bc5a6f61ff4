"""Datasets of samples that another program computed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sobofem.coupling.contract import Array, Description
from sobofem.coupling.dataset.roles import Roles, assign
from sobofem.coupling.dataset.sources import Columns

MARGIN = 0.02
"""By how much of the range of the samples bounds that nobody gave are wider, on either side."""
MAX_REMARKS = 3
"""Most sentences on one kind of thing."""


@dataclass(frozen=True)
class Wanted:
    """What is said of a table.

    Attributes:
        parameters: Names of the parameters, or patterns; by default what the table tells.
        responses: Names of the responses, likewise.
        derivatives: How derivatives are called, with `{response}` and `{parameter}` in it.
        bounds: Range of each parameter that has one; of the others the range of the samples, and the margin.
        margin: By how much of that range bounds are wider on either side. They keep to the samples' side of zero.
        keep_repeats: Whether a point may occur several times with other responses, as measurements do.
    """

    parameters: Sequence[str] = ()
    responses: Sequence[str] = ()
    derivatives: str = ""
    bounds: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    margin: float = MARGIN
    keep_repeats: bool = False


@dataclass(frozen=True, eq=False)
class Imported:
    """What became of a table.

    Attributes:
        fields: What a `Dataset` is made of.
        roles: What each column is.
        remarks: What else a reader should know, in sentences.
    """

    fields: dict[str, Any]
    roles: Roles
    remarks: tuple[str, ...]


def imported(columns: Columns, wanted: Wanted) -> Imported:
    """Samples of a table, as what a dataset is made of.

    Rows without any response are planned points without a sample. A row that repeats another in all numbers is left
    out.

    Raises:
        ValueError: If columns can't be told apart, cells hold no numbers, parameters are missing or never vary, or a
            point occurs twice with other responses; the message names the file, the line and the way out.
    """
    _check(wanted)
    if not columns.places:
        raise ValueError(f"{columns.name} holds no rows; expected a sample in each")
    columns = columns.renamed(wanted.parameters, wanted.responses)
    roles = _roles(columns, wanted)
    x, y, jacobian = _arrays(columns, roles)
    _check_points(x, y, jacobian, columns, roles)
    kept, remarks = _without_repeats(x, y, jacobian, columns, roles, keep=wanted.keep_repeats)
    x, y, jacobian = x[kept], y[kept], None if jacobian is None else jacobian[kept]
    known = ~np.isnan(y).all(axis=1)
    if not known.any():
        raise ValueError(f"{columns.name} holds no row with a response")
    bounds, whose = _bounds(x, columns, roles, wanted)
    units = {name: unit for name, unit in columns.units.items() if name in (*roles.parameters, *roles.responses)}
    y, jacobian = y[known], None if jacobian is None else jacobian[known]
    if jacobian is not None and np.isnan(jacobian).all():
        jacobian = None
    return Imported(
        {
            "x": x[known],
            "y": y,
            "jacobian": jacobian,
            "rows": np.flatnonzero(known),
            "seconds": np.zeros(int(known.sum())),
            "description": Description(Path(columns.name).stem, roles.parameters, roles.responses, bounds, units),
            "design": x,
            "provenance": {"design": "imported", "source": columns.name, "bounds": whose, "points": _digest(x[known])},
            "missing": bool(np.isnan(y).any() or (jacobian is not None and np.isnan(jacobian).any())),
        },
        roles,
        (*remarks, *_remarks(known, jacobian, roles)),
    )


def _check(wanted: Wanted) -> None:
    if not 0.0 <= wanted.margin < np.inf:
        raise ValueError(f"margin is {wanted.margin:g}; expected a share of the range, zero or more")
    for what, names in (("parameters", wanted.parameters), ("responses", wanted.responses)):
        if isinstance(names, str) or len(set(names)) < len(names):
            raise ValueError(f"{what} are {names!r}; expected a sequence of names, each once, such as ('a', 'b')")
    if not isinstance(wanted.bounds, Mapping):
        raise ValueError(f"bounds are {wanted.bounds!r}; expected a range by name: {{'E': (0.0, 1.0)}}")


def _roles(columns: Columns, wanted: Wanted) -> Roles:
    parameters, responses = (
        asked or given for asked, given in zip((wanted.parameters, wanted.responses), columns.roles, strict=True)
    )
    return assign(
        columns.names,
        parameters=parameters,
        responses=responses,
        derivatives=wanted.derivatives,
        where=columns.name,
    )


def _arrays(columns: Columns, roles: Roles) -> tuple[Array, Array, Array | None]:
    """Points (N, n), responses (N, m) and Jacobians (N, m, n), NaN where a cell is empty."""
    x, y = (np.stack([columns.read[name]() for name in names], 1) for names in (roles.parameters, roles.responses))
    if not roles.derivatives:
        return x, y, None
    jacobian = np.full((len(x), y.shape[1], x.shape[1]), np.nan)
    for (response, parameter), column in roles.derivatives.items():
        place = roles.responses.index(response), roles.parameters.index(parameter)
        jacobian[:, place[0], place[1]] = columns.read[column]()
    return x, y, jacobian


def _check_points(x: Array, y: Array, jacobian: Array | None, columns: Columns, roles: Roles) -> None:
    """Refuse infinity, and points of which a parameter is missing."""
    labelled = [(x[:, k], name) for k, name in enumerate(roles.parameters)]
    labelled += [(y[:, k], name) for k, name in enumerate(roles.responses)]
    if jacobian is not None:
        labelled += [
            (jacobian[:, roles.responses.index(q), roles.parameters.index(p)], column)
            for (q, p), column in roles.derivatives.items()
        ]
    for k, (values, name) in enumerate(labelled):
        if np.isinf(values).any():
            raise ValueError(
                f"{columns.places[int(np.argmax(np.isinf(values)))]}: {name} is infinite; leave the cell empty"
            )
        if k < len(roles.parameters) and np.isnan(values).any():
            row = int(np.argmax(np.isnan(values)))
            raise ValueError(f"{columns.places[row]}: {name} is missing; fill it in, or remove the row")
    for values, name in labelled[len(roles.parameters) :][: len(roles.responses)]:
        if np.isnan(values).all():
            raise ValueError(f"{columns.name}: column {name!r} is empty; leave it out, by naming the others")


def _without_repeats(
    x: Array, y: Array, jacobian: Array | None, columns: Columns, roles: Roles, *, keep: bool
) -> tuple[NDArray[np.intp], list[str]]:
    """Rows (N,) without those that repeat another in all numbers, and a sentence on these.

    Raises:
        ValueError: If a point occurs twice with other numbers, and may not.
    """
    everything = np.concatenate([x, y, *([] if jacobian is None else [jacobian.reshape(len(x), -1)])], axis=1)
    seen: dict[bytes, int] = {}
    kept, repeated = [], []
    for row, point in enumerate(x):
        first = seen.setdefault((point + 0.0).tobytes(), row)  # -0 is 0
        if first != row and np.array_equal(everything[first], everything[row], equal_nan=True):
            repeated.append(row)
            continue
        if first != row and not keep:
            raise ValueError(_contradiction(first, row, y, columns, roles))
        kept.append(row)
    words = [f"{columns.places[row]}: repeats another row, and is left out" for row in repeated[:MAX_REMARKS]]
    more = len(repeated) - MAX_REMARKS
    return np.array(kept, dtype=np.intp), words + [f"and so do {more} others"] * (more > 0)


def _contradiction(first: int, row: int, y: Array, columns: Columns, roles: Roles) -> str:
    differing = np.flatnonzero(~((y[first] == y[row]) | (np.isnan(y[first]) & np.isnan(y[row]))))
    what = "other derivatives"
    if len(differing):
        k = int(differing[0])
        what = f"{roles.responses[k]} = {y[row, k]:g} in place of {y[first, k]:g}"
    return (
        f"{columns.places[row]}: the point of {columns.places[first]} again, with {what}; remove one, or say that "
        "points may be repeated (--keep-repeats) if they were measured"
    )


def _bounds(x: Array, columns: Columns, roles: Roles, wanted: Wanted) -> tuple[Array, str]:
    """Bounds (n, 2), and whose they are."""
    given = dict(columns.bounds or {}) | {name: _pair(name, wanted.bounds[name]) for name in wanted.bounds}
    if unknown := sorted(set(wanted.bounds) - set(roles.parameters)):
        raise ValueError(f"bounds are given of {', '.join(unknown)}; the parameters are {', '.join(roles.parameters)}")
    bounds = np.array(
        [given.get(name) or _range(column, wanted.margin) for name, column in zip(roles.parameters, x.T, strict=True)]
    )
    for name, (low, high), column in zip(roles.parameters, bounds, x.T, strict=True):
        if not low < high and name in given:
            raise ValueError(f"{columns.name}: bounds of {name!r} are [{low:g}, {high:g}]; expected lower before upper")
        if not low < high:
            raise ValueError(
                f"{columns.name}: {name!r} is {low:g} in all rows; leave it out (--parameters without it), or give "
                f"bounds: --bounds {name}=LOW,HIGH"
            )
        outside = (column < low) | (column > high)
        if outside.any():
            row = int(np.argmax(outside))
            raise ValueError(
                f"{columns.name}: {name} = {column[row]:g} lies outside of its bounds [{low:g}, {high:g}]; widen them"
            )
    own = [name for name in roles.parameters if name not in given]
    return bounds, f"the range of the samples and {wanted.margin:g} of it on either side" if own else "given"


def _pair(name: str, given: ArrayLike) -> tuple[float, float]:
    """A range that somebody gave, as two numbers."""
    try:
        low, high = np.asarray(given, dtype=np.float64)
        return float(low), float(high)
    except (TypeError, ValueError) as error:
        raise ValueError(f"bounds of {name!r} are {given!r}; expected two numbers, (lower, upper)") from error


def _digest(x: Array) -> str:
    """What tells points from others."""
    return hashlib.sha256(np.ascontiguousarray(x).tobytes()).hexdigest()[:16]


def _range(column: Array, margin: float) -> tuple[float, float]:
    """The range of numbers, widened, but not across zero: what is positive, as a thickness, stays it."""
    low, high = float(column.min()), float(column.max())
    wider = margin * (high - low)
    return (
        low - wider if low - wider > 0.0 or low <= 0.0 else low,
        high + wider if high + wider < 0.0 or high >= 0.0 else high,
    )


def _remarks(known: NDArray[np.bool_], jacobian: Array | None, roles: Roles) -> Iterator[str]:
    if not known.all():
        yield f"rows without any response: {int((~known).sum())}, planned points without a sample"
    if roles.derivatives and jacobian is None:
        yield "all derivatives are missing: responses only"


def overview(data: Any, roles: Roles) -> list[tuple[str, ...]]:
    """What was understood: a heading, and a line on each column: name, role, unit, range, share that is missing."""
    lines: list[tuple[str, ...]] = [("column", "is a", "unit", "range", "missing")]
    bounds, units = data.bounds, data.units
    for name, column, (low, high) in zip(data.parameters, data.x.T, bounds, strict=True):
        box = f"{column.min():.6g} … {column.max():.6g} in [{low:.6g}, {high:.6g}]"
        lines.append((name, "parameter", units.get(name, ""), box, ""))
    for name, column in zip(data.responses, data.y.T, strict=True):
        lines.append((name, "response", units.get(name, ""), _interval(column), _share(column)))
    for (response, parameter), column in roles.derivatives.items():
        place = data.responses.index(response), data.parameters.index(parameter)
        values = np.full(len(data), np.nan) if data.jacobian is None else data.jacobian[:, place[0], place[1]]
        lines.append((column, f"derivative of {response} by {parameter}", "", _interval(values), _share(values)))
    without = [
        f"{q} by {p}"
        for q in data.responses
        for p in data.parameters
        if roles.derivatives and (q, p) not in roles.derivatives
    ]
    lines += [(name, "derivative without a column", "", "", "100 %") for name in without]
    return lines + [(name or "(no name)", "left out", "", "", "") for name in roles.unused]


def _interval(column: ArrayLike) -> str:
    values = np.asarray(column)[~np.isnan(column)]
    return f"{values.min():.6g} … {values.max():.6g}" if len(values) else ""


def _share(column: ArrayLike) -> str:
    share = float(np.isnan(column).mean())
    return f"{100 * share:.3g} %" if share else ""
