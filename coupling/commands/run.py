"""`sobofem run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
import shlex
from typing import Annotated, Any

import typer

from coupling.abort import ranks
from coupling.groups import rest
from coupling.study import Files, Stage, definition, load_study
from coupling.world import Comm, on_root, world

LEDGER = "study.json"


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
    if not dry:
        on_root(together, lambda: folder.mkdir(parents=True, exist_ok=True))
    about = Source(model, definition(model, file))
    _warn_of_changes(on_root(together, lambda: _ledger(folder)), about, folder)
    wanted = [stage for stage in stages if not only or stage.name in only]
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


def _carry_out(stage: Stage, folder: Path, model: Source, together: Comm, *, dry: bool) -> int:
    """One stage, unless it is done; its exit code."""
    mark = on_root(together, lambda: _mark(stage, model))
    known = on_root(together, lambda: _ledger(folder).get(stage.name))
    done = not stage.resumes and known is not None and known["mark"] == mark and mark is not None
    state = "" if not done else "  (done, without success) " if known and known["code"] else "  (done) "
    if ranks()[0] == 0:
        typer.echo(f"{state}$ sobofem {shlex.join(stage.words)}")
    if dry or (done and known is not None):
        return int(known["code"]) if done and known is not None else 0
    code = _command(stage.words, together)
    if code not in (0, 1):  # interrupted, or too many failures: not done, and nothing to build on
        raise typer.Exit(code)
    on_root(together, lambda: _remember(folder, stage, model, code))
    return code


def _command(words: tuple[str, ...], together: Comm) -> int:
    """Run one command of ours, on rank 0 alone where it has nothing to do for others; its exit code on all ranks.

    Raises:
        Exception: What the command raised.
    """
    from coupling.cli import WITHOUT_MPI, app

    program = typer.main.get_command(app)

    def act() -> int:
        try:
            return int(program(list(words), prog_name="sobofem", standalone_mode=False) or 0)
        except typer.Exit as ended:
            return ended.exit_code

    return _on_root_at_rest(together, act) if words[0] in WITHOUT_MPI else act()


def _on_root_at_rest[T](together: Comm, action: Callable[[], T]) -> T:
    """As `on_root`, for what takes long: the other ranks use no core while they wait."""
    answers, failures = list[T](), list[Exception]()
    if together.rank == 0:
        try:
            answers.append(action())
        except Exception as error:
            failures.append(error)
    rest(together)

    def outcome() -> T:
        if failures:
            raise failures[0]
        return answers[0]

    return on_root(together, outcome)


def _mark(stage: Stage, model: Source) -> str | None:
    """What decides a stage's results: its words, the contents of what it reads, and the model's source if it asks it.

    None if a result is not there.
    """
    if not all(path.exists() for path in stage.writes):
        return None
    digest = hashlib.sha256(json.dumps(stage.words).encode())
    if model.spec in stage.words:
        digest.update(model.digest.encode())
    for path in stage.reads:
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


def _remember(folder: Path, stage: Stage, model: Source, code: int) -> None:
    done = {"mark": _mark(stage, model), "words": list(stage.words), "code": code, "model": model.digest}
    ledger = _ledger(folder) | {stage.name: done}
    path = folder / LEDGER
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(ledger, indent=2) + "\n")
    aside.replace(path)
