"""Networks of an online training side by side, and which samples to compute next: doubtful ones that lie apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch
from torch import Tensor, nn

from sobofem.surrogate.device import neutral
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import as_network_module, value_and_jacobian
from sobofem.surrogate.online import checkpoint
from sobofem.surrogate.online.checkpoint import OnlineSettings
from sobofem.surrogate.online.member import Member
from sobofem.surrogate.online.reservoir import Batch, Reservoir
from sobofem.surrogate.samples import as_points
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import LBFGS
from sobofem.surrogate.training.train import scaled_targets
from sobofem.surrogate.weighting import PerChannel, ValuesOnly


class Yardstick(NamedTuple):
    """What squared errors of values and slopes are measured by, both (m, 1 + n): weights, and targets' mean squares."""

    weights: Tensor
    mean_squares: Tensor

    @classmethod
    def of(cls, targets: Targets) -> Yardstick:
        """Every term on its own scale; slopes don't count where there are none."""
        weighting = ValuesOnly() if targets.jacobian is None else PerChannel()
        return cls(weighting.start(targets).values, targets.mean_squares())

    def relative(self, values: Tensor, slopes: Tensor) -> Array:
        """Root of weighted squares of values (N, m) and slopes (N, m, n), over those of the targets: (N,)."""
        squares = torch.cat((values.unsqueeze(2), slopes), dim=2)
        size = (self.weights * self.mean_squares).sum()
        relative: Array = ((self.weights * squares).sum(dim=(1, 2)) / size).sqrt().cpu().numpy()
        return relative


