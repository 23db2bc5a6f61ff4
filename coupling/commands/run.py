"""`sobofem run`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
import hashlib
import json
from pathlib import Path
import shlex
from typing import Annotated, Any

import typer

from sobofem.coupling.commands import Command, UsageError, all_commands, command, used
from sobofem.coupling.models.loading import USED
from sobofem.coupling.options import check
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.groups import idle_barrier
from sobofem.coupling.parallel.world import Comm, on_root, world
from sobofem.coupling.study import Call, Files, Stage, definition, load_study

LEDGER = "study.json"


@command()
def run(
    file: Annotated[
        Path, typer.Argument(metavar="STUDY", help="Python file with a `study` in it.", show_default=False)
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder for all that comes out; by default that of the file's name.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(metavar="STAGE", help="Do these stages and no others; repeatable.")
    ] = None,
    dry: Annotated[bool, typer.Option("--dry", help="Print the commands, and which of them are done.")] = False,
) -> None:
    """Do all that a study asks for: generate, train, report, and its purposes; resume where it stopped.

    Each stage is a command that is printed, and that you could type yourself. A stage is done again when its options,
    the files that it reads or the file that defines its model have changed (not what that file imports). Under mpiexec
    or srun the solves are spread over the ranks. Exit code 1 says that a purpose ended without success, such as an
    optimum that the model does not confirm; the others are done nevertheless.

    Example: mpiexec -n 8 sobofem run study.py --out study
    """
    study, model = load_study(file)
    folder = out or Path(file.stem)
    together, stages = world(), list(study.stages(Files(folder, model, study.ranks_per_solve)))
    unknown = sorted(set(only or ()) - {stage.name for stage in stages})
    if unknown:
        raise ValueError(f"there is no stage {', '.join(unknown)}; there are {', '.join(s.name for s in stages)}")
    wanted = [stage for stage in stages if not only or stage.name in only]
    for stage in wanted:  # what is wrong with a later one is said before any work
        Action.of(stage)
    if not dry:
        on_root(together, lambda: folder.mkdir(parents=True, exist_ok=True))
    about = Source(model, definition(model, file))
    _warn_of_changes(on_root(together, lambda: _ledger(folder)), about, folder)
    ends = {stage.name: _carry_out(stage, folder, about, together, dry=dry) for stage in wanted}
    if failed := [name for name, code in ends.items() if code]:
        _tell(
            f"{', '.join(failed)}: without success, as the output and the files in {folder} say. The same options are "
            f"not tried again: change them in {file}, such as `solves`, and repeat the command"
        )
        raise typer.Exit(max(ends.values()))


@dataclass(frozen=True)
class Source:
    """Where a study's model comes from.

    Attributes:
        spec: Its specification, as it stands in the words of stages that use it.
        digest: Of what stands there.
    """

    spec: str
    digest: str


def _warn_of_changes(ledger: dict[str, dict[str, Any]], model: Source, folder: Path) -> None:
    """Say that the model's source is another one than that of what was done."""
    if any(done.get("model", model.digest) != model.digest for done in ledger.values()):
        _tell(
            f"the source of {model.spec} has changed since {folder} was begun: what uses the model is done again. If "
            "its samples are refused below, they are of another model: name another folder (--out), or remove this one"
        )


def _tell(text: str) -> None:
    if ranks()[0] == 0:
        typer.echo(text, err=True)


@dataclass(frozen=True, eq=False)
class Action:
    """What a stage calls.

    Attributes:
        command: The command.
        arguments: What its function is called with.
        words: The command line that says the same, for people to read and for the study to remember.
    """

    command: Command
    arguments: Mapping[str, Any]
    words: tuple[str, ...]

    @classmethod
    def of(cls, stage: Stage) -> Action:
        """What a stage calls, however it says it.

        Raises:
            ValueError: If there is no such command, or it has no such arguments.
        """
        if not isinstance(stage.action, Call):
            words = tuple(stage.action)
            found = _command(words[0], stage)
            return cls(found, found.parse(words[1:]), words)
        found, arguments = _command(stage.action.command, stage), stage.action.arguments
        if missing := [name for name in found.hints if name not in arguments and name not in found.defaults]:
            raise ValueError(f"{stage.name} calls {found.name} without {', '.join(missing)}")
        if unknown := sorted(set(arguments) - set(found.hints)):
            raise ValueError(f"{stage.name} gives {found.name} {unknown}; it takes {', '.join(found.hints)}")
        given = [name for name, value in arguments.items() if value is not None]
        for value in arguments.values():
            if is_dataclass(value):
                check(value, given)
        return cls(found, arguments, tuple(found.words(arguments)))

    def is_same(self, words: Sequence[str]) -> bool:
        """Whether words that were remembered say the same call, in whatever order and with defaults spelled out."""
        if tuple(words) == self.words:
            return True
        try:
            said = self.command.parse(words[1:]) if words[0] == self.command.name else {}
        except (ValueError, UsageError):
            return False
        return Action(self.command, said, ()).complete == self.complete

    @property
    def complete(self) -> dict[str, Any]:
        """All arguments, with the defaults of those that are left out."""
        return self.command.defaults | dict(self.arguments)

    def carry_out(self) -> int:
        """Do it; its exit code."""
        try:
            self.command(self.arguments)
        except typer.Exit as ended:
            return ended.exit_code
        return 0


