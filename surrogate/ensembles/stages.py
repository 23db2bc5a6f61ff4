"""The stages of training, run for several networks at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from surrogate.ensembles.course import EVERY, Course
from surrogate.ensembles.descent import Descent
from surrogate.ensembles.stack import Stack
from surrogate.monitor import Monitor
from surrogate.objective import Objective
from surrogate.optimizers import LBFGS, Adam, Optimizer


class Losses(Protocol):
    """Objectives of K networks, evaluated together."""

    stack: Stack
    objectives: list[Objective]

    def __call__(self, flat: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (k,) and gradient (k, P) of these members (k,) at the rows of `flat` (k, P)."""


def run_stages(optimizers: Sequence[Optimizer], losses: Losses, course: Course) -> bool:
    """Run all stages, each from the best parameters of those before; True if the user stopped them.

    `LBFGS`, and `Adam` on all samples, take all networks along; other stages train one after the other.
    """
    flat = losses.stack.read()
    for stage in optimizers:
        try:
            _run(stage, losses, course, flat)
        except KeyboardInterrupt:
            if course.values is None:
                raise
            losses.stack.write(course.end())
            return True
        flat = course.end()
        losses.stack.write(flat)
    return False


def _run(stage: Optimizer, losses: Losses, course: Course, flat: Tensor) -> None:
    if isinstance(stage, LBFGS):
        _lbfgs(stage, losses, course, flat)
    elif isinstance(stage, Adam) and stage.batch is None:
        _adam(stage, losses, course, flat)
    else:
        _in_turn(stage, losses, course, flat)


def _adam(settings: Adam, losses: Losses, course: Course, flat: Tensor) -> None:
    """First-order steps; all members have the same schedule, and each its own moments."""
    members = torch.arange(len(flat), device=flat.device)
    tensors = losses.stack.views(flat)
    optimizer, schedule = settings.fresh(tensors, matrix=3)
    course.begin("Adam", settings.steps)
    for step in range(settings.steps + 1):
        values, gradient = losses(flat, members)
        course.note(step, values, flat)
        late = settings.patience is not None and course.total - course.improved >= settings.patience
        if step == settings.steps or late:
            return
        for tensor, piece in zip(tensors, losses.stack.views(gradient), strict=True):
            tensor.grad = piece
        optimizer.step()
        schedule.step()
        _reweigh(losses, course, flat)


def _lbfgs(settings: LBFGS, losses: Losses, course: Course, flat: Tensor) -> None:
    """Quasi-Newton steps until all members have converged; in rounds where weights adapt, which keep the curvature."""
    course.begin("L-BFGS", settings.iterations)
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
            if evaluations % EVERY == 0:
                course.note(done + int(descent.iterations.max()), *reversed(descent.result()))
        (flat, values), curvature = descent.result(), descent.curvature()
        ran = int(descent.iterations.max())
        done += ran
        course.note(done, values, flat)
        if not adaptive or ran == 0:
            return
        _reweigh(losses, course, flat)


def _in_turn(stage: Optimizer, losses: Losses, course: Course, flat: Tensor) -> None:
    """Any stage, for one network after the other; a step of the course is a network."""
    members = torch.arange(len(flat), device=flat.device)
    course.begin(type(stage).__name__, len(flat))
    course.note(0, losses(flat, members)[0], flat)
    for step, objective in enumerate(losses.objectives, start=1):
        monitor = Monitor(objective, None, None)
        stage.run(objective, monitor)
        monitor.end()
        if objective.weighting.interval:
            course.forget()
        flat = losses.stack.read()
        course.note(step, losses(flat, members)[0], flat)


def _reweigh(losses: Losses, course: Course, flat: Tensor) -> None:
    """Let the weightings update their weights where that is due."""
    if not any(objective.weighting.interval for objective in losses.objectives):
        return
    losses.stack.write(flat)
    if any([objective.reweigh(course.total) for objective in losses.objectives]):
        course.forget()
