"""Published topology optima, on their own meshes: what was published, plain optimality criteria, and ours.

Optimality criteria are those of Sigmund (2001), with the same model and filter, until no density changes by 0.01: they
show that the problem is the published one. Our search ends by its certificate, or after the solves that it is given.
What a sensitivity filter finds is the optimum of no function; that row only checks the model.

    python -m benchmarks topology
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time

from mpi4py import MPI
import numpy as np
from rich.table import Table
from scipy.sparse import csr_matrix
from scipy.spatial import cKDTree

from examples.topology_problems import bridge, cantilever
from sobofem.coupling.models.fixed import Fixed
from sobofem.coupling.optimize import Solution, Task, minimize
from sobofem.fem.library.mbb_beam import mbb_beam

MOVE, CHANGE, MOST = 0.2, 0.01, 1000
LINEAR = {"sharpness": 0.01}
"""The projection of the examples, left out."""


@dataclass(frozen=True)
class Case:
    """A problem of least compliance.

    Attributes:
        name: In the table.
        source: Where the value was published.
        published: Compliance; None where none was.
        model: Makes the model, with the responses `compliance` and `volume`.
        share: Of the box that may be filled.
        cells: Of a sensitivity filter, along both axes; None for the filter of the model.
        radius: Of a sensitivity filter, in cells.
    """

    name: str
    source: str
    published: float | None
    model: Callable[[], object]
    share: float
    cells: tuple[int, int] | None = None
    radius: float = 0.0


def _mbb(cells: tuple[int, int], radius: float) -> Callable[[], object]:
    return lambda: mbb_beam(MPI.COMM_SELF, cells=cells, radius=radius, void=1e-9)


ANDREASSEN = "Andreassen et al. 2011"
CASES = (
    Case("MBB 60 x 20, sensitivity filter 2.4", ANDREASSEN, 216.81, _mbb((60, 20), 1.0), 0.5, (60, 20), 2.4),
    Case("MBB 150 x 50, sensitivity filter 6", ANDREASSEN, 219.52, _mbb((150, 50), 1.0), 0.5, (150, 50), 6.0),
    Case("MBB 60 x 20, density filter 2.4", ANDREASSEN, 233.71, _mbb((60, 20), 2.4), 0.5),
    Case("MBB 150 x 50, density filter 6", ANDREASSEN, 235.73, _mbb((150, 50), 6.0), 0.5),
    Case("cantilever 32 x 20, density filter 1.5", "Sigmund 2001", None, lambda: Fixed(cantilever(), LINEAR), 0.4),
    Case("bridge 60 x 20, density filter 1.5", "-", None, lambda: Fixed(bridge(), LINEAR), 0.3),
)


def table(cases: tuple[Case, ...] = CASES, *, solves: int = 600) -> Table:
    """Objectives, solves and processor times."""
    shown = Table(
        *("problem", "source", "published", "optimality criteria", "iterations", "ours", "/ published", "residual"),
        *("solves", "time / OC"),
        title="published topology optima: least compliance",
    )
    for case in cases:
        model, begun = case.model(), time.process_time()
        blur = None if case.cells is None else sensitivity_filter(case.cells, case.radius)
        plain, iterations = optimality_criteria(model, case.share, blur)
        spent, known = time.process_time() - begun, case.published
        row = [case.name, case.source, f"{known:.2f}" if known else "-", f"{plain:.2f}", str(iterations)]
        if blur is not None:
            shown.add_row(*row, *["-"] * 5)
            continue
        begun = time.process_time()
        found = _ours(model, case.share, solves)
        best = [
            f"{found.objective:.2f}",
            f"{found.objective / (known or plain):.4f}",
            f"{found.optimum.optimality:.0e}",
        ]
        shown.add_row(*row, *best, str(found.solves), f"{(time.process_time() - begun) / spent:.1f}")
    return shown


def _ours(model: object, share: float, solves: int) -> Solution:
    start = np.full(len(model.parameters), share)
    return minimize(model, Task("compliance", at_most={"volume": share}), start=start, solves=solves)


def optimality_criteria(model: object, share: float, blur: csr_matrix | None = None) -> tuple[float, int]:
    """The compliance that the optimality criteria method ends at, and its iterations.

    Args:
        model: Has the responses `compliance` and `volume`, which is linear in the densities.
        share: Of the box that may be filled; all densities at the start.
        blur: Averages of a sensitivity filter (n, n).
    """
    x = np.full(len(model.parameters), share)
    rows = [tuple(model.responses).index(name) for name in ("compliance", "volume")]
    iterations, moved = 0, np.inf
    while moved >= CHANGE and iterations < MOST:
        iterations += 1
        y, slopes = model.evaluate(x)
        by_density, by_volume = slopes[rows]
        if blur is not None:
            by_density = blur @ (x * by_density) / np.maximum(x, 1e-3)
        low, high = 0.0, 1e9
        while high - low > 1e-6 * (high + low):
            multiplier = 0.5 * (low + high)
            new = x * np.sqrt(np.maximum(-by_density, 0.0) / by_volume / multiplier)
            new = np.clip(np.clip(new, x - MOVE, x + MOVE), 0.0, 1.0)
            low, high = (multiplier, high) if by_volume @ new > share else (low, multiplier)
        moved, x = float(np.abs(new - x).max()), new
    return float(y[rows[0]]), iterations


def sensitivity_filter(cells: tuple[int, int], radius: float) -> csr_matrix:
    """Averages (n, n) of a cone over square cells, column by column."""
    grid = np.stack(np.meshgrid(*map(np.arange, cells), indexing="ij"), axis=-1).reshape(-1, 2)
    tree = cKDTree(grid)
    near = tree.sparse_distance_matrix(tree, radius, output_type="ndarray")
    cone = csr_matrix((radius - near["v"], (near["i"], near["j"])), shape=(len(grid), len(grid)))
    return cone.multiply(1.0 / cone.sum(axis=1)).tocsr()
