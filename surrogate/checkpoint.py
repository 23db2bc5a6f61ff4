"""Files that an online training continues from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from surrogate import files
from surrogate.online_settings import OnlineSettings
from surrogate.plain import pack, unpack, weighting_from, weighting_record
from surrogate.registry import from_record, to_record
from surrogate.scaling import Scaling
from surrogate.weighting import Weighting

KIND = "sobofem-checkpoint"


def save(path: str | PathLike[str], settings: OnlineSettings, about: dict[str, Any], state: dict[str, Any]) -> None:
    """Write settings, the description of the problem and all state to a file, whole or not at all.

    Raises:
        ValueError: If the network isn't registered or the state holds what no file can.
        OSError: If the file can't be written.
    """
    plain = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in ("network", "weighting")}
    record: dict[str, Any] = {
        "network": to_record(settings.network),
        "weighting": weighting_record(settings.weighting),
        "settings": plain,
        "about": about,
    }
    tensors: dict[str, Tensor] = {}
    record["state"] = pack(state, "state", tensors)
    files.write(path, tensors, record, kind=KIND)


def load(
    path: str | PathLike[str], weighting: Weighting | None, device: str | None
) -> tuple[OnlineSettings, dict[str, Any], dict[str, Any]]:
    """What `save` wrote: settings, description and state; to be called under `reading`."""
    tensors, record = files.read(path, kind=KIND)
    settings = OnlineSettings(
        network=from_record(record["network"]),
        weighting=weighting_from(record["weighting"], weighting),
        **(record["settings"] | ({} if device is None else {"device": device})),
    )
    return settings, record["about"], unpack(record["state"], tensors)


@contextmanager
def reading(path: str | PathLike[str]) -> Iterator[None]:
    """Turn what goes wrong in reading a checkpoint into one ValueError that names the file."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise ValueError(f"{path} can't be continued from: {error}") from error


def tensors_of(scaling: Scaling) -> dict[str, Tensor]:
    """The arrays of a scaling, by name."""
    return {f.name: torch.tensor(getattr(scaling, f.name)) for f in fields(scaling)}
