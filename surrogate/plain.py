"""Nested plain values as a JSON record beside named tensors, and back: what a checkpoint is made of."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor

import surrogate.weighting
from surrogate.weighting import Weighting


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
    """A weighting as plain values: the name of its class, its fields, and how it prints."""
    ours = _is_ours(weighting)
    settings = {f.name: _field(getattr(weighting, f.name)) for f in fields(weighting)} if ours else None  # type: ignore[arg-type]
    return {"name": type(weighting).__name__, "fields": settings, "prints": repr(weighting)}


def _is_ours(value: Any) -> bool:
    return is_dataclass(value) and getattr(surrogate.weighting, type(value).__name__, None) is type(value)


def _field(value: Any) -> Any:
    """A setting as it is, a weighting in it as its record."""
    return {"weighting": weighting_record(value)} if _is_ours(value) else value


def weighting_from(record: dict[str, Any], given: Weighting | None) -> Weighting:
    """The weighting that `weighting_record` described; `given` where it is none of ours.

    Raises:
        ValueError: If it can't be built here, or another one was given.
    """
    if given is not None:
        if repr(given) != record["prints"]:
            raise ValueError(f"it was trained with the weighting {record['prints']}, but {given!r} was given")
        return given
    if record["fields"] is None:
        raise ValueError(f"the weighting {record['prints']} is none of surrogate.weighting; pass it as `weighting`")
    try:
        settings = {
            name: weighting_from(value["weighting"], None) if isinstance(value, dict) else value
            for name, value in record["fields"].items()
        }
        kind = vars(surrogate.weighting)[record["name"]]
        if not (isinstance(kind, type) and is_dataclass(kind)):
            raise TypeError(f"{record['name']!r} is no weighting")
        built: Any = kind(**settings)
    except (KeyError, TypeError) as error:
        raise ValueError(f"the weighting {record['prints']} is unknown here: {error}") from error
    weighting: Weighting = built
    return weighting