class Team:
    """The members of an online training, scaled by the samples held.

    Args:
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        bounds: The box that the inputs live in, (n, 2).
        settings: How to train.

    Attributes:
        members: The networks with their losses and optimizers.
    """

    def __init__(
        self, parameters: tuple[str, ...], responses: tuple[str, ...], bounds: Array, settings: OnlineSettings
    ) -> None:
        self.parameters, self.responses, self.bounds, self.settings = parameters, responses, bounds, settings
        self._generator = torch.Generator().manual_seed(int(settings.seed))
        self._scaling: Scaling | None = None
        self._yardstick: Yardstick | None = None
        self.members = [self._member() for _ in range(settings.members)]

    @property
    def begun(self) -> bool:
        """Whether there is a scaling yet: from the first step on."""
        return self._scaling is not None

    @property
    def scalable(self) -> bool:
        """Whether the networks can follow a change of scale."""
        return self.members[0].scalable

    @property
    def scaling(self) -> Scaling:
        """The scaling.

        Raises:
            ValueError: Before the first step.
        """
        if self._scaling is None:
            raise ValueError("no step was done yet; there is nothing to show")
        return self._scaling

    @property
    def yardstick(self) -> Yardstick:
        """What errors are measured by.

        Raises:
            ValueError: Before the first step.
        """
        if self._yardstick is None:
            raise ValueError("no step was done yet; there is nothing to judge by")
        return self._yardstick

    def targets(self, batch: Batch, scaling: Scaling | None = None) -> Targets:
        """A batch scaled, on the device."""
        jacobian = batch["jacobian"].numpy() if "jacobian" in batch else None
        x, y = batch["x"].numpy(), batch["y"].numpy()
        return scaled_targets(scaling or self.scaling, x, y, jacobian, device=self.settings.device)

    def points(self, x: ArrayLike) -> Tensor:
        """Points (N, n) in the bounds, scaled, on the device.

        Raises:
            ValueError: If they aren't, or before the first step.
        """
        points = as_points(x, self.parameters, self.bounds)
        return torch.as_tensor(self.scaling.scale_x(points), device=self.settings.device)

    def rescale(self, held: Batch) -> None:
        """Fit scaling and the loss's measures to the samples held."""
        scaling = self._fitting(held)
        targets = self.targets(held, scaling)
        for member in self.members:
            if self._scaling is None:
                as_network_module(member.module).set_scaling(scaling)
            member.measure(targets, self._scaling, scaling)
        self._scaling, self._yardstick = scaling, Yardstick.of(targets)

    def refresh(self) -> None:
        """Renew a part of all weights from a fresh start."""
        for member in self.members:
            member.shrink(self.settings.keep, self._module())

    def first_order(self, targets: Targets, received: int) -> list[float]:
        """One update of each member by Adam, so many samples having come; the losses before it."""
        return [member.first_order(targets, self.settings.rate(member.updates, received)) for member in self.members]

    def second_order(self, targets: Targets, *, changed: bool) -> list[float]:
        """One round of L-BFGS for each member; the losses before it."""
        return [member.second_order(targets, self._rounds(), changed=changed) for member in self.members]

    def reweigh(self, step: int, targets: Targets) -> None:
        """Let the weightings update their weights if that is due."""
        for member in self.members:
            member.reweigh(step, targets)

    def best(self, held: Batch) -> tuple[Member, Objective, Scaling]:
        """A copy of the member whose loss on the samples held is least, its objective on them, and their scaling."""
        best = self.members[0]
        if self._scaling is not None and len(self.members) > 1:
            targets = self.targets(held)
            best = min(self.members, key=lambda member: member.loss(targets))
        twin = best.twin(torch.Generator().manual_seed(int(self.settings.seed)))
        scaling = self._fitting(held)
        return twin, twin.measure(self.targets(held, scaling), self._scaling, scaling), scaling

    def state(self) -> dict[str, Any]:
        """All that changes in training, as tensors, numbers and containers of them."""
        return {
            "members": [member.state() for member in self.members],
            "scaling": None if self._scaling is None else checkpoint.tensors_of(self._scaling),
            "yardstick": None if self._yardstick is None else tuple(self._yardstick),
            "generator": self._generator.get_state(),
        }

    def restore(self, state: dict[str, Any], held: Batch) -> None:
        """Continue as the team would have that gave this state, with these samples."""
        if state["scaling"] is not None:
            self._scaling = Scaling(**{name: tensor.numpy() for name, tensor in state["scaling"].items()})
            self._yardstick = Yardstick(*(tensor.to(self.settings.device) for tensor in state["yardstick"]))
        targets = None if self._scaling is None else self.targets(held)
        for member, its in zip(self.members, state["members"], strict=True):
            member.restore(its, targets, self._rounds())
        self._generator.set_state(state["generator"])

    def _member(self) -> Member:
        settings = self.settings
        return Member(self._module(), settings.weighting, decay=settings.decay, generator=self._generator)

    def _module(self) -> torch.nn.Module:
        built = self.settings.network.build(len(self.parameters), len(self.responses), self._generator)
        return built.to(self.settings.device)

    def _rounds(self) -> LBFGS:
        return LBFGS(round=max(self.settings.round, 1))

    def _fitting(self, held: Batch) -> Scaling:
        """The scaling of the samples held; the present one where the network can't follow a change."""
        if self._scaling is not None and not self.scalable:
            return self._scaling
        return Scaling.from_data(self.bounds, held["y"].numpy(), self.responses, constants=True)


Criterion = Literal["disagreement", "gradient residual"]
"""What candidates are chosen by."""


def disagreement(members: Sequence[nn.Module], x: Tensor, yardstick: Yardstick) -> Array:
    """Standard deviation (N,) over two or more networks at scaled points x (N, n)."""
    with torch.no_grad():
        y, dy = zip(*(value_and_jacobian(member, x) for member in members), strict=True)
        return yardstick.relative(torch.stack(y).var(dim=0), torch.stack(dy).var(dim=0))


def gradient_residual(module: nn.Module, x: Tensor, known: Targets, yardstick: Yardstick) -> Array:
    """Misfit (N,) of a network's Jacobian at the known sample that is nearest to each scaled point x (N, n)."""
    with torch.no_grad():
        y, dy = value_and_jacobian(module, known.x)
        misfit = yardstick.relative(torch.zeros_like(y), (dy - known.jacobian).square())  # type: ignore[operator]
    return misfit[nearest(x.cpu().numpy(), known.x.cpu().numpy())[0]]


def nearest(points: Array, others: Array) -> tuple[NDArray[np.intp], Array]:
    """Index (N,) of the nearest of the others (M, n) to each point (N, n), and its distance (N,); M > 0."""
    index, distance = np.zeros(len(points), dtype=np.intp), np.full(len(points), np.inf)
    for k, other in enumerate(others):
        there = np.linalg.norm(points - other, axis=1)
        index, distance = np.where(there < distance, k, index), np.minimum(there, distance)
    return index, distance


