"""Files that an online training continues from."""

from __future__ import annotations

from contextlib import AbstractContextManager
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
) -> tuple[files.Stored, OnlineSettings, dict[str, Any], dict[str, Any]]:
    """What `save` wrote: the file, settings, description and state."""
    stored = files.read(path, "checkpoint")
    files.check_kind(stored, KIND)
    with reading(path):
        record = stored.record
        settings = OnlineSettings(
            network=from_record(record["network"], most=stored.numbers),
            weighting=weighting_from(files.entry(record, "weighting", dict), weighting),
            **(files.entry(record, "settings", dict) | ({} if device is None else {"device": device})),
        )
        state = unpack(record["state"], stored.tensors)
        if not isinstance(state, dict):
            raise ValueError("its state is no table")
        return stored, settings, files.entry(record, "about", dict), state


def reading(path: str | PathLike[str]) -> AbstractContextManager[None]:
    """Turn what goes wrong in reading a checkpoint into one ValueError that names the file."""
    return files.understanding(path, "continued from")


def tensors_of(scaling: Scaling) -> dict[str, Tensor]:
    """The arrays of a scaling, by name."""
    return {f.name: torch.tensor(getattr(scaling, f.name)) for f in fields(scaling)}
