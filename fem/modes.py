"""Vibration and buckling: eigenvalues as responses, with exact derivatives through state, parameters and shape.

A simple eigenvalue of A φ = λ B φ is stationary in its mode φ: it is a quotient of a(φ, φ) and b(φ, φ), and its first
derivative is that of the quotient at fixed φ (Fox & Kapoor 1968, *Rates of change of eigenvalues and eigenvectors*;
where a state enters the forms, through its adjoint, as for any other integral). So a response holds the two integrals
over a function that is set to the mode at each state, before they are taken.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
import contextlib
from math import pi
from typing import TYPE_CHECKING, Any

import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.kernels import Kernels
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged
from sobofem.fem.responses import ModeShape, ModeShapes, Response, When
from sobofem.fem.solving import eigenvalues as eigen
from sobofem.fem.solving.boundary import prescribed
from sobofem.fem.solving.linear_solver import is_unsymmetric
from sobofem.fem.solving.tie import Tie
from sobofem.fem.solving.ties import Ties

if TYPE_CHECKING:
    from slepc4py import SLEPc

type Which = int | Sequence[int] | dolfinx.fem.Function

SPARE = 2
"""Eigenvalues looked for beyond those asked for: the next one tells whether the last is simple."""


class Modes(ModeShapes, ABC):
    """Eigenvalues of two symmetric forms and their modes, at one point of the load path.

    Args:
        left: Form of rank 2, with test and trial function; it may hold the unknown of the problem.
        right: Another, over the same space.
        bcs: Boundary conditions: modes are zero where they prescribe anything.
        ties: As of a `Problem`: modes obey them.
        count: How many modes are looked for.
        at: Point of the load path at which modes are taken, as of a `Response`.

    Raises:
        TypeError: If a form is none of rank 2.
        ValueError: If they don't share one space, or another argument is out of range.
    """

    def __init__(
        self,
        left: ufl.Form,
        right: ufl.Form,
        bcs: Sequence[dolfinx.fem.DirichletBC] = (),
        *,
        ties: Sequence[Tie] = (),
        count: int = 6,
        at: When = "end",
    ) -> None:
        self._forms = eigen.checked(left), eigen.checked(right)
        spaces = [argument.ufl_function_space() for form in self._forms for argument in form.arguments()]
        self._space = spaces[0]
        if any(other != self._space for other in spaces):
            raise ValueError("the forms of an eigenvalue problem have test and trial functions of different spaces")
        if isinstance(count, bool) or not isinstance(count, int | np.integer) or count < 1:
            raise ValueError(f"count is {count!r}; expected how many modes are looked for, 1 or more")
        if at == "sum":
            raise ValueError("modes are those of one state: at is 'end' or the number of a point, not 'sum'")
        self._bcs, self._count, self._at = list(bcs), int(count), at
        self._shapes: dict[int, dolfinx.fem.Function] = {}
        self._groups: set[tuple[int, ...]] = set()
        self._followed: list[tuple[dolfinx.fem.Function, dolfinx.fem.Function]] = []
        self._checked: list[list[dolfinx.fem.Function]] = []
        self._kernels: list[Kernels] = []
        self.integrals: dict[Any, tuple[ufl.Form, ufl.Form]] = {}
        tied = dolfinx.fem.Function(self._space)
        self.ties = Ties(ties, tied, prescribed(self._bcs, owned=True)) if ties else None
        if self.ties is not None and self.ties.integrals:
            raise ValueError(
                "modes obey no ZeroMean; without it the first modes of a body that floats are its rigid motions, to be "
                "counted off"
            )

    def shape(self, number: int) -> dolfinx.fem.Function:
        """The function that holds the mode of this number, counted from 0, after each evaluation: for `fields`.

        Raises:
            ValueError: If not as many are looked for.
        """
        if not 0 <= number < self._count:
            raise ValueError(f"mode {number} is none of the {self._count} that are looked for, counted from 0")
        return self._shapes.setdefault(number, ModeShape(self._space, name=f"mode_{number}"))

    def meanings(
        self, values: Callable[[dolfinx.fem.Function], str], marks: Callable[[dolfinx.fem.Function], str]
    ) -> list[tuple[dolfinx.fem.Function, str]]:
        """Each function that is set to a mode, with what decides which, beside the forms. Collective."""
        held = dolfinx.fem.Function(self._space)
        held.x.array[prescribed(self._bcs, owned=False)] = 1.0
        of = f"{type(self).__name__} {marks(held)}" + (f" {marks(self.ties.probe())}" if self.ties else "")
        numbered = [(mode, f"{of} number {number}") for number, mode in self._shapes.items()]
        return numbered + [(mode, f"{of} of {self._count} like {values(like)}") for like, mode in self._followed]

    @property
    def functions(self) -> list[dolfinx.fem.Function]:
        """What is set to modes."""
        return [*self._shapes.values(), *(mode for _, mode in self._followed)]

    def refresh(self) -> None:
        """Set all modes that responses are made of to those of the present state. Collective.

        Raises:
            NotConverged: If they are not found, or are not simple.
            ValueError: If a form is not symmetric.
        """
        self._compile()
        matrices: list[PETSc.Mat] = []
        solver = eigen.krylov_schur(self._space.mesh.comm, self._count + SPARE)
        try:
            for kernel in self._kernels:
                matrix = self._assembled(kernel)
                matrices.append(matrix)
                if not np.isfinite(matrix.norm()):
                    raise NotConverged("a form of an eigenvalue problem is not finite", reason="eigenvalues not found")
                if is_unsymmetric(matrix):
                    raise ValueError("a form of an eigenvalue problem is not symmetric; its modes are not orthogonal")
            metric, found = self._find(solver, *matrices)
            self._take(solver, metric, matrices[0], min(found, self._count + SPARE))
        finally:
            with contextlib.suppress(PETSc.Error, SystemError):  # after a failure within it SLEPc may refuse to
                solver.destroy()
            for matrix in matrices:
                matrix.destroy()

    def pencil(self) -> tuple[PETSc.Mat, PETSc.Mat]:
        """Matrices of both forms at the present state, of which the first is regular at what is `fixed`. Collective."""
        self._compile()
        left, right = (self._assembled(kernel) for kernel in self._kernels)
        eigen.hold(left, self.fixed())
        return left, right

    def free_part(self, columns: np.ndarray) -> np.ndarray:
        """Forces (owned, k) at what modes are solved for, zero elsewhere. Collective."""
        free = columns.copy() if self.ties is None else self.ties.restrict(columns)
        free[self.fixed()] = 0.0
        return free

    def expand(self, columns: np.ndarray) -> np.ndarray:
        """Columns (owned, k) with what follows them by ties. Collective."""
        return columns if self.ties is None else self.ties.expand(columns)

    def _compile(self) -> None:
        if not self._kernels:
            self._kernels = [Kernels(form, self._space.mesh.comm) for form in self._forms]

    def _assembled(self, kernel: Kernels) -> PETSc.Mat:
        """A form's matrix, in what does not follow other degrees of freedom."""
        matrix = kernel.create_matrix()
        # zero at prescribed values: without mass their eigenvalue is infinite, and in nobody's way
        kernel.fill(matrix, self._bcs, diagonal=0.0)
        if self.ties is None:
            return matrix
        reduced = self.ties.reduced(matrix)
        matrix.destroy()
        return reduced

    def _response(
        self, name: str, which: Which, unit: str, of: Callable[[Any], Any], *, zero: bool = False
    ) -> Response:
        """A function `of` the eigenvalue of a mode, of the mean of several, or of the mode most like a shape.

        It is checked that round-off leaves digits of these, unless they may be `zero`.
        """
        if isinstance(which, dolfinx.fem.Function):
            if which.function_space != self._space:
                raise ValueError(f"the shape that response {name!r} follows lives on another space than the modes")
            functions = [ModeShape(self._space, name=name)]
            self._followed.append((which, functions[0]))
        else:
            numbers = eigen.mode_numbers(name, which)
            functions = [self.shape(number) for number in numbers]
            self._groups.add(tuple(numbers))
        self._checked += [] if zero else [functions]
        left, right = self._forms
        self.integrals |= {mode: (eigen.at_mode(left, mode), eigen.at_mode(right, mode)) for mode in functions}
        integrals = [form for mode in functions for form in self.integrals[mode]]

        def combine(*values: Any) -> Any:
            pairs = zip(values[::2], values[1::2], strict=True)
            return of(sum(self._eigenvalue(left, right) for left, right in pairs) / len(functions))

        return Response(name, integrals, combine, unit, self._at, modes=self)

    def _take(self, solver: SLEPc.EPS, metric: PETSc.Mat, stiffness: PETSc.Mat, found: int) -> None:
        """Write the modes that were found into the functions of responses, and of `shape`."""
        digits: dict[dolfinx.fem.Function, bool] = {}
        eigenvalues = np.array([solver.getEigenvalue(k).real for k in range(found)])
        for group in self._groups:
            eigen.check_simple(eigenvalues, group)
        mode = metric.createVecRight()
        try:
            for number, function in self._shapes.items():
                if number >= found:
                    raise eigen.missing(number, found)
                solver.getEigenvector(number, mode)
                digits[function] = eigen.has_digits(stiffness, mode)
                self._write(function, mode)
            for example, function in self._followed:
                shape = example.x.array[: owned_size(self._space)].copy()
                shape[self.fixed()] = 0.0
                best = eigen.set_to_most_alike(solver, metric, shape, min(found, self._count), mode)
                eigen.check_simple(eigenvalues, (best,))
                digits[function] = eigen.has_digits(stiffness, mode)
                self._write(function, mode)
        finally:
            mode.destroy()
        for functions in self._checked:
            self._check([digits[function] for function in functions])

    @abstractmethod
    def _check(self, digits: Sequence[bool]) -> None:
        """Refuse the modes of a response of which so many have eigenvalues with digits."""

    def _write(self, function: dolfinx.fem.Function, mode: PETSc.Vec) -> None:
        function.x.array[: owned_size(self._space)] = mode.array_r
        function.x.scatter_forward()
        if self.ties is not None:
            self.ties.agree_with(function)

    def fixed(self) -> np.ndarray:
        """Owned degrees of freedom that the eigenvalue problem has nothing to say about: prescribed, or following."""
        held = prescribed(self._bcs, owned=True)
        return held if self.ties is None else np.concatenate([held, self.ties.followers])

    @abstractmethod
    def _find(self, solver: SLEPc.EPS, left: PETSc.Mat, right: PETSc.Mat) -> tuple[PETSc.Mat, int]:
        """Let the solver find the modes of assembled forms; the matrix in which they are orthogonal, and how many."""

    @staticmethod
    @abstractmethod
    def _eigenvalue(left: Any, right: Any) -> Any:
        """The eigenvalue, from the two forms at a mode."""


