"""Compile UFL forms once, in a cache that a killed job can't poison.

FFCx marks a form as "being compiled" by a lone `.c` file; if that process dies, every later one waits for
it in vain. Here the compiling rank holds a file lock, which the kernel drops with its process: whoever holds
the lock may therefore delete a lone `.c` file, and no one waits for the dead.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl


def cache_directory() -> Path:
    """Where compiled forms live: `$SOBOFEM_CACHE`, else `$XDG_CACHE_HOME/sobofem`, else `~/.cache/sobofem`."""
    if "SOBOFEM_CACHE" in os.environ:
        return Path(os.environ["SOBOFEM_CACHE"]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sobofem"


def compile_form(form: ufl.Form, comm: MPI.Intracomm) -> dolfinx.fem.Form:
    """Compile a form on the first rank of `comm` and load it on the others. Collective."""
    with _locked(comm) as options:
        return dolfinx.fem.form(form, jit_options=options)


def compile_expression(expression: Any, points: np.ndarray, comm: MPI.Intracomm) -> dolfinx.fem.Expression:
    """Compile a UFL expression for evaluation at reference points (k, tdim) of each cell. Collective."""
    with _locked(comm) as options:
        return dolfinx.fem.Expression(expression, points, jit_options=options)


@contextlib.contextmanager
def _locked(comm: MPI.Intracomm) -> Iterator[dict[str, Any]]:
    """Hold the cache's lock on the first rank while all of `comm` compile and load."""
    directory = cache_directory()
    options = {"cache_dir": str(directory), "timeout": 600}
    if comm.rank != 0:
        yield options
        return
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as handle:
        with contextlib.suppress(OSError):  # a file system without locks: FFCx's own waiting has to do
            fcntl.flock(handle, fcntl.LOCK_EX)
            _remove_orphans(directory)
        yield options


def _remove_orphans(directory: Path) -> None:
    """Delete sources whose compilation was never finished. Only the lock's holder may call this."""
    for source in directory.glob("libffcx_*.c"):
        if not source.with_suffix(".c.cached").exists():
            source.unlink(missing_ok=True)
