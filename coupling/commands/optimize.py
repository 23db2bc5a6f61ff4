"""`sobofem optimize`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from sobofem.coupling.commands import ModelName, command
from sobofem.coupling.commands.files import absolute, check_writable, load_model_of_responses
from sobofem.coupling.commands.front import FrontSearch
from sobofem.coupling.contract import HasComm, KnowsOutside, Model, SampleFailure, describe, share_outside
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.models.matching import require_same_names
from sobofem.coupling.optimize import NoAnswer, Optimum, Solution, Step, Task, certify, minimize
from sobofem.coupling.optimize.report import (
    convergence_picture,
    line,
    show,
    show_confirmation,
    show_largest,
    show_outside,
    so_far,
    write,
    write_unfinished,
)
from sobofem.coupling.optimize.uncertain import Uncertainties
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import Serial, world
from sobofem.coupling.report.geometry import fields_figure, is_drawable, states
from sobofem.coupling.study.purposes import Optimization


@command()
def optimize(
    model: ModelName,
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
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.json",
            help="JSON file for all numbers; a page to read (FILE.html) and, of finite elements, files for ParaView "
            "(FILE.pvd) come beside it.",
            show_default=False,
        ),
    ] = None,
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

    A reliable design: sobofem optimize plate.py:model --minimize mass --at-most stress=200 --input load=normal:10,1 \
    --failure-probability 0.001
    """
    for path in (out, out and _beside(out, ".html"), picture):
        if path is not None:
            check_writable(path)
    if model.endswith(".safetensors"):
        raise ValueError(f"{model} is a surrogate; write: sobofem optimize MODEL --surrogate {model} ...")
    task, uncertain = _task(settings), _uncertainties(settings)
    steps, out, picture, data = list[Step](), absolute(out), absolute(picture), absolute(data)
    guide = None if surrogate is None else load_model_of_responses(surrogate)
    found: Model | str = _together(model) if settings.ranks_per_solve is None else model
    seen: Callable[[Model], Model] = lambda each: each  # noqa: E731
    if uncertain is not None:
        assert not isinstance(found, str)
        seen = partial(uncertain.model, task=task)
        found, guide, task = seen(found), None if guide is None else seen(guide), uncertain.task(task)
    per_solve = settings.ranks_per_solve or _of_one_rank(model, found, pareto=bool(settings.pareto))
    guided = {
        "surrogate": guide,
        "tolerance": settings.tolerance,
        "solves": settings.solves,
        "path": data,
        "progress": partial(_tell, steps, settings.solves),
    }
    if settings.pareto and settings.confirm_on is not None:
        raise ValueError("--confirm-on is for one optimum; leave it or --pareto out")
    if settings.pareto:
        front = FrontSearch(model, found, task, settings.tolerance, steps, data, out, str(uncertain or ""))
        certified = front(settings.pareto, settings.seed, guided, picture)
    else:
        search = Search(model, found, task, settings.tolerance, steps, data, out, seen, str(uncertain or ""))
        how = guided | {
            "seed": settings.seed,
            "starts": settings.starts,
            "predictors": settings.predictors.value,
            "ranks_per_solve": per_solve,
        }
        with keeping(search.kept):
            solution, confirmed = _optimum(search, dict(settings.start) or None, how, settings.confirm_on, picture)
        with keeping(lambda: f"{search.out} is complete, but for pictures of the structure"):
            search.draw(solution, confirmed)
        certified = solution.certified
    if not certified:
        raise typer.Exit(1)


def _of_one_rank(name: str, model: Model | str, *, pareto: bool) -> int | None:
    """One rank a solve where several were started and the model knows of none, which is said; else None.

    Raises:
        ValueError: If it is a front that is looked for: each rank would by itself.
    """
    if not _is_of_one_rank(model):
        return None
    if pareto:
        raise ValueError(f"{name} is solved by one rank: each of {ranks()[1]} would seek the front; start one")
    if ranks()[0] == 0:
        typer.echo(
            f"{name} is solved by one rank: rank 0 searches, and {ranks()[1]} ranks solve a point each", err=True
        )
    return 1