def _command(wanted: Callable[..., None] | str, stage: Stage) -> Command:
    """The command of a name or function."""
    commands = all_commands()
    if callable(wanted):
        known = (each for each in commands.values() if each.function is wanted)
        return next(known, Command(wanted.__name__.rstrip("_").replace("_", "-"), wanted))
    if wanted not in commands:
        raise ValueError(f"{stage.name} calls {wanted!r}, which is no command; there are {', '.join(commands)}")
    return commands[wanted]


def _carry_out(stage: Stage, folder: Path, model: Source, together: Comm, *, dry: bool) -> int:
    """One stage, unless it is done; its exit code."""
    action = Action.of(stage)
    known = on_root(together, lambda: _done(stage, action, _ledger(folder).get(stage.name), model))
    state = "" if known is None else "  (done, without success) " if known else "  (done) "
    if ranks()[0] == 0:
        typer.echo(f"{state}$ {shlex.join(['sobofem', *used(), *action.words])}")
    if dry or known is not None:
        return known or 0
    code = _act(action, together)
    if code not in (0, 1):  # interrupted, or too many failures: not done, and nothing to build on
        raise typer.Exit(code)
    on_root(together, lambda: _remember(folder, stage, action.words, model, code))
    return code


def _act(action: Action, together: Comm) -> int:
    """Carry out, on rank 0 alone where there is nothing to do for others; the exit code on all ranks.

    Raises:
        Exception: What the command raised.
    """
    return action.carry_out() if action.command.needs_mpi else _on_root_at_rest(together, action.carry_out)


def _on_root_at_rest[T](together: Comm, action: Callable[[], T]) -> T:
    """As `on_root`, for what takes long: the other ranks use no core while they wait."""
    answers, failures = list[T](), list[Exception]()
    if together.rank == 0:
        try:
            answers.append(action())
        except Exception as error:
            failures.append(error)
    idle_barrier(together)

    def outcome() -> T:
        if failures:
            raise failures[0]
        return answers[0]

    return on_root(together, outcome)


def _done(stage: Stage, action: Action, known: dict[str, Any] | None, model: Source) -> int | None:
    """The exit code that a stage ended with, if the same was done with the same; else None."""
    if known is None or stage.resumes or not action.is_same(known["words"]):
        return None
    return int(known["code"]) if known["mark"] == _mark(stage, known["words"], model) else None


def _mark(stage: Stage, words: Sequence[str], model: Source) -> str | None:
    """What decides a stage's results: its words, the contents of what it reads, and the model's source if it asks it.

    None if a result is not there.
    """
    if not all(path.exists() for path in stage.writes):
        return None
    digest = hashlib.sha256(json.dumps(words).encode())
    if model.spec in words:
        digest.update(model.digest.encode())
    for path in (*stage.reads, *USED):
        digest.update(path.read_bytes() if path.is_file() else b"")
    return digest.hexdigest()


def _ledger(folder: Path) -> dict[str, dict[str, Any]]:
    """What was done, by stage.

    Raises:
        ValueError: If the file is damaged.
    """
    path = folder / LEDGER
    if not path.is_file():
        return {}
    try:
        found: dict[str, dict[str, Any]] = json.loads(path.read_text())
        return found
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}); remove it, and the study finds out what is there") from error


def _remember(folder: Path, stage: Stage, words: Sequence[str], model: Source, code: int) -> None:
    done = {"mark": _mark(stage, words, model), "words": list(words), "code": code, "model": model.digest}
    ledger = _ledger(folder) | {stage.name: done}
    path = folder / LEDGER
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(ledger, indent=2) + "\n")
    aside.replace(path)