class Vibration(Modes):
    """Free vibrations: (K − ω² M) φ = 0, about whatever state K is the tangent of.

    A body that floats has frequencies of zero, whose square root has no derivative: count them off.

    Args:
        left: Stiffness K(test, trial), such as `ufl.derivative(ufl.derivative(energy, u), u)`.
        right: Mass M(test, trial), such as density * ufl.inner(test, trial) * dx.
    """

    def frequency(self, name: str, which: Which, *, unit: str = "Hz") -> Response:
        """Natural frequency ω / 2π in cycles per unit of time.

        Args:
            name: Of the response.
            which: Number of the mode from the lowest up, counted from 0; several numbers of modes that may cross or
                coincide, for the root of the mean of their ω²; or a function on the space of the forms: the mode most
                like this shape is followed wherever it goes.
            unit: Of the response: Hz where stiffness and mass are in one system of units with the second.
        """
        return self._response(name, which, unit, lambda mean: ufl.sqrt(mean) / (2.0 * pi))

    def squared(self, name: str, which: Which, *, unit: str = "") -> Response:
        """The eigenvalue ω² itself: smooth where a frequency reaches zero, and negative beyond; else as `frequency`."""
        return self._response(name, which, unit, lambda mean: mean, zero=True)

    def _find(self, solver: SLEPc.EPS, left: PETSc.Mat, right: PETSc.Mat) -> tuple[PETSc.Mat, int]:
        from slepc4py import SLEPc

        largest = eigen.hold(left, self.fixed()) / max(right.norm(PETSc.NormType.INFINITY), eigen.TINY)
        solver.getST().setType(SLEPc.ST.Type.SINVERT)
        solver.setWhichEigenpairs(SLEPc.EPS.Which.TARGET_REAL)
        solver.setOperators(left, right)
        eigen.solve(solver, [-shift * largest for shift in eigen.SHIFTS])
        return right, solver.getConverged()

    def _check(self, digits: Sequence[bool]) -> None:
        if not any(digits):
            raise NotConverged(
                "a frequency is zero to working precision, as that of a rigid motion is, and has no derivative: count "
                "the rigid motions off, or take its square (`squared`)",
                reason="no digits in an eigenvalue",
            )

    @staticmethod
    def _eigenvalue(left: Any, right: Any) -> Any:
        return left / right


