"""Several networks of one kind trained as one computation: the stages of training, run for all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn

from sobofem.surrogate.history import History, Progress, Recorder
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import LBFGS, Adam, Optimizer
from sobofem.surrogate.training.optimizers.base import Monitor
from sobofem.surrogate.training.together.batched_lbfgs import Descent

STEPS_BETWEEN_ENTRIES = 5
"""Steps between two entries of the history."""


class BatchHistory:
    """Keeps the best points seen, member by member, and a record of the mean loss.

    Args:
        members: How many members the record averages: the first ones.
        weights: Gives the weights of the loss terms (m, T), for the record.
        progress: Called with each `Progress`.

    Attributes:
        points: Best parameters (K, P).
        values: Objectives there (K,).
        total: Steps done so far, over all stages.
        improved: Step of the last improvement of any member.
    """

    points: Tensor

    def __init__(
        self, members: int, weights: Callable[[], Tensor], progress: Callable[[Progress], None] | None
    ) -> None:
        self._members, self._weights, self._progress = members, weights, progress
        self.values: Tensor | None = None
        self.total = self.improved = 0
        self._record = Recorder()
        self._stages: list[tuple[str, int]] = []

    def begin(self, stage: str, of: int) -> None:
        """Start a stage of at most `of` steps."""
        self._stage, self._of, self._start = stage, of, self.total
        self.improved = self.total

    def note(self, step: int, values: Tensor, points: Tensor) -> None:
        """Take note of objectives (K,) at points (K, P) after so many steps of the stage.

        Raises:
            ArithmeticError: If one is not finite at the first note.
        """
        recorded, self.total = self.total // STEPS_BETWEEN_ENTRIES, self._start + step
        if self.values is None:
            self._first(values, points)
        else:
            better = values < self.values
            if better.any():
                self.improved = self.total
                self.points = torch.where(better.unsqueeze(1), points, self.points)
                self.values = torch.where(better, values, self.values)
        if self._record.last is None or self.total // STEPS_BETWEEN_ENTRIES != recorded or step >= self._of:
            self._show(step, float(values[: self._members].mean()))

    def end(self) -> Tensor:
        """End the stage; the best points (K, P), which get the last entry of the history if it has none yet."""
        if self.values is not None and self._record.last != self.total:
            self._show(self.total - self._start, float(self.values[: self._members].mean()))
        self._stages.append((self._stage, self.total))
        return self.points.clone()

    def forget(self) -> None:
        """The losses have changed: the next points are the best so far."""
        if self.values is not None:
            self.values = torch.full_like(self.values, torch.inf)

    def history(self, *, interrupted: bool) -> History:
        """All that was recorded."""
        return self._record.history(self._stages, self.total, interrupted=interrupted)

    def _first(self, values: Tensor, points: Tensor) -> None:
        if not values.isfinite().all():
            raise ArithmeticError(
                f"the losses are {values.tolist()} at the start of {self._stage}; look for outliers in the samples"
            )
        self.points, self.values = points.clone(), values.clone()

    def _show(self, step: int, loss: float) -> None:
        self._record.note(self.total, loss, self._weights())
        if self._progress is not None:
            self._progress(Progress(self._stage, step, self._of, loss, float("nan")))


class Stack:
    """K modules of equal shapes whose trainable parameters live in the rows of a matrix (K, P).

    Args:
        modules: The networks, at least one.

    Attributes:
        modules: The networks.
        shapes: Shape of each parameter.
        length: Number of parameters P of one module.
    """

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        self.modules = list(modules)
        self.shapes = [p.shape for p in _trainable(self.modules[0])]
        self._sizes = [prod(shape) for shape in self.shapes]
        self.length = sum(self._sizes)

    def read(self) -> Tensor:
        """The parameters of all modules (K, P), copied."""
        rows = [torch.cat([p.detach().flatten() for p in _trainable(module)]) for module in self.modules]
        return torch.stack(rows)

    def write(self, flat: Tensor, members: Sequence[int] | None = None) -> None:
        """Set the parameters of these members, or of all, to the rows of `flat`."""
        chosen = self.modules if members is None else [self.modules[k] for k in members]
        with torch.no_grad():
            for module, row in zip(chosen, flat, strict=True):
                for parameter, piece in zip(_trainable(module), row.split(self._sizes), strict=True):
                    parameter.copy_(piece.view(parameter.shape))

    def views(self, flat: Tensor) -> list[Tensor]:
        """Each parameter of all K rows (K, ...), sharing the memory of `flat` (K, P)."""
        pieces = flat.split(self._sizes, dim=1)
        return [piece.unflatten(1, shape) for piece, shape in zip(pieces, self.shapes, strict=True)]


def _trainable(module: nn.Module) -> list[nn.Parameter]:
    return [p for p in module.parameters() if p.requires_grad]


class Losses(Protocol):
    """Objectives of K networks, evaluated together."""

    stack: Stack
    objectives: list[Objective]

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P)."""


