"""`sobofem optimize`."""

from __future__ import annotations

from functools import partial
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from sobofem.coupling.commands import MODEL_HELP, command
from sobofem.coupling.commands.files import absolute, check_writable, load_model_of_responses
from sobofem.coupling.contract import Model, units_of
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.optimize import Step, Task, minimize, pareto
from sobofem.coupling.optimize.report import line, show, show_front, so_far
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import Serial, on_root, world
from sobofem.coupling.study.purposes import Optimization


@command()
def optimize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help=f"The model to optimize. {MODEL_HELP}",
            show_default=False,
        ),
    ],
    settings: Optimization,
    surrogate: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A trained surrogate of the model as guide (safetensors).", show_default=False
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Dataset to start from; every solve is appended at once, so that the same command goes on.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON file for the certificate.", show_default=False)] = None,
    picture: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Picture of the convergence, or front.", show_default=False)
    ] = None,
) -> None:
    """Find an optimum of MODEL with few solves, certified by the model itself.

    Nothing is needed but the model: a guide is learned from the solves on the way, and agrees with the model in values
    and slopes at the best point so far. Samples (--data) or a trained surrogate (--surrogate) save solves. Values are
    in the units of the parameters and responses. Exit code 1 if the optimum is not certified.

    Example: sobofem optimize plate.py:model --minimize mass --at-most stress=200 --fix load=10 --data plate.h5

    A front: sobofem optimize plate.py:model --minimize mass --minimize deflection --data plate.h5 --pareto 5
    """
    for path in (out, picture):
        if path is not None:
            check_writable(path)
    if model.endswith(".safetensors"):
        raise ValueError(f"{model} is a surrogate; write: sobofem optimize MODEL --surrogate {model} ...")
    task = Task(settings.objective, settings.at_most, settings.at_least, settings.fixed, settings.one_of)
    steps, out, picture, data = list[Step](), absolute(out), absolute(picture), absolute(data)
    together = world()
    guide = None if surrogate is None else load_model_of_responses(surrogate)
    if settings.ranks_per_solve is None:
        found: Model | str = load_model(model, None if isinstance(together, Serial) else together)
    else:
        found = model
    guided = {
        "surrogate": guide,
        "tolerance": settings.tolerance,
        "solves": settings.solves,
        "path": data,
        "progress": partial(_tell, steps, settings.solves),
    }
    with keeping(lambda: _kept(steps, settings.tolerance, data)):
        if settings.pareto:
            certified = _front(found, task, settings.pareto, settings.seed, guided, out, picture)
        else:
            how = guided | {"seed": settings.seed, "ranks_per_solve": settings.ranks_per_solve}
            certified = _optimum(found, task, dict(settings.start) or None, how, out, picture)
    if not certified:
        raise typer.Exit(1)


def _optimum(
    model: Model | str,
    task: Task,
    start: dict[str, float] | None,
    how: dict[str, Any],
    out: Path | None,
    picture: Path | None,
) -> bool:
    """Find one optimum, show it on rank 0, and return whether it is certified."""
    solution = minimize(model, task, start=start, **how)
    if ranks()[0] == 0:
        show(solution, solution.archive.units)
        if out is not None:
            out.write_text(json.dumps(solution.record(), indent=2) + "\n")
        if picture is not None:
            from sobofem.coupling.optimize.report import convergence_picture

            convergence_picture(solution, picture)
    return solution.certified


def _front(
    model: Model | str, task: Task, points: int, seed: int, how: dict[str, Any], out: Path | None, picture: Path | None
) -> bool:
    """A front of the surrogate, some points of which the model certifies; whether it does."""
    if isinstance(model, str):
        raise ValueError("a front is certified point by point; leave --ranks-per-solve out")
    if task.discrete:
        raise ValueError("a front over discrete parameters is not offered; fix them, one value after the other")
    cheap = how["surrogate"] or _fitted(how["path"])
    minimized, maximized = (
        [n for n, w in task.weights.items() if w > 0.0],
        [n for n, w in task.weights.items() if w < 0.0],
    )
    together = world()
    front = on_root(
        together,
        lambda: pareto(
            cheap,
            minimized + maximized,
            maximized=maximized,
            at_most=task.at_most,
            at_least=task.at_least,
            fixed=task.fixed,
            seed=seed,
        ),
    )
    rows = np.unique(np.linspace(0, len(front.x) - 1, min(points, len(front.x))).round().astype(int)).tolist()
    front = front.certify(model, rows, **how | {"surrogate": cheap})
    if ranks()[0] == 0:
        show_front(front, units_of(model))
        if out is not None:
            records = [solution.record() for _, solution in sorted(front.certificates.items())]
            out.write_text(json.dumps(records, indent=2) + "\n")
        if picture is not None:
            from sobofem.coupling.optimize.report import front_picture

            front_picture(front, picture)
    return not front.unanswered and all(solution.certified for solution in front.certificates.values())


def _fitted(data: Path | None) -> Model:
    """A surrogate of the samples at hand."""
    if data is None or not data.exists():
        raise ValueError("a front is sought on a surrogate: give --surrogate, or --data with samples to train one on")
    from sobofem import surrogate

    fitted: Model = surrogate.fit(Dataset.open(data))
    return fitted


def _tell(steps: list[Step], solves: int, step: Step) -> None:
    steps.append(step)
    typer.echo(f"{line(step)}; at most {max(solves - step.number, 0)} are left", err=True)


def _kept(steps: list[Step], tolerance: float, data: Path | None) -> str:
    """What is there of an interrupted search."""
    kept = f"all solves are in {data}: repeat the same command" if data else "with --data, solves are kept"
    return f"{so_far(steps, tolerance)}; {kept}"