class Buckling(Modes):
    """Linear buckling: (K + λ G) φ = 0, with the smallest positive load factors λ.

    Args:
        left: Stiffness K(test, trial) at rest.
        right: Geometric stiffness G(test, trial) of the state under the loads of factor one, which the problem solves
            for: such as ufl.inner(stress(u), ufl.grad(test).T * ufl.grad(trial)) * dx.
    """

    def load_factor(self, name: str, which: Which, *, unit: str = "") -> Response:
        """What the loads are to be multiplied by for the body to buckle.

        Args:
            name: Of the response.
            which: As of `Vibration.frequency`; modes count from the smallest positive factor up.
            unit: Of the response.
        """
        return self._response(name, which, unit, lambda mean: mean)

    def _find(self, solver: SLEPc.EPS, left: PETSc.Mat, right: PETSc.Mat) -> tuple[PETSc.Mat, int]:
        from slepc4py import SLEPc

        # (−G) φ = 1/λ K φ: K is positive, G of either sign, and the largest 1/λ are those of the smallest positive λ
        eigen.hold(left, self.fixed())
        right.scale(-1.0)
        solver.setWhichEigenpairs(SLEPc.EPS.Which.LARGEST_REAL)
        solver.setOperators(right, left)
        if loaded := right.norm() > 0.0:
            eigen.solve(solver)
        if not (loaded and (found := eigen.count_positive(solver, right, left))):
            raise NotConverged(
                "no positive load factor: under these loads nothing buckles, or the state is not loaded at all",
                reason="no buckling",
            )
        return left, found

    def _check(self, digits: Sequence[bool]) -> None:
        if not all(digits):
            raise NotConverged(
                "the body is so slender that round-off in its stiffness is as large as the energy of a buckling mode, "
                "and the load factor has no digits; take beam or shell theory for it",
                reason="no digits in an eigenvalue",
            )

    @staticmethod
    def _eigenvalue(left: Any, right: Any) -> Any:
        return -left / right
