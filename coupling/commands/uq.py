"""`sobofem uq`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
import typer

from sobofem.coupling.commands import MODEL_HELP, command
from sobofem.coupling.commands.files import SurrogateFile, load_model_of_responses, make_folder
from sobofem.coupling.contract import Model, ProgressCallback
from sobofem.coupling.display import display_on_root, report_console
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import on_root, world
from sobofem.coupling.study.purposes import Uncertainty

if TYPE_CHECKING:
    from sobofem.coupling.solving.cached_model import CachedModel
    from sobofem.coupling.uncertainty import FailureProbability, Inputs, Limit
    from sobofem.coupling.uncertainty.study import Study


@command()
def uq(
    surrogate: SurrogateFile,
    out: Annotated[
        Path, typer.Option(help="Folder for numbers, pictures and the model's answers.", show_default=False)
    ],
    settings: Uncertainty,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model behind the surrogate, whose solves correct the estimates and narrow their bars. "
            f"{MODEL_HELP}",
        ),
    ] = None,
) -> None:
    """Say how uncertain the responses are if the inputs are, which inputs matter, and how probable failure is.

    Means, standard deviations, quantiles and densities; Sobol' indices, and bounds on them from the Jacobians; with
    --fail, the most probable point of failure and the probability. All have 95 % error bars that hold the surrogate's
    own error. Without --model these are what the surrogate says of itself, at worst; with it a few solves correct the
    estimates; under mpiexec or srun they are solved side by side. Interrupt it as you like: solves are kept in OUT, and
    the same command asks for none of them twice.

    Example: sobofem uq plate.safetensors --input traction_x=normal:100,8 --input traction_y=normal:60,8 \
    --fail 'stress_concentration > 2.8' --model plate.py:model --solves 32 --out uncertainty
    """
    how = {name: getattr(settings, name) for name in ("samples", "seed", "solves", "method")}
    together, question, out = world(), list[Question](), out.absolute()
    on_root(together, lambda: question.append(_question(surrogate, settings, out)))
    kept = f"solves are in {out / 'solves'}: repeat the same command" if model else ""
    per_solve = settings.ranks_per_solve or 1
    with keeping(lambda: kept), _trusted(model, out, per_solve) as check, display_on_root() as progress:
        lead = partial(on_root, together) if check is None else check.run_on_root
        lead(lambda: _answer(question[0], check, out, progress, how))
    if ranks()[0] == 0:
        typer.echo(f"{out}: results.json and {', '.join(sorted(path.name for path in out.glob('*.png')))} written")


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be found, on rank 0."""

    surrogate: Model
    inputs: Inputs
    limits: list[Limit]


def _question(surrogate: Path, settings: Uncertainty, out: Path) -> Question:
    """What the options say; a place for the answer."""
    from sobofem.coupling.uncertainty import Limit
    from sobofem.coupling.uncertainty import inputs as distributed

    network = load_model_of_responses(surrogate)
    given = distributed(network, settings.inputs, fixed=settings.fixed, allow_outside=settings.allow_outside)
    limits = [Limit.parse(text) for text in settings.fail]
    make_folder(out)
    return Question(network, given, limits)


def _answer(
    question: Question, check: CachedModel | None, out: Path, progress: ProgressCallback, how: dict[str, Any]
) -> None:
    """Find it, show it and write it."""
    from sobofem.coupling.uncertainty.study import quantify

    try:
        study = quantify(question.surrogate, question.inputs, question.limits, model=check, progress=progress, **how)
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:
            raise
        raise ValueError(str(error)) from error
    _write(study, out)
    show(study, question.inputs, (0, 0) if check is None else (check.solves, check.failed))


def _trusted(model: str | None, out: Path, ranks_per_solve: int) -> AbstractContextManager[CachedModel | None]:
    """The model behind the surrogate, with a memory in the folder; None without one."""
    from sobofem.coupling.solving.cached_model import cached_on_disk

    if model is None:
        return nullcontext()
    return cached_on_disk(model, out / "solves", ranks_per_solve=ranks_per_solve)


