"""Files of surrogates and checkpoints: tensors and a JSON record in one safetensors file, without pickle."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
import json
import os
from os import PathLike
from pathlib import Path
import platform
import re
import tempfile
from tempfile import TemporaryDirectory
from typing import Any, Protocol
import warnings

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.files import container
from sobofem.surrogate.files.container import CHECKSUM, Container

FORMAT = "sobofem-surrogate"
VERSION = 2
"""Of the format; from 2 on files carry a checksum."""
READERS: dict[str, Callable[[Stored], Any]] = {}
"""What makes a model of a file, by the kind that the file says it is; each kind enters itself by `reader`."""
DEEPEST = 4
"""Files within files: a field's surrogate may hold one of few coordinates, and that another."""
_BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What may go wrong in making objects of a record that anybody may have written."""


@dataclass(frozen=True, eq=False)
class Stored:
    """What a file of ours holds.

    Attributes:
        name: What messages call the file.
        kind: What it says that it is: `sobofem-` and a noun.
        tensors: Tensors by name.
        record: Plain values by name.
        checked: Whether it carried a checksum, which it fitted.
        depth: How many files it lies in.
    """

    name: str
    kind: str
    tensors: dict[str, Tensor]
    record: dict[str, Any]
    checked: bool
    depth: int = 0

    @property
    def numbers(self) -> int:
        """How many numbers the tensors have."""
        return sum(tensor.numel() for tensor in self.tensors.values())


def write(path: str | PathLike[str], tensors: dict[str, Tensor], record: dict[str, Any], kind: str = FORMAT) -> None:
    """Write a file, whole or not at all: an existing one is replaced in one move.

    Args:
        path: Where to; its folder exists.
        tensors: What to store, by name.
        record: Anything that JSON holds; what it doesn't is stored as its `str`.
        kind: What it is: `sobofem-` and a noun.

    Raises:
        OSError: If the file can't be written.
    """
    target = Path(path)
    metadata = {
        "format": kind,
        "version": str(VERSION),
        "versions": json.dumps(
            {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}
        ),
        "record": json.dumps(record, default=str),
    }
    replace(target, container.pack(tensors, metadata))


def replace(path: str | PathLike[str], content: bytes) -> None:
    """Write bytes to a file in one move: what was there before stays until all of them are on disk.

    Raises:
        OSError: If the file can't be written; its `filename` is the path given, and nothing is left beside it.
    """
    target = Path(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            os.unlink(temporary)
            raise
    except OSError as error:
        raise OSError(error.errno, f"can't be written: {error.strerror}", str(path)) from error


def read(path: str | PathLike[str], what: str = "model") -> Stored:
    """What a file of ours holds, checked against its checksum.

    Files that older versions wrote carry none: they are read with a warning.

    Args:
        path: The file.
        what: What to call it where it is missing.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, no file of ours, or of a newer version; the message says what to do.
        OSError: If it can't be read.
    """
    check_regular(path, what)
    with open(path, "rb") as file:
        return _read(file, os.fstat(file.fileno()).st_size, str(path), 0)


def check_regular(path: str | PathLike[str], what: str) -> None:
    """Refuse a path where there is no regular file: a pipe or a device would be waited for.

    Raises:
        FileNotFoundError: If there is nothing.
        ValueError: If it is a folder, a pipe or a device.
    """
    if Path(path).is_dir():
        raise ValueError(f"{path} is a folder; name the {what} file in it")
    if not Path(path).exists():
        raise FileNotFoundError(f"there is no {what} file {path}")
    if not Path(path).is_file():
        raise ValueError(f"{path} is no regular file, so it is no {what} file")


def read_bytes(content: bytes, outer: str, depth: int) -> Stored:
    """What a file within a file holds, which lies in so many.

    Raises:
        ValueError: If it is no file of ours, or lies too deep.
    """
    if depth > DEEPEST:
        raise ValueError(f"it holds files within files, more than {DEEPEST} deep")
    return _read(BytesIO(content), len(content), f"the model in {outer}", depth)


@contextmanager
def understanding(name: str | PathLike[str], what: str = "loaded") -> Iterator[None]:
    """Turn whatever goes wrong in making objects of a record into one ValueError, of one line, that names the file."""
    try:
        yield
    except _BROKEN as error:
        text = str(error).strip() or type(error).__name__
        reason = f"its record lacks {text}" if isinstance(error, KeyError) else text.splitlines()[0]
        raise ValueError(f"{name} can't be {what}: {reason[:300]}") from error


def check_kind(stored: Stored, kind: str) -> None:
    """Check that a file is of a kind.

    Raises:
        ValueError: If it isn't; the message says what reads it.
    """
    if stored.kind != kind:
        reader = "OnlineTraining.load_checkpoint" if stored.kind == "sobofem-checkpoint" else "surrogate.load"
        raise ValueError(
            f"{stored.name} is a {_noun(stored.kind)} of sobofem, expected a {_noun(kind)}; {reader} reads it"
        )


def entry(record: dict[str, Any], name: str, kind: type | tuple[type, ...]) -> Any:
    """An entry of a record, if it is of one of these types.

    Raises:
        KeyError: If there is none.
        ValueError: If it is of another type.
    """
    value = record[name]
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"its record has {name} {str(value)[:60]!r}, of type {type(value).__name__}")
    return value


def names(record: dict[str, Any], name: str) -> tuple[str, ...]:
    """A list of different names in a record.

    Raises:
        KeyError: If there is none.
        ValueError: If it is something else.
    """
    values = entry(record, name, list)
    if not values or not all(isinstance(value, str) for value in values) or len(set(values)) < len(values):
        raise ValueError(f"its record has {name} {str(values)[:60]}, expected different names")
    return tuple(values)


def _read(file: Any, size: int, name: str, depth: int) -> Stored:
    try:
        found = container.read(file, size)
    except (ValueError, MemoryError) as error:
        raise ValueError(
            f"{name} is no whole safetensors file ({error}): it was cut short, damaged or is of another kind; {_REMEDY}"
        ) from error
    kind = _checked_kind(name, found.metadata)
    checked = _check_sum(name, found)
    try:
        record = json.loads(found.metadata["record"])
        if not isinstance(record, dict):
            raise ValueError(f"its record is {found.metadata['record'][:40]!r}, no table")
        return Stored(name, kind, found.arrays(), record, checked, depth)
    except (KeyError, ValueError, RecursionError) as error:
        reason = "it has no record" if isinstance(error, KeyError) else str(error) or "its record is nested too deeply"
        raise ValueError(f"{name} is damaged: {reason.splitlines()[0]}; {_REMEDY}") from error


_REMEDY = "copy it again, or make it again, as with `sobofem train`"


def _check_sum(name: str, found: Container) -> bool:
    """Whether there is a checksum, which it fits.

    Raises:
        ValueError: If it doesn't, or there is none where there must be.
    """
    checksum = found.metadata.get(CHECKSUM)
    if checksum is None and int(found.metadata["version"]) >= VERSION:
        raise ValueError(f"{name} is damaged: it has lost its checksum; {_REMEDY}")
    if checksum is None:
        warnings.warn(
            f"{name} was written by an older sobofem, without a checksum: damage can't be noticed; load and save it "
            "once to add one",
            stacklevel=6,
        )
        return False
    if checksum != found.digest:
        raise ValueError(f"{name} is damaged: what it holds does not fit its checksum; {_REMEDY}")
    return True


def _checked_kind(name: str, metadata: dict[str, str]) -> str:
    """What a file says that it is.

    Raises:
        ValueError: If it is nothing of ours, or of a newer version.
    """
    version, kind = metadata.get("version", ""), metadata.get("format", "")
    if not kind.startswith("sobofem-"):
        raise ValueError(f"{name} is a safetensors file, but no surrogate of sobofem; name one that it saved")
    if not re.fullmatch(r"[1-9][0-9]{0,5}", version):
        raise ValueError(f"{name} is damaged: its format version is {version[:20]!r}; {_REMEDY}")
    if int(version) > VERSION:
        raise ValueError(
            f"{name} has format version {version}, and this sobofem reads up to {VERSION}; upgrade sobofem"
        )
    return kind


def _noun(kind: str) -> str:
    return kind.removeprefix("sobofem-").replace("-", " ")


def _umask() -> int:
    """The process's file mode mask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