def _task(settings: Optimization) -> Task:
    """What is asked for: an equation is a lower and an upper limit of one value.

    Raises:
        ValueError: If a response is to have a value, and another limit besides.
    """
    limits = settings.at_most.keys() | settings.at_least.keys()
    if twice := sorted(settings.equal.keys() & limits):
        raise ValueError(f"{', '.join(map(repr, twice))} is to equal a value; leave out its other limits")
    at_most, at_least = ({**part, **settings.equal} for part in (settings.at_most, settings.at_least))
    return Task(settings.objective, at_most, at_least, settings.fixed, settings.one_of)


def _uncertainties(settings: Optimization) -> Uncertainties | None:
    """Which inputs are uncertain, and what a design is to keep in spite of them; None where none is."""
    if not settings.inputs:
        if settings.deviations is not None or settings.failure_probability is not None or settings.correlated:
            raise ValueError("no input is uncertain; say how one is distributed: --input load=normal:100,8")
        return None
    if settings.ranks_per_solve is not None:
        raise ValueError("under uncertain inputs all ranks solve each point together; leave --ranks-per-solve out")
    names = ("correlated", "deviations", "failure_probability", "samples", "allow_outside", "seed")
    return Uncertainties(settings.inputs, *(getattr(settings, name) for name in names))


@dataclass(eq=False)
class Search:
    """A search under way, and where its record goes.

    Attributes:
        name: What the model is called.
        model: The model, or its specification where groups of ranks make it.
        task: What is asked for.
        tolerance: Of an optimum.
        steps: Its solves so far, on rank 0.
        data: Where these are kept, or None.
        out: The JSON file for its record, or None.
        seen: Makes of another model what the task is about: itself, or its statistics under uncertain inputs.
        uncertain: What these are, in a sentence; empty without any.
        largest: Largest values at the optimum of what means stand for, by response.
        outside: Share of the points there where the model's law is outside of what it learned.
    """

    name: str
    model: Model | str
    task: Task
    tolerance: float
    steps: list[Step]
    data: Path | None
    out: Path | None
    seen: Callable[[Model], Model]
    uncertain: str = ""
    largest: dict[str, float] = field(default_factory=dict)
    outside: float = 0.0

    def kept(self) -> str:
        """What is there of an interrupted search, after that was written to the page."""
        kept = (
            f"all solves are in {self.data}: repeat the same command" if self.data else "with --data, solves are kept"
        )
        on = f"the command below goes on from {self.data.name}" if self.data else kept
        self.write_unfinished(f"the search was interrupted; {on}", ended=False)
        return f"{so_far(self.steps, self.tolerance)}; {kept}"

    def write_unfinished(self, why: str, *, ended: bool) -> None:
        """Write what is there so far, and whether that is all."""
        if self.out is None or ranks()[0] != 0 or isinstance(self.model, str):
            return
        about = describe(self.model, name=self.name)
        write_unfinished(
            self.task, about, self.steps, self.tolerance, why, self.out, ended=ended, uncertain=self.uncertain
        )

    def write(self, solution: Solution, confirmed: dict[str, Any] | None = None, **drawn: Any) -> None:
        """Write the record and the page of a solution."""
        if self.out is not None:
            about: dict[str, Any] = {"model": self.name, "uncertain": self.uncertain, "outside": self.outside}
            write(solution, self.out, confirmed, self.largest, **about, **drawn)

    def draw(self, solution: Solution, confirmed: dict[str, Any] | None) -> None:
        """Solve where the search began and at the optimum, for pictures and ParaView. Collective."""
        model: Any = _together(self.model) if isinstance(self.model, str) else self.model
        if self.out is None or not is_drawable(model):
            return
        first = next((step.x for step in solution.path if not step.failure), None)
        points = {} if first is None or (first == solution.x).all() else {"where the search began": first}
        shown = states(model, {**points, "optimum" if solution.certified else "best point": solution.x})
        from sobofem.fem.output import write_vtk

        paraview = write_vtk(model, self.out.with_suffix(".pvd"))
        if ranks()[0] == 0:
            fields = fields_figure(shown) if shown else None
            beside = [paraview.name]
            self.write(solution, confirmed, fields=fields, others=beside)


