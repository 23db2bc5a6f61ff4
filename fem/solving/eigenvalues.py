"""Lowest eigenvalues of two symmetric matrices by SLEPc, and whether they are simple."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from petsc4py import PETSc

from sobofem.fem.errors import NotConverged
from sobofem.fem.solving.linear_solver import SYMMETRIC

if TYPE_CHECKING:
    from slepc4py import SLEPc

APART = 1e-6
"""Relative distance below which two eigenvalues count as one that repeats, which has no derivative."""

SHIFTS = 10.0 ** np.arange(-11, 7)
"""How far below zero, relative to the largest eigenvalue, the lowest are looked for: a body that floats has some at
zero, where the matrix can't be factorized; round-off is at 1e-16. One that is unstable has some below, and the first
shift that leaves none of them behind is taken, as negative pivots tell (Sylvester's law of inertia)."""

TOLERANCE, RESTARTS = 1e-11, 500
"""Residual of a mode, relative to its eigenvalue, and most restarts until then; some five are usual."""


def krylov_schur(comm: Any, count: int) -> SLEPc.EPS:
    """Krylov-Schur on a factorization by MUMPS, for so many modes of two symmetric matrices."""
    from slepc4py import SLEPc

    solver = SLEPc.EPS().create(comm)
    solver.setProblemType(SLEPc.EPS.ProblemType.GHEP)
    solver.setDimensions(count)
    solver.setTolerances(TOLERANCE, RESTARTS)
    inner = solver.getST().getKSP()
    inner.setType(str(SYMMETRIC["ksp_type"]))
    inner.getPC().setType(str(SYMMETRIC["pc_type"]))
    inner.getPC().setFactorSolverType(str(SYMMETRIC["pc_factor_mat_solver_type"]))
    return solver


def solve(solver: SLEPc.EPS, targets: Sequence[float] = ()) -> None:
    """Solve, next to the first target below which there is no eigenvalue, if any are given."""
    try:
        for target in targets:
            solver.setTarget(target)
            solver.getST().setShift(target)
            solver.setUp()
            if not solver.getST().getKSP().getPC().getFactorMatrix().getMumpsInfog(12):
                break
        solver.solve()
    except (PETSc.Error, SystemError) as error:  # the second where SLEPc's binding raises twice
        raise NotConverged(
            "the eigenvalue problem can't be solved: a form is singular, or the mass (of buckling, the stiffness) is "
            "not positive",
            reason="eigenvalues not found",
        ) from error


def check_simple(eigenvalues: np.ndarray, group: Sequence[int]) -> None:
    """Refuse modes outside of what was found, and a group that another mode shares an eigenvalue with.

    Raises:
        NotConverged: With the numbers of the modes to take together.
    """
    if max(group) >= len(eigenvalues):
        raise missing(max(group), len(eigenvalues))
    for number in group:
        distance = np.abs(eigenvalues - eigenvalues[number])
        same = np.flatnonzero(distance <= APART * abs(eigenvalues[number]))
        if not set(same) <= set(group):
            together = ", ".join(str(k) for k in sorted(set(same) | set(group)))
            raise NotConverged(
                f"mode {number} has an eigenvalue that repeats, and no derivative; take modes ({together}) together",
                reason="repeated eigenvalue",
            )


def missing(number: int, found: int) -> NotConverged:
    """The failure of a mode that is not among those found."""
    return NotConverged(f"mode {number} was not found, just {found}", reason="eigenvalues not found")
