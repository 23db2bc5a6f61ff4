"""Tables of the protocol: errors of every arm, and what they come to against the best opponent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from rich.console import Group
from rich.table import Table

from benchmarks.results import Result, tasks_of
from benchmarks.rivals import ARMS

BASELINE, LARGEST = "values only", 256
QUANTITIES = {"value": "values", "derivative": "derivatives"}

Cells = dict[tuple[str, int, str], np.ndarray]
"""Of each task, number of samples and arm: one number a training."""


def tables(results: Sequence[Result]) -> Group:
    """All tables that have rows: errors, ratios to the best opponent, seconds, coverage, samples needed, failures."""
    shown = [errors(results, task, what) for task in tasks_of(results) for what in QUANTITIES]
    shown += [ratios(results, what) for what in QUANTITIES]
    shown += [seconds(results), coverage(results), needed(results)]
    failed = [result for result in results if result.failure]
    return Group(*(table for table in (*shown, failures(failed)) if table.row_count))


def gathered(results: Iterable[Result], what: str) -> Cells:
    """A quantity of all trainings that have it."""
    cells: dict[tuple[str, int, str], list[float]] = {}
    for result in results:
        number = getattr(result, what)
        if number is not None and result.failure is None:
            cells.setdefault((result.case.task, result.case.n, result.case.arm), []).append(number)
    return {key: np.array(numbers) for key, numbers in cells.items()}


def medians(results: Iterable[Result], what: str) -> dict[tuple[str, int, str], float]:
    """Median of a quantity over designs and seeds, by task, number of samples and arm."""
    return {key: float(np.median(numbers)) for key, numbers in gathered(results, what).items()}


def errors(results: Sequence[Result], task: str, what: str) -> Table:
    """Errors of one task: a row an arm, a column a number of samples; medians, and quartiles in parentheses."""
    cells = {key: numbers for key, numbers in gathered(results, what).items() if key[0] == task}
    counts = sorted({n for _, n, _ in cells})
    title = f"{task}: normalized RMSE of {QUANTITIES[what]}, median (quartiles)"
    table = Table("arm", *(f"n = {n}" for n in counts), title=title)
    for arm in _arms(cells):
        table.add_row(arm, *(_spread(cells.get((task, n, arm))) for n in counts))
    return table


def ratios(results: Sequence[Result], what: str) -> Table:
    """This project's arms over the best opponent of each task and number of samples, medians of the same designs."""
    found = by_design(results, what)
    own = [arm for arm in _arms(found) if ARMS[arm].own]
    table = Table("task", "n", *own, title=f"error of {QUANTITIES[what]} / that of the best opponent, which is named")
    summary: dict[int, list[list[float]]] = {}
    for task, n in _in_order(found, results):
        opponents = {arm: found[task, n, arm] for arm in ARMS if (task, n, arm) in found and not ARMS[arm].own}
        best = [_against_best(found.get((task, n, arm), {}), opponents) for arm in own]
        if any(best):
            table.add_row(task, str(n), *(f"{pair[0]:.2f} {pair[1]}" if pair else "" for pair in best))
            summary.setdefault(n, []).append([pair[0] if pair else np.nan for pair in best])
    table.add_section()
    for n, rows in sorted(summary.items()):
        for name, over in (("median over tasks", np.nanmedian), ("worst", np.nanmax)):
            columns = [column[~np.isnan(column)] for column in np.array(rows).T]
            table.add_row(name, str(n), *(f"{over(column):.2f}" if len(column) else "" for column in columns))
    return table


def by_design(results: Iterable[Result], what: str) -> dict[tuple[str, int, str], dict[int, float]]:
    """Median of a quantity over seeds, of each task, number of samples and arm by design."""
    every: dict[tuple[str, int, str], dict[int, list[float]]] = {}
    for result in results:
        number = getattr(result, what)
        if number is not None and result.failure is None:
            case = result.case
            every.setdefault((case.task, case.n, case.arm), {}).setdefault(case.design, []).append(number)
    return {
        key: {design: float(np.median(numbers)) for design, numbers in designs.items()}
        for key, designs in every.items()
    }


