"""Compiled forms sent to nodes that don't see the folder of the rank that compiled them.

Where each node has a folder of its own, a thousand nodes would else start as many compilers, which lie on the shared
file system that these folders are to spare.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
import tempfile

from mpi4py import MPI

from sobofem.fem.assembly.compilation import cache_directory, compiled_here, is_compiled, locked
from sobofem.fem.assembly.private_folder import make_private

_MARKS = (".c", ".c.cached")

type Files = dict[str, dict[str, bytes]]
"""Contents of files by name, by the name of the folder of a form."""


def send_compiled(comm: MPI.Comm, root: int) -> None:
    """Give the forms that one rank has loaded or compiled to all nodes that lack one of them. Collective.

    What can't be written is left out: it is compiled then, or that says what is wrong.

    Args:
        comm: All ranks.
        root: The one.
    """
    own = compiled_here() if comm.rank == root else ()
    names = comm.bcast([folder.name for folder in own], root=root)
    place: Path | None = None
    with contextlib.suppress(OSError):
        place = cache_directory()
    node = comm.Split_type(MPI.COMM_TYPE_SHARED, comm.rank)
    first = node.allgather(str(place)).index(str(place)) == node.rank  # of those who have this folder
    node.Free()
    chosen = comm.Split(0 if first or comm.rank == root else MPI.UNDEFINED, comm.rank if comm.rank != root else -1)
    if chosen == MPI.COMM_NULL:
        return
    lacks = place is not None and not all(is_compiled(place / name) for name in names)
    if chosen.allreduce(lacks, op=MPI.LOR):
        files: Files = chosen.bcast(_contents(own))
        if lacks and place is not None:
            for name, content in files.items():
                with contextlib.suppress(OSError):
                    _write(place / name, content)
    chosen.Free()


def _contents(folders: tuple[Path, ...]) -> Files:
    """The files of forms, but of those that somebody has removed a moment ago: the others wait for what there is."""
    found: Files = {}
    for folder in folders:
        with contextlib.suppress(OSError):
            found[folder.name] = _read(folder)
    return found


def _read(folder: Path) -> dict[str, bytes]:
    """The files of a form, in an order in which nobody takes the first of them for all.

    FFCx loads a library as soon as there are source and mark: where the disk is full, or this process is killed, they
    must not stand beside half of one.
    """
    files = sorted(folder.glob("libffcx_*"), key=lambda file: (file.name.endswith(_MARKS), file.name))
    return {file.name: file.read_bytes() for file in (*files, folder / "whole")}


def _write(folder: Path, content: dict[str, bytes]) -> None:
    make_private(folder)
    with locked(folder):
        if is_compiled(folder):
            return
        for name, data in content.items():
            _replace(folder / Path(name).name, data)


def _replace(file: Path, data: bytes) -> None:
    """Put content in place at once: a process may have loaded the library that is there, and dies if that changes."""
    handle, name = tempfile.mkstemp(dir=file.parent)
    try:
        with open(handle, "wb") as target:
            target.write(data)
        os.chmod(name, 0o700)
        os.replace(name, file)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
