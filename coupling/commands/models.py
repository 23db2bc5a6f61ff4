"""`sobofem models`."""

from __future__ import annotations

import typer

from sobofem.coupling.commands import command
from sobofem.coupling.models.loading import library


@command(needs_mpi=False)
def models() -> None:
    """List the problems that come with sobofem, a line each; every command knows them by these names.

    An own problem is named by its file and the function that makes it: `sobofem check file.py:name`.

    Example: sobofem models
    """
    problems = library()
    width = max(map(len, problems))
    for name, sentence in problems.items():
        typer.echo(f"{name:{width}}  {sentence}")
