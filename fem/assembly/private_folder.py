"""Folders that hold programs: nobody else may write to them, or put another in their place.

Whoever can write to a folder of compiled code has it run by everybody that loads from there. A name in a shared
temporary place can be taken beforehand by another account, so that "it exists" says nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
from pathlib import Path
import pwd
import stat

_LINKS = 40  # that one path may lead through, as Linux has it
_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def make_private(folder: Path) -> None:
    """Make a folder for this account alone, or check one that is there.

    Args:
        folder: An absolute path. Missing parents are made for this account alone as well.

    Raises:
        PermissionError: If others could write to it, or replace it; the message says how to remedy that.
        OSError: If it can't be made.
    """
    for place in _led_through(folder.parent):
        _make(place)
        _check_way(place)
    _make(folder)
    _check_itself(folder)


def check_content(folder: Path) -> None:
    """Check all that lies in a folder before some of it is loaded: others may have put it there when they still could.

    Raises:
        PermissionError: If something there belongs to others, or is a link.
    """
    with os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # gone again: another process works there
                _check_entry(Path(entry.path), entry.stat(follow_symlinks=False))


def _make(place: Path) -> None:
    with contextlib.suppress(FileExistsError):  # by another process, a moment ago
        if not os.path.lexists(place):
            os.mkdir(place, 0o700)


def _check_itself(folder: Path) -> None:
    found = os.lstat(folder)
    if stat.S_ISLNK(found.st_mode):
        raise PermissionError(f"{folder} is a link; name the folder that it points to, {folder.resolve()}")
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{folder} is a file; name a folder")
    if found.st_uid != os.geteuid():
        raise PermissionError(f"{folder} belongs to {_account(found.st_uid)}; name a folder of your own")
    if found.st_mode & _OTHERS:
        raise PermissionError(
            f"others may write to {folder}, and could have had their code run as yours; remove it and all that is in "
            "it: it is made again, for you alone"
        )


def _check_way(place: Path) -> None:
    """Refuse a folder or link, on the way to another, by which others could put something else in its place."""
    found = os.lstat(place)
    if found.st_uid not in _trusted():
        raise PermissionError(f"{place} belongs to {_account(found.st_uid)}, who could replace all that lies in it")
    if stat.S_ISDIR(found.st_mode) and found.st_mode & _OTHERS and not found.st_mode & stat.S_ISVTX:
        raise PermissionError(
            f"others may write to {place}, and could replace what lies in it; take that from them: chmod go-w {place}"
        )


def _check_entry(file: Path, found: os.stat_result) -> None:
    if found.st_uid != os.geteuid() or stat.S_ISLNK(found.st_mode):
        what = "is a link" if stat.S_ISLNK(found.st_mode) else f"belongs to {_account(found.st_uid)}"
        raise PermissionError(f"{file} {what}, and might be code of others; remove {file.parent} and all that is in it")


def _led_through(folder: Path) -> Iterator[Path]:
    """Every folder and link that a path leads through, from the root on."""
    here, names, links = Path("/"), list(reversed(folder.parts[1:])), 0
    yield here
    while names:
        name = names.pop()
        here = here.parent if name == ".." else here / name
        yield here
        if here.is_symlink():
            links += 1
            if links > _LINKS:
                raise PermissionError(f"{folder} leads through too many links; name it without")
            target = here.readlink()
            here = Path("/") if target.is_absolute() else here.parent
            names.extend(reversed(target.parts[1:] if target.is_absolute() else target.parts))


def _trusted() -> set[int]:
    """Accounts that may own what leads to a folder: this one, and root, who can do everything anyway.

    In a user namespace, as of Apptainer without setuid, files of the host's root show the number of nobody.
    """
    trusted = {0, os.geteuid()}
    with contextlib.suppress(OSError, ValueError):
        if Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"]:
            trusted.add(int(Path("/proc/sys/kernel/overflowuid").read_text()))
    return trusted


def _account(number: int) -> str:
    try:
        return f"the account {pwd.getpwuid(number).pw_name}"
    except KeyError:
        return f"the account with number {number}"
