"""The page of a report on a surrogate: what its record says, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from sobofem.coupling.contract import provenance_of
from sobofem.coupling.report.accuracy import Errors
from sobofem.coupling.report.page import Cell, Number, Page, Part, Picture, Points, Section, Table

if TYPE_CHECKING:
    from sobofem.surrogate import Surrogate

POOR, USELESS = 0.2, 1.0
"""Errors of a response, over its standard deviation, from which on that is said; 1 is as good as its mean."""

WIDE = 12
"""Parameters up to which the table of errors has a column for each; of more it has a row."""

Record = Mapping[str, Any]


def record(surrogate: Surrogate, data: Any, table: Errors, warning: str) -> dict[str, Any]:
    """All numbers of a report as plain values, by name.

    Args:
        surrogate: What was judged.
        data: The samples.
        table: Its errors there.
        warning: Why they may be too small, or nothing.
    """
    from sobofem.surrogate.export.card import coverage
    from sobofem.surrogate.model.limits import limits

    m, covered = range(len(table.responses)), coverage(surrogate, data)
    slopes, flat = table.derivatives, table.flat
    return {
        "samples": table.samples,
        "bounds": dict(zip(table.parameters, surrogate.bounds.tolist(), strict=True)),
        "units": dict(surrogate.units),
        "values": dict(zip(table.responses, table.values.tolist(), strict=True)),
        "derivatives": None
        if slopes is None
        else {table.responses[i]: dict(zip(table.parameters, slopes[i].tolist(), strict=True)) for i in m},
        "hardly_varies": None
        if flat is None
        else {table.responses[i]: [table.parameters[j] for j in flat[i].nonzero()[0]] for i in m},
        "within_95_percent": None if covered is None else dict(zip(table.responses, covered[0].tolist(), strict=True)),
        "median": {"values": table.value, "derivatives": table.derivative},
        "warning": warning.removeprefix("warning: "),
        "limited_by": list(limits(surrogate)),
        "network": str(surrogate.network),
        "trained_on": dict(surrogate.provenance),
        "judged_on": provenance_of(data),
    }


def page(found: Record, name: str, pictures: Mapping[str, Picture]) -> Page:
    """The page of a record.

    Args:
        found: The record.
        name: What the surrogate is called.
        pictures: `values`; with a course of the training `history`, with Jacobians in the samples `derivatives`.
    """
    poor = {response: error for response, error in found["values"].items() if error >= POOR}
    warnings = [found["warning"]] if found["warning"] else []
    warnings += [f"{response} is off by {error:.0%} of its standard deviation" for response, error in poor.items()]
    slopes = found["median"]["derivatives"]
    also = "" if slopes is None else f", and {slopes:.2g} of derivatives"
    return Page(
        f"{name}: errors on unseen samples" if name else "Errors of a surrogate on unseen samples",
        "bad" if any(error >= USELESS for error in poor.values()) else "open" if warnings else "good",
        f"Median error {found['median']['values']:.2g} of responses{also}",
        f"Root mean square errors over {found['samples']} samples, each over the standard deviation of what it "
        "measures: 0 is perfect, 1 as good as predicting the mean.",
        [
            Section("Errors", [*_errors(found), pictures["values"]]),
            *([Section("Derivatives", [pictures["derivatives"]])] if "derivatives" in pictures else []),
            *([Section("What limits it", [Points(found["limited_by"])])] if found["limited_by"] else []),
            Section("What it is", [*_identity(found), *([pictures["history"]] if "history" in pictures else [])]),
        ],
        [f"{warning}." for warning in warnings],
    )


def _errors(found: Record) -> Iterator[Part]:
    slopes, covered = found["derivatives"], found["within_95_percent"]
    names = list(found["bounds"]) if slopes is not None and len(found["bounds"]) <= WIDE else []
    heading = ["response", "unit", "error", *(["within its 95 % intervals"] if covered else [])]
    rows: list[list[Cell]] = []
    for response, error in found["values"].items():
        share = covered[response] if covered else None
        row: list[Cell] = [response, found["units"].get(response, ""), _short(error)]
        row += [Number(share, f"{share:.0%}")] if share is not None else [None] if covered else []
        rows.append([*row, *(_slope(found, response, name) for name in names)])
    yield Table([*heading, *(f"d/d {name}" for name in names)], rows, "Errors of responses and of their derivatives")
    if slopes is not None and not names:
        rows = [[name, *(_slope(found, response, name) for response in slopes)] for name in found["bounds"]]
        yield Table(["derivative by", *slopes], rows, "Errors of derivatives")
    if slopes is not None and any(found["hardly_varies"].values()):
        yield (
            "* hardly varies over these samples: its error is divided by a tenth of the root mean square slope of its "
            "response, slopes taken over the ranges of the parameters."
        )


def _short(error: float | None) -> Number | None:
    return None if error is None else Number(error, f"{error:.3g}")


def _slope(found: Record, response: str, name: str) -> Number | str:
    error = found["derivatives"][response][name]
    if error is None:
        return "no label"
    return Number(error, f"{error:.3g}{'*' if name in found['hardly_varies'][response] else ''}")


def _identity(found: Record) -> Iterator[Part]:
    rows = [[name, found["units"].get(name, ""), *ends] for name, ends in found["bounds"].items()]
    yield Table(["parameter", "unit", "from", "to"], rows, "Parameters, and the box that it learned in")
    known = [["network", found["network"]]]
    for what, key in (("learned from", "trained_on"), ("judged by", "judged_on")):
        words = {name: _words(value) for name, value in found[key].items()}
        known += [[f"{what}: {name.replace('_', ' ')}", text] for name, text in words.items() if text]
    yield Table(["", "what is known of it"], known)


def _words(value: Any) -> str:
    """A value of a provenance; nothing of one with many parts, which are in the record."""
    if not isinstance(value, Mapping):
        return "" if value is None else str(value)
    return (
        ""
        if any(isinstance(part, Mapping) for part in value.values())
        else ", ".join(f"{k} {v}" for k, v in value.items())
    )
