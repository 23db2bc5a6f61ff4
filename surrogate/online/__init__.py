"""Training while the samples arrive."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from os import PathLike
import time
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
import torch

from sobofem.surrogate.device import check_device, neutral, undisturbed
from sobofem.surrogate.files.registry import within_budget
from sobofem.surrogate.history import MAX_ENTRIES, History, Progress, Recorder
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.model.constants import CONSTANT, WithConstants, named, warn_of_constants
from sobofem.surrogate.online import checkpoint
from sobofem.surrogate.online.acquisition import Acquisition, Criterion, Team
from sobofem.surrogate.online.checkpoint import OnlineSettings
from sobofem.surrogate.online.reservoir import Reservoir
from sobofem.surrogate.samples import (
    MIN_SAMPLES,
    arrays,
    as_bounds,
    check_finite,
    check_inside,
    check_names,
    check_shapes,
    labelled,
)
from sobofem.surrogate.samples.arrays import Array
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.optimizers import LBFGS, Adam, Optimizer
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.starts import run_stages
from sobofem.surrogate.weighting import Weighting

MIN_LAST_ITERATIONS = 500
"""Iterations of L-BFGS, at least, on what the stream has left in the end."""
RESCALING_GROWTH = 1.5
"""Factor in the number of samples received after which scaling and weights are taken again."""


class OnlineTraining:
    """A training that takes samples as they come, steps at any time, and can be put down and taken up again.

    Nothing here waits or communicates. Typical use, in one thread::

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
    step is made, and again whenever half as many more have come; the last layer then changes so that the map
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
        self.settings = settings = settings or OnlineSettings()
        self.parameters = arrays.names_of(parameters, "parameters")
        self.responses = arrays.names_of(responses, "responses")
        check_names(self.parameters, self.responses)
        self.bounds = as_bounds(bounds, self.parameters)
        check_device(settings.device)
        self.reservoir = Reservoir(settings.capacity, settings.watermark, seed=int(settings.seed))
        self.units, self.provenance = dict(units or {}), dict(provenance or {})
        self.steps, self.seconds = 0, 0.0
        self._scaled_at, self._stepped_at, self._fresh_at = 0, 0, 0
        self._team = Team(self.parameters, self.responses, self.bounds, self.settings)
        self._acquisition = Acquisition(self._team, self.reservoir)
        self._record = Recorder(most=MAX_ENTRIES)

    @property
    def room(self) -> int:
        """Samples that can be added before the next step: what may be out as work, at most."""
        return self.reservoir.room

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

    @neutral()
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
        labelled.check_rows(x=x, y=y, jacobian=jacobian)
        points, values = arrays.table(x, self.parameters, "x"), arrays.table(y, self.responses, "y")
        slopes = None
        if weighting.uses_jacobian:
            slopes = arrays.jacobians(jacobian, self.responses, self.parameters, "jacobian")
        check_shapes(points, values, slopes, self.parameters, self.responses)
        check_finite(points, values, slopes)
        check_inside(points, self.bounds, self.parameters)
        return self.reservoir.put(rows, x=points, y=values, jacobian=slopes)

    def end(self) -> None:
        """No more samples will come."""
        self.reservoir.close()

    @property
    def ready(self) -> bool:
        """Whether `step` may be called: the watermark was reached and a response varies, or `end` was called.

        A network that can't follow a change of scale waits for every response to vary as long as there is room.
        """
        if self._team.begun:
            return True
        if not self.reservoir.ready or len(self.reservoir) < MIN_SAMPLES:
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
        if self.received >= RESCALING_GROWTH * self._scaled_at:
            team.rescale(self.reservoir.held())
            self._scaled_at = self.received
            if self._whole and self.steps > settings.start and settings.keep < 1.0:
                team.refresh()
                self._fresh_at = self.steps
        targets = team.targets(self.reservoir.draw(settings.batch))
        # L-BFGS compares gradients of successive steps, which must be of the same samples: all that are held.
        quasi = self._whole and self.steps >= settings.start
        if quasi:
            losses = team.second_order(targets, changed=self.received != self._stepped_at)
        else:
            losses = team.first_order(targets, self.received)
        self._stepped_at = self.received
        self._record.note(self.steps, losses[0], team.members[0].weights.values)
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
        return self._package(deepcopy(self._team.members[0].module), scaling, self._history())

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
        if len(self.reservoir) < MIN_SAMPLES:
            raise ValueError(f"there are {len(self.reservoir)} samples; expected at least {MIN_SAMPLES}")
        stages = self._stages() if optimizers is None else tuple(optimizers)
        if not stages:
            raise ValueError("optimizers is empty; expected at least one stage")
        twin, objective, scaling = self._team.best(self.reservoir.held())
        monitor = Monitor(objective, None, progress, past=self._history())
        interrupted = run_stages(stages, objective, monitor)
        if known := named(self.responses, self.reservoir.held()["y"].numpy()):
            warn_of_constants(known, len(self.reservoir), stacklevel=4)
        return self._package(twin.module, scaling, monitor.history(interrupted=interrupted))

    def disagreement(self, x: ArrayLike) -> Array:
        """Standard deviation over the members at points x (N, n): (N,), as `Acquisition.disagreement` says."""
        return self._acquisition.disagreement(x)

    def gradient_residual(self, x: ArrayLike) -> Array:
        """Misfit of the Jacobian at the known sample next to points x (N, n): (N,), as `Acquisition` says."""
        return self._acquisition.gradient_residual(x)

    def choose(
        self, candidates: ArrayLike, count: int, *, by: Criterion = "disagreement", pending: ArrayLike | None = None
    ) -> NDArray[np.intp]:
        """Which candidates (N, n) to compute next, as `Acquisition.choose` says: indexes (count,)."""
        return self._acquisition.choose(candidates, count, by=by, pending=pending)

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
            weighting: The weighting that was in use, where it is not one of `sobofem.surrogate.weighting`.
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
            "curve": self._record.state(),
            "progress": [self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at],
        }

    def _restore(self, state: dict[str, Any]) -> None:
        self.reservoir.restore(state["reservoir"])
        self._team.restore(state, self.reservoir.held())
        self._record.restore(state["curve"])
        self.steps, self.seconds, self._scaled_at, self._stepped_at, self._fresh_at = state["progress"]

    def _history(self) -> History:
        stages = (("online", self.steps),) if self.steps else ()
        return self._record.history(stages, self.steps)

    @property
    def _whole(self) -> bool:
        """Whether L-BFGS may take all samples held."""
        return self.settings.round > 0 and len(self.reservoir) <= self.settings.batch

    def _stages(self) -> tuple[Optimizer, ...]:
        missing, done = self.settings.start - self.steps, self.steps - self._fresh_at if self._whole else 0
        quasi = LBFGS(iterations=max(LBFGS().iterations - done, MIN_LAST_ITERATIONS))
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
