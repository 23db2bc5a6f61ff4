"""Compile UFL once, in a cache that a killed job can't poison.

FFCx marks a form as "being compiled" by a lone `.c` file; if that process dies, every later one waits for it in vain.
Here a process compiles under a file lock, which the kernel drops with it: whoever holds the lock may therefore delete
a lone `.c` file, and no one waits for the dead. What is compiled already is loaded without the lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
import fcntl
import os
from pathlib import Path
from typing import Any

from mpi4py import MPI
import dolfinx
import ffcx.naming
import numpy as np
import ufl

from fem.errors import agree

_VARIABLE = "SOBOFEM_CACHE"


def cache_directory() -> Path:
    """Where compiled forms live: `$SOBOFEM_CACHE`, else `$XDG_CACHE_HOME/sobofem`, else `~/.cache/sobofem`."""
    if _VARIABLE in os.environ:
        return Path(os.environ[_VARIABLE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sobofem"


def compile_form(form: ufl.Form, comm: MPI.Intracomm) -> dolfinx.fem.Form:
    """Compile a form on the first rank of `comm`, then load it on all. Collective.

    Raises:
        OSError: If the cache can't be written, on every rank.
    """
    return _compiled(form, comm, lambda options: dolfinx.fem.form(form, jit_options=options, jit_comm=MPI.COMM_SELF))


def compile_expression(expression: Any, points: np.ndarray, comm: MPI.Intracomm) -> dolfinx.fem.Expression:
    """Compile a UFL expression for evaluation at reference points (k, tdim) of each cell. Collective."""
    return _compiled(
        (expression, points),
        comm,
        lambda options: dolfinx.fem.Expression(expression, points, jit_options=options, comm=MPI.COMM_SELF),
    )


def _compiled[T](what: Any, comm: MPI.Intracomm, build: Callable[[dict[str, Any]], T]) -> T:
    """Compile on the first rank, under the lock and without it where that was done before; then build on all."""
    directory = cache_directory()
    options = {"cache_dir": str(directory), "timeout": 600}
    ready = directory / f"{ffcx.naming.compute_signature([what], dolfinx.__version__)}.ready"
    trouble = None
    if comm.rank == 0 and not _is_compiled(ready):
        try:
            with _locked(directory):  # building a form is collective, compiling it is not
                scalar = {"scalar_type": dolfinx.default_scalar_type}
                _, module, _ = dolfinx.jit.ffcx_jit(
                    MPI.COMM_SELF, what, form_compiler_options=scalar, jit_options=options
                )
                ready.write_text(module.__name__)
        except OSError as error:
            trouble = f"compiled forms can't be kept in {directory}: {error.strerror}; set ${_VARIABLE} to a folder"
        except Exception as error:
            if comm.size == 1:
                raise
            trouble = f"compilation failed: {error}"
    if trouble := agree(comm, trouble):
        raise OSError(trouble)
    return build(options)


def _is_compiled(ready: Path) -> bool:
    """Whether a form's marker names a module that is there."""
    try:
        return ready.with_name(f"{ready.read_text()}.c.cached").exists()
    except OSError:
        return False


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the cache's lock; no collective call may be made meanwhile."""
    directory.mkdir(parents=True, exist_ok=True)
    with open(directory / "lock", "w") as handle:
        with contextlib.suppress(OSError):  # a file system without locks: FFCx's own waiting has to do
            fcntl.flock(handle, fcntl.LOCK_EX)
            _remove_orphans(directory)
        yield


def _remove_orphans(directory: Path) -> None:
    """Delete sources whose compilation was never finished. Only the lock's holder may call this."""
    for source in directory.glob("libffcx_*.c"):
        if not source.with_suffix(".c.cached").exists():
            source.unlink(missing_ok=True)
