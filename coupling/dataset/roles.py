"""Which columns of a table are parameters, responses and derivatives: by what is said of them, or by their names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
import difflib
from fnmatch import fnmatchcase
import re

INDEX = ("", "row", "index", "Unnamed: 0", "__index_level_0__", "negative_pivots")
"""Columns that number rows, as pandas and `Dataset.to_pandas` write them; they are data only where that is said."""
_UNIT = re.compile(r"(?P<name>.*\S)\s*\[(?P<unit>[^\[\]]*)\]")
_QUOTIENTS = (
    re.compile(r"[d∂]\((?P<y>.+)\)/[d∂]\((?P<x>.+)\)"),
    re.compile(r"[d∂]_(?P<y>.+)/[d∂]_(?P<x>.+)"),
    re.compile(r"[d∂](?P<y>.+)/[d∂](?P<x>.+)"),
)
_SHOWN = 8


@dataclass(frozen=True)
class Roles:
    """What each column is.

    Attributes:
        parameters: Columns of the n parameters.
        responses: Columns of the m responses.
        derivatives: The column of each response's derivative by each parameter that has one.
        unused: The rest.
    """

    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    derivatives: Mapping[tuple[str, str], str]
    unused: tuple[str, ...]


def name_and_unit(column: str) -> tuple[str, str]:
    """The name in a heading `name [unit]`, and the unit; empty where there is none."""
    found = _UNIT.fullmatch(column)
    return (found["name"], found["unit"].strip()) if found else (column, "")


def assign(
    columns: Sequence[str],
    *,
    parameters: Sequence[str] = (),
    responses: Sequence[str] = (),
    derivatives: str = "",
    where: str = "the table",
) -> Roles:
    """Say what each column is.

    If only parameters or only responses are named, the other columns are the others. If neither are, the derivatives
    tell: what is differentiated is a response, by a parameter; no other column may be left then.

    Args:
        columns: All names.
        parameters: Names of the parameters, or patterns such as `x*`.
        responses: Names of the responses, likewise.
        derivatives: How derivatives are called, such as `grad_{response}_{parameter}`; by default `d(y)/d(x)`, `dy/dx`,
            `dy_dx` or `∂y/∂x`, where y and x are columns.
        where: What messages call the table.

    Raises:
        ValueError: If it can't be said, in one way only; the message has the way out.
    """
    candidates = _by_pattern(columns, (), (), derivatives) if derivatives else _by_form(columns)
    differentiated = {column for column, _ in candidates}
    named = (
        _chosen(parameters, columns, differentiated, "parameters", where),
        _chosen(responses, columns, differentiated, "responses", where),
    )
    if both := sorted(set(named[0]) & set(named[1])):
        raise ValueError(f"{where}: {', '.join(both)} is named as parameter and as response; name it once")
    pairs = _derivatives(columns, *named, derivatives, where)
    taken = {*pairs.values(), *named[0], *named[1]}
    rest = [column for column in columns if column not in taken and column not in INDEX]
    _check_lost(rest, columns, derivatives, where)
    found = _completed(*named, rest, pairs, where)
    kept = {pair: column for pair, column in pairs.items() if pair[0] in found[1] and pair[1] in found[0]}
    used = {*found[0], *found[1], *kept.values()}
    return Roles(*found, kept, tuple(column for column in columns if column not in used))


def _completed(
    parameters: tuple[str, ...],
    responses: tuple[str, ...],
    rest: list[str],
    pairs: Mapping[tuple[str, str], str],
    where: str,
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Parameters and responses, those that were not named from the rest of the columns."""
    if parameters and responses:
        return parameters, responses
    by, of = {x for _, x in pairs}, {y for y, _ in pairs}
    if parameters or responses:
        others = "responses" if parameters else "parameters"
        if strange := [column for column in rest if column in (by if parameters else of)]:
            raise ValueError(
                f"{where}: {_listed(strange)} can't be among the {others}, as the derivatives say; "
                f"name the {others}, too"
            )
        if not rest:
            raise ValueError(f"{where}: no column is left for the {others}")
        return parameters or tuple(rest), responses or tuple(rest)
    unknown = [column for column in rest if (column in by) == (column in of)]
    if unknown or not pairs:
        raise ValueError(
            f"{where}: can't tell whether {_listed(unknown or rest)} {'is a' if len(unknown) == 1 else 'are'} "
            f"parameter{'s'[: len(unknown) != 1]} or response{'s'[: len(unknown) != 1]}; name them: "
            "--parameters A,B --responses C,D (columns of neither are left out)"
        )
    return tuple(c for c in rest if c in by), tuple(c for c in rest if c in of)


