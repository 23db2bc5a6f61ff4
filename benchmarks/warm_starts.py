"""Newton steps and processor time of nonlinear problems of the library, from the undeformed and predicted states."""

from __future__ import annotations

from dataclasses import dataclass
import time

import numpy as np
from rich.table import Table

from sobofem.coupling.contract import Model, Sampled
from sobofem.coupling.design import Design
from sobofem.coupling.models.loading import load_model
from sobofem.fem import NotConverged

PROBLEMS = (
    "composite_cell",
    "random_block",
    "composite_panel",
    "l_shape",
    "strip_with_hole",
    "hyperelastic_square",
)
SAMPLES = 64


@dataclass
class Run:
    """What samples took, and their answers.

    Attributes:
        steps: Newton steps.
        seconds: Processor time, but for the first sample, which compiles.
        answers: Responses of each sample; NaN where there was none.
    """

    steps: int
    seconds: float
    answers: np.ndarray


def table(problems: tuple[str, ...] = PROBLEMS, samples: int = SAMPLES) -> Table:
    """A line for each problem."""
    shown = Table(
        "problem", "unknowns", "parameters", "Newton steps a sample", "from predictions", "ratio", "time ratio",
        "difference", title=f"{samples} samples with Jacobians, one rank",
    )  # fmt: skip
    for name in problems:
        shown.add_row(name, *_row(name, samples))
    return shown


def _row(name: str, samples: int) -> list[str]:
    cold, warm = load_model(name), load_model(name)
    points = _points(name, cold, samples)
    warm.warm_start()  # type: ignore[attr-defined]
    ordinary, predicted = (_run(model, points, jacobian=name != "hyperelastic_square") for model in (cold, warm))
    scale = np.nanmax(np.abs(ordinary.answers), axis=0)
    assert np.array_equal(np.isnan(ordinary.answers), np.isnan(predicted.answers))
    difference = np.nanmax(np.abs(predicted.answers - ordinary.answers) / np.where(scale > 0.0, scale, 1.0))
    space = _problem(cold).unknown.function_space.dofmap
    return [
        f"{space.index_map.size_global * space.index_map_bs:,}",
        str(points.shape[1]),
        f"{ordinary.steps / samples:.1f}",
        f"{predicted.steps / samples:.1f}",
        f"{predicted.steps / ordinary.steps:.2f}",
        f"{predicted.seconds / ordinary.seconds:.2f}",
        f"{difference:.0e}",
    ]


def _points(name: str, model: Model, samples: int) -> np.ndarray:
    """Those of the model's own design where it has one, else of Sobol's sequence."""
    if isinstance(model, Sampled):
        return np.asarray(model.sample(samples, 0))
    if name == "hyperelastic_square":
        from sobofem.fem.library.hyperelastic_square import log_modulus_field

        return np.asarray(log_modulus_field(_problem(model)).sample(samples, seed=0))
    return Design("sobol", samples, 0).points(model.bounds, model.parameters)


def _problem(model: Model) -> object:
    while not hasattr(model, "unknown"):
        model = getattr(model, "problem", None) or model._output  # type: ignore[attr-defined]
    return model


def _run(model: Model, points: np.ndarray, *, jacobian: bool) -> Run:
    equilibrium = _problem(model)._equilibrium  # type: ignore[attr-defined]
    answers, seconds, before = [], 0.0, equilibrium.steps
    for number, x in enumerate(points):
        start = time.process_time()
        try:
            answers.append(model.evaluate(x, jacobian=jacobian)[0])
        except NotConverged:
            answers.append(np.full(len(model.responses), np.nan))
        seconds += (time.process_time() - start) * (number > 0)
    return Run(equilibrium.steps - before, seconds, np.array(answers))
