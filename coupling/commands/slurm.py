"""`sobofem slurm`."""

from __future__ import annotations

from pathlib import Path
import re
from typing import Annotated

import typer

from sobofem.coupling.commands import ModelName, all_commands, command
from sobofem.coupling.commands.files import check_writable
from sobofem.coupling.models.loading import USED
from sobofem.coupling.parallel.groups import check_size
from sobofem.coupling.solving.slurm import Job, Resources, script


@command(needs_mpi=False)
def slurm(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="HDF5 dataset to make or to continue.", show_default=False)],
    options: Annotated[
        list[str] | None,
        typer.Argument(metavar="-- OPTIONS", help="Options of `sobofem generate`, after `--`.", show_default=False),
    ] = None,
    ntasks: Annotated[
        int | None,
        typer.Option(
            help="MPI ranks, each with a core of its own; --nodes times --ntasks-per-node by default.",
            min=1,
            show_default=False,
        ),
    ] = None,
    nodes: Annotated[int | None, typer.Option(help="Nodes to spread them over.", min=1)] = None,
    ntasks_per_node: Annotated[int | None, typer.Option(help="Ranks on each node.", min=1)] = None,
    ranks_per_solve: Annotated[
        int, typer.Option(help="Ranks that solve one sample together; one is best as long as it fits in memory.", min=1)
    ] = 1,
    time: Annotated[
        str | None,
        typer.Option(
            help="Time limit of one run: `90` (minutes), `1:30:00` or `2-12` (days-hours); the partition's by default. "
            "A short one does no harm, since the job requeues itself."
        ),
    ] = None,
    partition: Annotated[str | None, typer.Option(help="Where to run; `sinfo` lists them.")] = None,
    account: Annotated[str | None, typer.Option(help="Who pays.")] = None,
    array: Annotated[
        int | None, typer.Option(help="So many jobs, each with its own ranks, share the work on the dataset.", min=1)
    ] = None,
    grace: Annotated[
        int,
        typer.Option(
            help="Seconds before the time limit at which the ranks are told to stop. Longer than a sample takes; Slurm "
            "may tell them up to a minute earlier.",
            min=1,
        ),
    ] = 120,
    max_idle: Annotated[
        int, typer.Option("--max-requeues", help="Restarts in a row without a new sample before it gives up.", min=0)
    ] = 3,
    container: Annotated[
        str | None, typer.Option(help="Apptainer image that holds sobofem, such as sobofem.sif.")
    ] = None,
    launcher: Annotated[
        str,
        typer.Option(
            help="What starts the ranks, with its options: `srun --mpi=pmi2`, `srun --mpi=pmix`, `mpiexec`. "
            "`srun --mpi=list` says what your Slurm has."
        ),
    ] = "srun --mpi=pmi2",
    setup: Annotated[
        list[str] | None,
        typer.Option(metavar="LINE", help="A line of shell to begin with, such as 'module load gcc'. Repeat for more."),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            help="Where compiled forms go: each job makes a folder of its own there. Node-local by default: "
            "`$SLURM_TMPDIR`, `$TMPDIR` or /tmp. Name one where those forbid to run programs."
        ),
    ] = None,
    more: Annotated[
        list[str] | None,
        typer.Option("--sbatch", metavar="OPTION", help="Any other option, such as --mem-per-cpu=4G. Repeat for more."),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the job and its log; the dataset's by default.")] = None,
    file: Annotated[
        Path | None, typer.Option("--script", help="File to write; standard output by default.", show_default=False)
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite the file.")] = False,
) -> None:
    """Write a job script that runs `sobofem generate` under Slurm and requeues itself until the dataset is complete.

    What follows `--` goes to `generate`. Submit the script with `sbatch`, from this folder.

    Example: sobofem slurm plate.py:model --out plate.h5 --ntasks 64 --time 4:00:00 --script plate.sh -- --samples 4096
    """
    arguments = (model, "--out", str(out), *_groups(ranks_per_solve), *(options or []))
    _check(arguments, container)
    ranks = ntasks or (nodes or 1) * (ntasks_per_node or 1)
    check_size(ranks, ranks_per_solve)
    job = Job(
        arguments,
        str(out),
        Resources(ranks, nodes, ntasks_per_node, time, partition, account, array, grace, tuple(more or ())),
        name=name or re.sub(r"[^\w.+@-]", "-", out.stem),
        launcher=launcher,
        container=container,
        setup=tuple(setup or ()),
        cache=None if cache is None else str(cache.absolute()),
        max_idle=max_idle,
        use=tuple(map(str, USED)),
    )
    _write(script(job), file, force=force)


def _groups(ranks_per_solve: int) -> tuple[str, ...]:
    return ("--ranks-per-solve", str(ranks_per_solve)) if ranks_per_solve > 1 else ()


def _check(arguments: tuple[str, ...], container: str | None) -> None:
    """Find now what would end the job in the night: options that `generate` does not have, files that are not there."""
    all_commands()["generate"].parse(arguments)["where"].recipe()
    source = Path(arguments[0].rpartition(":")[0])
    if source.suffix == ".py" and not source.is_file():
        raise FileNotFoundError(f"there is no file {source} here; write the script in the folder to submit it from")
    if container is not None and "://" not in container and not Path(container).exists():
        raise FileNotFoundError(
            f"there is no image {container}; build it with: apptainer build {container} sobofem.def"
        )


def _write(text: str, file: Path | None, *, force: bool) -> None:
    if file is None:
        typer.echo(text, nl=False)
        return
    check_writable(file)
    if file.exists() and not force:
        raise FileExistsError(f"there is a file {file}; choose another name, or overwrite it with --force")
    file.write_text(text)
    typer.echo(f"{file}: submit it from this folder with: sbatch {file}")
