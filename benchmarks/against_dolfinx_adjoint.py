"""Samples with Jacobian a second, against dolfinx-adjoint and a plain DOLFINx script, on a neo-Hookean block."""

from __future__ import annotations

from collections.abc import Callable
import itertools

from mpi4py import MPI  # noqa: F401  (before dolfinx)
import dolfinx
import dolfinx.fem.petsc
import dolfinx_adjoint
import numpy as np
import pyadjoint
from rich.table import Table

from benchmarks.rubber_block import MODES, MUMPS, TOLERANCE, Block, block, points
from benchmarks.timing import medians

CELLS = (36, 36)
SNES = {
    "snes_rtol": TOLERANCE,
    "snes_linesearch_type": "none",
    "snes_error_if_not_converged": True,
} | MUMPS


def taped() -> Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Responses and Jacobian by dolfinx-adjoint: forms, solvers and tape made once, Newton from the last solution.

    The control is the modulus as a function: one derivative a response, then projected on the basis.
    """
    pyadjoint.set_working_tape(pyadjoint.Tape())
    pyadjoint.continue_annotation()
    parts = block(CELLS, function=dolfinx_adjoint.Function)
    solver = dolfinx_adjoint.NonlinearProblem(
        parts.residual, parts.unknown, bcs=parts.bcs, petsc_options=SNES, adjoint_petsc_options=MUMPS
    )
    solver.solve()
    values = responses(parts, dolfinx_adjoint.assemble_scalar)
    control = pyadjoint.Control(parts.log_modulus)
    reduced = [pyadjoint.ReducedFunctional(value, control) for value in values]
    pyadjoint.pause_annotation()
    basis = np.array([shape.x.array for shape in parts.basis])

    def sample(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert solver.solver.getConvergedReason() > 0  # and keeps it alive: the tape would rebuild it
        modulus = dolfinx_adjoint.Function(parts.log_modulus.function_space)
        modulus.x.array[:] = parts.field(x)
        reduced[0](modulus)  # replays the whole tape, all responses
        slopes = [functional.derivative().x.array for functional in reduced]
        return np.array([value.block_variable.saved_output for value in values]), np.array(slopes) @ basis.T

    return sample


def responses(parts: Block, assemble: Callable) -> list:
    """The block's responses from its integrals."""
    integrals = [[assemble(form) for form in response.forms] for response in parts.responses]
    return [r.combine(*own) if r.combine else own[0] for r, own in zip(parts.responses, integrals, strict=True)]


def plain_script(field: np.ndarray) -> np.ndarray:
    """One sample as a script would do it: mesh, spaces, forms and solver anew; responses alone."""
    parts = block(CELLS, modes=0)
    parts.log_modulus.x.array[:] = field
    solver = dolfinx.fem.petsc.NonlinearProblem(
        parts.residual, parts.unknown, bcs=parts.bcs, petsc_options=SNES, petsc_options_prefix="plain_"
    )
    solver.solve()
    return np.array(responses(parts, lambda form: dolfinx.fem.assemble_scalar(dolfinx.fem.form(form))))


def table() -> Table:
    """Samples a second at ever new points; the numbers agree."""
    parts, tape, xs = block(CELLS), taped(), itertools.cycle(points(50))
    problem, x = parts.problem(), next(xs)
    warm = block(CELLS).problem()
    warm.warm_start()
    values, jacobian = problem.evaluate(x)
    theirs, their_jacobian = tape(x)
    assert jacobian is not None
    assert np.allclose(values, theirs, rtol=1e-7, atol=0.0)
    assert np.allclose(jacobian, their_jacobian, rtol=1e-6, atol=1e-7 * np.abs(jacobian).max())
    assert np.allclose(values, plain_script(parts.field(x)), rtol=1e-7, atol=0.0)
    times = medians(
        {
            "warm": lambda: warm.evaluate(next(xs)),
            "problem": lambda: problem.evaluate(next(xs)),
            "tape": lambda: tape(next(xs)),
            "script": lambda: plain_script(parts.field(next(xs))),
        }
    )
    shown = Table(
        f"{parts.unknowns:,} unknowns, one rank", "samples a second", "times slower", title="against dolfinx-adjoint"
    )
    rows = (
        (f"Problem.evaluate: 5 responses and their {MODES} derivatives", times["problem"]),
        ("the same after Problem.warm_start()", times["warm"]),
        ("dolfinx-adjoint, warm tape and warm start: the same", times["tape"]),
        ("script that rebuilds: 5 responses, no derivative", times["script"]),
        (f"script that rebuilds: central differences by {MODES} parameters", times["script"] * (2 * MODES + 1)),
    )
    for name, seconds in rows:
        shown.add_row(name, f"{1 / seconds:.2f}", f"{seconds / times['problem']:.1f}")
    return shown
