"""What a family of surrogates is, and the labels of one response that it learns from."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn

from sobofem.surrogate.device import CPU
from sobofem.surrogate.history import ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import Network
from sobofem.surrogate.samples.scaling import Scaling


@dataclass(frozen=True, eq=False)
class Learned:
    """What a family has learned.

    Attributes:
        module: Maps scaled inputs (N, n) to scaled responses (N, m), in float64, on the CPU, as all tensors here are.
        network: What builds an untrained module of its kind.
        steps: Step of each entry of `losses` (T,).
        losses: Weighted squared residuals over weighted squared labels (T,): 1 for a prediction of zero.
        weights: Weights of the terms (m, 1 + n).
        noise: Standard deviations of the noise of scaled values and slopes (m, 1 + n), NaN where there is no estimate;
            None without any.
    """

    module: nn.Module
    network: Network
    steps: Tensor
    losses: Tensor
    weights: Tensor
    noise: Tensor | None = None


class Family(ABC):
    """A way to learn: a frozen dataclass that holds its settings.

    It computes on the device that the samples are on, and what it has learned comes back on the CPU. One of your own
    has a `name` and `learn`; all else has a default. Where trainings on parts of the samples share work with each other
    and with that on all, it is a `Sharing` one.

    Attributes:
        uses_hessian_actions: Whether it learns from products of Hessians with directions.
        rank: Where time is short, families of lower rank are trained first: the quick ones.
    """

    uses_hessian_actions = False
    rank = 1

    @property
    @abstractmethod
    def name(self) -> str:
        """What messages call it."""

    def reason_to_skip(self, targets: Targets) -> str:
        """Why it can't or shouldn't learn these samples; empty, the default, if it can."""
        return ""

    def with_scaling(self, scaling: Scaling) -> Family:
        """Itself for samples that were scaled in this way; by default physical units don't matter to it."""
        return self

    @property
    def uses_scaling(self) -> bool:
        """Whether physical units matter to it."""
        return type(self).with_scaling is not Family.with_scaling

    @abstractmethod
    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Learn scaled samples.

        Args:
            targets: Scaled samples.
            seed: Decides all that is drawn.
            progress: Called now and then with a `Progress`; its `train` is the share of the labels not yet explained.
            quick: Whether the result serves comparison only, so that less care will do.

        Raises:
            ArithmeticError: If it fails.
        """

    def begin(self, targets: Targets, *, seed: int) -> Training:
        """Its training on scaled samples, not started yet; by default `learn` does all of it.

        Args:
            targets: Scaled samples.
            seed: Decides all that is drawn.
        """
        return OneByOne(self, targets, seed)


class Sharing(Family):
    """A family whose trainings on parts of the samples share work: it has `begin` in place of `learn`."""

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """What its training makes of all responses; raises as that does."""
        return self.begin(targets, seed=seed).finish(range(targets.y.shape[1]), progress)

    @abstractmethod
    def begin(self, targets: Targets, *, seed: int) -> Training:
        """Its training on scaled samples, not started yet; see `Family`."""


APART_BELOW = 32
"""Samples below which parts of them share nothing with all: length scales of few samples tell a part so much of the
rest that intervals, which are judged by the rest, come out too narrow."""


class Training(ABC):
    """A family in training on samples: on parts of them first, so that the rest can judge it, and in the end on all.

    What is learned on all samples on the way, such as where to start from, serves the parts.

    Attributes:
        learns_apart: Whether it learns the responses one by one, so that single ones can be left out; their
            predictions are of no use then.
        learns_jointly: Whether it learns from several parts as one computation.
        parts_are_free: Whether parts take next to no time, all samples having been learned from.
    """

    learns_apart = False
    learns_jointly = True
    parts_are_free = False

    @abstractmethod
    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """What it learns from each of several choices of samples, with less care than from all.

        Args:
            rows: Row numbers of each choice.
            responses: Numbers of the responses that are needed.
            progress: Called now and then with a `Progress`; its `train` is the share of the labels not yet explained.

        Raises:
            ArithmeticError: If it fails.
        """

    def glance(
        self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback
    ) -> list[Learned] | None:
        """Like `parts`, roughly and in far less time; None, the default, where it knows no way to do so."""
        return None

    def prospects(self, count: int) -> Tensor | None:
        """How many times the errors of each of so many parts it will have once it has learned from all samples.

        Returns:
            At most one, for each part and response (count, m); None, the default, where nothing is known.
        """
        return None

    @abstractmethod
    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """What it learns from all samples.

        Args:
            responses: Numbers of the responses that are needed.
            progress: As in `parts`.

        Raises:
            ArithmeticError: If it fails.
        """


def progress_of(progress: ProgressCallback, what: str) -> ProgressCallback:
    """Passes on the progress of a family inside another, under another name than that of the family on its own."""
    return lambda found: progress(replace(found, stage=f"{found.stage} of {what}"))


@dataclass(frozen=True, eq=False)
class OneByOne(Training):
    """The training of a family that has but `learn`: one part after the other.

    Attributes:
        family: The family.
        targets: Scaled samples.
        seed: Decides all that is drawn.
    """

    family: Family
    targets: Targets
    seed: int
    learns_jointly = False

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """What `learn` makes of each part, quickly."""
        learn = partial(self.family.learn, seed=self.seed, progress=progress, quick=True)
        return [learn(self.targets.select(chosen)) for chosen in rows]

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """What `learn` makes of all samples."""
        return self.family.learn(self.targets, seed=self.seed, progress=progress)


SMALLEST_SLOPE = 1e-4
"""Size of slopes in comparison to values below which they don't weigh more: nearly none would drown the others."""


