"""Thousands of names in a few bytes: `load_1` to `load_648` are counted, and so are equal units."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import itertools
import re
from typing import Any

from sobofem.coupling.contract import Description

_NUMBERED = re.compile(r"(.*?)(0|[1-9]\d*)", re.DOTALL)


def counted(description: Description) -> dict[str, Any]:
    """Names and units as a record for JSON, which `listed` takes."""
    units = [description.units.get(name, "") for name in description.parameters + description.responses]
    return {
        "parameters": list(_runs(description.parameters)),
        "responses": list(_runs(description.responses)),
        "units": [[unit, len(list(same))] for unit, same in itertools.groupby(units)],
    }


def listed(record: dict[str, Any]) -> tuple[tuple[str, ...], tuple[str, ...], dict[str, str]]:
    """Names of parameters, of responses, and the units by name of a record that `counted` made.

    Raises:
        ValueError: If it is not one.
    """
    parameters, responses = (
        tuple(name for stem, first, count in record[kind] for name in _run(str(stem), first, count))
        for kind in ("parameters", "responses")
    )
    units = [str(unit) for unit, count in record["units"] for _ in range(_size(count))]
    return parameters, responses, dict(zip(parameters + responses, units, strict=True))


def _runs(names: Sequence[str]) -> Iterator[list[Any]]:
    """Runs [stem, first number, how many] of names that are numbered one after the other; others have no number."""
    run: list[Any] | None = None
    for name in names:
        found = _NUMBERED.fullmatch(name)
        stem, number = (found[1], int(found[2])) if found else (name, None)
        if run and number is not None and run[0] == stem and run[1] is not None and number == run[1] + run[2]:
            run[2] += 1
            continue
        if run:
            yield run
        run = [stem, number, 1]
    if run:
        yield run


def _run(stem: str, first: int | None, count: int) -> list[str]:
    if first is None:
        return [stem]
    return [f"{stem}{k}" for k in range(first, first + _size(count))]


MOST_NAMES = 100_000_000


def _size(count: Any) -> int:
    if not (isinstance(count, int) and 0 < count <= MOST_NAMES):
        raise ValueError(f"{count!r} equal or numbered names")
    return count
