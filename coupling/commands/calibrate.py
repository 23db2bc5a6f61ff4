"""`sobofem calibrate`."""

from __future__ import annotations

from collections.abc import Mapping
import importlib
from pathlib import Path
import time
from typing import TYPE_CHECKING, Annotated, Any

from rich.console import Console
from rich.table import Table
import typer

from sobofem.coupling.calibration import Calibration as Found
from sobofem.coupling.calibration import Fixed, Measurements, Settings, Task
from sobofem.coupling.calibration import calibrate as whole
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.commands import MODEL_HELP, command, in_one_line
from sobofem.coupling.commands.files import SurrogateFile, load_model_of_responses, make_folder
from sobofem.coupling.contract import Array, Model, units_of
from sobofem.coupling.display import display_on_root, duration, report_console
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.groups import check_size
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import Serial, on_root, world
from sobofem.coupling.study.purposes import MODEL, Calibration

if TYPE_CHECKING:
    from mpi4py import MPI


@command()
def calibrate(
    surrogate: SurrogateFile,
    out: Annotated[Path, typer.Option(help="Folder for a page, numbers, draws and pictures.", show_default=False)],
    settings: Calibration,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help=f"The model behind the surrogate. {MODEL_HELP}",
            rich_help_panel=MODEL,
            show_default=False,
        ),
    ] = None,
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
    # All that can be refused is refused here, before the first draw or solve.
    measured, known = Measurements.read(settings.measurements), dict(settings.fixed)
    on_root(together, lambda: make_folder(out))
    task = Task(measured, settings.priors, "unknown" if settings.unknown_noise else "known")
    cheap, solved = _models(surrogate, model, known, task, together)
    how = Settings(
        certify_solves=settings.certify,
        surrogate_error=not settings.ignore_surrogate_error,
        ranks_per_solve=settings.ranks_per_solve or 1,
        **{name: getattr(settings, name) for name in ("starts", "solves", "draws", "tune", "chains", "seed")},
    )
    size = 1 if isinstance(together, Serial) else together.size
    if model is not None and settings.solves:
        check_size(size, how.ranks_per_solve)
    about: dict[str, Any] = {"units": units_of(cheap), "fixed": known, "name": model or surrogate.name}

    def kept() -> str:
        from sobofem.coupling.calibration.report import write_unfinished

        words = f"solves at draws are in {out}: repeat the same command"
        if ranks()[0] == 0 and not (out / "calibration.json").exists():
            write_unfinished(Objective(cheap, task), out, **about, why=f"Interrupted; {words}.")
        return words

    with keeping(kept), in_one_line(), display_on_root() as update:
        found = whole(
            cheap,
            task,
            solved,
            how,
            factory=_factory(model, known) if model is not None and size > 1 else None,
            folder=out,
            progress=update if ranks()[0] == 0 else None,
        )
    if ranks()[0] == 0:
        from sobofem.coupling.calibration.report import write

        write(found, out, **about, axis=settings.axis)
        show(found, units_of(cheap))
        typer.echo(f"{out}: a page, numbers, draws and pictures written after {duration(time.monotonic() - began)}")
    if not found.trustworthy:
        raise typer.Exit(1)


def _require_sampler() -> None:
    """Raise if the sampler is missing, before the work and not after it."""
    importlib.import_module("nutpie")


def _models(path: Path, spec: str | None, known: dict[str, float], task: Task, together: Any) -> tuple[Any, Any]:
    """Surrogate and model, of the parameters that are not known; a task that doesn't fit them is refused."""
    network: Any = load_model_of_responses(path)
    network = Fixed(network, known) if known else network
    Objective(network, task)
    if spec is None:
        return network, None
    model = load_model(spec, None if isinstance(together, Serial) else together)
    return network, Fixed(model, known) if known else model


def _factory(spec: str, known: dict[str, float]) -> Any:
    """Makes the model for a part of the ranks."""

    def make(comm: MPI.Comm | None = None) -> Model:
        made = load_model(spec, comm)
        return Fixed(made, known) if known else made

    return make


def show(found: Found, units: Mapping[str, str], console: Console | None = None) -> None:
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


def _parameters(found: Found, units: Mapping[str, str]) -> Table:
    table = Table(title="parameters")
    for heading in ("parameter", "estimate", "± sd (Laplace)", "mean", "95 % of draws", "left of prior", "unit"):
        table.add_column(heading)
    drawn, accepted = found.posterior, found.accepted
    if accepted is not None:
        table.add_column("95 % by the model")
    rows = zip(
        found.estimate.parameters,
        found.estimate.x,
        found.laplace.standard_deviation,
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


def _fit(found: Found) -> list[str]:
    """How well the measurements are explained; nothing where a misfit was said already."""
    best = found.estimate
    if best.goodness.impossible:
        return []
    if best.task.noise == "unknown":
        return [f"The noise is {best.noise:.3g} times the given deviations ({best.freedom} degrees of freedom)."]
    words = best.goodness.verdict()
    return [f"{words[0].upper()}{words[1:]}."]


def _drawn(found: Found) -> list[str]:
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