def _chosen(
    wanted: Sequence[str], columns: Sequence[str], differentiated: Set[str], what: str, where: str
) -> tuple[str, ...]:
    """The columns of some names or patterns, in the order of these; derivatives only by their very names."""
    found: dict[str, None] = {}
    for name in wanted:
        exact = [each for each in (name, name_and_unit(name)[0]) if each in columns][:1]
        matches = exact or [column for column in columns if fnmatchcase(column, name) and column not in differentiated]
        if not matches:
            lower = {column.lower(): column for column in columns}
            near = difflib.get_close_matches(name.lower(), lower, 1)
            hint = f"did you mean {lower[near[0]]!r}?" if near else f"it has {_listed(columns)}"
            raise ValueError(f"{where} has no column {name!r}, as {what} say; {hint}")
        found |= dict.fromkeys(matches)
    return tuple(found)


def _derivatives(
    columns: Sequence[str], parameters: Sequence[str], responses: Sequence[str], pattern: str, where: str
) -> dict[tuple[str, str], str]:
    """The column of each response and parameter that has one."""
    found: dict[tuple[str, str], str] = {}
    taken = {*parameters, *responses}
    candidates = _by_pattern(columns, parameters, responses, pattern) if pattern else _by_form(columns)
    for column, (y, x) in candidates:
        if column in taken:
            continue
        if found.setdefault((y, x), column) != column:
            raise ValueError(
                f"{where}: {found[y, x]!r} and {column!r} are both the derivative of {y} by {x}; remove one"
            )
    owners: dict[str, list[tuple[str, str]]] = {}
    for pair, column in found.items():
        owners.setdefault(column, []).append(pair)
    for column, several in owners.items():
        if len(several) > 1:
            words = " or of ".join(f"{y} by {x}" for y, x in several)
            raise ValueError(f"{where}: {column!r} is the derivative of {words}; rename the column to d(y)/d(x)")
    if pattern and not found:
        example = _filled(pattern, (responses or ["y"])[0], (parameters or ["x"])[0])
        raise ValueError(
            f"{where}: no column is called like {pattern!r}, such as {example!r}; it has {_listed(columns)}"
        )
    return found


def _by_pattern(
    columns: Sequence[str], parameters: Sequence[str], responses: Sequence[str], pattern: str
) -> Iterator[tuple[str, tuple[str, str]]]:
    if "{response}" not in pattern or "{parameter}" not in pattern:
        raise ValueError(
            f"derivatives is {pattern!r}; expected a pattern with both names in it: grad_{{response}}_{{parameter}}"
        )
    known = set(columns)
    for y in responses or columns:
        for x in parameters or columns:
            column = _filled(pattern, y, x)
            if y != x and column in known:
                yield column, (y, x)


def _filled(pattern: str, response: str, parameter: str) -> str:
    """What a derivative is called; other braces, and those in names, stay as they are."""
    parts = re.split(r"(\{response\}|\{parameter\})", pattern)
    return "".join({"{response}": response, "{parameter}": parameter}.get(part, part) for part in parts)


def _by_form(columns: Sequence[str]) -> Iterator[tuple[str, tuple[str, str]]]:
    """Columns that are called like the derivative of one column by another, with these."""
    plain = {"".join(column.split()): column for column in columns}
    for column in columns:
        for y, x in dict.fromkeys(_splits("".join(column.split()))):
            if y in plain and x in plain and y != x:
                yield column, (plain[y], plain[x])


def _splits(text: str) -> Iterator[tuple[str, str]]:
    """What a text may be the derivative of, and by what."""
    for form in _QUOTIENTS:
        if found := form.fullmatch(text):
            yield found["y"], found["x"]
    for cut in (each.start() for each in re.finditer("_d", text)):  # dy_dx, or d_y_d_x
        if text.startswith("d") and cut > 1:
            yield text[1:cut], text[cut + 2 :]
            if text.startswith("d_") and text[cut:].startswith("_d_") and cut > 2:
                yield text[2:cut], text[cut + 3 :]


def _check_lost(rest: Sequence[str], columns: Sequence[str], pattern: str, where: str) -> None:
    """Refuse columns that are called like derivatives of what is no column, or taken for something else without a word.

    Underscores alone say so only beside one name that is a column: dstress_dT, where there is stress.
    """
    plain = {"".join(column.split()) for column in columns}
    for column in [] if pattern else rest:
        text = "".join(column.split())
        likely = any(form.fullmatch(text) for form in _QUOTIENTS)
        for y, x in _splits(text):
            if likely or (y in plain) != (x in plain):
                raise ValueError(
                    f"{where}: {column!r} is called like a derivative, but {y!r} or {x!r} is no column; rename it, say "
                    "how derivatives are called (--derivatives), or name it among the parameters or responses"
                )


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_SHOWN])
    return shown + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
