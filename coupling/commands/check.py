"""`sobofem check`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from numpy.typing import ArrayLike
from rich.table import Table
import typer

from sobofem.coupling.commands import ModelName, command
from sobofem.coupling.contract import (
    Array,
    KnowsOutside,
    Model,
    ProgressCallback,
    SampleFailure,
    describe,
    indefinite_at_rest,
    negative_pivots,
    share_outside,
)
from sobofem.coupling.display import display_on_root, report_console
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.models.taylor import (
    MAX_TESTED_SINGLY,
    MIN_RATE,
    RANDOM_DIRECTIONS,
    TaylorReport,
    ValueRow,
    taylor_test,
    value_test,
)
from sobofem.coupling.options import option
from sobofem.coupling.parallel.abort import ending_all, ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import Serial, world

SPARE = 4
"""Points that are tried beyond those that are wanted, where the model has no answer."""


@dataclass(frozen=True)
class Checking:
    """Where a Jacobian is tested, and along what."""

    seed: int = option(0, help="Seed of the random points and directions.", min=0)
    points: int = option(1, help="Number of random points in the box.", min=1)
    directions: int | None = option(
        None,
        help="Random directions to test along; 0 for every parameter by itself. By default 0 for up to "
        f"{MAX_TESTED_SINGLY} parameters, {RANDOM_DIRECTIONS} for more.",
        min=0,
    )


@command()
def check(model: ModelName, settings: Checking = Checking()) -> None:
    """Test MODEL's Jacobian against its responses, by Taylor remainders along every parameter or random directions.

    The remainder must fall at second order; a response that is linear in a parameter has none. The responses of a
    finite-element problem are compared with plain assemblies of their own. Exit code 1 if any value or derivative is
    wrong.

    Example: sobofem check plate.py:model --points 3
    """
    ranks_together = world()
    with ending_all(ranks_together):
        found = load_model(model, None if isinstance(ranks_together, Serial) else ranks_together)
        reports: list[TaylorReport] = []
        kept = "{} of {} points were tested before"
        with keeping(lambda: kept.format(len(reports), settings.points)), display_on_root() as update:
            _test(reports, found, settings, update)
        values = [row for report in reports for row in value_test(found, report.point)]
        outside = max((_share_outside(found, report.point) for report in reports), default=0.0)
        unstable = [(r.point, indefinite_at_rest(found)) for r in reports if _is_unstable(found, r.point)]
    sound = all(row.passed for row in values)
    passed = all(report.passed for report in reports)
    if ranks()[0] == 0:
        _show(found, reports, unstable, passed=passed)
        _show_values(values)
        _show_outside(outside)
    if not (passed and sound):
        raise typer.Exit(1)


def _test(reports: list[TaylorReport], model: Model, settings: Checking, update: ProgressCallback) -> None:
    """Add reports at random points; where the model has no answer the next ones are tried."""
    points = settings.points
    for k in range(points + SPARE):
        watched = _Watched(model, partial(_count, update, len(reports), points))
        try:
            reports.append(taylor_test(watched, seed=settings.seed + k, directions=settings.directions))
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            failure = error
        if len(reports) == points:
            return
    tried = points + SPARE
    raise ValueError(
        f"the model has no answer at or near {tried - len(reports)} of {tried} random points in the middle of its box, "
        f"the last time because: {failure}. `sobofem generate MODEL --samples 64 --out FILE` says in which corner of "
        "the box it fails; narrow the bounds there"
    )


def _count(update: ProgressCallback, k: int, points: int, solves: int) -> None:
    update(k, points, f"point {k + 1} of {points}: {solves} solves")


class _Watched:
    """A model whose evaluations are counted."""

    def __init__(self, model: Model, progress: Callable[[int], None]) -> None:
        self._model, self._progress, self._count = model, progress, 0
        self.parameters, self.responses, self.bounds = model.parameters, model.responses, model.bounds

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """As the model's."""
        self._count += 1
        self._progress(self._count)
        return self._model.evaluate(x, jacobian=jacobian)


def _is_unstable(model: Model, x: Array) -> bool:
    """Whether an equilibrium at x is no minimum of the energy; solved again, as the test ended elsewhere."""
    if negative_pivots(model) is None:
        return False
    model.evaluate(x, jacobian=False)
    return bool(negative_pivots(model))


def _share_outside(model: Model, x: Array) -> float:
    """Share of the points where a law is outside of what it learned, at x: solved again, where there is a law."""
    if not isinstance(model, KnowsOutside) or model.share_outside is None:
        return 0.0
    model.evaluate(x, jacobian=False)
    return share_outside(model)


def _show_outside(share: float) -> None:
    """Say that a law is outside of what it learned."""
    if share:
        report_console().print(
            f"[yellow]Warning[/]: at up to {share:.1%} of the points the law is outside of what it was learned from: "
            "train it on more, narrow the bounds, or refuse such states with outside='refuse'."
        )


def _show_values(values: list[ValueRow]) -> None:
    """Say whether values agree with plain assemblies, and which do not."""
    console = report_console()
    for row in values:
        if not row.passed:
            console.print(
                f"[bold red]{row.response} is {row.value:.10g}, but {row.again:.10g} by a form of its own[/]: please "
                "report this; until it is fixed, give all integrals one quadrature degree."
            )
    if values and all(row.passed for row in values):
        console.print("[green]Every response has the value that a plain assembly of its own gives.[/]")


def _show(model: Model, reports: list[TaylorReport], unstable: list[tuple[Array, bool]], *, passed: bool) -> None:
    console = report_console()
    description = describe(model)
    # A point of many parameters would fill the screen: the first five show which one it is.
    for report in reports:
        entries = [f"{name} = {x:.5g}" for name, x in zip(model.parameters, report.point, strict=True)]
        point = ", ".join(entries if len(entries) <= MAX_TESTED_SINGLY else [*entries[:5], "..."])
        table = Table("direction", "response", "derivative", "by differences", "rate", "verdict", title=point)
        for row in report.rows:
            rate = "" if row.rate != row.rate else f"{row.rate:.2f}"
            verdict = row.verdict if row.passed else f"[bold red]{row.verdict}[/]"
            names = (description.label(row.direction), description.label(row.response))
            cells = (name.replace("[", r"\[") for name in names)
            table.add_row(*cells, f"{row.derivative:.6g}", f"{row.difference:.6g}", rate, verdict)
        console.print(table)
    for x, at_rest in unstable:
        where = ", ".join(f"{name} = {value:.5g}" for name, value in zip(model.parameters, x, strict=True))
        console.print(
            f"[yellow]Note[/]: at {where} the tangent is indefinite before any load: the problem is so by nature, as "
            "Helmholtz's equation is, or was never stable. No stability is lost on its load path."
            if at_rest
            else f"[yellow]Warning[/]: at {where} an equilibrium is no minimum of the energy: it is unstable, and "
            "other samples may lie on other branches. Narrow the bounds, or refuse it with "
            r'newton=fem.Newton(unstable="refuse").'
        )
    verdicts = [row.passed for report in reports for row in report.rows]
    wrong, total = verdicts.count(False), len(verdicts)
    if passed:
        what = "Every derivative along these directions" if reports[0].mixed else "Every derivative"
        console.print(f"[green]{what} is right[/]: rates at least {MIN_RATE}, or linear, or without influence.")
    else:
        console.print(
            f"[bold red]{wrong} of {total} derivatives failed[/]: rates below {MIN_RATE} mean a wrong Jacobian; where "
            "it is too noisy, tighten the model's solver tolerances."
        )
