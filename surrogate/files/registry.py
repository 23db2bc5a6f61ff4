"""Classes by name: what files store of a network or a weighting, and how its class is found again."""

from __future__ import annotations

from abc import ABC
from dataclasses import fields, is_dataclass
from math import prod
from typing import Any, ClassVar

from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

SMALL = 4096
"""Sizes in a record up to which nothing is checked."""
SLACK, PLENTY = 10, 1_000_000
"""How many times the stored numbers, and how many besides, may be drawn or computed for a module while it is built."""


class Storable(ABC):
    """A part of a training that files store by the name of its class and its fields.

    Attributes:
        kind: What it is: names are unique among the classes of a kind.
    """

    kind: ClassVar[str]

    def check_storable(self) -> None:
        """Check that files can hold it, as they can by default.

        Raises:
            ValueError: If they can't; the message says why.
        """
        return


_CLASSES: dict[str, dict[str, type]] = {"network": {}, "weighting": {}, "module": {}, "operator": {}}


def register[Spec](spec: type[Spec]) -> type[Spec]:
    """Class decorator: what files hold of this network or weighting can be read, under the name of the class.

    A class that derives from neither `Network` nor `Weighting` is taken for a network. A `torch.nn.Module` is
    registered as such: its arguments are to be kept under their names, as plain values.

    Raises:
        TypeError: If the class is neither a dataclass nor a module.
        ValueError: If another class holds the name.
    """
    if not (is_dataclass(spec) or issubclass(spec, nn.Module)):
        raise TypeError(f"{spec.__name__} is no dataclass: its fields are what a file stores of it")
    kind = _kind(spec)
    other = _CLASSES[kind].setdefault(spec.__name__, spec)
    # The same class comes again when its module is reloaded, as in a notebook: the newest counts.
    if (other.__module__, other.__qualname__) != (spec.__module__, spec.__qualname__):
        raise ValueError(f"the {kind} name {spec.__name__!r} belongs to {other.__module__}; choose another")
    _CLASSES[kind][spec.__name__] = spec
    return spec


def module_class(name: str) -> type[nn.Module] | None:
    """The class of a module that is registered under this name, or that torch has; None if there is none."""
    found = _CLASSES["module"].get(name) or getattr(nn, name, None)
    return found if isinstance(found, type) and issubclass(found, nn.Module) else None


def to_record(spec: object) -> dict[str, Any]:
    """A network or a weighting as plain values: its registered name and its fields, others among them likewise.

    Raises:
        ValueError: If its class isn't registered, or that of another in it.
    """
    name, kind = type(spec).__name__, _kind(type(spec))
    if _CLASSES[kind].get(name) is not type(spec):
        raise ValueError(f"{kind} {name!r} is not registered: decorate it with surrogate.register to save it")
    if isinstance(spec, Storable):
        spec.check_storable()
    record: dict[str, Any] = {"name": name, "fields": {key: _plain(value) for key, value in settings_of(spec).items()}}
    if not _is_ours(type(spec)):
        record["module"] = type(spec).__module__
    return record


def settings_of(spec: Any) -> dict[str, Any]:
    """What a dataclass was made with, by the names of its fields."""
    return {f.name: getattr(spec, f.name) for f in fields(spec) if f.init}


def from_record(record: Any, kind: str = "network", *, most: int | None = None) -> Any:
    """The network or weighting that `to_record` described; sequences in its fields come back as tuples.

    Args:
        record: What `to_record` gave.
        kind: `network` or `weighting`.
        most: Numbers that a file holds for it: none of its sizes can be larger.

    Raises:
        ValueError: If no class of that name is registered here, its fields have changed, or it is too large.
    """
    if not isinstance(record, dict) or not isinstance(record.get("fields"), dict) or "name" not in record:
        raise ValueError(f"its {kind} is {str(record)[:60]!r}, no name with fields")
    name = record["name"]
    if not isinstance(name, str) or name not in _CLASSES[kind]:
        where = f"{record['module']}, which" if "module" in record else "the module that"
        known = ", ".join(sorted(_CLASSES[kind]))
        raise ValueError(f"{kind} {name!r} is unknown; import {where} registers it, first (known: {known})")
    spec, settings = _CLASSES[kind][name], {key: _field(value, most) for key, value in record["fields"].items()}
    if most is not None and _is_ours(spec):
        _check_sizes(f"{kind} {name!r}", settings, max(most, SMALL))
    try:
        return spec(**settings)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r} no longer takes the stored fields: {error}") from error


def _kind(spec: type) -> str:
    if issubclass(spec, nn.Module):
        return "module"
    return spec.kind if issubclass(spec, Storable) else "network"


def _is_ours(spec: type) -> bool:
    return spec.__module__.startswith("sobofem.")


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {_kind(type(value)): to_record(value)}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _field(value: Any, most: int | None) -> Any:
    if isinstance(value, dict) and len(value) == 1:
        ((kind, record),) = value.items()
        if kind in _CLASSES:
            return from_record(record, kind, most=most)
    return tuple(_field(item, most) for item in value) if isinstance(value, list | tuple) else value


def _check_sizes(what: str, settings: dict[str, Any], most: int) -> None:
    for key, value in settings.items():
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{key} of the {what} is {str(value)[:20]}, but the file holds {most} numbers")


class within_budget(TorchDispatchMode):  # a context, as those of torch are
    """A context in which tensors may be made of no more numbers than a module needs for which so many are stored.

    Args:
        numbers: How many are stored.
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self._left = SLACK * numbers + PLENTY

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Count what is made before it is made."""
        if args and isinstance(args[0], list | tuple) and all(isinstance(size, int) for size in args[0]):
            self._left -= prod(args[0])
            if self._left < 0:
                raise ValueError("its network is larger than all that the file holds")
        return func(*args, **(kwargs or {}))
