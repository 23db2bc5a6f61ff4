"""`sobofem jobscript`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
import re
from typing import Annotated

import typer

from sobofem.coupling.commands import ModelName, command, find_command
from sobofem.coupling.commands.files import absolute, check_writable
from sobofem.coupling.models.loading import USED, check_file
from sobofem.coupling.options import words
from sobofem.coupling.parallel.groups import check_size
from sobofem.coupling.solving.jobscript import SCHEDULERS, Job, Launch, Resources, Scheduler, script
from sobofem.coupling.solving.settings import SolveRanks


@command(needs_mpi=False)
def jobscript(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTIONS", help="Options of `sobofem generate`, after `--`.", show_default=False),
    ] = None,
    *,
    resources: Resources,
    ranks: SolveRanks,
    launch: Launch,
    name: Annotated[str | None, typer.Option(help="Of the job and its log; the dataset's by default.")] = None,
    file: Annotated[
        Path | None, typer.Option("--script", help="File to write; standard output by default.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a job script that runs `sobofem generate` on a cluster, again and again until the dataset is complete.

    For Slurm, PBS or LSF, or by your site's own template (--template). What follows `--` goes to `generate`. Submit
    the script from this folder.

    Example: sobofem jobscript plate.py:model --out a.h5 --ntasks 64 --time 4:00:00 --script a.sh -- --samples 4096
    """
    arguments = (model, "--out", str(out), *words(ranks), *(options or []))
    _check(arguments, launch.container)
    check_size(resources.ranks, ranks.ranks_per_solve)
    job = Job(
        arguments,
        str(out),
        resources,
        replace(launch, cache=absolute(launch.cache)),
        name=name or re.sub(r"[^\w.+@-]", "-", out.stem),
        use=tuple(map(str, USED)),
        file=file,
    )
    _write(script(job), file, SCHEDULERS.get(launch.template), force=force)


def _check(arguments: tuple[str, ...], container: str | None) -> None:
    """Find now what would end the job in the night: options that `generate` does not have, files that are not there."""
    generate = find_command("generate")
    assert generate is not None  # one of ours
    generate.parse(arguments)["where"].recipe()
    source = Path(arguments[0].rpartition(":")[0])
    if source.suffix == ".py" and not source.is_file():
        raise FileNotFoundError(f"there is no file {source} here; write the script in the folder to submit it from")
    if source.suffix == ".py":
        check_file(source)
    if container is not None and "://" not in container and not Path(container).exists():
        raise FileNotFoundError(
            f"there is no image {container}; build it with: apptainer build {container} sobofem.def"
        )


def _write(text: str, file: Path | None, scheduler: Scheduler | None, *, force: bool) -> None:
    if file is None:
        typer.echo(text, nl=False)
        return
    check_writable(file)
    if file.exists() and not force:
        raise FileExistsError(f"there is a file {file}; choose another name, or overwrite it with --force")
    file.write_text(text)
    how = f" with: {scheduler.submit} {file}" if scheduler else ""
    typer.echo(f"{file}: submit it from this folder{how}")
