"""`sobofem calibrate`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
import importlib
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.console import Console
from rich.table import Table
import typer

from coupling.abort import ranks
from coupling.calibration import Calibration, Fixed, Measurements, Settings, Task
from coupling.calibration import calibrate as whole
from coupling.contract import Array, Model
from coupling.display import display, duration, report_console
from coupling.groups import check_size
from coupling.interruption import keeping
from coupling.loading import load_model
from coupling.marginals import Marginal, parse
from coupling.world import Serial, on_root, world

if TYPE_CHECKING:
    from mpi4py import MPI

MODEL = "With --model"
DRAWS = "Draws on the surrogate"


def calibrate(
    surrogate: Annotated[
        Path, typer.Argument(metavar="SURROGATE", help="Surrogate (safetensors).", show_default=False)
    ],
    measurements: Annotated[
        Path,
        typer.Argument(
            metavar="MEASUREMENTS",
            help="CSV file with the columns response, value and sd; a column `at` (a displacement, a time) is for the "
            "picture. Semicolons, tabs and decimal commas are read, too.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for numbers, draws and pictures.", show_default=False)],
    prior: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=DISTRIBUTION",
            help="What is known of a parameter beforehand: uniform (the default), log, normal:MEAN,STD or "
            "lognormal:MEDIAN,STD_OF_LOG, all cut to its bounds; repeatable.",
        ),
    ] = None,
    fix: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="A parameter that is known; repeatable.")
    ] = None,
    unknown_noise: Annotated[
        bool, typer.Option("--unknown-noise", help="Learn the size of the noise: sd are only ratios, or left out.")
    ] = False,
    axis: Annotated[str, typer.Option(help="What `at` is, for the picture: 'displacement [mm]'.")] = "",
    starts: Annotated[int, typer.Option(help="Starting points of the least squares on the surrogate.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.", min=0)] = 0,
    ignore_surrogate_error: Annotated[
        bool,
        typer.Option(
            "--ignore-surrogate-error",
            help="Without --model: believe the surrogate, instead of adding its own standard deviations to the noise.",
        ),
    ] = False,
    draws: Annotated[int, typer.Option(help="Draws a chain.", min=10, rich_help_panel=DRAWS)] = 1000,
    tune: Annotated[int, typer.Option(help="Draws that warm a chain up.", min=10, rich_help_panel=DRAWS)] = 300,
    chains: Annotated[int, typer.Option(help="Chains, started apart.", min=2, rich_help_panel=DRAWS)] = 4,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="The model behind the surrogate: `package.module:name` or `path/file.py:name`.",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
    certify: Annotated[
        int, typer.Option(help="Solves, at most, to confirm or correct the estimate.", min=1, rich_help_panel=MODEL)
    ] = 8,
    solves: Annotated[
        int, typer.Option(help="Solves at draws, to make them draws by the model.", min=0, rich_help_panel=MODEL)
    ] = 32,
    ranks_per_solve: Annotated[
        int, typer.Option(help="MPI ranks that solve one draw together.", min=1, rich_help_panel=MODEL)
    ] = 1,
) -> None:
    """Find the parameters of SURROGATE that explain MEASUREMENTS, and how sure that is.

    Least squares on the surrogate from many starts give an estimate. The singular values of the Jacobian tell which
    combinations of parameters the measurements determine at all. Hamiltonian Monte Carlo on the surrogate draws from
    the posterior. With --model, a few solves certify the estimate or correct it, and others weigh the draws, so that
    they are the model's; under `mpiexec` these are solved side by side, and they survive interruption. Exit code 1 if
    the measurements are not explained, or the model did not certify the estimate.

    Example: sobofem calibrate specimen.safetensors curve.csv --prior rate=log --model hardening.py:model --out result
    """
    import torch

    torch.set_num_threads(1)  # single points: one thread is fastest
    began = time.monotonic()
    together, out = world(), out.absolute()
    on_root(together, _require_sampler)
    measured = Measurements.read(measurements)
    priors, known = _priors(prior), _values(fix)
    on_root(together, lambda: _check_folder(out))
    task = Task(measured, priors, "unknown" if unknown_noise else "known")
    cheap, trusted = _models(surrogate, model, known, task, together)
    settings = Settings(
        starts=starts,
        certify_solves=certify,
        solves=solves,
        draws=draws,
        tune=tune,
        chains=chains,
        seed=seed,
        surrogate_error=not ignore_surrogate_error,
        ranks_per_solve=ranks_per_solve,
    )
    size = 1 if isinstance(together, Serial) else together.size
    if model is not None and solves:
        check_size(size, ranks_per_solve)
    with keeping(lambda: f"solves at draws are in {out}: repeat the same command"), _told(), display() as update:
        found = whole(
            cheap,
            task,
            trusted,
            settings,
            factory=_factory(model, known) if model is not None and size > 1 else None,
            folder=out,
            tell=update if ranks()[0] == 0 else None,
        )
    if ranks()[0] == 0:
        from coupling.calibration.records import write

        units = dict(getattr(cheap, "units", {}))
        write(found, out, units=units, axis=axis)
        show(found, units)
        typer.echo(f"{out}: numbers, draws and pictures written after {duration(time.monotonic() - began)}")
    if not found.trustworthy:
        raise typer.Exit(1)


def _require_sampler() -> None:
    """If it is missing, that is told before the work and not after it."""
    importlib.import_module("nutpie")


@contextmanager
def _told() -> Iterator[None]:
    """What numerics find impossible is told in a line: other data or settings remedy it."""
    try:
        yield
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:
            raise
        mendable = ValueError(str(error))
        for note in getattr(error, "__notes__", ()):  # whether every rank knows
            mendable.add_note(note)
        raise mendable from error


def _models(path: Path, spec: str | None, known: dict[str, float], task: Task, together: Any) -> tuple[Any, Any]:
    """Surrogate and model, of the parameters that are not known; a task that doesn't fit is told before they work."""
    from coupling.calibration.objective import Objective
    from surrogate import load

    network: Any = load(path)
    network = Fixed(network, known) if known else network
    Objective(network, task)
    if spec is None:
        return network, None
    trusted = load_model(spec, None if isinstance(together, Serial) else together)
    return network, Fixed(trusted, known) if known else trusted


