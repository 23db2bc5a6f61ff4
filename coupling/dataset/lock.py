"""Locks that the kernel releases when their holder dies, however it dies."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import socket
import time

_PAUSE = 0.01
PATIENCE = 600.0
"""How long to wait for a lock that is only ever held for moments [s]."""


@contextmanager
def locked(path: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Hold the lock file at `path`, which is made if missing and stays; wait for it.

    Raises:
        BlockingIOError: If another process holds it all the time; the message says which.
        FileNotFoundError: If its folder is gone.
    """
    file = _acquire(path, patience)
    try:
        os.ftruncate(file, 0)
        os.write(file, f"process {os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(file)


def _acquire(path: Path, patience: float) -> int:
    """Open and lock; again if somebody removed the file while we waited."""
    end = time.monotonic() + patience
    while True:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)  # a link may lead to others' files
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(file, 200).decode(errors="replace") or "another process"
            os.close(file)
            if time.monotonic() > end:
                raise BlockingIOError(
                    error.errno, f"{holder} has held it for {patience:g} s; is it stuck?", str(path)
                ) from error
            time.sleep(_PAUSE)
            continue
        except OSError as error:
            os.close(file)
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or 0)}: this file system takes no locks; write to another",
                str(path),
            ) from error
        if os.fstat(file).st_nlink > 0:
            return file
        os.close(file)
