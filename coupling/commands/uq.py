"""`sobofem uq`."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.table import Table
import typer

from sobofem.coupling.commands import MODEL_HELP, command, in_one_line
from sobofem.coupling.commands.files import SurrogateFile, load_model_of_responses, make_folder
from sobofem.coupling.contract import Model, ProgressCallback, units_of
from sobofem.coupling.display import display_on_root, report_console
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import on_root, world
from sobofem.coupling.study.purposes import Uncertainty

if TYPE_CHECKING:
    from sobofem.coupling.solving.cached_model import CachedModel
    from sobofem.coupling.uncertainty import Inputs, Limit
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
    on_root(together, lambda: question.append(_question(surrogate, settings, out, model or surrogate.name)))

    def kept() -> str:
        words = f"solves are in {out / 'solves'}: repeat the same command" if model else ""
        for asked in question:
            asked.interrupted(f"Interrupted; {words or 'repeat the same command'}.")
        return words

    per_solve = settings.ranks_per_solve or 1
    with keeping(kept), _trusted(model, out, per_solve) as check, display_on_root() as progress:
        lead = partial(on_root, together) if check is None else check.run_on_root
        lead(lambda: _answer(question[0], check, out, progress, how))
    if ranks()[0] == 0:
        pictures = ", ".join(sorted(path.name for path in out.glob("*.png")))
        typer.echo(f"{out}: report.html, results.json and {pictures} written")


@dataclass(frozen=True, eq=False)
class Question:
    """What is to be found, on rank 0."""

    surrogate: Model
    inputs: Inputs
    limits: list[Limit]
    name: str
    out: Path

    def interrupted(self, kept: str) -> None:
        """Write the page of what has no answer yet."""
        from sobofem.coupling.uncertainty.report import write_unfinished

        if (self.out / "results.json").exists():  # whose page is there
            return
        units = units_of(self.surrogate)
        write_unfinished(self.inputs, self.limits, self.out, units=units, name=self.name, why=kept)


def _question(surrogate: Path, settings: Uncertainty, out: Path, name: str) -> Question:
    """What the options say; a place for the answer."""
    from sobofem.coupling.uncertainty import Limit
    from sobofem.coupling.uncertainty import inputs as distributed

    network = load_model_of_responses(surrogate)
    given = distributed(
        network,
        settings.inputs,
        fixed=settings.fixed,
        correlated=settings.correlated,
        allow_outside=settings.allow_outside,
    )
    limits = [Limit.parse(text) for text in settings.fail]
    make_folder(out)
    return Question(network, given, limits, name, out)


def _answer(
    question: Question, check: CachedModel | None, out: Path, progress: ProgressCallback, how: dict[str, Any]
) -> None:
    """Find it, show it and write it."""
    from sobofem.coupling.uncertainty.report import write
    from sobofem.coupling.uncertainty.study import quantify

    with in_one_line():
        study = quantify(question.surrogate, question.inputs, question.limits, model=check, progress=progress, **how)
    write(study, question.inputs, out, units=units_of(question.surrogate), name=question.name)
    show(study, question.inputs, (0, 0) if check is None else (check.solves, check.failed))


def _trusted(model: str | None, out: Path, ranks_per_solve: int) -> AbstractContextManager[CachedModel | None]:
    """The model behind the surrogate, with a memory in the folder; None without one."""
    from sobofem.coupling.solving.cached_model import cached_on_disk

    if model is None:
        return nullcontext()
    return cached_on_disk(model, out / "solves", ranks_per_solve=ranks_per_solve)


def show(study: Study, given: Inputs, spent: tuple[int, int]) -> None:
    """Print the tables, and what to think of them.

    Args:
        study: What was found.
        given: How inputs are distributed.
        spent: Solves of this run, and how many of them failed.
    """
    from sobofem.coupling.uncertainty.report import remarks, warnings

    console = report_console()
    console.print(_table(study.propagation.rows(), "distributions, with 95 % error bars"))
    if study.indices is not None:
        console.print(_table(study.indices.rows(), "shares of the variance: Sobol' indices"))
    if study.measures is not None:
        console.print(_table(study.measures.rows(), "bounds on total indices, from derivatives"))
    if study.failure is not None:
        for point in study.failure.points:
            console.print(_table(point.rows(), f"design point of {point.limit}"))
        console.print(_table(study.failure.rows(), "failure"))
    for line in (*remarks(study, spent), *(f"warning: {sentence}" for sentence in warnings(study, given))):
        console.print(line, soft_wrap=True)


def _table(rows: list[list[str]], title: str) -> Table:
    heading, *body = rows
    table = Table(title=title, title_justify="left")
    for k, name in enumerate(heading):
        table.add_column(name, no_wrap=k == 0)
    for row in body:
        table.add_row(*row)
    return table
