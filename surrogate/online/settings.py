"""The settings of an online training."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import cos, pi
from numbers import Integral

from sobofem.surrogate.networks import MLP
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.samples import MIN_SAMPLES
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