def _beside(out: Path, suffix: str) -> Path:
    """A file beside another one.

    Raises:
        ValueError: If it is that one.
    """
    if out.suffix == suffix:
        raise ValueError(f"{out} is for numbers; name it .json, and the page {suffix} comes beside it")
    return out.with_suffix(suffix)


def _optimum(
    search: Search, start: dict[str, float] | None, how: dict[str, Any], confirm_on: str | None, picture: Path | None
) -> tuple[Solution, dict[str, Any] | None]:
    """Find one optimum, and show it on rank 0; with what another model says of it, where that is asked for."""
    other = None if confirm_on is None else search.seen(_together(confirm_on))
    if other is not None and not isinstance(search.model, str):  # before any solve
        require_same_names(f"--confirm-on {confirm_on}", other, search.model)
    try:
        solution = minimize(search.model, search.task, start=start, **how)
    except Exception as error:
        if isinstance(error, NoAnswer) or search.steps:  # no mistake in the task, of which nothing is kept
            search.write_unfinished(str(error) or type(error).__name__, ended=True)
        raise
    if ranks()[0] == 0:
        show(solution, solution.archive.units)
        if search.out is not None:  # before any more solves
            search.write(solution)
    search.largest, search.outside = _at_optimum(search.model, solution.optimum)
    confirmed = None if other is None or confirm_on is None else _confirmed(other, confirm_on, solution.optimum)
    if ranks()[0] == 0:
        if search.out is not None and (confirmed is not None or search.largest or search.outside):
            search.write(solution, confirmed)
        if picture is not None:
            convergence_picture(solution, picture)
    return solution, confirmed


def _at_optimum(model: Model | str, best: Optimum) -> tuple[dict[str, float], float]:
    """Largest values of what means in the task stand for, and the share of points where a law is outside; shown."""
    if isinstance(model, str):
        return {}, 0.0
    means: dict[str, Any] = getattr(model, "largest", {}) if is_drawable(model) else {}
    asked = {*best.task.weights, *best.task.at_most, *best.task.at_least} & means.keys()
    if not asked and not (isinstance(model, KnowsOutside) and model.share_outside is not None):
        return {}, 0.0
    try:
        model.evaluate(best.x, jacobian=False)
    except Exception as error:
        if not isinstance(error, SampleFailure):
            raise
        return {}, 0.0
    share, found = share_outside(model), {}
    if asked:
        from sobofem.fem.maxima import maxima

        found = {name: value for name, value in maxima(cast(Any, model)).items() if name in asked}
    if ranks()[0] == 0:
        show_largest(best, found)
        show_outside(share)
    return found, share


def _together(name: str) -> Model:
    """A model on all ranks."""
    every = world()
    return load_model(name, None if isinstance(every, Serial) else every)


def _is_of_one_rank(model: Model | str) -> bool:
    """Whether each of several ranks has a model of its own: left alone, each would search, and write all files."""
    if isinstance(model, str) or ranks()[1] == 1:
        return False
    return not isinstance(model, HasComm) or model.comm.size == 1


def _confirmed(model: Model, name: str, best: Optimum) -> dict[str, Any]:
    """What another model says of an optimum, as plain values; shown on rank 0."""
    try:
        there = certify(model, best)
    except Exception as error:
        if not isinstance(error, SampleFailure | ValueError):
            raise
        reason = error.reason if isinstance(error, SampleFailure) else str(error)  # of bounds that exclude it
        if ranks()[0] == 0:
            typer.echo(f"{name} has no answer there: {reason}")
        return {"by": name, "no_answer": reason}
    if ranks()[0] == 0:
        show_confirmation(best, there, name)
    values = dict(zip(there.responses, there.y.tolist(), strict=True))
    judged = {"violation": there.violation, "optimality": there.optimality, "feasible": there.feasible}
    return {"by": name, "model": values, "not_met": list(there.unmet)} | judged


def _tell(steps: list[Step], solves: int, step: Step) -> None:
    steps.append(step)
    typer.echo(f"{line(step)}; at most {max(solves - step.number, 0)} are left", err=True)
