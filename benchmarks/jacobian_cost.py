"""What the Jacobian costs on top of the responses, and what central differences would."""

from __future__ import annotations

from pathlib import Path
import tempfile

from mpi4py import MPI
from rich.table import Table

from benchmarks.timing import medians
from sobofem.fem import Problem
from sobofem.fem.library.cantilever import cantilever
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.meshes.plate_with_hole import write_plate

PLATE = [70e3, 0.3, 100.0, 50.0, 24.0, 16.0]
BEAM = [210e3, 0.3, 1000.0, 200.0, 45.0, 25.0, 20.0]


def table() -> Table:
    """Seconds and ratios for both library problems, small and large."""
    with tempfile.TemporaryDirectory() as folder:
        fine = plate_with_hole(MPI.COMM_SELF, mesh=write_plate(Path(folder) / "fine.xdmf", size=1.75))
    rows = [
        ("plate, 2D", plate_with_hole(MPI.COMM_SELF), PLATE),
        ("plate, 2D", fine, PLATE),
        ("cantilever, 3D", cantilever(MPI.COMM_SELF), BEAM),
        ("cantilever, 3D", cantilever(MPI.COMM_SELF, cells=(32, 6, 3)), BEAM),
    ]
    shown = Table(
        "problem", "unknowns", "n × m", "responses [s]", "and Jacobian [s]", "ratio", "by differences",
        title="cost of (responses + Jacobian) / cost of responses",
    )  # fmt: skip
    for name, problem, x in rows:
        shown.add_row(name, *_row(problem, x))
    return shown


def _row(problem: Problem, x: list[float]) -> list[str]:
    times = medians({"responses": lambda: problem.evaluate(x, jacobian=False), "jacobian": lambda: problem.evaluate(x)})
    space = problem.unknown.function_space.dofmap
    unknowns = space.index_map.size_global * space.index_map_bs
    n, m = len(problem.parameters), len(problem.responses)
    ratio = times["jacobian"] / times["responses"]
    return [
        f"{unknowns:,}", f"{n} × {m}", f"{times['responses']:.4f}", f"{times['jacobian']:.4f}", f"{ratio:.2f}",
        f"{2 * n + 1}",
    ]  # fmt: skip
