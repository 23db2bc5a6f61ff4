"""Reading files that nothing vouches for: in a process of its own, which may hang or crash for all we care.

Datasets of version 1 have no checksum of all their bytes, and a single flipped bit can make the HDF5 library loop for
ever, ask for terabytes or crash. The process has little time and memory, and gives back the same dataset as a sealed
file.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import sys
from typing import IO

SECONDS = 1.0
"""Time of the processor for a small file; larger ones have more."""

BYTES_A_SECOND = 2e7
"""Rate at which even a slow machine reads; it does a hundred times as much."""

MEMORY = 256 << 20
"""What the process may take besides several copies of the file."""

_WAIT = 120.0  # for a process that does not use its time: the machine is busy, or the disk is slow [s]
_FOREIGN = 3  # exit code


class Foreign(ValueError):
    """A file that may be sound, but is another program's or of a newer version."""


def sealed_copy(file: IO[bytes]) -> bytes:
    """The same dataset, read in a process of its own, as the content of a sealed file.

    Raises:
        Foreign: If it is another program's, or of a newer version.
        ValueError: If it can't be read, in whatever way that ends.
    """
    code = f"import sys; sys.path[:] = {sys.path!r}; from sobofem.coupling.dataset.guarded import main; main({SECONDS})"
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    size = file.seek(0, 2)
    try:
        done = subprocess.run(
            [sys.executable, "-c", code],
            stdin=file,
            capture_output=True,
            timeout=_WAIT + size / BYTES_A_SECOND,
            env=os.environ | single,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError("reading it did not end") from error
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _FOREIGN:
        raise Foreign(done.stdout.decode())
    if -done.returncode in (signal.SIGPROF, signal.SIGKILL):
        raise ValueError("reading it did not end")
    if done.returncode < 0:
        raise ValueError(f"reading it crashed the HDF5 library with {signal.Signals(-done.returncode).name}")
    raise ValueError(done.stdout.decode(errors="replace") or "reading it failed")


def main(seconds: float) -> None:
    """The process: a dataset on standard input becomes a sealed one on standard output, or a sentence and a code."""
    from sobofem.coupling.dataset import store
    from sobofem.coupling.dataset.dataset import Dataset
    from sobofem.coupling.dataset.hdf5 import decoded

    file = sys.stdin.buffer
    _limit(file.seek(0, 2), seconds)
    try:
        content = store.image(Dataset(**decoded(file, sealed=False)))
    except Foreign as error:
        _end(error, _FOREIGN)
    except MemoryError:
        _end(ValueError("it claims to hold more than its size allows"), 1)
    except Exception as error:
        _end(error, 1)
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()
    os._exit(0)


def _limit(size: int, seconds: float) -> None:
    """Limit this process's time, memory and traces, for a file of `size` bytes."""
    signal.setitimer(signal.ITIMER_PROF, seconds + size / BYTES_A_SECOND)  # SIGPROF ends it
    for what, limit in ((resource.RLIMIT_AS, _address_space() + MEMORY + 8 * size), (resource.RLIMIT_CORE, 0)):
        with contextlib.suppress(ValueError, OSError):  # a lower limit is in force, or the system has none
            resource.setrlimit(what, (limit, limit))


def _address_space() -> int:
    """Bytes of address space in use; none where the system does not say, and then no limit is set in effect."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[0]) * resource.getpagesize()
    except OSError:
        return 1 << 46


def _end(error: Exception, code: int) -> None:
    """Leave with a sentence and a code: HDF5 is not asked to tidy up, since that may crash as well."""
    text = str(error).encode(errors="replace")
    os.write(1, text[:2000])
    os._exit(code)
