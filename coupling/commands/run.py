"""`sobofem run`."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
import shlex
from typing import Annotated, Any

import typer

from coupling.abort import ranks
from coupling.study import Files, Stage, load_study
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

    Each stage is a command that is printed, and that you could type yourself. A stage is done again when its options or
    the files that it reads have changed. Under mpiexec or srun the solves are spread over the ranks. Exit code 1 says
    that a purpose ended without success, such as an optimum that the model does not confirm; the others are done
    nevertheless.

    Example: mpiexec -n 8 sobofem run study.py --out study
    """
    study, model = load_study(file)
    folder = out or Path(file.stem)
    together, stages = world(), list(study.stages(Files(folder, model)))
    unknown = sorted(set(only or ()) - {stage.name for stage in stages})
    if unknown:
        raise ValueError(f"there is no stage {', '.join(unknown)}; there are {', '.join(s.name for s in stages)}")
    if not dry:
        on_root(together, lambda: folder.mkdir(parents=True, exist_ok=True))
    codes = [_carry_out(stage, folder, together, dry=dry) for stage in stages if not only or stage.name in only]
    if any(codes):
        raise typer.Exit(max(codes))


def _carry_out(stage: Stage, folder: Path, together: Comm, *, dry: bool) -> int:
    """One stage, unless it is done; its exit code."""
    mark = on_root(together, lambda: _mark(stage))
    known = on_root(together, lambda: _ledger(folder).get(stage.name))
    done = not stage.resumes and known is not None and known["mark"] == mark and mark is not None
    if ranks()[0] == 0:
        typer.echo(f"{'  (done) ' if done else ''}$ sobofem {shlex.join(stage.words)}")
    if dry or (done and known is not None):
        return int(known["code"]) if done and known is not None else 0
    code = _command(stage.words, together)
    if code not in (0, 1):  # interrupted, or too many failures: not done, and nothing to build on
        raise typer.Exit(code)
    on_root(together, lambda: _remember(folder, stage, code))
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

    return on_root(together, act) if words[0] in WITHOUT_MPI else act()


def _mark(stage: Stage) -> str | None:
    """What decides a stage's results: its words and the contents of what it reads; None if a result is not there."""
    if not all(path.exists() for path in stage.writes):
        return None
    digest = hashlib.sha256(json.dumps(stage.words).encode())
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


def _remember(folder: Path, stage: Stage, code: int) -> None:
    ledger = _ledger(folder) | {stage.name: {"mark": _mark(stage), "words": list(stage.words), "code": code}}
    path = folder / LEDGER
    aside = path.with_suffix(".new")
    aside.write_text(json.dumps(ledger, indent=2) + "\n")
    aside.replace(path)
