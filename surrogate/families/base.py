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
        module: Maps scaled inputs (N, n) to scaled responses (N, m), in float64, on the CPU.
        network: What builds an empty one of its kind.
        steps: Step of each entry of `losses` (T,).
        losses: Weighted squared residuals over weighted squared labels (T,): 1 for a prediction of zero.
        weights: Weights of the terms (m, 1 + n).
    """

    module: nn.Module
    network: Network
    steps: Tensor
    losses: Tensor
    weights: Tensor


class Family(Protocol):
    """A way to learn: a frozen dataclass that holds its settings.

    It may offer `learn_each(targets, rows, *, seed, watch)`, too: what `learn` with `trial=True` makes of each of
    several choices of samples, of these row numbers, as one computation.
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