def run_stages(optimizers: Sequence[Optimizer], losses: Losses, history: BatchHistory) -> bool:
    """Run all stages, each from the best parameters of those before; True if the user stopped them.

    `LBFGS`, and `Adam` on all samples, take all networks along; other stages train one after the other.
    """
    flat = losses.stack.read()
    for stage in optimizers:
        try:
            _run(stage, losses, history, flat)
        except KeyboardInterrupt:
            if history.values is None:
                raise
            losses.stack.write(history.end())
            return True
        flat = history.end()
        losses.stack.write(flat)
    return False


def _run(stage: Optimizer, losses: Losses, history: BatchHistory, flat: Tensor) -> None:
    if isinstance(stage, LBFGS):
        _lbfgs(stage, losses, history, flat)
    elif isinstance(stage, Adam) and stage.batch is None and stage.longest is None:  # gradients are cut one by one
        _adam(stage, losses, history, flat)
    else:
        _in_turn(stage, losses, history, flat)


def _adam(settings: Adam, losses: Losses, history: BatchHistory, flat: Tensor) -> None:
    """First-order steps; all members have the same schedule, and each its own moments."""
    members = torch.arange(len(flat), device=flat.device)
    tensors = losses.stack.views(flat)
    optimizer, schedule = settings.fresh(tensors, matrix=3)
    history.begin("Adam", settings.steps)
    for step in range(settings.steps + 1):
        values, gradient = losses(flat, members)
        history.note(step, values, flat)
        late = settings.patience is not None and history.total - history.improved >= settings.patience
        if step == settings.steps or late:
            return
        for tensor, piece in zip(tensors, losses.stack.views(gradient), strict=True):
            tensor.grad = piece
        optimizer.step()
        schedule.step()
        _reweigh(losses, history, flat)


def _lbfgs(settings: LBFGS, losses: Losses, history: BatchHistory, flat: Tensor) -> None:
    """Quasi-Newton steps until all members have converged; in rounds where weights adapt, which keep the curvature."""
    history.begin("L-BFGS", settings.iterations)
    adaptive = any(objective.weighting.interval for objective in losses.objectives)
    done, curvature = 0, None
    while done < settings.iterations:
        left = settings.iterations - done
        iterations = min(settings.round, left) if adaptive else left
        descent = Descent(losses, flat, iterations=iterations, history=settings.history, curvature=curvature)
        evaluations = 0
        while not descent.done:
            descent.step()
            evaluations += 1
            if evaluations % STEPS_BETWEEN_ENTRIES == 0:
                history.note(done + int(descent.iterations.max()), *reversed(descent.result()))
        (flat, values), curvature = descent.result(), descent.curvature()
        ran = int(descent.iterations.max())
        done += ran
        history.note(done, values, flat)
        if not adaptive or ran == 0:
            return
        _reweigh(losses, history, flat)


def _in_turn(stage: Optimizer, losses: Losses, history: BatchHistory, flat: Tensor) -> None:
    """Any stage, for one network after the other; a step of the history is a network."""
    members = torch.arange(len(flat), device=flat.device)
    history.begin(type(stage).__name__, len(flat))
    history.note(0, losses(flat, members)[0], flat)
    for step, objective in enumerate(losses.objectives, start=1):
        monitor = Monitor(objective, None, None)
        stage.run(objective, monitor)
        monitor.end()
        if objective.weighting.interval:
            history.forget()
        flat = losses.stack.read()
        history.note(step, losses(flat, members)[0], flat)


def _reweigh(losses: Losses, history: BatchHistory, flat: Tensor) -> None:
    """Let the weightings update their weights where that is due."""
    if not any(objective.weighting.interval for objective in losses.objectives):
        return
    losses.stack.write(flat)
    if any([objective.reweigh(history.total) for objective in losses.objectives]):
        history.forget()


class OneByOne:
    """Objectives and their gradients by automatic differentiation, at the cost of K networks.

    Args:
        stack: The K networks.
        objectives: What each minimizes.
    """

    def __init__(self, stack: Stack, objectives: Sequence[Objective]) -> None:
        self.stack, self.objectives = stack, list(objectives)

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P)."""
        chosen = members.tolist()
        self.stack.write(flat, chosen)
        losses, gradients = [], []
        for member in chosen:
            objective = self.objectives[member]
            loss = objective()
            pieces = torch.autograd.grad(loss, objective.parameters, allow_unused=True, materialize_grads=True)
            losses.append(loss.detach())
            gradients.append(torch.cat([piece.flatten() for piece in pieces]))
        return torch.stack(losses), torch.stack(gradients)
