"""Files of surrogates and checkpoints: tensors and a JSON record in one safetensors file, without pickle."""

from __future__ import annotations

import json
import os
from os import PathLike
from pathlib import Path
import platform
import tempfile
from typing import Any

import numpy as np
import safetensors
from safetensors.torch import save as to_bytes
import torch
from torch import Tensor

FORMAT = "sobofem-surrogate"
VERSION = 1


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
    content = to_bytes({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata=metadata)
    replace(target, content)


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


def read(path: str | PathLike[str], kind: str = FORMAT) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record of a file of this kind.

    Raises:
        FileNotFoundError: If there is none.
        ValueError: If it is damaged, of another kind, or of a newer version; the message says what to do.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no {'model' if kind == FORMAT else _noun(kind)} file {path}")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            _check_kind(path, metadata, kind)
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(
            f"{path} is no whole safetensors file ({error}): it was cut short or is of another kind; "
            f"copy it again, or {'train again with `sobofem train`' if kind == FORMAT else 'start anew without it'}"
        ) from error
    return tensors, json.loads(metadata["record"])


def _noun(kind: str) -> str:
    return kind.removeprefix("sobofem-")


def _check_kind(path: str | PathLike[str], metadata: dict[str, str], kind: str) -> None:
    version, found = metadata.get("version", ""), metadata.get("format", "")
    if found != kind and found.startswith("sobofem-"):
        reader = "OnlineTraining.load_checkpoint" if found == "sobofem-checkpoint" else "surrogate.load"
        raise ValueError(f"{path} is a {_noun(found)} of sobofem, expected a {_noun(kind)}; {reader} reads it")
    if found != kind or not version.isdigit() or "record" not in metadata:
        raise ValueError(f"{path} is a safetensors file, but no {_noun(kind)} of sobofem; name one that it saved")
    if int(version) > VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this sobofem reads up to {VERSION}; upgrade sobofem"
        )


def _umask() -> int:
    """The process's file mode mask, which can be read only by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
