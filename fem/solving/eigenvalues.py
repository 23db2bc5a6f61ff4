"""Lowest eigenvalues of two symmetric matrices by SLEPc, and whether they are simple."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.forms import expand, with_quadrature_degrees
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

ALIKE = 0.25
"""Least modal assurance criterion, cos² of the angle between two shapes, at which a mode counts as like another."""

TINY = np.finfo(np.float64).tiny
"""Instead of a mass of zero."""

AGREED = 0.5
"""Relative difference of an eigenvalue and the quotient of its mode, if that has digits, from which on it is zero."""

TOLERANCE, RESTARTS = 1e-11, 500
"""Residual of a mode, relative to its eigenvalue, and most restarts until then; some five are usual."""


DIGITS = 0.2
"""Part of a mode's energy up to which round-off may reach if all of its terms add up; they do so to a hundredth. A
column some 4,000 times as long as thick is at it, and one of 10,000 has a load factor without any digits."""


def hold(matrix: PETSc.Mat, fixed: np.ndarray) -> float:
    """Put the size of an assembled matrix on its diagonal at owned rows where it has zero; that size. Collective."""
    size = float(matrix.norm(PETSc.NormType.INFINITY))
    diagonal = matrix.getDiagonal()
    diagonal.array[fixed] = size or 1.0
    matrix.setDiagonal(diagonal)
    diagonal.destroy()
    return size


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
            "not positive. If a body floats, hold its rigid motions by `bcs` of its buckling modes",
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


def count_positive(solver: SLEPc.EPS, left: PETSc.Mat, right: PETSc.Mat) -> int:
    """How many eigenvalues of left φ = μ right φ, largest first, are positive and no round-off of zero. Collective."""
    mode, product = left.createVecs()
    found, positive = 0, True
    while positive and found < solver.getConverged():
        eigenvalue = solver.getEigenpair(found, mode).real
        left.mult(mode, product)
        work = product.dot(mode)
        right.mult(mode, product)
        # the mode of an eigenvalue that is zero but for round-off is any, such as that of a negative one
        agreed = abs(work - eigenvalue * product.dot(mode)) <= AGREED * abs(work) or not has_digits(right, mode)
        positive = eigenvalue > 0.0 and agreed
        found += positive
    mode.destroy()
    product.destroy()
    return found


def has_digits(matrix: PETSc.Mat, mode: PETSc.Vec) -> bool:
    """Whether the energy of a mode is more than what round-off in a matrix's entries may add to it. Collective."""
    product, squares, diagonal = matrix.createVecLeft(), mode.duplicate(), matrix.getDiagonal()
    matrix.mult(mode, product)
    squares.pointwiseMult(mode, mode)
    energy, size = mode.dot(product), squares.dot(diagonal)
    for vector in (product, squares, diagonal):
        vector.destroy()
    return bool(np.finfo(float).eps * abs(size) <= DIGITS * abs(energy))


def missing(number: int, found: int) -> NotConverged:
    """The failure of a mode that is not among those found."""
    return NotConverged(f"mode {number} was not found, just {found}", reason="eigenvalues not found")


def set_to_most_alike(solver: SLEPc.EPS, metric: PETSc.Mat, shape: np.ndarray, count: int, mode: PETSc.Vec) -> int:
    """Set a vector to the mode most like a shape, in the metric in which modes are orthogonal; its number. Collective.

    Args:
        solver: Has found the modes.
        metric: In which they are orthogonal.
        shape: Owned entries, zero at prescribed values.
        count: How many modes to look at.
        mode: The vector.

    Raises:
        NotConverged: If none is like it.
    """
    weighted, vector = metric.createVecLeft(), metric.createVecRight()
    vector.setArray(shape)
    metric.mult(vector, weighted)
    size, likeness = weighted.dot(vector), np.zeros(count)
    for k in range(count):
        solver.getEigenvector(k, mode)
        overlap = weighted.dot(mode)
        metric.mult(mode, vector)
        likeness[k] = overlap**2 / max(size * mode.dot(vector), TINY)
    weighted.destroy()
    vector.destroy()
    best = int(np.argmax(likeness)) if count else 0
    if not count or not likeness[best] >= ALIKE:
        raise NotConverged(
            f"none of {count} modes is like the shape to follow: the best one's modal assurance criterion is "
            f"{likeness.max(initial=0.0):.2f}; look for more modes by count",
            reason="mode not found",
        )
    solver.getEigenvector(best, mode)
    return best


def mode_numbers(name: str, which: Any) -> list[int]:
    """Numbers of modes, each once.

    Raises:
        TypeError: If they are none.
        ValueError: If there is none.
    """
    numbers = [which] if np.ndim(which) == 0 else list(which)
    if not all(isinstance(number, int | np.integer) and not isinstance(number, bool) for number in numbers):
        raise TypeError(
            f"response {name!r} is of mode {which!r}; expected a number counted from 0, several of them, or a "
            "function like the mode"
        )
    if not numbers:
        raise ValueError(f"response {name!r} is the mean of no mode; give the number of one at least")
    return sorted({int(number) for number in numbers})


def checked(form: Any) -> ufl.Form:
    """A form of rank 2 with its quadrature degrees fixed, so that its integral over a mode has the same rule."""
    if not isinstance(form, ufl.Form) or len(form.arguments()) != 2:
        kind = f"rank {len(form.arguments())}" if isinstance(form, ufl.Form) else f"type {type(form).__name__}"
        raise TypeError(f"a form of an eigenvalue problem has {kind}; expected one of test and trial function, rank 2")
    return expand(with_quadrature_degrees(form))


def at_mode(form: ufl.Form, mode: Any) -> ufl.Form:
    """The form at (φ, φ)."""
    return ufl.replace(form, dict.fromkeys(form.arguments(), mode))
