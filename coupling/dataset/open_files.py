"""Files that other processes may lock, remove, move or replace while they are open."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
import errno
import fcntl
import itertools
import os
from pathlib import Path
import socket
import time
from typing import IO, Any, cast
import warnings

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


GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""What a file is known by that another process removed; the last on network file systems."""

_TRIES = 100  # to make a file in a folder that another job removes


def beside(path: Path) -> tuple[Path, int]:
    """A new file at `path`, or beside it where there is one, in a folder that is made again if it is gone.

    Where a file took the place of the folder, another one beside it is made.
    """
    for number in itertools.count():
        name = f"{path.stem}{number:03d}{path.suffix}" if number else path.name
        folder = path.parent
        if folder.exists() and not folder.is_dir():
            folder = folder.with_name(folder.name + ".kept")
            warnings.warn(
                f"{path.parent} is no folder any more; samples are kept in {folder}", RuntimeWarning, stacklevel=2
            )
        folder.mkdir(exist_ok=True)
        try:
            return folder / name, created(folder / name)
        except FileExistsError:
            continue
        except FileNotFoundError:  # another job found the folder empty, and removed it
            if number > _TRIES:
                raise
    raise AssertionError("the count has no end")


class OpenFile:
    """A file that stays open for reading, whatever becomes of its name, as long as anybody has this.

    It is a file to h5py, too. What is appended later is not seen.

    Args:
        file: Open; it may be closed afterwards.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._descriptor, self._at = os.dup(file.fileno()), 0
        self._size = os.fstat(self._descriptor).st_size

    def __del__(self) -> None:
        os.close(self._descriptor)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        return os.pread(self._descriptor, max(0, stop - start), start)

    def find(self, mark: bytes, start: int) -> int:
        """The first place of a mark from a byte on; -1 if there is none."""
        while start < self._size:
            place = self[start : start + _WINDOW].find(mark)
            if place >= 0:
                return start + place
            start += _WINDOW - len(mark) + 1
        return -1

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the beginning, from here or from the end."""
        self._at = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        return self._at

    def tell(self) -> int:
        """The byte to read next."""
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many bytes from here on, as far as there are; all by default."""
        found = self[self._at : self._size if size < 0 else self._at + size]
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer from here on; how many bytes there were."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


class Enduring:
    """A file that HDF5 can write to though the disk refuses, since it may crash where it learns of that.

    Args:
        file: Without a buffer of its own, which would be written, and refused, when the file is read.

    Attributes:
        refused: What the disk said; then the content is of no use.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.refused: OSError | None = None
        self.seek, self.tell, self.read, self.flush = file.seek, file.tell, file.read, lambda: None

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer."""
        return int(cast(Any, self._file).readinto(buffer))

    def write(self, content: Any) -> int:
        """Write bytes, as far as nothing was refused."""
        return self._try(lambda: self._all(memoryview(content)), len(content))

    def truncate(self, size: int) -> int:
        """Cut or extend it, likewise."""
        return self._try(lambda: self._file.truncate(size), size)

    def _all(self, content: memoryview) -> int:
        written = 0
        while written < len(content):  # a disk may take a part, and refuse the rest
            written += self._file.write(content[written:])
        return written

    def _try(self, step: Callable[[], int], pretended: int) -> int:
        if self.refused is None:
            try:
                return step()
            except OSError as error:
                self.refused = error
        return pretended


_WINDOW = 1 << 20  # bytes to look through at once


def created(path: Path) -> int:
    """Make a new file to append to, which must not exist yet; returns its descriptor."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)


def write(file: int, content: bytes) -> None:
    """Write all of some bytes to an open file."""
    written = 0
    while written < len(content):
        written += os.write(file, content[written:])


def is_at(file: int, path: Path) -> bool:
    """Whether an open file is the one at a path."""
    try:
        there, own = os.stat(path), os.fstat(file)
    except OSError as error:
        if error.errno in GONE:
            return False
        raise
    return (there.st_dev, there.st_ino) == (own.st_dev, own.st_ino)
