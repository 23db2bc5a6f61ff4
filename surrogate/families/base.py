"""What a family of surrogates is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor, nn

from surrogate.loss import Targets
from surrogate.registry import Network

Watch = Callable[[str, int, int, float], None]
"""Called with what is done, the step, how many there will be at most, and the share of the labels not yet explained."""


@dataclass(frozen=True, eq=False)
class Learned:
    """What came of it.

    Attributes:
        module: Maps scaled inputs (N, n) to scaled responses (N, m), in float64, on the CPU, as all tensors here are.
        network: What builds an empty one of its kind.
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


class Family(Protocol):
    """A way to learn: a frozen dataclass that holds its settings.

    It computes on the device that the samples are on, and what it has learned comes back on the CPU. If it learns from
    products of Hessians with directions, it has a true attribute `learns_actions`.

    It may offer `learn_each(targets, rows, *, seed, watch)`, too: what `learn` with `trial=True` makes of each of
    several choices of samples, of these row numbers, as one computation; and `within(scaling)`: itself, for samples
    that were scaled in this way.
    """

    @property
    def name(self) -> str:
        """What messages call it."""

    def refuses(self, targets: Targets) -> str:
        """Why it can't or shouldn't learn these; empty if it can."""

    def learn(self, targets: Targets, *, seed: int, watch: Watch, trial: bool = False) -> Learned:
        """Learn scaled samples.

        Args:
            targets: Scaled samples.
            seed: Decides all that is drawn.
            watch: Told about progress.
            trial: Whether the result serves comparison only, so that less care will do.

        Raises:
            ArithmeticError: If it fails.
        """
