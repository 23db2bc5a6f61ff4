"""`sobofem optimize`."""

from __future__ import annotations

from collections.abc import Mapping
import json
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console
from rich.table import Table
import typer

from coupling.abort import ranks
from coupling.commands.outfile import check_writable
from coupling.contract import Model, SampleFailure
from coupling.display import report_console
from coupling.loading import load_model
from coupling.optimize import Certificate, Optimum, certify, improve, minimize
from coupling.world import Serial, world


def optimize(
    surrogate: Annotated[
        Path, typer.Argument(metavar="SURROGATE", help="Surrogate (safetensors).", show_default=False)
    ],
    model: Annotated[
        str,
        typer.Option(metavar="MODEL", help="The model that certifies: `package.module:name` or `path/file.py:name`."),
    ],
    objective: Annotated[str, typer.Option("--minimize", metavar="NAME", help="Response to minimize.")],
    at_most: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Upper limit of a response; repeatable.")
    ] = None,
    at_least: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Lower limit of a response; repeatable.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="Keep a parameter at a value; repeatable.")
    ] = None,
    starts: Annotated[int, typer.Option(help="Starting points for the search on the surrogate.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Seed of the starting points.", min=0)] = 0,
    solves: Annotated[
        int, typer.Option(help="Model solves that may be spent to certify: one judges, more also improve.", min=1)
    ] = 5,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.", show_default=False)] = None,
) -> None:
    """Find the optimum of SURROGATE under limits, and certify it with solves of the model behind it.

    The first solve judges the surrogate's optimum. If the model disagrees, each further one corrects the surrogate at
    that point and searches again. Values are in the units of the parameters and responses. Exit code 1 if no certified
    optimum was found.

    Example: sobofem optimize plate.safetensors --model plate.py:model --minimize mass --at-most stress=200
    """
    from surrogate import load

    if out is not None:
        check_writable(out)
    together = world()
    trusted = load_model(model, None if isinstance(together, Serial) else together)
    limits = {"at_most": _values(at_most), "at_least": _values(at_least), "fixed": _values(fix)}
    network = load(surrogate)
    first = _certified(minimize(network, objective, **limits, starts=starts, seed=seed), trusted)
    path = improve(first, network, trusted, solves=solves - 1)
    if ranks()[0] == 0:
        show(path, getattr(trusted, "units", {}))
        if out is not None:
            out.write_text(json.dumps(_record(path[-1]), indent=2) + "\n")
    if not path[-1].certified:
        raise typer.Exit(1)


def _certified(predicted: Optimum, model: Model) -> Certificate:
    """The certificate, or what to do where the model has no answer."""
    try:
        return certify(predicted, model)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        raise ValueError(
            f"the model has no answer at the surrogate's optimum ({error.reason}); fix parameters or add limits"
        ) from error


def _values(pairs: list[str] | None) -> dict[str, float]:
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        try:
            found[name] = float(value) if equals else float("nan")
        except ValueError:
            found[name] = float("nan")
        if not name or not np.isfinite(found[name]):
            raise ValueError(f"{pair!r} is no limit or value; write NAME=VALUE, such as mass=3.5")
    return found


def show(path: list[Certificate], units: Mapping[str, str], console: Console | None = None) -> None:
    """Print the way to the optimum, the optimum, and what to think of it."""
    console = console or report_console()
    predicted, last = path[0].predicted, path[-1]
    way = Table("solve", predicted.task.objective, "violation", "unbalanced slope", title="by the model")
    for k, step in enumerate(path, start=1):
        values = (step.confirmed.objective, step.confirmed.violation, step.confirmed.optimality)
        way.add_row(str(k), f"{values[0]:.6g}", f"{values[1]:.1e}", f"{values[2]:.1e}")
    console.print(way)
    point = Table("parameter", "value", "unit", title="optimum")
    for name, value in zip(predicted.parameters, last.confirmed.x, strict=True):
        point.add_row(name, f"{value:.6g}" + (" (fixed)" if name in predicted.task.fixed else ""), units.get(name, ""))
    console.print(point)
    title = "the surrogate's own optimum by surrogate and model; the optimum at last"
    table = Table("response", "surrogate", "model", "difference", "optimum", "limit", "unit", title=title)
    rows = zip(predicted.responses, predicted.y, path[0].confirmed.y, path[0].error, last.confirmed.y, strict=True)
    for name, guess, truth, error, final in rows:
        numbers = (f"{guess:.6g}", f"{truth:.6g}", f"{error:+.2%}", f"{final:.6g}")
        table.add_row(name, *numbers, _limit(predicted, name), units.get(name, ""))
    console.print(table)
    console.print(verdict(path))


def _limit(optimum: Optimum, name: str) -> str:
    task = optimum.task
    parts = [f"≤ {task.at_most[name]:g}"] if name in task.at_most else []
    parts += [f"≥ {task.at_least[name]:g}"] if name in task.at_least else []
    return " ".join(parts) or ("minimized" if name == task.objective else "")


def verdict(path: list[Certificate]) -> str:
    """What to think of the optimum, in a few sentences."""
    predicted, last = path[0].predicted, path[-1].confirmed
    spent = f"{predicted.evaluations} surrogate evaluations and {len(path)} model solves"
    if path[-1].certified:
        return f"Certified: the model itself finds this point feasible and (to first order) optimal, after {spent}."
    if not predicted.feasible:
        return f"No point meets the limits on the surrogate ({broken(predicted)}). Relax a limit or widen the bounds."
    state = broken(last) if not last.feasible else f"{last.optimality:.1%} of its steepest slope is left unbalanced"
    why = f" The search ended early: {path[-1].note}." if path[-1].note else ""
    return f"Not certified after {spent}: by the model, {state}.{why} Allow more solves, or train on more samples."


def broken(optimum: Optimum) -> str:
    """The limits that a point violates, in words."""
    y = dict(zip(optimum.responses, optimum.y, strict=True))
    over = [f"{name} is {y[name]:.6g}, at most {v:g}" for name, v in optimum.task.at_most.items() if y[name] > v]
    under = [f"{name} is {y[name]:.6g}, at least {v:g}" for name, v in optimum.task.at_least.items() if y[name] < v]
    return "; ".join(over + under)


def _record(certificate: Certificate) -> dict[str, object]:
    """What a script reads: points and responses by name."""
    predicted, confirmed = certificate.predicted, certificate.confirmed
    return {
        "x": dict(zip(predicted.parameters, predicted.x.tolist(), strict=True)),
        "surrogate": dict(zip(predicted.responses, predicted.y.tolist(), strict=True)),
        "model": dict(zip(confirmed.responses, confirmed.y.tolist(), strict=True)),
        "violation": confirmed.violation,
        "optimality": confirmed.optimality,
        "certified": certificate.certified,
    }
