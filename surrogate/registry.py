"""Networks by name, so that a saved surrogate finds the class that builds it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any, Protocol

import torch
from torch import nn


class Network(Protocol):
    """What a network is before it is built: a frozen dataclass of plain values with one method."""

    def build(self, n: int, m: int, generator: torch.Generator) -> nn.Module:
        """A module that maps (N, n) to (N, m) in float64, its parameters drawn from `generator`.

        The module may offer more:

        - `value_and_jacobian(x)`, (N, n) to (N, m) and (N, m, n); `surrogate.jacobian` differentiates modules
          without it.
        - `standard_deviation(x)`, (N, n) to (N, m) and (N, m, n): how far values and Jacobian may be off.
        - `rescale(factor, shift)`, both (m,), the factor positive: makes its outputs factor times what they were,
          plus shift. Online training then follows the scale of the responses as samples come in, and keeps to
          that of the first samples otherwise.
        - `set_scaling(scaling)`, called once before training with the `Scaling` around it: what was given in
          physical units, as limits are, becomes part of its state in scaled ones.
        - `penalty()`, a scalar: what the decay multiplies, in place of the sum of squared weight matrices.
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
    """A network as plain values: its registered name and its fields, networks among them likewise.

    Raises:
        ValueError: If its class isn't registered, or that of a network in it.
    """
    name = type(spec).__name__
    if _REGISTERED.get(name) is not type(spec):
        raise ValueError(f"network {name!r} is not registered: decorate it with surrogate.register to save it")
    return {"name": name, "fields": {f.name: _plain(getattr(spec, f.name)) for f in fields(spec)}}  # type: ignore[arg-type]


def from_record(record: dict[str, Any]) -> Network:
    """The network that `to_record` described; sequences in its fields come back as tuples.

    Raises:
        ValueError: If no class of that name is registered here, or its fields have changed.
    """
    name = record["name"]
    if name not in _REGISTERED:
        known = ", ".join(sorted(_REGISTERED))
        raise ValueError(f"network {name!r} is unknown (known: {known}); import the module that registers it")
    try:
        network: Network = _REGISTERED[name](**{key: _field(value) for key, value in record["fields"].items()})
    except TypeError as error:
        raise ValueError(f"network {name!r} no longer takes the stored fields: {error}") from error
    return network


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {"network": to_record(value)}  # type: ignore[arg-type]
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _field(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"network"}:
        return from_record(value["network"])
    return tuple(_field(item) for item in value) if isinstance(value, list | tuple) else value
