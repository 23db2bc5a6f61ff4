"""A panel with a learned law against the same panel with a cell solved at each quadrature point (direct FE²).

The law is the one that comes with the library, certified by `examples/two_scales.py`; the cell is the one that it was
learned of.
"""

from __future__ import annotations

from time import process_time

from mpi4py import MPI
import numpy as np
from rich.table import Table

from sobofem import fem
from sobofem.coupling.library.composite_panel import composite_panel, fibre_cell

POINT = (0.4, 0.35, 0.25)
"""Deflection [mm], and radii at both ends."""

CELLS = (4, 2)


def measured(problem: fem.Problem) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Responses, Jacobian, Newton steps and processor seconds, of the second of two evaluations of other points."""
    problem.evaluate(np.multiply(POINT, 0.99))  # what is compiled and loaded at first use
    start = process_time()
    y, jacobian = problem.evaluate(POINT)
    seconds = process_time() - start
    assert jacobian is not None
    return y, jacobian, len(problem._equilibrium.residuals) - 1, seconds


def rows(cells: tuple[int, int] = CELLS, micro: int = 12) -> dict[str, tuple[np.ndarray, np.ndarray, int, float]]:
    """Figures of both."""
    nested = composite_panel(MPI.COMM_SELF, law=fibre_cell(cells=micro), cells=cells)
    learned = composite_panel(MPI.COMM_SELF, cells=cells)
    return {"a cell at each point": measured(nested), "learned law": measured(learned)}


def table() -> Table:
    """Both."""
    found = rows()
    (true, slopes, _, slow), (y, own, _, fast) = found.values()
    title = f"{CELLS[0]} x {CELLS[1]} cells of nine points; the law is {slow / fast:.0f} times as fast"
    shown = Table("panel", "force", "d force/d radius_left", "energy", "Newton steps", "cpu [s]", title=title)
    for name, (response, jacobian, steps, seconds) in found.items():
        numbers = (response[0], jacobian[0, 1], response[1])
        shown.add_row(name, *(f"{number:.5g}" for number in numbers), str(steps), f"{seconds:.3f}")
    errors = (y[0] / true[0], own[0, 1] / slopes[0, 1], y[1] / true[1])
    shown.add_row("error of the law", *(f"{abs(error - 1):.2%}" for error in errors), "", "")
    return shown
