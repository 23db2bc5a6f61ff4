"""`sobofem check`."""

from __future__ import annotations

from typing import Annotated

from rich.table import Table
import typer

from coupling.abort import ending_all, ranks
from coupling.contract import Model, SampleFailure, describe
from coupling.display import report_console
from coupling.loading import load_model
from coupling.verify import RATE, TaylorReport, taylor_test
from coupling.world import Serial, world


def check(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="`package.module:name` or `path/file.py:name`.", show_default=False)
    ],
    seed: Annotated[int, typer.Option(help="Seed of the random points and directions.", min=0)] = 0,
    points: Annotated[int, typer.Option(help="Number of random points in the box.", min=1)] = 1,
) -> None:
    """Test MODEL's Jacobian against its responses, by Taylor remainders along every parameter.

    The remainder must fall at second order; a response that is linear in a parameter has none. Exit code 1 if any
    derivative is wrong.

    Example: sobofem check plate.py:model --points 3
    """
    ranks_together = world()
    with ending_all(ranks_together):
        found = load_model(model, None if isinstance(ranks_together, Serial) else ranks_together)
        reports = [_test(found, seed + k) for k in range(points)]
    passed = all(report.passed for report in reports)
    if ranks()[0] == 0:
        _show(found, reports, passed=passed)
    if not passed:
        raise typer.Exit(1)


def _test(model: Model, seed: int) -> TaylorReport:
    try:
        return taylor_test(model, seed=seed)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        raise ValueError(
            f"the model has no answer near the random point: {error.reason}; take another --seed"
        ) from error


def _show(model: Model, reports: list[TaylorReport], *, passed: bool) -> None:
    console = report_console()
    description = describe(model)
    for report in reports:
        point = ", ".join(f"{name} = {x:.5g}" for name, x in zip(model.parameters, report.point, strict=True))
        table = Table("direction", "response", "derivative", "by differences", "rate", "verdict", title=point)
        for row in report.rows:
            rate = "" if row.rate != row.rate else f"{row.rate:.2f}"
            verdict = row.verdict if row.passed else f"[bold red]{row.verdict}[/]"
            names = (description.label(row.direction), description.label(row.response))
            cells = (name.replace("[", r"\[") for name in names)
            table.add_row(*cells, f"{row.derivative:.6g}", f"{row.difference:.6g}", rate, verdict)
        console.print(table)
    verdicts = [row.passed for report in reports for row in report.rows]
    wrong, total = verdicts.count(False), len(verdicts)
    if passed:
        console.print(f"[green]Every derivative is right[/]: rates at least {RATE}, or linear, or without influence.")
    else:
        console.print(
            f"[bold red]{wrong} of {total} derivatives failed[/]: rates below {RATE} mean a wrong Jacobian; where it "
            "is too noisy, tighten the model's solver tolerances."
        )
