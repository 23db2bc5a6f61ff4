"""The settings of an online training, and the files that it continues from, with weightings as plain records."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from math import cos, pi
from numbers import Integral
from os import PathLike
from typing import Any

import torch
from torch import Tensor

from sobofem.surrogate import files
from sobofem.surrogate.files.registry import from_record, to_record
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.samples import MIN_SAMPLES
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.weighting import PerChannel, Weighting


@dataclass(frozen=True)
class OnlineSettings:
    """How `OnlineTraining` trains.

    Attributes:
        network: What to train; registered, if checkpoints are wanted.
        weighting: How the terms of the loss weigh; one that uses no Jacobians makes them optional.
        decay: Regularization, as in `fit`.
        learning_rate: Of Adam, after `warmup` updates of linear growth.
        warmup: Updates in which the learning rate grows.
        final: Share of the learning rate that is left once all `expected` samples are here.
        start: Updates by Adam before the first round of L-BFGS.
        round: Iterations of L-BFGS in a step, once Adam has made its `start` and as long as `batch` takes in all
            samples held; 0 for Adam throughout.
        keep: Share of the weights that is kept, the rest coming from a fresh start, whenever half as many samples more
            have come while L-BFGS trains: what has learned few samples by heart learns many less well than a network
            that is new to them (Ash & Adams 2020, *On warm-starting neural network training*). 1 keeps all.
        batch: Samples per step; all that are held where there are no more.
        capacity: Most samples held at once.
        watermark: Samples needed before the first step.
        expected: Samples that will come in all, where known: the learning rate falls along half a cosine with the
            share received. None keeps it constant.
        members: Networks trained side by side, from different starts; 2 or more can disagree.
        seed: Decides the start of the networks and the batches.
        device: Where to train, as torch names it.
    """

    network: Network = field(default_factory=MLP)
    weighting: Weighting = field(default_factory=PerChannel)
    decay: float = 1e-4
    learning_rate: float = 5e-3
    warmup: int = 20
    final: float = 0.05
    start: int = 100
    round: int = 10
    keep: float = 0.5
    batch: int = 1024
    capacity: int = 4096
    watermark: int = 16
    expected: int | None = None
    members: int = 1
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        least = {"warmup": 0, "start": 0, "round": 0, "batch": 1, "capacity": MIN_SAMPLES, "watermark": MIN_SAMPLES}
        for name, low in (least | {"expected": 1, "members": 1, "seed": None}).items():
            count = vars(self)[name]
            if name == "expected" and count is None:
                continue
            if not isinstance(count, Integral) or (low is not None and count < low):
                expected = "a whole number" + ("" if low is None else f" of at least {low}")
                raise ValueError(f"{name} is {count!r}; expected {expected}")
        if self.weighting.weighs_samples:
            raise ValueError(
                f"{self.weighting} gives single samples weights of their own, and here samples come and go; "
                "take one that weighs terms, such as SelfAdaptive()"
            )
        if self.watermark > self.capacity:
            raise ValueError(f"watermark is {self.watermark}; expected at most the capacity {self.capacity}")
        if not 0.0 <= self.decay < float("inf"):
            raise ValueError(f"decay is {self.decay:g}; expected zero or more")
        if not 0.0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate is {self.learning_rate:g}; expected a positive number")
        for name, whole in (("final", "the learning rate"), ("keep", "the weights")):
            share = vars(self)[name]
            if not 0.0 <= share <= 1.0:
                raise ValueError(f"{name} is {share:g}; expected a share of {whole} from 0 to 1")

    def rate(self, update: int, received: int) -> float:
        """Learning rate of an update by Adam, counted from 0, with so many samples received."""
        share = 0.0 if self.expected is None else min(received / self.expected, 1.0)
        fall = self.final + (1.0 - self.final) * 0.5 * (1.0 + cos(pi * share))
        rise = min(1.0, (update + 1) / self.warmup) if self.warmup else 1.0
        return self.learning_rate * rise * fall


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