def spread(candidates: Array, scores: Array, count: int, taken: Array) -> NDArray[np.intp]:
    """The most wanted candidates, each chosen for its score times its distance to all that are taken by then.

    Args:
        candidates: Points (N, n), in coordinates where distances compare.
        scores: How wanted each is (N,), not negative.
        count: How many to choose, at most N.
        taken: Points (M, n) that are sampled already or will be.

    Returns:
        Indexes (count,) of different candidates, in the order of choice.

    Raises:
        ValueError: If scores don't fit the candidates, one is negative or not finite, or there are too few candidates.
    """
    if scores.shape != (len(candidates),) or not (np.isfinite(scores) & (scores >= 0.0)).all():
        raise ValueError(f"scores have shape {scores.shape}, expected {(len(candidates),)}, none negative or NaN")
    if not 0 <= count <= len(candidates):
        raise ValueError(f"count is {count}; expected from 0 to the number of candidates, {len(candidates)}")
    distance = nearest(candidates, taken)[1] if len(taken) else np.ones(len(candidates))
    chosen: list[int] = []
    for _ in range(count):
        wanted = scores * distance
        wanted[chosen] = -1.0
        chosen.append(int(np.argmax(wanted)))
        distance = np.minimum(distance, np.linalg.norm(candidates - candidates[chosen[-1]], axis=1))
    return np.array(chosen, dtype=np.intp)


class Acquisition:
    """Chooses which samples to compute next, by the networks of an online training and the samples that it holds.

    Args:
        team: The networks.
        reservoir: The samples.
    """

    def __init__(self, team: Team, reservoir: Reservoir) -> None:
        self._team, self._reservoir = team, reservoir

    @neutral()
    def disagreement(self, x: ArrayLike) -> Array:
        """Standard deviation over the members at points x (N, n): (N,), scaled, values and slopes together.

        It is relative, as the loss is: 1 means that the members differ as much as the responses vary.

        Raises:
            ValueError: If there is one member only, before the first step, or if x is no point in the bounds.
        """
        if len(self._team.members) < 2:
            raise ValueError("one member can't disagree; set members=2 or more")
        points = self._team.points(x)
        return disagreement([member.module for member in self._team.members], points, self._team.yardstick)

    @neutral()
    def gradient_residual(self, x: ArrayLike) -> Array:
        """Misfit of the first member's Jacobian at the known sample that is nearest to points x (N, n): (N,).

        It is relative, as the loss is.

        Raises:
            ValueError: If no Jacobians are held, before the first step, or if x is no point in the bounds.
        """
        points, held = self._team.points(x), self._team.targets(self._reservoir.held())
        if held.jacobian is None:
            raise ValueError(f"{self._team.settings.weighting} uses no Jacobians, so that none are held")
        return gradient_residual(self._team.members[0].module, points, held, self._team.yardstick)

    @neutral()
    def choose(
        self, candidates: ArrayLike, count: int, *, by: Criterion = "disagreement", pending: ArrayLike | None = None
    ) -> NDArray[np.intp]:
        """Which candidates to compute next: where the network is doubtful, and apart from each other.

        Each is chosen for its score times its distance, in the unit box, to the nearest sample held, pending or
        chosen before it.

        Args:
            candidates: Points (N, n) in physical units.
            count: How many, at most N.
            by: `disagreement` of the members, or `gradient residual`.
            pending: Points (M, n) handed out already whose samples have not come.

        Returns:
            Indexes (count,) into the candidates, the most wanted first.

        Raises:
            ValueError: As `disagreement` or `gradient_residual` do, or if there are too few candidates.
        """
        scores = {"disagreement": self.disagreement, "gradient residual": self.gradient_residual}
        if by not in scores:
            raise ValueError(f"by is {by!r}; expected one of {', '.join(map(repr, scores))}")
        out = (
            np.zeros((0, len(self._team.parameters))) if pending is None else as_points(pending, self._team.parameters)
        )
        taken = np.concatenate((self._reservoir.held()["x"].numpy(), out))
        return spread(self._unit(candidates), scores[by](candidates), count, self._unit(taken))

    def _unit(self, x: ArrayLike) -> Array:
        low, high = self._team.bounds.T
        return (as_points(x, self._team.parameters) - low) / (high - low)
