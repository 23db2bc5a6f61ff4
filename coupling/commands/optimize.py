"""`sobofem optimize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import numpy as np
from rich.console import Console
from rich.table import Table
import typer

from coupling.abort import ranks
from coupling.loading import load_model
from coupling.optimize import Certificate, Optimum, certify, minimize
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
    seed: Annotated[int, typer.Option(help="Seed of the starting points.")] = 0,
    out: Annotated[Path | None, typer.Option(help="JSON file for the result.", show_default=False)] = None,
) -> None:
    """Find the optimum of SURROGATE under limits, and certify it with one solve of the model behind it.

    Values are in the units of the parameters and responses. Exit code 1 if the model finds a limit violated.

    Example: sobofem optimize plate.safetensors --model plate.py:model --minimize mass --at-most stress=200
    """
    from surrogate import load

    together = world()
    trusted = load_model(model, None if isinstance(together, Serial) else together)
    limits = {"at_most": _values(at_most), "at_least": _values(at_least), "fixed": _values(fix)}
    predicted = minimize(load(surrogate), objective, **limits, starts=starts, seed=seed)
    certificate = certify(predicted, trusted)
    if ranks()[0] == 0:
        _show(certificate, getattr(trusted, "units", {}))
        if out is not None:
            out.write_text(json.dumps(_record(certificate), indent=2) + "\n")
    if not certificate.confirmed.feasible:
        raise typer.Exit(1)


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


def _show(certificate: Certificate, units: dict[str, str]) -> None:
    predicted, confirmed = certificate.predicted, certificate.confirmed
    console = Console()
    point = Table("parameter", "value", "unit", title="optimum")
    for name, value in zip(predicted.parameters, predicted.x, strict=True):
        point.add_row(name, f"{value:.6g}" + (" (fixed)" if name in predicted.task.fixed else ""), units.get(name, ""))
    console.print(point)
    table = Table("response", "surrogate", "model", "difference", "limit", "unit", title="certificate")
    for row in zip(predicted.responses, predicted.y, confirmed.y, certificate.error, strict=True):
        name, guess, truth, error = row
        table.add_row(
            name, f"{guess:.6g}", f"{truth:.6g}", f"{error:+.2%}", _limit(predicted, name), units.get(name, "")
        )
    console.print(table)
    console.print(verdict(certificate))


def _limit(optimum: Optimum, name: str) -> str:
    task = optimum.task
    parts = [f"≤ {task.at_most[name]:g}"] if name in task.at_most else []
    parts += [f"≥ {task.at_least[name]:g}"] if name in task.at_least else []
    return " ".join(parts) or ("minimized" if name == task.objective else "")


def verdict(certificate: Certificate) -> str:
    """The certificate in a sentence or two."""
    predicted, confirmed = certificate.predicted, certificate.confirmed
    if not predicted.feasible:
        return (
            f"No point meets the limits on the surrogate; the best violates them by {predicted.violation:.2%}. "
            "Relax a limit or widen the bounds."
        )
    state = "meets every limit" if confirmed.feasible else f"violates a limit by {confirmed.violation:.2%}"
    advice = "" if confirmed.feasible else " Tighten that limit by as much, or train on more samples."
    return (
        f"By the model this point {state}; {confirmed.optimality:.1%} of the objective's slope is left unbalanced "
        f"({predicted.evaluations} surrogate evaluations, {confirmed.evaluations} model solve).{advice}"
    )


def _record(certificate: Certificate) -> dict[str, object]:
    """What a script reads: points and responses by name."""
    predicted, confirmed = certificate.predicted, certificate.confirmed
    return {
        "x": dict(zip(predicted.parameters, predicted.x.tolist(), strict=True)),
        "surrogate": dict(zip(predicted.responses, predicted.y.tolist(), strict=True)),
        "model": dict(zip(confirmed.responses, confirmed.y.tolist(), strict=True)),
        "violation": confirmed.violation,
        "optimality": confirmed.optimality,
        "feasible": confirmed.feasible,
    }
