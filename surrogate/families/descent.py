"""Perceptrons trained by descent, one trunk for all responses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from sobofem.surrogate.device import CPU
from sobofem.surrogate.ensembles.module import Ensemble, EnsembleModule
from sobofem.surrogate.ensembles.train import joint_losses
from sobofem.surrogate.families.base import Family, Learned
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks import MLP
from sobofem.surrogate.training.optimizers import LBFGS
from sobofem.surrogate.training.together.stages import BatchHistory, run_stages
from sobofem.surrogate.weighting import PerChannel, ValuesOnly


@dataclass(frozen=True)
class Descent(Family):
    """Perceptrons whose every layer is trained, by L-BFGS on values and slopes, each label on its own scale; averaged.

    Responses share the hidden layers: what one teaches about the inputs serves the others, of which the families that
    take responses one by one know nothing. The networks of all folds are trained as one computation. Where there are
    products of Hessians with directions they are learned from, too, one network after the other.

    Attributes:
        network: What each of them is.
        members: Starts that are averaged; quick learning has one.
        decay: Regularization, as in `train`.
        iterations: Most steps of L-BFGS.
        history: Pairs of steps and gradient changes that each start remembers; quick learning 20.
        most: Most labels, those of all responses together, that it takes.
    """

    network: MLP = field(default_factory=MLP)
    members: int = 4
    decay: float = 1e-4
    iterations: int = 1500
    history: int = 50
    most: int = 50_000
    uses_hessian_actions = True

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

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Train all members together.

        Raises:
            ArithmeticError: If a loss is not finite from the start.
        """
        rows = torch.arange(len(targets), device=targets.x.device)
        if quick:
            return self.learn_each(targets, [rows], seed=seed, progress=progress)[0]
        return self._train(targets, [rows], self.members, self.history, seed, progress)[0]

    def learn_each(
        self, targets: Targets, rows: Sequence[Tensor], *, seed: int, progress: ProgressCallback
    ) -> list[Learned]:
        """What `learn` makes of each of several choices of samples, quickly; trained as one computation.

        Args:
            targets: Scaled samples.
            rows: Row numbers of each choice.
            seed: Decides all that is drawn.
            progress: As in `learn`.

        Raises:
            ArithmeticError: If a loss is not finite from the start.
        """
        return self._train(targets, rows, 1, min(self.history, 20), seed, progress)

    def _train(
        self,
        targets: Targets,
        rows: Sequence[Tensor],
        members: int,
        history: int,
        seed: int,
        progress: ProgressCallback,
    ) -> list[Learned]:
        n, m = targets.x.shape[1], targets.y.shape[1]
        device, generator = targets.x.device, torch.Generator(CPU).manual_seed(seed % 2**63)
        with CPU:
            networks = [self.network.build(n, m, generator).to(device) for _ in range(members * len(rows))]
        owned = [chosen.to(device) for chosen in rows for _ in range(members)]
        weighting = ValuesOnly() if targets.jacobian is None else PerChannel()
        losses = joint_losses(networks, owned, targets, weighting, self.decay, generator)
        record = BatchHistory(
            members, lambda: losses.objectives[0].weights.values, _every_50_steps(progress, self.name)
        )
        if run_stages((LBFGS(iterations=self.iterations, history=history),), losses, record):
            raise KeyboardInterrupt
        found = record.history(interrupted=False)
        steps, means = torch.from_numpy(np.maximum(found.step, 1.0)), torch.from_numpy(found.train)
        learned = []
        for k in range(len(rows)):
            own = [network.cpu() for network in networks[k * members : (k + 1) * members]]
            with CPU:
                module = EnsembleModule(own, m) if members > 1 else own[0]
            network = Ensemble(self.network, members) if members > 1 else self.network
            weights = losses.objectives[k * members].weights.values.cpu()
            learned.append(Learned(module.eval(), network, steps, means, weights))
        return learned


def _every_50_steps(progress: ProgressCallback, name: str) -> ProgressCallback:
    def report(found: Progress) -> None:
        if found.step % 50 == 0:
            progress(replace(found, stage=name))

    return report
