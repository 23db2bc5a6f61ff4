"""Where results come from: commands, versions, ranks and time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
import contextlib
from contextvars import ContextVar
import platform
import shlex
import sys
import time

from sobofem.coupling.parallel.abort import ranks

_RUNNING: ContextVar[tuple[tuple[Callable[[], str], int | None, float], ...]] = ContextVar("running", default=())
"""Commands under way, one called by the other, their seeds, and when each began."""

PACKAGES = ("sobofem", "numpy", "fenics-dolfinx", "dolfinx-solver-real", "petsc4py")
"""Those that make samples."""


@contextlib.contextmanager
def running(command: Callable[[], str], seed: int | None = None) -> Iterator[None]:
    """While entered, what is written comes from a command.

    Args:
        command: Spells it as a shell takes it.
        seed: Of all that it draws, if it does.
    """
    token = _RUNNING.set((*_RUNNING.get(), (command, seed, time.monotonic())))
    try:
        yield
    finally:
        _RUNNING.reset(token)


def commands() -> tuple[str, ...]:
    """The command under way, and that which called it; in a script, that of the script."""
    size = ranks()[1]
    start = f"mpiexec -n {size} " if size > 1 else ""
    found = [command() for command, *_ in reversed(_RUNNING.get())]
    if not found and sys.argv[0].endswith(".py"):
        found = [shlex.join(["python", *sys.argv])]
    return tuple(start + line for line in found)


def versions(*more: str) -> dict[str, str]:
    """Versions of Python and of the packages that make samples, as far as they are installed; and of others."""
    import importlib.metadata  # with thirty modules, on rank 0

    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *more):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def origin() -> dict[str, str]:
    """How what is computed now is computed, in words."""
    found = {"MPI ranks": str(ranks()[1])}
    for _, seed, began in _RUNNING.get()[-1:]:
        found |= {"time": f"{time.monotonic() - began:.1f} s"} | ({} if seed is None else {"seed": str(seed)})
    found["versions"] = ", ".join(f"{name} {version}" for name, version in versions("scipy", "torch").items())
    return found | {"computer": f"{platform.system()} on {platform.machine()}"}