def _against_best(own: dict[int, float], opponents: dict[str, dict[int, float]]) -> tuple[float, str] | None:
    """Largest ratio of medians to an opponent over the designs that both have, and whose it is."""
    pairs = []
    for arm, theirs in opponents.items():
        common = own.keys() & theirs.keys()
        if common:
            pairs.append((float(np.median([own[d] for d in common]) / np.median([theirs[d] for d in common])), arm))
    return max(pairs, default=None)


def seconds(results: Sequence[Result]) -> Table:
    """Seconds of training on the processor, medians over tasks, designs and seeds."""
    times: dict[tuple[str, int], list[float]] = {}
    for (_, n, arm), middle in medians(results, "seconds").items():
        times.setdefault((arm, n), []).append(middle)
    counts = sorted({n for _, n in times})
    table = Table("arm", *(f"n = {n}" for n in counts), title="seconds of training, median over tasks")
    for arm in (arm for arm in ARMS if any(arm == other for other, _ in times)):
        table.add_row(arm, *(f"{np.median(times[arm, n]):.1f}" if (arm, n) in times else "" for n in counts))
    return table


def coverage(results: Sequence[Result]) -> Table:
    """Share of unseen points inside 95 % intervals, median over designs and seeds."""
    values, derivatives = medians(results, "covered_values"), medians(results, "covered_derivatives")
    title = "share inside 95 % intervals: values, derivatives"
    arms = _arms(values)
    table = Table("task", "n", *arms, title=title)
    for task, n in _in_order(values, results):
        keys = [(task, n, arm) for arm in arms]
        cells = [f"{values[key]:.2f}, {derivatives[key]:.2f}" if key in values else "" for key in keys]
        table.add_row(task, str(n), *cells)
    return table


def needed(results: Sequence[Result]) -> Table:
    """Samples with which each arm reaches the error that training on values alone has with 256."""
    middle = medians(results, "value")
    arms = [arm for arm in _arms(middle) if arm != BASELINE]
    title = f"samples to reach the value error of {BASELINE!r} at n = {LARGEST}"
    table = Table("task", "error", *arms, title=title)
    for task in tasks_of(results):
        goal = middle.get((task, LARGEST, BASELINE))
        if goal is not None:
            curves = [{n: error for (t, n, a), error in middle.items() if (t, a) == (task, arm)} for arm in arms]
            table.add_row(task, f"{goal:.2e}", *(reached(curve, goal) for curve in curves))
    return table


def reached(curve: dict[int, float], goal: float) -> str:
    """Where an error curve by number of samples falls to a goal: between two counts by powers, or a bound."""
    if not curve:
        return ""
    counts = sorted(curve)
    first = next((k for k, n in enumerate(counts) if curve[n] <= goal), None)
    if first is None:
        return f"> {counts[-1]}"
    if first == 0:
        return f"≤ {counts[0]}"
    (n0, n1), (e0, e1) = counts[first - 1 : first + 1], (curve[n] for n in counts[first - 1 : first + 1])
    share = np.log(e0 / goal) / np.log(e0 / e1)
    return f"{n0 * (n1 / n0) ** share:.0f}"


def failures(failed: Sequence[Result]) -> Table:
    """Trainings that came to nothing, and why."""
    table = Table("task", "n", "arm", "times", "first reason", title="failures")
    for task, n, arm in dict.fromkeys((r.case.task, r.case.n, r.case.arm) for r in failed):
        same = [r for r in failed if (r.case.task, r.case.n, r.case.arm) == (task, n, arm)]
        table.add_row(task, str(n), arm, str(len(same)), (same[0].failure or "")[:60])
    return table


def _arms(keys: Iterable[tuple[str, int, str]]) -> list[str]:
    """Arms that occur, in the order of `ARMS`."""
    present = {arm for _, _, arm in keys}
    return [arm for arm in ARMS if arm in present]


def _in_order(keys: Iterable[tuple[str, int, str]], results: Sequence[Result]) -> list[tuple[str, int]]:
    """Tasks and numbers of samples that occur, tasks as they first come and numbers rising."""
    order = tasks_of(results)
    return sorted({(task, n) for task, n, _ in keys}, key=lambda pair: (order.index(pair[0]), pair[1]))


def _spread(numbers: np.ndarray | None) -> str:
    if numbers is None:
        return ""
    low, middle, high = np.quantile(numbers, (0.25, 0.5, 0.75))
    return f"{middle:.2e} ({low:.1e}, {high:.1e})"
