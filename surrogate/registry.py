"""Networks by name, so that a saved surrogate finds the class that builds it."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from math import prod
from typing import Any, Protocol

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode


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


SMALL = 4096
"""Sizes of a network up to which nothing is asked."""
SLACK, PLENTY = 10, 1_000_000
"""How many times the stored numbers, and how many besides, may be drawn or computed for a module while it is built."""
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


def from_record(record: Any, *, most: int | None = None) -> Network:
    """The network that `to_record` described; sequences in its fields come back as tuples.

    Args:
        record: What `to_record` gave.
        most: Numbers that there are for it: none of its sizes can be larger.

    Raises:
        ValueError: If no class of that name is registered here, its fields have changed, or it is too large.
    """
    if not isinstance(record, dict) or set(record) != {"name", "fields"} or not isinstance(record["fields"], dict):
        raise ValueError(f"its network is {str(record)[:60]!r}, no name with fields")
    name = record["name"]
    if not isinstance(name, str) or name not in _REGISTERED:
        known = ", ".join(sorted(_REGISTERED))
        raise ValueError(f"network {name!r} is unknown (known: {known}); import the module that registers it")
    spec, settings = _REGISTERED[name], {key: _field(value, most) for key, value in record["fields"].items()}
    if most is not None and spec.__module__.startswith("surrogate."):
        _check_sizes(name, settings, max(most, SMALL))
    try:
        network: Network = spec(**settings)
    except TypeError as error:
        raise ValueError(f"network {name!r} no longer takes the stored fields: {error}") from error
    return network


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return {"network": to_record(value)}  # type: ignore[arg-type]
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _field(value: Any, most: int | None) -> Any:
    if isinstance(value, dict) and set(value) == {"network"}:
        return from_record(value["network"], most=most)
    return tuple(_field(item, most) for item in value) if isinstance(value, list | tuple) else value


def _check_sizes(name: str, settings: dict[str, Any], most: int) -> None:
    for key, value in settings.items():
        if isinstance(value, int) and abs(value) > most:
            raise ValueError(f"{key} of the network {name!r} is {str(value)[:20]}, but the file holds {most} numbers")


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
