"""A job's sign of life: a file that it holds locked, that says who it is, and whose time it keeps renewing.

The lock says at once, and after any death, whether a job of the same machine lives. Of a job on another machine it says
so too, if the file system shares its locks between nodes; where it does not (Lustre without `-o flock`, NFS with
`local_lock`), two jobs would each believe to be alone. The time tells: it is renewed by a process of its own, since the
job itself may be busy for minutes, and ends with it.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
import fcntl
import os
from pathlib import Path
import socket
import subprocess
import sys
import time
import uuid

BEAT = 2.0
"""Time between two signs of life [s]."""

DEAD = 20.0
"""Time without one after which a job on another machine counts as dead [s]."""

_SHARING: set[Path] = set()
"""Folders where a lock of another machine was seen: there locks hold between machines."""

_RENEW = """
import os, select, sys
path, number, pause = sys.stdin.readline()[:-1], int(sys.stdin.readline()), float(sys.stdin.readline())
while not select.select([sys.stdin], [], [], pause)[0] and os.stat(path).st_ino == number:
    os.utime(path)
"""


@dataclass(frozen=True)
class Sighting:
    """What can be seen of a job from here.

    Attributes:
        who: The process and its machine, in words.
        held: Whether its lock is seen.
        reliable: Whether its lock would be seen if it lived: on this machine, or where locks of others were seen.
        time: Of its last sign of life [ns].
    """

    who: str
    held: bool
    reliable: bool
    time: int

    @property
    def doubtful(self) -> bool:
        """Whether its lock says that it is dead, and its signs of life that it may not be."""
        return not self.held and not self.reliable and abs(time.time() - self.time * 1e-9) < DEAD


def sighted(path: Path) -> Sighting | None:
    """What can be seen of the job whose file is at `path`; None if there is no such file."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        lines = [*os.read(file, 500).decode(errors="replace").splitlines(), "", ""]
        held, here = _is_locked(file), lines[1] in ("", machine())
        if held and not here:
            _SHARING.add(path.parent)
        return Sighting(lines[0] or "a job", held, here or path.parent in _SHARING, os.fstat(file).st_mtime_ns)
    finally:
        os.close(file)


def lives(path: Path) -> bool:
    """Whether the job is at work whose file is at `path`, as far as can be seen from here."""
    found = sighted(path)
    return found is not None and (found.held or found.doubtful)


class Presence:
    """A job's own sign of life, from when it is made until it is closed or the process ends, in whatever way.

    Args:
        path: The file, which must not exist.

    Raises:
        FileExistsError: If it exists.
        OSError: If the file system takes no files, or no locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX)  # a reader may be looking at it for a moment
            who = f"process {os.getpid()} on {socket.gethostname()}"
            os.write(self._file, f"{who}\n{machine()}\n{uuid.uuid4().hex}\n".encode())
        except OSError:
            os.close(self._file)
            raise
        self._content = os.pread(self._file, 500, 0)
        self._renewing = subprocess.Popen(
            [sys.executable, "-ISc", _RENEW],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for the job
        )
        assert self._renewing.stdin is not None
        self._renewing.stdin.write(f"{path.absolute()}\n{os.fstat(self._file).st_ino}\n{BEAT}\n".encode())
        self._renewing.stdin.flush()

    @property
    def is_closed(self) -> bool:
        """Whether it has ended."""
        return self._file < 0

    @property
    def is_there(self) -> bool:
        """Whether the file at its path is still this job's."""
        try:
            here, own = os.stat(self._path), os.fstat(self._file)
            return (here.st_dev, here.st_ino) == (own.st_dev, own.st_ino) and (
                os.pread(self._file, 500, 0) == self._content
            )
        except OSError:
            return False

    def close(self) -> None:
        """Remove the file, unless it is another job's, and let go of its lock; once."""
        if self.is_closed:
            return
        self._renewing.kill()
        with contextlib.suppress(OSError):
            self._renewing.communicate()
        if self.is_there:
            with contextlib.suppress(OSError):
                self._path.unlink()
        os.close(self._file)
        self._file = -1


def machine() -> str:
    """What tells this machine, since it was started, from others."""
    with contextlib.suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return socket.gethostname()


def _is_locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    return False
