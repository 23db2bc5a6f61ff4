"""What the Jacobian of a nonlinear problem costs on top of the responses, how exact it is, and a Hessian's product."""

from __future__ import annotations

from mpi4py import MPI  # noqa: F401  (before dolfinx)
import dolfinx
import dolfinx.fem.petsc
import numpy as np
from petsc4py import PETSc
from rich.table import Table
import ufl

from benchmarks.rubber_block import MODES, MUMPS, Block, block, points
from benchmarks.timing import medians

CASES = (("2D", (72, 72), 15), ("3D", (8, 8, 8), 7), ("3D", (12, 12, 12), 3))


def table() -> Table:
    """Seconds and ratios, and the Jacobian's error relative to the largest derivative of each response.

    The last column is one of many products with the Hessian of a weighted sum of the responses at one point, over the
    cost of the responses.
    """
    shown = Table(
        "block", "unknowns", "n × m", "responses [s]", "and Jacobian [s]", "ratio", "by differences", "error",
        "Hessian product", title="neo-Hookean block: cost of (responses + Jacobian) / cost of responses",
    )  # fmt: skip
    for name, cells, repetitions in CASES:
        shown.add_row(name, *_row(block(cells), repetitions))
    return shown


def _row(parts: Block, repetitions: int) -> list[str]:
    problem, (x, direction) = parts.problem(), points(2)
    weights = np.linspace(1.0, 2.0, len(parts.responses))
    times = medians(
        {
            "responses": lambda: problem.evaluate(x, jacobian=False),
            "jacobian": lambda: problem.evaluate(x),
        },
        repetitions=repetitions,
    )
    times |= medians({"product": lambda: problem.hvp(x, weights, direction)}, repetitions=repetitions)
    _, jacobian = problem.evaluate(x)
    exact = fresh_jacobian(parts)
    error = np.abs((jacobian - exact) / np.abs(exact).max(axis=1, keepdims=True)).max()
    return [
        f"{parts.unknowns:,}", f"{MODES} × {len(problem.responses)}", f"{times['responses']:.3f}",
        f"{times['jacobian']:.3f}", f"{times['jacobian'] / times['responses']:.3f}", f"{2 * MODES + 1}", f"{error:.0e}",
        f"{times['product'] / times['responses']:.3f}",
    ]  # fmt: skip


def fresh_jacobian(parts: Block) -> np.ndarray:
    """The Jacobian at the block's present state, by forms and a factorization made for this purpose alone."""
    u, v = parts.unknown, ufl.TestFunction(parts.unknown.function_space)
    matrix = dolfinx.fem.petsc.assemble_matrix(
        dolfinx.fem.form(ufl.derivative(parts.residual, u, ufl.TrialFunction(u.function_space))), bcs=parts.bcs
    )
    matrix.assemble()
    solver = PETSc.KSP().create(matrix.comm)
    solver.setOperators(matrix)
    solver.setType(MUMPS["ksp_type"])
    solver.getPC().setType(MUMPS["pc_type"])
    solver.getPC().setFactorSolverType(MUMPS["pc_factor_mat_solver_type"])
    loads = [_vector(ufl.derivative(parts.residual, parts.log_modulus, shape), parts) for shape in parts.basis]
    rows = []
    for response in parts.responses:
        (form,) = response.forms
        slope, adjoint = _vector(ufl.derivative(form, u, v), parts), matrix.createVecLeft()
        solver.solveTranspose(slope, adjoint)
        direct = [_scalar(ufl.derivative(form, parts.log_modulus, shape)) for shape in parts.basis]
        outer = response.combine(_scalar(form) + 1e-30j).imag / 1e-30 if response.combine else 1.0
        rows.append([outer * (part - adjoint.dot(load)) for part, load in zip(direct, loads, strict=True)])
    return np.array(rows)


def _vector(form: ufl.Form, parts: Block) -> PETSc.Vec:
    vector = dolfinx.fem.petsc.assemble_vector(dolfinx.fem.form(form))
    dolfinx.fem.petsc.set_bc(vector, parts.bcs, alpha=0.0)
    return vector


def _scalar(form: ufl.Form) -> float:
    return float(dolfinx.fem.assemble_scalar(dolfinx.fem.form(form)))
