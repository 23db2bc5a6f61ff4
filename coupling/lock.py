"""One writer at a time: a lock that the kernel releases when its holder dies, however it dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import socket


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if missing and stays.

    Raises:
        BlockingIOError: If another process holds it; the message says which.
    """
    file = _acquire(path)
    try:
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(file)


def _acquire(path: Path) -> int:
    """Open and lock; again if the holder removed the file while we waited for nothing."""
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            raise BlockingIOError(
                error.errno, f"{holder} is writing this dataset now; wait for it, or write to another file", str(path)
            ) from error
        except OSError:
            os.close(file)
            raise
        if os.fstat(file).st_nlink > 0:
            return file
        os.close(file)
