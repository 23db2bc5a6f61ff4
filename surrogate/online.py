"""Training while the samples arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from os import PathLike
import time
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch

from surrogate import active, checkpoint
from surrogate.active import Acquisition, Yardstick
from surrogate.curve import Curve
from surrogate.device import check_device
from surrogate.loss import Targets
from surrogate.member import Member
from surrogate.model import Surrogate
from surrogate.monitor import History, Monitor, Progress
from surrogate.networks.hooks import set_scaling
from surrogate.online_settings import OnlineSettings
from surrogate.optimizers import LBFGS, Adam, Optimizer
from surrogate.reservoir import Batch, Reservoir
from surrogate.samples import (
    FEWEST,
    as_points,
    check_bounds,
    check_finite,
    check_inside,
    check_names,
    check_shapes,
)
from surrogate.scaling import Scaling
from surrogate.training import run_stages, scaled_targets
from surrogate.weighting import Weighting

Array = NDArray[np.float64]

LAST = 500
"""Iterations of L-BFGS, at least, on what the stream has left in the end."""
GROWTH = 1.5
"""Factor in the number of samples received after which scaling and weights are taken anew."""


class OnlineTraining:
    """A training that takes samples as they come, steps at any time, and can be put down and taken up again.

    Nothing here waits or communicates. Typical use, in one thread:

        training = OnlineTraining(parameters, responses, bounds, settings=OnlineSettings(expected=512))
        while samples come:
            training.add(rows, x, y, jacobian)     # at most `training.room` of them
            if training.ready:
                training.step()
        training.end()                             # no more will come
        while training.unseen:
            training.step()
        surrogate = training.finish()

    While all samples held fit into a batch it makes a start with Adam and goes on with rounds of L-BFGS; beyond
    that, Adam takes batches of old and new samples. Responses are scaled by the samples held when the first
    step is made, and anew whenever half as many again have come; the last layer then changes so that the map
    between physical units stays what it was. At those moments L-BFGS starts from partly renewed weights
    (`OnlineSettings.keep`), so that the error rises for some steps.

    Args:
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        bounds: The box that the inputs live in, (n, 2).
        units: Unit of each parameter and response that has one, by name.
        provenance: Where the samples come from, as plain values; goes into the surrogate.
        settings: How to train.

    Raises:
        ValueError: If names repeat or bounds have the wrong shape.
    """

    def __init__(
        self,
        parameters: Sequence[str],
        responses: Sequence[str],
        bounds: ArrayLike,
        *,
        units: Mapping[str, str] | None = None,
        provenance: Mapping[str, Any] | None = None,
        settings: OnlineSettings | None = None,
    ) -> None:
        self.settings = settings or OnlineSettings()
        self.parameters, self.responses = tuple(parameters), tuple(responses)
        self.bounds = np.array(bounds, dtype=np.float64)
        self.units, self.provenance = dict(units or {}), dict(provenance or {})
        check_names(self.parameters, self.responses)
        check_bounds(self.bounds, self.parameters)
        check_device(self.settings.device)
        seed = int(self.settings.seed)
        self.reservoir = Reservoir(self.settings.capacity, self.settings.watermark, seed=seed)
        self.steps, self.seconds = 0, 0.0
        self._generator = torch.Generator().manual_seed(seed)
        self._members = [self._member() for _ in range(self.settings.members)]
        self._scaling: Scaling | None = None
        self._scaled_at, self._stepped_at = 0, 0
        self._fresh_at = 0
        self._yardstick: Yardstick | None = None
        self._curve = Curve()

    @property
    def room(self) -> int:
        """Samples that can be added before the next step: what may be out as work, at most."""
        return self.reservoir.room

    @property
    def ready(self) -> bool:
        """Whether `step` may be called: the watermark was reached and every response varies, or `end` was called.

        A response that doesn't vary yet is waited for as long as there is room.
        """
        if self._scaling is not None:
            return True
        if not self.reservoir.ready or len(self.reservoir) < FEWEST:
            return False
        return not self.room or bool((np.ptp(self.reservoir.held()["y"].numpy(), axis=0) > 0.0).all())

    @property
    def received(self) -> int:
        """Samples that ever came in, each counted once."""
        return self.reservoir.received

    @property
    def unseen(self) -> int:
        """Samples that no step has used yet: step on until there are none before `finish`."""
        return self.reservoir.unseen

    def knows(self, row: int) -> bool:
        """Whether the sample of this design row ever came in: a resumed job need not send it again."""
        return self.reservoir.knows(row)

    def add(self, rows: ArrayLike, x: ArrayLike, y: ArrayLike, jacobian: ArrayLike | None = None) -> int:
        """Take in samples in physical units; those whose row is known already are ignored.

        Args:
            rows: Design rows (N,), whole numbers that identify the samples.
            x: Inputs (N, n).
            y: Responses (N, m).
            jacobian: Jacobians dy/dx (N, m, n); None only with a weighting that uses none.

        Returns:
            The number of new samples.

        Raises:
            ValueError: If shapes don't fit, a sample holds NaN or infinity or lies outside the bounds, there is no
                `room`, or `end` was called; nothing was taken in then.
        """
        weighting = self.settings.weighting
        if weighting.uses_jacobian and jacobian is None:
            raise ValueError(f"{weighting} weighs sensitivities, but the samples hold no Jacobians; use ValuesOnly()")
        points, values = (np.array(array, dtype=np.float64) for array in (x, y))
        slopes = np.array(jacobian, dtype=np.float64) if weighting.uses_jacobian else None
        check_shapes(points, values, slopes, self.parameters, self.responses)
        check_finite(points, values, slopes)
        check_inside(points, self.bounds, self.parameters)
        return self.reservoir.put(rows, x=points, y=values, jacobian=slopes)

    def end(self) -> None:
        """No more samples will come."""
        self.reservoir.close()

    def step(self) -> float:
        """One update by Adam, or one round of L-BFGS, by every member on samples from the reservoir.

        Returns:
            The weighted relative loss on these samples, before the step, averaged over members.

        Raises:
            ValueError: If it is not `ready`, or a response is the same in all samples.
            ArithmeticError: If the loss is not finite.
        """
        if not self.ready:
            raise ValueError(
                f"{len(self.reservoir)} samples are here; training begins with {self.settings.watermark} "
                "(the watermark) that differ in every response"
            )
        began = time.perf_counter()
        settings = self.settings
        if self.received >= GROWTH * self._scaled_at:
            self._rescale()
            if self._whole and self.steps > settings.start and settings.keep < 1.0:
                self._refresh()
        targets = self._targets(self.reservoir.draw(settings.batch))
        quasi = self._whole and self.steps >= settings.start
        losses = [self._advance(member, targets, quasi=quasi) for member in self._members]
        self._stepped_at = self.received
        self._curve.note(self.steps, losses[0], self._members[0].weights.values)
        self.steps += settings.round if quasi else 1
        for member in self._members:
            member.reweigh(self.steps, targets)
        self.seconds += time.perf_counter() - began
        return float(np.mean(losses))

    def surrogate(self) -> Surrogate:
        """What the first member has learned so far, as a surrogate of its own: training on doesn't change it.

        Raises:
            ValueError: Before the first step.
        """
        return self._package(deepcopy(self._members[0].module), self._scaled(), self._curve.history(self.steps))

    def finish(
        self,
        optimizers: Sequence[Optimizer] | None = None,
        *,
        progress: Callable[[Progress], None] | None = None,
    ) -> Surrogate:
        """Train the best member to the end on all that is held; the training itself stays as it is.

        Args:
            optimizers: Stages of training, in order, from where the steps have led; by default what is missing
                of Adam's `start`, and then of the iterations of L-BFGS that `fit` would take, at least 500.
            progress: Called every few steps with a `Progress`.

        Returns:
            The surrogate, with the history of steps and stages. Ctrl-C returns the best so far.

        Raises:
            ValueError: If fewer than four samples are held, or a response is constant over them.
        """
        if len(self.reservoir) < FEWEST:
            raise ValueError(f"there are {len(self.reservoir)} samples; expected at least {FEWEST}")
        stages = self._stages() if optimizers is None else tuple(optimizers)
        if not stages:
            raise ValueError("optimizers is empty; expected at least one stage")
        twin = self._best().twin(torch.Generator().manual_seed(int(self.settings.seed)))
        scaling = self._next_scaling()
        objective = twin.measure(self._targets(self.reservoir.held(), scaling), self._scaling, scaling)
        monitor = Monitor(objective, None, progress, past=self._curve.history(self.steps))
        interrupted = run_stages(stages, objective, monitor)
        return self._package(twin.module, scaling, monitor.history(interrupted=interrupted))

    def disagreement(self, x: ArrayLike) -> Array:
        """Standard deviation over the members at points x (N, n): (N,), scaled, values and slopes together.

        It is relative, as the loss is: 1 means that the members differ as much as the responses vary.

        Raises:
            ValueError: If there is one member only, before the first step, or if x is no point in the bounds.
        """
        if len(self._members) < 2:
            raise ValueError("one member can't disagree; set members=2 or more")
        points = self._points(x)
        return active.disagreement([member.module for member in self._members], points, self._measured())

    def gradient_residual(self, x: ArrayLike) -> Array:
        """Misfit of the first member's Jacobian at the known sample that is nearest to points x (N, n): (N,).

        It is relative, as the loss is.

        Raises:
            ValueError: If no Jacobians are held, before the first step, or if x is no point in the bounds.
        """
        points, held = self._points(x), self._targets(self.reservoir.held())
        if held.jacobian is None:
            raise ValueError(f"{self.settings.weighting} uses no Jacobians, so that none are held")
        return active.gradient_residual(self._members[0].module, points, held, self._measured())

    def choose(
        self, candidates: ArrayLike, count: int, *, by: Acquisition = "disagreement", pending: ArrayLike | None = None
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
        out = np.zeros((0, len(self.parameters))) if pending is None else as_points(pending, self.parameters)
        taken = np.concatenate((self.reservoir.held()["x"].numpy(), out))
        return active.spread(self._unit(candidates), scores[by](candidates), count, self._unit(taken))

    def save_checkpoint(self, path: str | PathLike[str]) -> None:
        """Write all state to a file, whole or not at all; `load_checkpoint` continues from it bit for bit.

        Raises:
            ValueError: If the network isn't registered or the weighting's memory holds what no file can.
            OSError: If the file can't be written.
        """
        problem = {"parameters": self.parameters, "responses": self.responses, "bounds": self.bounds.tolist()}
        about = {**problem, "units": self.units, "provenance": self.provenance}
        checkpoint.save(path, self.settings, about, self._state())

    @classmethod
    def load_checkpoint(
        cls, path: str | PathLike[str], *, weighting: Weighting | None = None, device: str | None = None
    ) -> Self:
        """Continue from a checkpoint.

        Args:
            path: What `save_checkpoint` wrote.
            weighting: The weighting that was in use, where it is not one of `surrogate.weighting`.
            device: Where to train from now on; by default where it was.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, of another kind or of a newer version, or the weighting is another.
        """
        with checkpoint.reading(path):
            settings, about, state = checkpoint.load(path, weighting, device)
            training = cls(**about, settings=settings)
            training._restore(state)
        return training

    def _state(self) -> dict[str, Any]:
        scaling, yardstick = self._scaling, self._yardstick
        return {
            "members": [member.state() for member in self._members],
            "reservoir": self.reservoir.state(),
            "scaling": None if scaling is None else checkpoint.tensors_of(scaling),
            "yardstick": None if yardstick is None else tuple(yardstick),
            "generator": self._generator.get_state(),
            "curve": self._curve.state(),
            "progress": [self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.reservoir.restore(state["reservoir"])
        if state["scaling"] is not None:
            self._scaling = Scaling(**{name: tensor.numpy() for name, tensor in state["scaling"].items()})
            self._yardstick = Yardstick(*(tensor.to(self.settings.device) for tensor in state["yardstick"]))
        targets = None if self._scaling is None else self._targets(self.reservoir.held())
        for member, its in zip(self._members, state["members"], strict=True):
            member.restore(its, targets, self._rounds())
        self._generator.set_state(state["generator"])
        self._curve.restore(state["curve"])
        self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at = state["progress"]

    @property
    def _whole(self) -> bool:
        """Whether L-BFGS may take all samples held."""
        return self.settings.round > 0 and len(self.reservoir) <= self.settings.batch

    def _member(self) -> Member:
        settings = self.settings
        return Member(self._module(), settings.weighting, decay=settings.decay, generator=self._generator)

    def _module(self) -> torch.nn.Module:
        built = self.settings.network.build(len(self.parameters), len(self.responses), self._generator)
        return built.to(self.settings.device)

    def _advance(self, member: Member, targets: Targets, *, quasi: bool) -> float:
        if quasi:
            return member.second_order(targets, self._rounds(), changed=self.received != self._stepped_at)
        return member.first_order(targets, self.settings.rate(member.updates, self.received))

    def _stages(self) -> tuple[Optimizer, ...]:
        missing, done = self.settings.start - self.steps, self.steps - self._fresh_at if self._whole else 0
        quasi = LBFGS(iterations=max(LBFGS().iterations - done, LAST))
        return (Adam(missing), quasi) if missing > 0 else (quasi,)

    def _rounds(self) -> LBFGS:
        return LBFGS(round=max(self.settings.round, 1))

    def _rescale(self) -> None:
        """Fit scaling and the loss's measures to the samples held."""
        scaling = self._next_scaling()
        targets = self._targets(self.reservoir.held(), scaling)
        for member in self._members:
            if self._scaling is None:
                set_scaling(member.module, scaling)
            member.measure(targets, self._scaling, scaling)
        self._scaling, self._scaled_at = scaling, self.received
        self._yardstick = Yardstick.of(targets)

    def _refresh(self) -> None:
        for member in self._members:
            member.shrink(self.settings.keep, self._module())
        self._fresh_at = self.steps

    def _next_scaling(self) -> Scaling:
        """That of the samples held; the present one where the network can't follow a change."""
        if self._scaling is not None and not self._members[0].scalable:
            return self._scaling
        return Scaling.from_data(self.bounds, self.reservoir.held()["y"].numpy(), self.responses)

    def _targets(self, batch: Batch, scaling: Scaling | None = None) -> Targets:
        """A batch scaled, on the device."""
        jacobian = batch["jacobian"].numpy() if "jacobian" in batch else None
        x, y = batch["x"].numpy(), batch["y"].numpy()
        return scaled_targets(scaling or self._scaled(), x, y, jacobian, device=self.settings.device)

    def _scaled(self) -> Scaling:
        if self._scaling is None:
            raise ValueError("no step was done yet; there is nothing to show")
        return self._scaling

    def _measured(self) -> Yardstick:
        if self._yardstick is None:
            raise ValueError("no step was done yet; there is nothing to judge by")
        return self._yardstick

    def _best(self) -> Member:
        if self._scaling is None or len(self._members) == 1:
            return self._members[0]
        targets = self._targets(self.reservoir.held())
        return min(self._members, key=lambda member: member.loss(targets))

    def _points(self, x: ArrayLike) -> torch.Tensor:
        points = as_points(x, self.parameters)
        check_inside(points, self.bounds, self.parameters)
        return torch.as_tensor(self._scaled().scale_x(points), device=self.settings.device)

    def _unit(self, x: ArrayLike) -> Array:
        low, high = self.bounds.T
        return (np.asarray(x, dtype=np.float64) - low) / (high - low)

    def _package(self, module: torch.nn.Module, scaling: Scaling, history: History) -> Surrogate:
        return Surrogate(
            module=module.to("cpu").eval(),
            network=self.settings.network,
            scaling=scaling,
            parameters=self.parameters,
            responses=self.responses,
            bounds=self.bounds,
            units=self.units,
            provenance={**self.provenance, "samples": self.received},
            history=history,
        )
