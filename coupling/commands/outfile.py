"""Files that commands will write: refused before the work, not after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
import tempfile


def check_writable(path: Path) -> None:
    """Check that a file can be written at `path`, by making a file beside it and removing it again.

    Raises:
        IsADirectoryError: If `path` is a folder.
        FileNotFoundError: If there is no folder to write it to.
        PermissionError: If that folder takes no files.
        OSError: If the disk refuses.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise OSError(error.errno, f"can't be written: {error.strerror}", str(path)) from error
