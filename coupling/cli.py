"""The command `sobofem`: its commands put together, and what becomes of errors.

A new command is one function in `coupling.commands`, registered here.
"""

from __future__ import annotations

from collections.abc import Callable
import contextlib
import functools
import os
from pathlib import Path
import signal
import sys
import time
from typing import Annotated, Any, NoReturn
import warnings

import typer

from coupling.abort import end_job, install_abort_hook, last_words, ranks, settle
from coupling.commands.calibrate import calibrate
from coupling.commands.check import check
from coupling.commands.export_model import export_model
from coupling.commands.generate import generate
from coupling.commands.infill import infill
from coupling.commands.info import info
from coupling.commands.merge import merge
from coupling.commands.optimize import optimize
from coupling.commands.report import report
from coupling.commands.run import run
from coupling.commands.slurm import slurm
from coupling.commands.status import status
from coupling.commands.stream import stream
from coupling.commands.train import train
from coupling.commands.uq import uq
from coupling.commands.verify import verify
from coupling.diagnosis import TooManyFailures
from coupling.interruption import Endings, Interrupted, Stopped
from coupling.ledger import LeftOver
from coupling.usercode import EndsProgram, to_the_end
from coupling.world import RootFailed, is_launched, launched_rank

_DEBUG = "SOBOFEM_DEBUG"
_YIELD = 1.0  # that other ranks give rank 0 to end the job by itself [s]
WITHOUT_MPI = (
    "export-model",
    "infill",
    "info",
    "merge",
    "report",
    "slurm",
    "status",
    "train",
    "verify",
)  # under a launcher, rank 0 does them and the others have nothing to do
_MISTAKES = (ValueError, TypeError, OSError, ModuleNotFoundError)
_EXTRAS = (
    dict.fromkeys(("dolfinx", "petsc4py", "mpi4py", "ufl", "basix"), "fem")
    | dict.fromkeys(("torch", "safetensors"), "surrogate")
    | dict.fromkeys(("nutpie", "arviz"), "studies")
)

app = typer.Typer(
    name="sobofem",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Finite-element models, their exact sensitivities, and the neural surrogates trained on both.",
)
_COMMANDS = (
    check,
    generate,
    stream,
    slurm,
    status,
    info,
    verify,
    merge,
    infill,
    train,
    report,
    export_model,
    optimize,
    calibrate,
    uq,
    run,
)


class _Stop(Exception):
    """A signal's `Stopped`, on its way through typer, which takes every Ctrl-C for a wish of its own."""

    every_rank = True

    def __init__(self, stop: Stopped) -> None:
        super().__init__(str(stop))
        self.stop = stop


def _to_the_end(command: Callable[..., None]) -> Callable[..., None]:
    """The same command, which ends by a signal in words, and which no `sys.exit(0)` of others ends as if complete."""

    @functools.wraps(command)
    def run(*arguments: Any, **options: Any) -> None:
        try:
            with contextlib.chdir(Path.cwd()):  # where a study goes on, wherever a model went
                command(*arguments, **options)
        except KeyboardInterrupt as stop:
            raise _Stop(stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)) from None
        except SystemExit as error:
            raise EndsProgram(
                f"something called sys.exit({error.code!r}) before {command.__name__} was done"
            ) from error

    return run


for _command in _COMMANDS:
    app.command()(_to_the_end(_command))


@app.callback()
def options(
    context: typer.Context,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.", envvar=_DEBUG)] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[_DEBUG] = "1"
    if context.invoked_subcommand in WITHOUT_MPI and launched_rank():
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that a caller can correct end it with one line and exit code 2.

    Typer's own entry would put its exception hook in place of the one that ends all MPI ranks.
    """
    warnings.showwarning = _show_warning
    alone = contextlib.nullcontext() if is_launched() else to_the_end()  # MPI ends ranks by `exit` as well
    with Endings() as endings, alone:
        install_abort_hook(_last_words)
        try:
            _run()
        except _Stop as stopped:
            _stop(stopped.stop)
        except Exception:
            if not endings.signal:
                raise
            _stop(Stopped(endings.signal))  # whatever an import, or code of others, made of it
        except KeyboardInterrupt as stop:  # before or after a command
            _stop(stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT))


def _stop(stop: Stopped) -> NoReturn:
    """End the program, and all ranks of a job, with one line."""
    rank, size = ranks()
    if size > 1:
        time.sleep(_YIELD * (rank > 0))  # rank 0 speaks for all, if it has heard of it
        end_job(str(stop), stop.exit_code)
    print(stop, file=sys.stderr)
    sys.exit(stop.exit_code)


def _run() -> None:
    try:
        typer.main.get_command(app)(prog_name="sobofem")
    except Interrupted as stopped:
        if ranks()[0] == 0:
            print(stopped, file=sys.stderr)
        sys.exit(stopped.exit_code)
    except LeftOver as left:
        if ranks()[0] == 0:
            print(left, file=sys.stderr)
        sys.exit(75)
    except TooManyFailures as failures:
        if ranks()[0] == 0:
            print(f"error: {failures}", file=sys.stderr)
        sys.exit(3)
    except RootFailed:
        sys.exit(0)  # the rank that failed has the exit code: launchers combine those of all ranks, 1 and 2 to 3
    except _MISTAKES as error:
        if os.environ.get(_DEBUG):
            raise
        if ranks()[1] > 1:
            settle(error, sys.modules["mpi4py.MPI"].COMM_WORLD)
        if not (ranks()[0] or launched_rank()):
            print(f"error: {_words(error)}", file=sys.stderr)
        sys.exit(2)


def _show_warning(message: Warning | str, category: type[Warning], *where: object, **rest: object) -> None:
    """A warning as one line, without the line of code that it came from."""
    if ranks()[0] == 0:
        print(f"warning: {message}", file=sys.stderr)


def _last_words(error: BaseException) -> tuple[str, int]:
    """Of a rank that ends the others: one line and exit code 2 for a mistake, the traceback for a bug."""
    mistake = isinstance(error, _MISTAKES) and not os.environ.get(_DEBUG)
    return (f"error: {_words(error)}", 2) if mistake else last_words(error)


def _words(error: BaseException) -> str:
    """The error's message, with a hint where it came from code that is not ours, or from a missing package."""
    if isinstance(error, ModuleNotFoundError):
        extra = _EXTRAS.get((error.name or "").partition(".")[0])
        return f"{error}; install it with: pip install 'sobofem[{extra}]'" if extra else str(error)
    text = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and error.filename else str(error)
    return text if _ours(error) else f"{type(error).__name__}: {text} (sobofem --debug ... shows where)"


def _ours(error: BaseException) -> bool:
    """Whether our own code raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = Path(__file__).parents[1]
    raised_in = Path(trace.tb_frame.f_code.co_filename) if trace is not None else ours
    return any(raised_in.is_relative_to(ours / package) for package in ("coupling", "surrogate", "fem"))
