"""Files that an online training continues from, and weightings as plain records in them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from sobofem.surrogate import files
from sobofem.surrogate.files.registry import from_record, to_record
from sobofem.surrogate.online.settings import OnlineSettings
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.weighting import Weighting


def pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """A JSON value that stands for `value`; tensors in it are copied to `tensors` under names that begin with `name`.

    Raises:
        ValueError: If it holds anything but None, numbers, strings, tensors, and lists, tuples and dicts of those.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        tensors[name] = value.detach().cpu().clone()
        return {"tensor": name}
    if type(value) in (list, tuple):
        items = [pack(item, f"{name}.{k}", tensors) for k, item in enumerate(value)]
        return {type(value).__name__: items}
    if type(value) is dict and all(isinstance(key, str | int) for key in value):
        return {"dict": [[key, pack(item, f"{name}.{key}", tensors)] for key, item in value.items()]}
    raise ValueError(
        f"{name} holds a {type(value).__name__}, which no checkpoint can store; "
        "expected None, numbers, strings, tensors, and lists, tuples and dicts of those"
    )


def unpack(packed: Any, tensors: dict[str, Tensor]) -> Any:
    """What `pack` packed.

    Raises:
        KeyError: If a tensor is missing.
        ValueError: If it is not something that `pack` gave.
    """
    if not isinstance(packed, dict):
        return packed
    if len(packed) != 1:
        raise ValueError(f"the record holds {str(packed)[:60]!r}, which is nothing that a checkpoint stores")
    ((kind, content),) = packed.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "dict":
        return {key: unpack(item, tensors) for key, item in content}
    if kind in ("list", "tuple"):
        items = [unpack(item, tensors) for item in content]
        return items if kind == "list" else tuple(items)
    raise ValueError(f"the record holds a {kind!r}, which is nothing that a checkpoint stores")


def weighting_record(weighting: Weighting) -> dict[str, Any]:
    """A weighting as plain values, and how it prints; without its fields if a class in it is not registered."""
    try:
        record = to_record(weighting)
    except ValueError:
        record = {"name": type(weighting).__name__, "fields": None}
    return {**record, "prints": repr(weighting)}


def weighting_from(record: dict[str, Any], given: Weighting | None) -> Weighting:
    """The weighting that `weighting_record` described; `given` where its class is not registered.

    Raises:
        ValueError: If it can't be built here, or another one was given.
    """
    if given is not None:
        if repr(given) != record["prints"]:
            raise ValueError(f"it was trained with the weighting {record['prints']}, but {given!r} was given")
        return given
    if record["fields"] is None:
        raise ValueError(
            f"the weighting {record['prints']} is not registered; pass it as `weighting`, or decorate its class with "
            "surrogate.register"
        )
    weighting: Weighting = from_record(record, "weighting")
    return weighting


KIND = "sobofem-checkpoint"


def save(path: str | PathLike[str], settings: OnlineSettings, about: dict[str, Any], state: dict[str, Any]) -> None:
    """Write settings, the description of the problem and all state to a file, whole or not at all.

    Raises:
        ValueError: If the network isn't registered or the state holds what no file can.
        OSError: If the file can't be written.
    """
    plain = {name: value for name, value in vars(settings).items() if name not in ("network", "weighting")}
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
    return {name: torch.tensor(array) for name, array in vars(scaling).items()}
