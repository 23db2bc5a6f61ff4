"""`sobofem uq`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
import typer

from coupling.abort import ranks
from coupling.contract import Model
from coupling.display import display, report_console
from coupling.interruption import keeping
from coupling.world import on_root, world

if TYPE_CHECKING:
    from coupling.uncertainty import FailureProbability, Inputs, Limit
    from coupling.uncertainty.evaluation import Told
    from coupling.uncertainty.remembered import Remembered
    from coupling.uncertainty.study import Study


class Method(StrEnum):
    """Ways to sample failure."""

    IMPORTANCE = "importance"
    SUBSET = "subset"


def uq(
    surrogate: Annotated[
        Path, typer.Argument(metavar="SURROGATE", help="Surrogate (safetensors).", show_default=False)
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for numbers, pictures and the model's answers.", show_default=False)
    ],
    inputs: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            metavar="NAME=HOW",
            help="How an input is distributed: uniform within its bounds (the default), log, normal:MEAN,STD or "
            "lognormal:MEDIAN,STD_OF_LOG, cut off at the bounds. Repeat for others.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An input that is known; repeatable.")
    ] = None,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            metavar="'NAME > VALUE'",
            help="When the system has failed, as `stress > 235` or `reserve < 0`; of several, when any holds.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model behind the surrogate, `package.module:name` or `path/file.py:name`, whose solves correct "
            "the estimates and narrow their bars.",
        ),
    ] = None,
    solves: Annotated[
        int, typer.Option(help="Solves for distributions, and as many again for failure; with --model.", min=4)
    ] = 32,
    samples: Annotated[int, typer.Option(help="Samples of the surrogate; powers of two suit.", min=1024)] = 2**14,
    method: Annotated[
        Method, typer.Option(help="How failure is sampled: around design points, or level by level.")
    ] = Method.IMPORTANCE,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    allow_outside: Annotated[
        float, typer.Option(help="Share of a distribution that may lie outside the bounds.", min=0.0, max=1.0)
    ] = 0.01,
    ranks_per_solve: Annotated[
        int,
        typer.Option(help="MPI ranks that solve one point together; one is best as long as it fits in memory.", min=1),
    ] = 1,
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
    how = {"samples": samples, "seed": seed, "solves": solves, "method": method}
    together, asked, out = world(), list[Question](), out.absolute()
    on_root(together, lambda: asked.append(_question(surrogate, inputs, fix, fail, allow_outside, out)))
    kept = f"solves are in {out / 'solves'}: repeat the same command" if model else ""
    with keeping(lambda: kept), _trusted(model, out, ranks_per_solve) as check, _told() as told:
        lead = partial(on_root, together) if check is None else check.lead
        lead(lambda: _answer(asked[0], check, out, told, how))
    if ranks()[0] == 0:
        typer.echo(f"{out}: results.json and {', '.join(sorted(path.name for path in out.glob('*.png')))} written")


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked, on rank 0."""

    surrogate: Model
    inputs: Inputs
    limits: list[Limit]


def _question(
    surrogate: Path,
    inputs: list[str] | None,
    fix: list[str] | None,
    fail: list[str] | None,
    allow_outside: float,
    out: Path,
) -> Question:
    """What the options say; a place for the answer."""
    from coupling.uncertainty import Limit
    from coupling.uncertainty import inputs as distributed
    from surrogate import load

    network: Model = load(surrogate)
    given = distributed(network, _texts(inputs), fixed=_values(fix), allow_outside=allow_outside)
    limits = [Limit.parse(text) for text in fail or []]
    out.mkdir(parents=True, exist_ok=True)
    return Question(network, given, limits)


def _answer(asked: Question, check: Remembered | None, out: Path, told: Told, how: dict[str, Any]) -> None:
    """Find it, show it and write it."""
    from coupling.uncertainty.study import run

    try:
        study = run(asked.surrogate, asked.inputs, asked.limits, check=check, told=told, **how)
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:
            raise
        raise ValueError(str(error)) from error
    _write(study, out)
    show(study, asked.inputs, (0, 0) if check is None else (check.solves, check.failed))


def _trusted(model: str | None, out: Path, ranks_per_solve: int) -> AbstractContextManager[Remembered | None]:
    """The model behind the surrogate, with a memory in the folder; None without one."""
    from coupling.uncertainty.remembered import remembering

    if model is None:
        return nullcontext()
    return remembering(model, out / "solves", ranks_per_solve=ranks_per_solve)


@contextmanager
def _told() -> Iterator[Told]:
    """Progress on rank 0."""
    if ranks()[0] != 0:
        yield lambda done, total, text: None
        return
    with display() as update:
        yield update


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
    """What a reader should know besides."""
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
    from coupling.uncertainty.pictures import density_figure, design_point_figure, sensitivity_figure

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


def _texts(pairs: Sequence[str] | None) -> dict[str, str]:
    found: dict[str, str] = {}
    for pair in pairs or []:
        name, equals, how = pair.partition("=")
        if not (name and equals and how):
            raise ValueError(f"{pair!r} is no NAME=HOW; write --input young=normal:70e3,2e3")
        if name in found:
            raise ValueError(f"input {name!r} is given twice")
        found[name] = how
    return found


def _values(pairs: Sequence[str] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for pair in pairs or []:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            raise ValueError(f"{pair!r} is no value; write --fix NAME=VALUE, such as poisson=0.3") from None
    return found
