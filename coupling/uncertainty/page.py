"""The page of an uncertainty study: what its record says, in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
import math
from typing import Any

from sobofem.coupling.report.page import Cell, Number, Page, Part, Picture, Points, Section, Table, short
from sobofem.coupling.uncertainty.estimate import shown
from sobofem.coupling.uncertainty.inputs import Inputs
from sobofem.coupling.uncertainty.limits import Limit

Record = Mapping[str, Any]


def task(given: Inputs, limits: Sequence[Limit], units: Mapping[str, str]) -> dict[str, Any]:
    """What a record says of what was asked."""
    bounds = dict(zip(given.parameters, given.bounds.tolist(), strict=True))
    return {
        "inputs": {
            name: {"distribution": str(cut.marginal), "bounds": bounds[name], "outside": float(cut.outside)}
            for name, cut in given.marginals.items()
        },
        "fixed": dict(given.fixed),
        "correlated": [{"inputs": pair, "coefficient": rho} for pair, rho in given.correlated.items()],
        "limits": [str(limit) for limit in limits],
        "units": dict(units),
    }


def page(record: Record, name: str, pictures: Mapping[str, Picture]) -> Page:
    """The page of a record.

    Args:
        record: Of a study, or of a task that has none yet.
        name: What is studied.
        pictures: `densities`, `sensitivity` and, where there are any, `design_points`.
    """
    title = f"Uncertainty of {short(name)}"
    asked = Section("Task", list(_task(record)))
    if "propagation" not in record:
        return Page(title, "open", "Unfinished", record["message"], [asked])
    found, warnings = record["propagation"], record["warnings"]
    by = f"Corrected by {found['solves']} solves" if found["solves"] else "By the surrogate alone"
    return Page(
        title,
        "good" if found["solves"] and not warnings else "open",
        by,
        _verdict(record),
        [
            asked,
            Section(
                "Distributions of the responses",
                [_distributions(found, (record["indices"] or {"constant": {}})["constant"]), pictures["densities"]],
            ),
            *_failure(record, pictures),
            *_sensitivity(record, pictures),
        ],
        warnings,
        {"model, or surrogate": name},
    )


def _verdict(record: Record) -> str:
    found, failure = record["propagation"], record["failure"]
    what = "Distributions" if record["indices"] is None else "Distributions and sensitivities"
    words = f"{len(found['responses'])} responses at {found['samples']} points of the surrogate"
    if found["solves"]:
        words += f", {record['solves']} solves of the model in all, {record['unanswered']} of them without an answer."
    else:
        words += ", which itself says how far it may be off: without solves of the model nothing confirms that."
    if failure is None:
        return f"{what} of {words}"
    low, high = failure["interval"]
    odds = f"The probability of failure is {failure['value']:.3g} (95 %: {low:.2g} to {high:.2g})"
    return f"{odds}. {what} of {words}"


def _task(record: Record) -> Iterator[Part]:
    units, rows = record["units"], list[list[Cell]]()
    for name, about in record["inputs"].items():
        rows.append([name, units.get(name, ""), about["distribution"], *about["bounds"], about["outside"]])
    heading = ["uncertain input", "unit", "distribution", "cut off below", "and above", "probability cut off"]
    yield Table(
        heading, rows, "Uncertain inputs, correlated as below" if record["correlated"] else "Independent inputs"
    )
    if record["correlated"]:
        pairs = [[" and ".join(about["inputs"]), about["coefficient"]] for about in record["correlated"]]
        yield Table(["inputs", "correlation coefficient"], pairs, "By a Gaussian copula")
    if record["fixed"]:
        held = [[name, units.get(name, ""), value] for name, value in record["fixed"].items()]
        yield Table(["known input", "unit", "value"], held)
    if record["limits"]:
        yield "The system has failed where any of these holds:"
        yield Points(record["limits"])


def _estimate(of: Record, *index: int) -> Number:
    """An entry of an estimate's record with its 95 % error bar."""
    value, sampling, surrogate = (_entry(of[part], index) for part in ("value", "sampling", "surrogate"))
    return Number(value, shown(value, math.hypot(sampling, surrogate)))


