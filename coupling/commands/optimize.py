"""`sobofem optimize`."""

from __future__ import annotations

from functools import partial
import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from coupling.abort import ranks
from coupling.commands.outfile import check_writable
from coupling.contract import Model
from coupling.dataset import Dataset
from coupling.interruption import keeping
from coupling.loading import load_model
from coupling.optimize import Step, Task, minimize, pareto
from coupling.optimize.report import line, show, show_front, so_far
from coupling.world import Serial, on_root, world

_LIMIT = "NAME=VALUE"


def optimize(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="The model to optimize: `package.module:name` or `path/file.py:name`.",
            show_default=False,
        ),
    ],
    objective: Annotated[
        list[str] | None,
        typer.Option("--minimize", metavar="NAME[=WEIGHT]", help="Response to minimize; repeated, their weighted sum."),
    ] = None,
    maximize: Annotated[
        list[str] | None, typer.Option(metavar="NAME[=WEIGHT]", help="Response to maximize; as --minimize.")
    ] = None,
    at_most: Annotated[
        list[str] | None, typer.Option(metavar=_LIMIT, help="Upper limit of a response; repeatable.")
    ] = None,
    at_least: Annotated[
        list[str] | None, typer.Option(metavar=_LIMIT, help="Lower limit of a response; repeatable.")
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar=_LIMIT, help="Keep a parameter at a value; repeatable.")
    ] = None,
    one_of: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=A,B,C", help="A parameter takes one of these values: all are searched; repeatable."),
    ] = None,
    start: Annotated[
        list[str] | None,
        typer.Option(metavar=_LIMIT, help="Where a parameter starts, instead of the middle; repeatable."),
    ] = None,
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
    tolerance: Annotated[float, typer.Option(help="KKT residual and violation of an optimum, relative.")] = 1e-6,
    solves: Annotated[int, typer.Option(help="Model solves that may be spent, each with its Jacobian.", min=1)] = 100,
    seed: Annotated[int, typer.Option(help="Of everything that is drawn.", min=0)] = 0,
    points: Annotated[
        int,
        typer.Option(
            "--pareto", metavar="POINTS", help="Certify so many points of the front of all objectives.", min=0
        ),
    ] = 0,
    ranks_per_solve: Annotated[
        int | None,
        typer.Option(
            help="Groups of so many MPI ranks solve candidates in parallel; all solve each together if left out."
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
    smaller, larger = _weights(objective, 1.0), _weights(maximize, -1.0)
    if both := sorted(set(smaller) & set(larger)):
        raise ValueError(f"{', '.join(both)} is to be minimized and maximized; give it once")
    weights = smaller | larger
    if not weights:
        raise ValueError("nothing to minimize or maximize; name a response: --minimize mass")
    sole = objective[0] if objective and len(weights) == 1 and "=" not in objective[0] else weights
    task = Task(sole, _values(at_most), _values(at_least), _values(fix), _choices(one_of))
    steps, out, picture, data = list[Step](), _absolute(out), _absolute(picture), _absolute(data)
    together = world()
    guide = None if surrogate is None else _loaded(surrogate)
    if ranks_per_solve is None:
        found: Model | str = load_model(model, None if isinstance(together, Serial) else together)
    else:
        found = model
    guided = {
        "surrogate": guide,
        "tolerance": tolerance,
        "solves": solves,
        "path": data,
        "progress": partial(_tell, steps, solves),
    }
    with keeping(lambda: _kept(steps, tolerance, data)):
        if points:
            certified = _front(found, task, points, seed, guided, out, picture)
        else:
            begin = _values(start) or None
            certified = _optimum(
                found, task, begin, guided | {"seed": seed, "ranks_per_solve": ranks_per_solve}, out, picture
            )
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
    """One optimum, told on rank 0; whether it is certified."""
    solution = minimize(model, task, start=start, **how)
    if ranks()[0] == 0:
        show(solution, solution.archive.units)
        if out is not None:
            out.write_text(json.dumps(solution.record(), indent=2) + "\n")
        if picture is not None:
            from coupling.optimize.picture import convergence_picture

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
        show_front(front, getattr(model, "units", {}))
        if out is not None:
            records = [solution.record() for _, solution in sorted(front.certificates.items())]
            out.write_text(json.dumps(records, indent=2) + "\n")
        if picture is not None:
            from coupling.optimize.picture import front_picture

            front_picture(front, picture)
    return not front.unanswered and all(solution.certified for solution in front.certificates.values())


def _fitted(data: Path | None) -> Model:
    """A surrogate of the samples at hand."""
    if data is None or not data.exists():
        raise ValueError("a front is sought on a surrogate: give --surrogate, or --data with samples to train one on")
    import surrogate

    fitted: Model = surrogate.fit(Dataset.open(data))
    return fitted


def _tell(steps: list[Step], solves: int, step: Step) -> None:
    steps.append(step)
    typer.echo(f"{line(step)}; at most {max(solves - step.number, 0)} are left", err=True)


def _absolute(path: Path | None) -> Path | None:
    """The same file, also after a model has changed the working directory."""
    return None if path is None else path.absolute()


def _kept(steps: list[Step], tolerance: float, data: Path | None) -> str:
    """What is there of an interrupted search."""
    kept = f"all solves are in {data}: repeat the same command" if data else "with --data, solves are kept"
    return f"{so_far(steps, tolerance)}; {kept}"


def _loaded(path: Path) -> Model:
    from surrogate import load

    loaded: Model = load(path)
    return loaded


def _weights(pairs: list[str] | None, sign: float) -> dict[str, float]:
    """Weights by name, of `NAME` or `NAME=WEIGHT`."""
    return _values([pair if "=" in pair else f"{pair}=1" for pair in pairs or []], sign)


def _choices(pairs: list[str] | None) -> dict[str, tuple[float, ...]]:
    found = {}
    for pair in pairs or []:
        name, _, values = pair.partition("=")
        try:
            found[name] = tuple(float(value) for value in values.split(","))
        except ValueError as error:
            raise ValueError(f"{pair!r} is no choice; write NAME=A,B,C, such as layers=1,2,3") from error
    return found


def _values(pairs: list[str] | None, sign: float = 1.0) -> dict[str, float]:
    found = {}
    for pair in pairs or []:
        name, equals, value = pair.partition("=")
        if name in found:
            raise ValueError(f"{pair!r} gives {name} a second value; give it once")
        try:
            found[name] = sign * float(value) if equals else float("nan")
        except ValueError:
            found[name] = float("nan")
        if not name or not np.isfinite(found[name]):
            raise ValueError(f"{pair!r} is no limit or value; write NAME=VALUE, such as mass=3.5")
    return found
