"""Perceptrons trained by descent, one trunk for all responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.device import CPU
from sobofem.surrogate.ensembles import Ensemble, EnsembleModule, joint_losses
from sobofem.surrogate.families.base import Learned, Sharing, Training
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.training.optimizers import LBFGS
from sobofem.surrogate.training.together import BatchHistory, run_stages
from sobofem.surrogate.weighting import PerChannel, ValuesOnly

SHARED_ERROR = 0.5
"""Share of a network's squared error that does not depend on its start, about."""


@dataclass(frozen=True)
class Descent(Sharing):
    """Perceptrons whose every layer is trained, by L-BFGS on values and slopes, each label on its own scale; averaged.

    Responses share the hidden layers: what one teaches about the inputs serves the others, of which the families that
    take responses one by one know nothing. The networks of all folds are trained as one computation. Where there are
    products of Hessians with directions they are learned from, too, one network after the other.

    Attributes:
        network: What each of them is.
        members: Starts that are averaged; parts of the samples have one.
        decay: Regularization, as in `train`.
        iterations: Most steps of L-BFGS; a first glance at parts of the samples takes a tenth of them.
        history: Pairs of steps and gradient changes that each start remembers; parts 20.
        most: Most labels, those of all responses together, that it takes.
    """

    network: MLP = field(default_factory=MLP)
    members: int = 4
    decay: float = 1e-4
    iterations: int = 1500
    history: int = 50
    most: int = 50_000
    uses_hessian_actions = True
    rank = 2

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        if min(self.members, self.iterations, self.history) < 1 or not self.decay >= 0.0:
            raise ValueError(f"{self} needs at least one member, iteration and pair, and no negative decay")

    @property
    def name(self) -> str:
        """What messages call it."""
        return "perceptron"

    def reason_to_skip(self, targets: Targets) -> str:
        """Too many labels."""
        kinds = (targets.y, targets.jacobian, targets.actions)
        labels = sum(part.numel() for part in kinds if part is not None)
        return f"{labels} labels, more than {self.most}" if labels > self.most else ""

    def begin(self, targets: Targets, *, seed: int) -> Training:
        """One network for each part, all of them as one computation."""
        return _Training(self, targets, seed)


class _Training(Training):
    def __init__(self, family: Descent, targets: Targets, seed: int) -> None:
        self._family, self._targets, self._seed = family, targets, seed

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """One network for each part.

        Raises:
            ArithmeticError: If a loss is not finite from the start.
        """
        return self._train(rows, 1, self._family.iterations, progress)

    def glance(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """One network for each part, in a tenth of the steps.

        Raises:
            ArithmeticError: If a loss is not finite from the start.
        """
        return self._train(rows, 1, max(1, self._family.iterations // 10), progress)

    def prospects(self, count: int) -> Tensor:
        """Parts have one network, all samples the mean of several, whose errors are in part independent."""
        factor = (SHARED_ERROR + (1.0 - SHARED_ERROR) / self._family.members) ** 0.5
        return torch.full((count, self._targets.y.shape[1]), factor, dtype=torch.float64, device=CPU)

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """All members.

        Raises:
            ArithmeticError: If a loss is not finite from the start.
        """
        rows = torch.arange(len(self._targets), device=self._targets.x.device)
        return self._train([rows], self._family.members, self._family.iterations, progress)[0]

    def _train(
        self, rows: Sequence[Tensor], members: int, iterations: int, progress: ProgressCallback
    ) -> list[Learned]:
        """Train so many members for each choice of samples, in so many steps."""
        family, targets = self._family, self._targets
        n, m = targets.x.shape[1], targets.y.shape[1]
        device, generator = targets.x.device, torch.Generator(CPU).manual_seed(self._seed % 2**63)
        with CPU:
            networks = [family.network.build(n, m, generator).to(device) for _ in range(members * len(rows))]
        owned = [chosen.to(device) for chosen in rows for _ in range(members)]
        weighting = ValuesOnly() if targets.jacobian is None else PerChannel()
        losses = joint_losses(networks, owned, targets, weighting, family.decay, generator)
        report = _every_50_steps(progress, family.name)
        record = BatchHistory(members, lambda: losses.objectives[0].weights.values, report)
        # of many networks at once, a long memory of each costs more than it saves in steps
        history = min(family.history, 20) if len(rows) > 1 else family.history
        stage = LBFGS(iterations=iterations, history=history)
        if run_stages((stage,), losses, record):
            raise KeyboardInterrupt
        found = record.history(interrupted=False)
        steps, means = torch.from_numpy(np.maximum(found.step, 1.0)), torch.from_numpy(found.train)
        learned = []
        for k in range(len(rows)):
            own = [network.cpu() for network in networks[k * members : (k + 1) * members]]
            with CPU:
                module = EnsembleModule(own, m) if members > 1 else own[0]
            network = Ensemble(family.network, members) if members > 1 else family.network
            weights = losses.objectives[k * members].weights.values.cpu()
            learned.append(Learned(module.eval(), network, steps, means, weights))
        return learned


def _every_50_steps(progress: ProgressCallback, name: str) -> ProgressCallback:
    def report(found: Progress) -> None:
        if found.step % 50 == 0:
            progress(replace(found, stage=name))

    return report