@dataclass(frozen=True, eq=False)
class Labels:
    """Scaled labels of one response.

    Attributes:
        x: Inputs (N, n).
        y: Values (N,).
        slopes: Derivatives (N, n), zero where missing; None without any.
        known: Which of them are there (N, n), 0 or 1; None where all are.
        believed: Which values are learned from (N,), 0 or 1, the others being zero; None where all are.
    """

    x: Tensor
    y: Tensor
    slopes: Tensor | None = None
    known: Tensor | None = None
    believed: Tensor | None = None

    @classmethod
    def of(cls, targets: Targets, response: int) -> Self:
        """The labels of response number `response`."""
        n = targets.x.shape[1]
        slopes = None if targets.jacobian is None else targets.jacobian[:, response]
        presence = None if targets.presence is None else targets.presence[:, response, :n]
        known = None if presence is None or bool((presence > 0.0).all()) else (presence > 0.0).to(targets.x.dtype)
        believed = None if targets.believed is None else targets.believed[:, response]
        if believed is not None and bool(believed.all()):
            believed = None
        return cls(targets.x, targets.y[:, response], slopes, known, believed)

    @property
    def rows(self) -> int:
        """Number of labels."""
        values = len(self.y) if self.believed is None else int(self.believed.sum())
        if self.slopes is None:
            return values
        return values + (self.slopes.numel() if self.known is None else int(self.known.sum()))

    def some(self, count: int, seed: int) -> Labels:
        """So many samples drawn at random; all of them, in their order, where there are no more."""
        if count >= len(self.y):
            return self
        rows = torch.randperm(len(self.y), generator=torch.Generator(CPU).manual_seed(seed), device=CPU)[:count]
        parts = (self.x, self.y, self.slopes, self.known, self.believed)
        return type(self)(*(None if part is None else part[rows] for part in parts))  # type: ignore[arg-type]

    def row_weights(self) -> Tensor:
        """Weight of each slope's row (n,): the inverse root of how large slopes are in comparison to values.

        Between raw slopes, whose largest would drown all others, and slopes divided by their own size, whose
        smallest would.
        """
        if self.slopes is None:
            return self.x.new_zeros(self.x.shape[1])
        count = len(self.x) if self.known is None else self.known.sum(0).clamp(min=1.0)
        size = (self.slopes.square().sum(0) / count).sqrt() / self.y.square().mean().sqrt().clamp(min=1e-300)
        return size.clamp(min=SMALLEST_SLOPE) ** -0.5
