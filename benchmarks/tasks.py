"""What surrogates are compared on: four closed forms and three finite-element models, with exact derivatives.

Training samples are the first n points of scrambled Sobol' sequences: the smaller sets of a design are part of its
larger ones, and different designs are different scramblings. Test points are drawn independently of them and
uniformly, 1,000 for each task. Finite-element samples are computed once and kept in a folder, `benchmarks-data` or
what the environment variable SOBOFEM_BENCHMARK_DATA names:

    python -m benchmarks.tasks plate block notched --designs 5
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from benchmarks.closed_forms import FUNCTIONS
from sobofem.coupling import Dataset, Design, Progress, generate
from sobofem.coupling.design import Recipe
from sobofem.coupling.display import display, generation
from sobofem.surrogate import Samples

if TYPE_CHECKING:
    from mpi4py import MPI

    from sobofem.fem import Problem

MODELS = {
    "plate": "plate_with_hole",
    "block": "random_block",
    "notched": "benchmarks.tasks:notched",
}
"""Linear, with 6 inputs; neo-Hookean, 10; J2 plasticity with unloading, 8. All have 5 responses."""

TASKS = (*FUNCTIONS, *MODELS)
UNSEEN, UNSEEN_SEED = 1000, 20_000
DESIGNS, SAMPLES = 5, 256
FOLDER, VARIABLE = "benchmarks-data", "SOBOFEM_BENCHMARK_DATA"


def samples(task: str, n: int, design: int) -> Samples:
    """The n training samples of one design; finite-element samples are solved now where they aren't in the folder.

    Args:
        task: One of `TASKS`.
        n: Number of samples; those of a smaller n are the first of these. A point that a finite-element model can't
            solve is left out and not replaced.
        design: Number of the design, from 0: the seed of the scrambling.

    Raises:
        ValueError: If there is no such task.
    """
    return _sampled(task, Design("sobol", n, design), f"design-{design}")


def unseen(task: str, count: int = UNSEEN) -> Samples:
    """The points at which the errors of a task are measured, 1,000 or the first of these, the same for every design.

    Raises:
        ValueError: If there is no such task.
    """
    return _sampled(task, Uniform(count, UNSEEN_SEED), "unseen")


@dataclass(frozen=True)
class Uniform:
    """A recipe for independent points, uniform in the box.

    Attributes:
        samples: Number of points N.
        seed: Seed of the draw.
    """

    samples: int
    seed: int
    kind = "uniform"

    def points(self, bounds: ArrayLike, parameters: Sequence[str] | None = None) -> np.ndarray:
        """The points (N, n) in the box (n, 2)."""
        low, high = np.asarray(bounds).T
        return np.random.default_rng(self.seed).uniform(low, high, size=(self.samples, len(low)))


def notched(comm: MPI.Intracomm | None = None) -> Problem:
    """The notched specimen on a mesh of twice the cell size, with half the load steps: 0.17 s a sample.

    The mesh is made once, by gmsh, and kept beside the samples.
    """
    from mpi4py import MPI

    from sobofem.fem.library.notched_specimen import notched_specimen
    from sobofem.meshes.notched_specimen import write_specimen

    mesh = folder() / "notched_specimen.xdmf"
    if not mesh.exists():
        write_specimen(mesh, size=2.0)
    return notched_specimen(MPI.COMM_SELF if comm is None else comm, mesh=mesh, steps=3)


def folder() -> Path:
    """Where finite-element samples and results are kept; made where it is missing."""
    path = Path(os.environ.get(VARIABLE) or FOLDER)
    path.mkdir(parents=True, exist_ok=True)
    return path


def fill(task: str, *, designs: int = DESIGNS, n: int = SAMPLES) -> None:
    """Solve whatever is missing of a finite-element task: its test points first, then n samples of each design.

    Raises:
        ValueError: If what is there was made by another definition of the model.
    """
    recipes: dict[str, Recipe] = {"unseen": Uniform(UNSEEN, UNSEEN_SEED)}
    recipes |= {f"design-{design}": Design("sobol", n, design) for design in range(designs)}
    for name, recipe in recipes.items():
        with display() as update:

            def report(progress: Progress, name: str = name) -> None:
                update(progress.done + progress.failed, progress.total, f"{task} {name}: {generation(progress)}")

            generate(MODELS[task], recipe, _path(task, name), progress=report)


def _sampled(task: str, recipe: Design | Uniform, name: str) -> Samples:
    if task not in TASKS:
        raise ValueError(f"no task is called {task!r}; there are {', '.join(TASKS)}")
    if task in MODELS:
        return Samples.of(_solved(task, recipe, name))
    function = FUNCTIONS[task]
    x = recipe.points(function.bounds)
    y, jacobian = function.evaluate(x)
    parameters, responses = tuple(function.inputs), (function.response,)
    return Samples(x, y, jacobian, parameters, responses, function.bounds, function.units)


def _solved(task: str, recipe: Design | Uniform, name: str) -> Dataset:
    path = _path(task, name)
    if path.exists():
        data = Dataset.open(path)
        settled = np.union1d(data.rows, np.array([failure.row for failure in data.failures], dtype=np.int64))
        if (settled < recipe.samples).sum() == recipe.samples:
            return data.head(recipe.samples)
    return generate(MODELS[task], recipe, path).head(recipe.samples)


def _path(task: str, name: str) -> Path:
    return folder() / f"{task}-{name}.h5"


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tasks", description=__doc__.splitlines()[0])
    parser.add_argument("tasks", nargs="+", choices=tuple(MODELS), metavar="TASK", help=", ".join(MODELS))
    parser.add_argument("--designs", type=int, default=DESIGNS, help="training designs of each task (default: 5)")
    parser.add_argument("--samples", type=int, default=SAMPLES, help="samples of each design (default: 256)")
    options = parser.parse_args()
    for task in options.tasks:
        fill(task, designs=options.designs, n=options.samples)


if __name__ == "__main__":
    main()
