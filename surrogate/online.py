"""Training while the samples arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from os import PathLike
import time
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike
import torch

from surrogate import checkpoint
from surrogate.constants import CONSTANT, WithConstants, named, tell
from surrogate.curious import Curious
from surrogate.curve import Curve
from surrogate.device import check_device, neutral, undisturbed
from surrogate.intake import Intake
from surrogate.model import Surrogate
from surrogate.monitor import History, Monitor, Progress
from surrogate.online_settings import OnlineSettings
from surrogate.optimizers import LBFGS, Adam, Optimizer
from surrogate.registry import within_budget
from surrogate.samples import FEWEST
from surrogate.scaling import Scaling
from surrogate.team import Team
from surrogate.training import run_stages
from surrogate.weighting import Weighting

LAST = 500
"""Iterations of L-BFGS, at least, on what the stream has left in the end."""
GROWTH = 1.5
"""Factor in the number of samples received after which scaling and weights are taken anew."""


class OnlineTraining(Intake, Curious):
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

    @undisturbed()
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
        super().__init__(parameters, responses, bounds, settings or OnlineSettings())
        check_device(self.settings.device)
        self.units, self.provenance = dict(units or {}), dict(provenance or {})
        self.steps, self.seconds = 0, 0.0
        self._scaled_at, self._stepped_at, self._fresh_at = 0, 0, 0
        self._team = Team(self.parameters, self.responses, self.bounds, self.settings)
        self._curve = Curve()

    @property
    def ready(self) -> bool:
        """Whether `step` may be called: the watermark was reached and a response varies, or `end` was called.

        A network that can't follow a change of scale waits for every response to vary as long as there is room.
        """
        if self._team.begun:
            return True
        if not self.reservoir.ready or len(self.reservoir) < FEWEST:
            return False
        varies = np.ptp(self.reservoir.held()["y"].numpy(), axis=0) > 0.0
        return not self.room or bool(varies.all() or (varies.any() and self._team.scalable))

    @undisturbed()
    def step(self) -> float:
        """One update by Adam, or one round of L-BFGS, by every member on samples from the reservoir.

        Returns:
            The weighted relative loss on these samples, before the step, averaged over members.

        Raises:
            ValueError: If it is not `ready`.
            ArithmeticError: If the loss is not finite.
        """
        if not self.ready:
            raise ValueError(
                f"{len(self.reservoir)} samples are here; training begins with {self.settings.watermark} "
                "(the watermark) that differ"
            )
        began = time.perf_counter()
        team, settings = self._team, self.settings
        if self.received >= GROWTH * self._scaled_at:
            team.rescale(self.reservoir.held())
            self._scaled_at = self.received
            if self._whole and self.steps > settings.start and settings.keep < 1.0:
                team.refresh()
                self._fresh_at = self.steps
        targets = team.targets(self.reservoir.draw(settings.batch))
        quasi = self._whole and self.steps >= settings.start
        if quasi:
            losses = team.second_order(targets, changed=self.received != self._stepped_at)
        else:
            losses = team.first_order(targets, self.received)
        self._stepped_at = self.received
        self._curve.note(self.steps, losses[0], team.members[0].weights.values)
        self.steps += settings.round if quasi else 1
        team.reweigh(self.steps, targets)
        self.seconds += time.perf_counter() - began
        return float(np.mean(losses))

    @neutral()
    def surrogate(self) -> Surrogate:
        """What the first member has learned so far, as a surrogate of its own: training on doesn't change it.

        Raises:
            ValueError: Before the first step.
        """
        scaling = self._team.scaling
        return self._package(deepcopy(self._team.members[0].module), scaling, self._curve.history(self.steps))

    @undisturbed()
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
            ValueError: If fewer than four samples are held.
        """
        if len(self.reservoir) < FEWEST:
            raise ValueError(f"there are {len(self.reservoir)} samples; expected at least {FEWEST}")
        stages = self._stages() if optimizers is None else tuple(optimizers)
        if not stages:
            raise ValueError("optimizers is empty; expected at least one stage")
        twin, objective, scaling = self._team.best(self.reservoir.held())
        monitor = Monitor(objective, None, progress, past=self._curve.history(self.steps))
        interrupted = run_stages(stages, objective, monitor)
        if known := named(self.responses, self.reservoir.held()["y"].numpy()):
            tell(known, len(self.reservoir), stacklevel=4)
        return self._package(twin.module, scaling, monitor.history(interrupted=interrupted))

    @neutral()
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
    @undisturbed()
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
        stored, settings, about, state = checkpoint.load(path, weighting, device)
        with checkpoint.reading(path):
            if settings.members != len(state["members"]):
                raise ValueError(f"it holds {len(state['members'])} networks, and its settings say {settings.members}")
            with within_budget(stored.numbers):
                training = cls(**about, settings=settings)
            training._restore(state)
        return training

    def _state(self) -> dict[str, Any]:
        return self._team.state() | {
            "reservoir": self.reservoir.state(),
            "curve": self._curve.state(),
            "progress": [self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.reservoir.restore(state["reservoir"])
        self._team.restore(state, self.reservoir.held())
        self._curve.restore(state["curve"])
        self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at = state["progress"]

    @property
    def _whole(self) -> bool:
        """Whether L-BFGS may take all samples held."""
        return self.settings.round > 0 and len(self.reservoir) <= self.settings.batch

    def _stages(self) -> tuple[Optimizer, ...]:
        missing, done = self.settings.start - self.steps, self.steps - self._fresh_at if self._whole else 0
        quasi = LBFGS(iterations=max(LBFGS().iterations - done, LAST))
        return (Adam(missing), quasi) if missing > 0 else (quasi,)

    def _package(self, module: torch.nn.Module, scaling: Scaling, history: History) -> Surrogate:
        """The surrogate of a network, in which what didn't vary in the samples held is constant."""
        network, n, m = self.settings.network, len(self.parameters), len(self.responses)
        module = module.to("cpu")
        if known := named(self.responses, self.reservoir.held()["y"].numpy()):
            varying = tuple(k for k, name in enumerate(self.responses) if name not in known)
            wrapped = WithConstants(network, varying, whole=True)
            network, module = wrapped, wrapped.around(module, n, m)
            centers = [known.get(name, c) for name, c in zip(self.responses, scaling.y_center, strict=True)]
            scaling = replace(scaling, y_center=np.array(centers))
        return Surrogate(
            module=module.eval(),
            network=network,
            scaling=scaling,
            parameters=self.parameters,
            responses=self.responses,
            bounds=self.bounds,
            units=self.units,
            provenance={**self.provenance, "samples": self.received, **({CONSTANT: known} if known else {})},
            history=history,
        )