def show(study: Study, given: Inputs, spent: tuple[int, int] = (0, 0), console: Console | None = None) -> None:
    """Print the tables, and what to think of them.

    Args:
        study: What was found.
        given: How inputs are distributed.
        spent: Solves of this run, and how many of them failed.
        console: Where to print.
    """
    console = console or report_console()
    console.print(_table(study.propagation.rows(), "distributions, with 95 % error bars"))
    console.print(_table(study.indices.rows(), "shares of the variance: Sobol' indices"))
    console.print(_table(study.measures.rows(), "bounds on total indices, from derivatives"))
    if study.failure is not None:
        for point in study.failure.points:
            console.print(_table(point.rows(), f"design point of {point.limit}"))
        console.print(_table(study.failure.rows(), "failure"))
    for line in _remarks(study, given, spent):
        console.print(line, soft_wrap=True)


def _remarks(study: Study, given: Inputs, spent: tuple[int, int]) -> Iterator[str]:
    """Remarks printed below the tables."""
    found = study.propagation
    if found.solves:
        failed = f", {spent[1]} of them without an answer" if spent[1] else ""
        others = study.solves - spent[0]
        remembered = f"; {others} more are remembered from earlier runs" if others else ""
        yield f"{_solves(spent[0])} of the model in this run{failed}{remembered}."
    else:
        yield "Error bars are the surrogate's own word, at worst; give --model to have solves correct them."
    for name, failures in (("distributions", found.failures), ("failure", study.failure and study.failure.failures)):
        if failures:
            yield f"warning: {len(failures)} solves for {name} have no answer ({failures[0]}); the others stand alone."
    if study.note:
        yield f"warning: {study.note}"
    for name, value in study.indices.constant.items():
        yield f"warning: {name} does not vary with these inputs ({value:.6g}): it has no variance to share out."
    # Bounds cut the tails off, where failure lies: a tenth of its probability is more than its error bar may hide.
    failure = study.failure
    for sentence in failure.certain if failure is not None else ():
        yield f"warning: {sentence}."
    if failure is not None and given.outside > 0.1 * failure.value:
        yield (
            f"warning: {given.outside:.2g} of the inputs' probability lies outside the box and was cut off, "
            f"against a failure probability of {failure.value:.2g}; widen the bounds and train again"
        )
    for point in failure.points if failure is not None else ():
        if point.confirmed:
            yield f"The design point of {point.limit} is confirmed by the model, after {_solves(point.solves)}."
        elif point.solves:
            yield f"warning: the model did not confirm the design point of {point.limit} within {_solves(point.solves)}"


def _solves(count: int) -> str:
    return "1 solve" if count == 1 else f"{count} solves"


def _table(rows: list[list[str]], title: str) -> Table:
    heading, *body = rows
    table = Table(title=title, title_justify="left")
    for k, name in enumerate(heading):
        table.add_column(name, no_wrap=k == 0)
    for row in body:
        table.add_row(*row)
    return table


def _write(study: Study, out: Path) -> None:
    """Numbers as JSON, and pictures."""
    from sobofem.coupling.uncertainty.report import density_figure, design_point_figure, sensitivity_figure

    failure: FailureProbability | None = study.failure
    marks = [(limit.response, limit.value) for limit in failure.limits] if failure is not None else []
    (out / "results.json").write_text(json.dumps(_plain(study.record()), indent=2) + "\n", encoding="utf-8")
    density_figure(study.propagation, marks).savefig(out / "densities.png", dpi=120)
    sensitivity_figure(study.indices, study.measures).savefig(out / "sensitivity.png", dpi=120)
    if failure is not None and failure.points:
        design_point_figure(failure.points).savefig(out / "design_points.png", dpi=120)


def _plain(value: object) -> object:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
