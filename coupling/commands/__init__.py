"""The commands of `sobofem`, one a file: thin shells around functions that scripts call as well.

A command is a function that `command` decorates. Parameters that are settings dataclasses become the options that their
fields are; the others say what they are by typer's annotations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass, is_dataclass
import functools
import importlib
import inspect
from pathlib import Path
import pkgutil
import shlex
import signal
from typing import Annotated, Any, get_args, get_type_hints

import typer

from sobofem.coupling.dataset.origin import running
from sobofem.coupling.models.loading import USED
from sobofem.coupling.options import gathered, parameters, spelled, words
from sobofem.coupling.options import places as positional
from sobofem.coupling.options.plain import PlainCommand
from sobofem.coupling.parallel.interruption import Stopped
from sobofem.coupling.parallel.usercode import EndsProgram

MODEL_HELP = "A problem of the library (`sobofem models`), `package.module:name` or `path/file.py:name`."
"""How every command takes a model."""
ModelName = Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)]
UsageError: type[Any] = typer.BadParameter.__mro__[1]
"""What a command line raises that no command understands; typer has no public name for it."""
ORDER = (
    *("doctor", "models", "check", "generate", "import", "stream", "jobscript", "status", "info", "verify", "merge"),
    *("infill", "train", "report", "export-model", "optimize", "calibrate", "uq", "two-scales", "run"),
)
"""Commands as the help lists them; others follow."""


def _is_settings(hint: Any) -> bool:
    return is_dataclass(hint)  # a function, so that type checkers don't take it for a dataclass from then on


@dataclass(frozen=True, eq=False)
class Command:
    """A function as a command.

    Attributes:
        name: What it is called on the command line.
        function: What it does.
        needs_mpi: Whether all ranks do it together; else rank 0 does, and the others have nothing to do.
    """

    name: str
    function: Callable[..., None]
    needs_mpi: bool = True

    @functools.cached_property
    def hints(self) -> dict[str, Any]:
        """What the function's parameters are, by name."""
        found = get_type_hints(self.function, include_extras=True)
        return {name: found[name] for name in self._parameters}

    @property
    def _parameters(self) -> Mapping[str, inspect.Parameter]:
        return inspect.signature(self.function).parameters

    @functools.cached_property
    def defaults(self) -> dict[str, Any]:
        """Values of the arguments that may be left out, as a command line gives them."""
        found = self._parameters.values()
        return {each.name: each.default for each in found if each.default is not inspect.Parameter.empty}

    def for_typer(self) -> Any:
        """The command as the command line runs it."""

        def run(**said: Any) -> None:
            self(self._arguments(said))

        signature = [
            expanded
            for name, hint in self.hints.items()
            for expanded in (
                parameters(hint)
                if _is_settings(hint)
                else [self._parameters[name].replace(kind=inspect.Parameter.KEYWORD_ONLY, annotation=hint)]
            )
        ]
        # typer reads the signature, which has the settings' fields in place of the settings.
        run.__name__, run.__doc__ = self.function.__name__, self.function.__doc__
        run.__annotations__ = {each.name: each.annotation for each in signature}
        run.__signature__ = inspect.Signature(signature)  # type: ignore[attr-defined]
        app = typer.Typer(add_completion=False, rich_markup_mode="markdown")
        app.command(self.name, cls=PlainCommand)(run)
        return typer.main.get_command(app)

    def _arguments(self, said: dict[str, Any]) -> dict[str, Any]:
        """The function's arguments, of what a command line says."""
        return {
            name: gathered(hint, said) if _is_settings(hint) else said.pop(name) for name, hint in self.hints.items()
        }

    def parse(self, line: Sequence[str]) -> dict[str, Any]:
        """The function's arguments, of the words of a command line.

        Raises:
            UsageError: If there is no such option, or its value is none.
            ValueError: If a text NAME=VALUE can't be read.
        """
        return self._arguments(dict(self.for_typer().make_context(f"sobofem {self.name}", list(line)).params))

    def words(self, arguments: Mapping[str, Any]) -> list[str]:
        """The words of a command line that say some arguments of the function; defaults are left out."""
        places, options = [self.name], list[str]()
        given = [name for name, value in arguments.items() if value is not None]
        for name, parameter in self._parameters.items():
            value, hint = arguments.get(name, parameter.default), self.hints[name]
            about = next((each for each in get_args(hint) if isinstance(each, typer.models.ParameterInfo)), None)
            if _is_settings(hint):
                places += positional(value)
                options += words(value, given)
            elif value == parameter.default:
                continue
            elif isinstance(about, typer.models.ArgumentInfo):
                places += map(str, value if isinstance(value, list | tuple) else [value])
            else:
                flag = next(iter((about and about.param_decls) or ()), f"--{name.replace('_', '-')}")
                every = value if isinstance(value, list | tuple) else [value]
                options += [word for each in every for word in spelled(flag, each)]
        return places + options

    def _line(self, arguments: Mapping[str, Any]) -> str:
        """The line that says some arguments to a shell, with the user's own files that are in use."""
        return shlex.join(["sobofem", *used(), *self.words(arguments)])

    def __call__(self, arguments: Mapping[str, Any]) -> None:
        """Do it to the end: a signal ends it in words, and no `sys.exit(0)` of others ends it as if complete."""
        try:
            # a study goes on where it was, wherever a model went
            seed = next((value.seed for value in arguments.values() if hasattr(value, "seed")), None)
            with contextlib.chdir(Path.cwd()), running(lambda: self._line(arguments), seed):
                self.function(**arguments)
        except KeyboardInterrupt as stop:
            raise StoppedCommand(stop if isinstance(stop, Stopped) else Stopped(signal.SIGINT)) from None
        except SystemExit as error:
            raise EndsProgram(f"something called sys.exit({error.code!r}) before {self.name} was done") from error