def _entry(values: Any, index: Sequence[int]) -> float:
    for k in index:
        values = values[k]
    return math.nan if values is None else float(values)


def _distributions(found: Record, constant: Record) -> Table:
    heading = ["response", "unit", "mean", "standard deviation", *(f"{100 * p:g} %" for p in found["probabilities"])]
    rows: list[list[Cell]] = []
    for i, name in enumerate(found["responses"]):
        if name in constant:
            still: list[Cell] = ["" for _ in found["probabilities"]]
            rows.append([name, found["units"].get(name, ""), constant[name], "does not vary", *still])
            continue
        quantiles = [_estimate(found["quantiles"], i, q) for q in range(len(found["probabilities"]))]
        rows.append(
            [name, found["units"].get(name, ""), _estimate(found["mean"], i), _estimate(found["std"], i), *quantiles]
        )
    return Table(heading, rows, "Mean, standard deviation and quantiles, each with its 95 % error bar")


def _failure(record: Record, pictures: Mapping[str, Picture]) -> Iterator[Section]:
    failure = record["failure"]
    if failure is None:
        return
    rows: list[list[Cell]] = [
        ["probability of failure", failure["value"]],
        ["lower end of its 95 % interval", failure["interval"][0]],
        ["upper end", failure["interval"][1]],
        ["generalized reliability index", failure["beta"]],
        ["standard error of sampling", failure["sampling"]],
        ["standard error of the surrogate", failure["surrogate"]],
        ["probability by the surrogate", failure["by_surrogate"]],
        ["solves of the model", failure["solves"]],
        ["of which contradict the surrogate", failure["disagreements"]],
    ]
    parts: list[Part] = [Table(["", failure["method"]], rows)]
    for point in failure["design_points"]:
        body = zip(point["parameters"], point["values"], point["u"], point["importance"], strict=True)
        state = "confirmed by the model" if point["confirmed"] else "not confirmed by the model"
        caption = f"Most probable point of {point['limit']}: index {point['beta']:.4g}, {state}"
        rows = [[name, record["units"].get(name, ""), value, u, share] for name, value, u, share in body]
        parts.append(Table(["input", "unit", "value", "standard normal", "importance"], rows, caption))
    if "design_points" in pictures:
        parts.append(pictures["design_points"])
    yield Section("Failure", parts)


def _sensitivity(record: Record, pictures: Mapping[str, Picture]) -> Iterator[Section]:
    if record["indices"] is None:
        yield Section(
            "Which inputs matter",
            ["Inputs are correlated: shares of the variance would be of several at once, and are left out."],
        )
        return
    yield Section("Which inputs matter", [*_shares(record), pictures["sensitivity"]])
    yield Section("Bounds on total indices, by derivatives", [_measures(record["measures"])], folded=True)


def _shares(record: Record) -> Iterator[Part]:
    found, rows = record["indices"], list[list[Cell]]()
    for (i, response), (j, name) in product(enumerate(found["responses"]), enumerate(found["parameters"])):
        if found["first"]["value"][i][j] is not None and response not in found["constant"]:
            ends = [found[index][part][i][j] for index in ("first", "total") for part in ("value", "low", "high")]
            rows.append([f"{response} by {name}", *(Number(end, f"{round(end, 3) + 0.0:.3f}") for end in ends)])
    yield Table(
        ["", "first order", "from", "to", "total", "from", "to"],
        rows,
        "Sobol' indices with 95 % intervals: the share of the variance that an input explains alone, and with others",
    )
    if found["constant"]:
        yield Points([f"{name} does not vary: it is {value:.6g}." for name, value in found["constant"].items()])


def _measures(found: Record) -> Table:
    rows: list[list[Cell]] = []
    for (i, response), (j, name) in product(enumerate(found["responses"]), enumerate(found["parameters"])):
        rows.append([f"{response} by {name}", _estimate(found["measure"], i, j), _estimate(found["bound"], i, j)])
    return Table(["", "mean squared slope", "total index at most"], rows)
