"""The command `sobofem`: its commands put together, and what becomes of errors.

A new command is one file in `sobofem.coupling.commands`, or in a file of the user's own (`--use`).
"""

from __future__ import annotations

import os
from pathlib import Path
import signal
import sys
import time
from typing import Annotated, Any, NoReturn
import warnings

import typer
from typer.core import TyperGroup

from sobofem.coupling.commands import COMMANDS, StoppedCommand, all_commands, find_command
from sobofem.coupling.display import system_error
from sobofem.coupling.models.loading import USED, run_file
from sobofem.coupling.options.plain import with_plain_words
from sobofem.coupling.parallel.abort import end_job, install_abort_hook, last_words, ranks, settle
from sobofem.coupling.parallel.interruption import Endings, Interrupted, LeavesAtOnce, Stopped
from sobofem.coupling.parallel.usercode import EndsProgram
from sobofem.coupling.parallel.world import RootFailed, launched_rank
from sobofem.coupling.solving.diagnosis import TooManyFailures
from sobofem.coupling.solving.ledger import LeftOver

_DEBUG = "SOBOFEM_DEBUG"
_OF_TYPER = 130  # which it makes of any `KeyboardInterrupt` outside of commands, without a word
_YIELD = 1.0  # that other ranks give rank 0 to end the job by itself [s]
_MISTAKES = (ValueError, TypeError, OSError, ModuleNotFoundError, EndsProgram)
_NO_SUCH_FILE = (FileNotFoundError, IsADirectoryError, PermissionError)
_EXTRAS = (
    dict.fromkeys(("dolfinx", "petsc4py", "mpi4py", "ufl", "basix"), "fem")
    | dict.fromkeys(("torch", "safetensors"), "surrogate")
    | dict.fromkeys(("nutpie", "arviz"), "studies")
    | {"pyarrow": "parquet", "meshio": "files"}
)


class _Program(TyperGroup):
    """All commands: also those of a user's own files, which are run while the options before the command are read."""

    def get_params(self, ctx: Any) -> Any:
        return with_plain_words(super().get_params(ctx))

    def list_commands(self, ctx: Any) -> list[str]:
        return list(all_commands())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        found = find_command(cmd_name)
        return None if found is None else found.for_typer()


app = typer.Typer(
    name="sobofem",
    cls=_Program,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Finite-element models, their exact sensitivities, and the neural surrogates trained on both.",
)


def _use(files: list[Path] | None) -> list[Path] | None:
    """Run the user's own files, before the commands are looked up."""
    for file in files or ():
        run_file(file)
    return files


@app.callback()
def options(
    context: typer.Context,
    use: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Run a Python file of your own first: the networks, weightings, designs, commands, ... that it "
            "registers are known then. Repeatable.",
            callback=_use,
            is_eager=True,
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error came from.", envvar=_DEBUG)] = False,
) -> None:
    """Options of every command."""
    if debug:
        os.environ[_DEBUG] = "1"
    if launched_rank() and not COMMANDS[context.invoked_subcommand or ""].needs_mpi:
        raise typer.Exit


def main() -> None:
    """Run the command line; errors that a caller can correct end it with one line and exit code 2.

    Typer's own entry would put its exception hook in place of the one that ends all MPI ranks.
    """
    warnings.showwarning = _show_warning
    with Endings() as endings:
        install_abort_hook(_last_words)
        try:
            _run()
        except StoppedCommand as stopped:
            _stop(stopped.stop)
        except Exception:
            if not endings.signal:
                raise
            _stop(Stopped(endings.signal))  # whatever an import, or code of others, made of it
        except SystemExit as error:
            if not (endings.signal and error.code == _OF_TYPER):
                raise
            _stop(Stopped(endings.signal))
        except KeyboardInterrupt as stop:  # before or after a command
            _stop(stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT))


def _stop(stop: Stopped) -> NoReturn:
    """End the program, and all ranks of a job, with one line."""
    rank, size = ranks()
    if size > 1:
        time.sleep(_YIELD * (rank > 0))  # rank 0 speaks for all, if it has heard of it
        end_job(str(stop), stop.exit_code)
    print(stop, file=sys.stderr)
    raise LeavesAtOnce(stop.exit_code)


def _run() -> None:
    USED.clear()
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
    text = system_error(error) if isinstance(error, OSError) else str(error)
    if "registers it" in text:
        text += "; give the file that defines it: sobofem --use FILE ..."
    known = _ours(error) or isinstance(error, _NO_SUCH_FILE)  # which Python raises in our stead
    return text if known else f"{type(error).__name__}: {text} (sobofem --debug ... shows where)"


def _ours(error: BaseException) -> bool:
    """Whether our own code raised it."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    ours = Path(__file__).parents[1]  # the package sobofem
    raised_in = Path(trace.tb_frame.f_code.co_filename) if trace is not None else ours
    return any(raised_in.is_relative_to(ours / package) for package in ("coupling", "surrogate", "fem"))