def _factory(spec: str, known: dict[str, float]) -> Any:
    """Makes the model for a part of the ranks."""

    def make(comm: MPI.Comm | None = None) -> Model:
        made = load_model(spec, comm)
        return Fixed(made, known) if known else made

    return make


def _check_folder(out: Path) -> None:
    """Make the folder, before the work and not after it."""
    if out.exists() and not out.is_dir():
        raise FileExistsError(f"{out} is a file; name a folder for the results")
    out.mkdir(parents=True, exist_ok=True)


def _priors(pairs: list[str] | None) -> dict[str, Marginal]:
    found = {}
    for pair in pairs or []:
        name, equals, text = pair.partition("=")
        if not (name and equals):
            raise ValueError(f"{pair!r} is no prior; write NAME=DISTRIBUTION, such as young=normal:200e3,5e3")
        found[name] = parse(text)
    return found


def _values(pairs: list[str] | None) -> dict[str, float]:
    found = {}
    for pair in pairs or []:
        name, _, value = pair.partition("=")
        try:
            found[name] = float(value)
        except ValueError:
            found[name] = float("nan")
        if not name or not np.isfinite(found[name]):
            raise ValueError(f"{pair!r} fixes nothing; write NAME=VALUE, such as young=200e3")
    return found


def show(found: Calibration, units: Mapping[str, str], console: Console | None = None) -> None:
    """Print the estimate with its uncertainty, the way to it, and what to think of it."""
    console = console or report_console()
    fit = found.estimate.goodness
    if fit.impossible:
        console.print(f"Misfit: {fit.verdict()}.", style="red", highlight=False)
    if found.certificate is not None:
        way = Table("solve", "chi²", "step left [sd]", title="by the model")
        for k, step in enumerate(found.certificate.path, start=1):
            way.add_row(str(k), f"{step.chi2:.4f}", f"{step.step:.1e}")
        console.print(way)
    console.print(_parameters(found, units))
    for line in (*_fit(found), found.identifiability.verdict(), *_drawn(found)):
        console.print(line, highlight=False)
    for warning in found.warnings[bool(fit.impossible) :]:  # the misfit stands above
        console.print(f"Warning: {warning}.", style="yellow", highlight=False)


def _parameters(found: Calibration, units: Mapping[str, str]) -> Table:
    table = Table(title="parameters")
    for heading in ("parameter", "estimate", "± sd (Laplace)", "mean", "95 % of draws", "left of prior", "unit"):
        table.add_column(heading)
    drawn, accepted = found.posterior, found.accepted
    if accepted is not None:
        table.add_column("95 % by the model")
    rows = zip(
        found.estimate.parameters,
        found.estimate.x,
        found.laplace.sd,
        drawn.mean,
        drawn.interval(),
        found.identifiability.remaining_of_parameters,
        drawn.interval() if accepted is None else accepted.interval(),
        strict=True,
    )
    for name, value, sd, mean, ends, left, by_model in rows:
        cells = [name, f"{value:.5g}", f"{sd:.2g}", f"{mean:.5g}", _range(ends), f"{left:.1%}", units.get(name, "")]
        table.add_row(*cells, *([] if accepted is None else [_range(by_model)]))
    return table


def _range(ends: Array) -> str:
    return f"{ends[0]:.5g} to {ends[1]:.5g}"


def _fit(found: Calibration) -> list[str]:
    """How well the measurements are explained; nothing where a misfit was said already."""
    best = found.estimate
    if best.goodness.impossible:
        return []
    if best.task.noise == "unknown":
        return [f"The noise is {best.noise:.3g} times the given deviations ({best.freedom} degrees of freedom)."]
    words = best.goodness.verdict()
    return [f"{words[0].upper()}{words[1:]}."]


def _drawn(found: Calibration) -> list[str]:
    drawn = found.posterior
    words = [
        f"{len(drawn.x)} draws on the surrogate from {drawn.evaluations} evaluations: R-hat at most "
        f"{drawn.rhat.max():.3f}, {drawn.effective.min():.0f} effective draws or more."
    ]
    if found.certificate is not None:
        certificate, spent = found.certificate, found.certificate.solves
        state = "Certified" if certificate.certified else "Not certified"
        misfit = ": no parameters nearby fit better, but these do not fit" if certificate.converged else ""
        words.insert(
            0,
            f"{state} with {spent} {'solve' if spent == 1 else 'solves'} of the model"
            f"{'' if certificate.certified else misfit}.",
        )
    if found.accepted is not None:
        words.append(found.accepted.verdict())
    return words