class StoppedCommand(Exception):
    """A signal's `Stopped`, on its way through typer, which takes every Ctrl-C for a wish of its own."""

    every_rank = True

    def __init__(self, stop: Stopped) -> None:
        super().__init__(str(stop))
        self.stop = stop


COMMANDS: dict[str, Command] = {}
"""All commands that were registered, by name."""


def command[**P](*, needs_mpi: bool = True) -> Callable[[Callable[P, None]], Callable[P, None]]:
    """Register a function as a command of its name, with `-` for `_`, and without one at its end (`import_`).

    Args:
        needs_mpi: Whether all ranks of a job do it together; else rank 0 does it alone.

    Raises:
        ValueError: If another function is the command of that name.
    """

    def register(function: Callable[P, None]) -> Callable[P, None]:
        name = function.__name__.rstrip("_").replace("_", "-")
        if name in COMMANDS and COMMANDS[name].function.__module__ != function.__module__:
            raise ValueError(f"there is a command {name!r} already, of {COMMANDS[name].function.__module__}")
        COMMANDS[name] = Command(name, function, needs_mpi)
        return function

    return register


def used() -> list[str]:
    """The options that name the user's own files, as typed at the beginning of a command."""
    return [word for file in USED for word in ("--use", str(file))]


def find_command(name: str) -> Command | None:
    """The command of a name; of the others nothing is imported, whose libraries take a second, on each rank."""
    module = name.replace("-", "_")
    if any(module == ours.name for ours in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return COMMANDS.get(name) or all_commands().get(name)


def all_commands() -> dict[str, Command]:
    """Ours, in the order of the help, and those that files of users registered."""
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")
    return {name: COMMANDS[name] for name in (*ORDER, *sorted(set(COMMANDS) - set(ORDER)))}


@contextlib.contextmanager
def in_one_line() -> Iterator[None]:
    """Have what is numerically impossible end in one line, as a mistake: other data or settings remedy it."""
    try:
        yield
    except ArithmeticError as error:
        if type(error) is not ArithmeticError:
            raise
        mistake = ValueError(str(error))
        for note in getattr(error, "__notes__", ()):  # whether every rank knows
            mistake.add_note(note)
        raise mistake from error
