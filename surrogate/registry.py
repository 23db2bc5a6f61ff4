"""Networks by name, so that a saved surrogate finds the class that builds it."""

from __future__ import annotations

from dataclasses import asdict, is_dataclass
from typing import Any, Protocol

import torch
from torch import nn


class Network(Protocol):
    """What a network is before it is built: a frozen dataclass of plain values with one method."""

    def build(self, n: int, m: int, generator: torch.Generator) -> nn.Module:
        """A module that maps (N, n) to (N, m) in float64, its parameters drawn from `generator`.

        The module may offer `value_and_jacobian(x)`, (N, n) to (N, m) and (N, m, n); `surrogate.jacobian`
        differentiates those that don't. And it may offer `rescale(factor, shift)`, both (m,), which makes its
        outputs factor times what they were, plus shift: online training then follows the scale of the responses
        as samples come in, and keeps to that of the first samples otherwise.
        """


_REGISTERED: dict[str, type] = {}


def register[Spec](spec: type[Spec]) -> type[Spec]:
    """Class decorator: makes surrogates of this network loadable, under the name of the class.

    Raises:
        TypeError: If the class is no dataclass.
        ValueError: If another class holds the name.
    """
    if not is_dataclass(spec):
        raise TypeError(f"{spec.__name__} is no dataclass: its fields are what a file stores of it")
    other = _REGISTERED.setdefault(spec.__name__, spec)
    if (other.__module__, other.__qualname__) != (spec.__module__, spec.__qualname__):
        raise ValueError(f"the network name {spec.__name__!r} belongs to {other.__module__}; choose another")
    _REGISTERED[spec.__name__] = spec
    return spec


def to_record(spec: Network) -> dict[str, Any]:
    """A network as plain values: its registered name and its fields.

    Raises:
        ValueError: If its class isn't registered.
    """
    name = type(spec).__name__
    if _REGISTERED.get(name) is not type(spec):
        raise ValueError(f"network {name!r} is not registered: decorate it with surrogate.register to save it")
    return {"name": name, "fields": asdict(spec)}  # type: ignore[call-overload]


def from_record(record: dict[str, Any]) -> Network:
    """The network that `to_record` described.

    Raises:
        ValueError: If no class of that name is registered here, or its fields have changed.
    """
    name = record["name"]
    if name not in _REGISTERED:
        known = ", ".join(sorted(_REGISTERED))
        raise ValueError(f"network {name!r} is unknown (known: {known}); import the module that registers it")
    try:
        network: Network = _REGISTERED[name](**record["fields"])
    except TypeError as error:
        raise ValueError(f"network {name!r} no longer takes the stored fields: {error}") from error
    return network