class Saveable(Protocol):
    """Anything that writes itself to a file."""

    def save(self, path: str | PathLike[str]) -> None:
        """Write to a file."""


def reader[Result](kind: str) -> Callable[[Callable[[Stored], Result]], Callable[[Stored], Result]]:
    """Decorator: enters the function that makes a model of what files of one kind hold."""

    def enter(unpack: Callable[[Stored], Result]) -> Callable[[Stored], Result]:
        READERS[kind] = unpack
        return unpack

    return enter


def unpack(stored: Stored) -> Any:
    """The model in what a file holds, of any kind that has entered its reader.

    Raises:
        ValueError: If there is none, or it is damaged.
    """
    if stored.kind not in READERS:
        check_kind(stored, FORMAT)
    with understanding(stored.name):
        return READERS[stored.kind](stored)


def to_bytes_tensor(model: Saveable) -> Tensor:
    """The file of a model as a tensor of bytes: a model that holds another is saved with it, whatever that is.

    Raises:
        ValueError: If the model can't be saved.
    """
    with TemporaryDirectory() as folder:
        path = Path(folder) / "model"
        model.save(path)
        return torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)


def from_bytes_tensor(stored: Stored, name: str) -> Any:
    """The model that `to_bytes_tensor` made a tensor of, in a file: any that `surrogate.load` reads.

    Raises:
        KeyError: If there is no such tensor.
        ValueError: If it is no model.
    """
    content = stored.tensors[name]
    if content.dtype != torch.uint8 or content.ndim != 1:
        raise ValueError(f"its {name} is no file")
    return unpack(read_bytes(content.numpy().tobytes(), stored.name, stored.depth + 1))
