"""See to it that a system has one solution, and say what is free where it has not."""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc

from sobofem.fem.errors import NotConverged
from sobofem.fem.solving.linear_solver import LinearSolver, is_unsymmetric
from sobofem.fem.solving.rigid_motions import Leaf, families, in_words, leaves
from sobofem.fem.solving.singularity import (
    SUSPICIOUS,
    WORSE,
    Equilibrated,
    combinations,
    is_singular,
    is_soft,
    null_space,
    orthonormal,
)
from sobofem.fem.solving.ties import Ties

CONTAINED = 0.99
"""Cosine of the angle to the space of null vectors from which on a motion lies in it; noise adds some soft modes."""

HELD = 1e-12
"""Part of the square of a motion at prescribed values up to which they do not hold it."""

RELAXATIONS = 3
"""How often an iterative solver is asked to solve for zero, from what it made of a random start before."""

NOTHING = 1e-3
"""Share of the part of a random vector that one null vector has on average, below which nothing is left of it."""

NAMED = 3
"""Entries of a null vector that a message names."""


class Regularity:
    """Watches the systems of one problem; the regular ones of a direct solver cost nothing.

    Args:
        unknown: What is solved for.
        constrained: Owned degrees of freedom with prescribed values.
        symmetric: Whether the tangents are.
        ties: Of degrees of freedom that follow others.
    """

    def __init__(
        self, unknown: dolfinx.fem.Function, constrained: np.ndarray, *, symmetric: bool, ties: Ties | None = None
    ) -> None:
        self._unknown = unknown
        self._comm: MPI.Intracomm = unknown.function_space.mesh.comm
        self._constrained = constrained
        self._symmetric = symmetric
        self._ties = ties
        self._regular_up_to = SUSPICIOUS
        self._probed = False
        self._motions: tuple[np.ndarray, np.ndarray] | None = None

    def check(self, matrix: PETSc.Mat, solver: LinearSolver) -> None:
        """Look at a system that was solved. Collective.

        Raises:
            NotConverged: If it is singular; the message says what is free.
        """
        ratio = solver.pivot_ratio()
        if ratio is not None and ratio <= self._regular_up_to:
            return
        scaled = Equilibrated(matrix)
        try:
            if ratio is None:
                null = self._passed_over(scaled, solver)
            elif is_singular(scaled, solver, symmetric=self._symmetric):
                null = null_space(scaled, symmetric=self._symmetric)
            else:
                self._regular_up_to = WORSE * ratio
                return
            failure = self._failure(scaled, null)
        finally:
            scaled.close()
        if failure is not None:
            raise failure

    def explained(self, failure: NotConverged, matrix: PETSc.Mat, solver: LinearSolver) -> NotConverged:
        """The failure to solve a system, or what is behind it if that is singular. Collective."""
        if not np.isfinite(matrix.norm()):
            return failure
        scaled = Equilibrated(matrix)
        try:
            if solver.pivot_ratio() is None:
                null = combinations(scaled, self._admissible(scaled))
                null = null if null.shape[1] else self._left_alone(scaled, solver)
            else:
                null = null_space(scaled, symmetric=self._symmetric)
            return self._failure(scaled, null) or failure
        except NotConverged:
            return failure
        finally:
            scaled.close()

    def check_motions(self, matrix: PETSc.Mat, solver: LinearSolver) -> None:
        """Look at a system that an iterative solver is to solve, which might try in vain for long. Collective.

        Raises:
            NotConverged: If a rigid motion or a constant is free.
        """
        if solver.pivot_ratio() is not None:
            return
        scaled = Equilibrated(matrix)
        try:
            failure = self._failure(scaled, combinations(scaled, self._admissible(scaled)))
        finally:
            scaled.close()
        if failure is not None:
            raise failure

    def _passed_over(self, scaled: Equilibrated, solver: LinearSolver) -> np.ndarray:
        """Null vectors that a solver without a factor passes over: it finds a solution if there is one among many.

        Beyond rigid motions and constants they are looked for once: a solver leaves what is null of a random start
        alone, and takes its tolerance off the rest each time that it is asked to solve for zero.
        """
        null = combinations(scaled, self._admissible(scaled))
        if null.shape[1] or self._probed:
            return null
        self._probed = True
        return self._left_alone(scaled, solver)

    def _left_alone(self, scaled: Equilibrated, solver: LinearSolver) -> np.ndarray:
        """A null vector (owned, 1) that a solver leaves of a random one where it solves for zero, or none (owned, 0).

        Of a regular matrix hardly anything is left of the first, and that is all it costs: one solve.
        """
        symmetric = self._symmetric or not is_unsymmetric(scaled.matrix)
        start = np.random.default_rng([1, self._comm.rank]).standard_normal((len(scaled.scale), 1))
        vector, _ = orthonormal(self._comm, start)
        least = NOTHING / np.sqrt(self._comm.allreduce(len(start), op=MPI.SUM))
        for _ in range(RELAXATIONS):
            left = solver.relaxed(vector[:, 0] * scaled.scale)[:, None] / scaled.scale[:, None]
            vector, size = orthonormal(self._comm, left)
            if not abs(size[0, 0]) > least:
                break
            if is_soft(scaled, vector, symmetric=symmetric):
                return vector
            least = NOTHING
        return vector[:, :0]

    def _admissible(self, scaled: Equilibrated) -> np.ndarray:
        """Rigid motions and constants that no boundary condition holds, orthonormal in the scaled matrix's unknowns."""
        geometry = self._unknown.function_space.mesh.geometry.x
        same = self._motions is not None and np.array_equal(self._motions[0], geometry)
        if not self._comm.allreduce(same, op=MPI.LAND):
            columns = [self._not_held(family.columns) for family in families(self._unknown)]
            columns = [self._free_part(part) for part in columns]
            self._motions = geometry.copy(), np.concatenate(columns, axis=1)
        assert self._motions is not None
        return orthonormal(self._comm, self._motions[1] / scaled.scale[:, None])[0]

    def _not_held(self, columns: np.ndarray) -> np.ndarray:
        """Combinations of columns that vanish at all prescribed values."""
        held = columns[self._constrained]
        if self._ties is not None:  # a motion that ties forbid is held by them
            held = np.concatenate([held, self._ties.broken_by(columns)])
        gram = self._comm.allreduce(np.stack([held.T @ held, columns.T @ columns]), op=MPI.SUM)
        sizes, mix = np.linalg.eigh(gram[0])
        return np.asarray(columns @ mix[:, sizes <= HELD * np.trace(gram[1])])

    def _free_part(self, columns: np.ndarray) -> np.ndarray:
        """Columns (owned, k) in the unknowns of the system, in which what follows others is zero."""
        if self._ties is not None:
            columns = columns.copy()
            columns[self._ties.followers] = 0.0
        return columns

    def _failure(self, scaled: Equilibrated, null: np.ndarray) -> NotConverged | None:
        """What to raise of a matrix with these null vectors (owned, k), orthonormal in the scaled matrix's unknowns."""
        if self._comm.allreduce(len(scaled.empty), op=MPI.SUM):
            return self._without_stiffness(scaled)
        if not null.shape[1]:
            return None
        vector, causes, fixes = null[:, 0], [], []
        for family in families(self._unknown):
            inside, null = self._split(self._free_part(family.columns) / scaled.scale[:, None], null)
            if inside.shape[1]:
                causes += family.named(inside)
                fixes.append(family.fix)
        if null.shape[1]:
            vector = null[:, 0]
            causes.append(f"{null.shape[1]} other pattern{'s' if null.shape[1] > 1 else ''}")
            fixes.append("look where its largest entries are for a mechanism, or too few quadrature points")
        largest = self._largest(vector * scaled.scale if len(leaves(self._unknown)) == 1 else vector)
        return singular("; ".join(causes), f"largest at {largest}; {'; '.join(dict.fromkeys(fixes))}")

    def _without_stiffness(self, scaled: Equilibrated) -> NotConverged:
        count = self._comm.allreduce(len(scaled.empty), op=MPI.SUM)
        marks = np.zeros(len(scaled.scale))
        marks[scaled.empty] = 1.0
        what = f"{count} degrees of freedom without any stiffness"
        return singular(what, f"such as {self._largest(marks)}; give them stiffness, or boundary conditions")

    def _split(self, columns: np.ndarray, null: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Combinations (k, j) of columns that are null vectors, and what of their space is beside these."""
        base, triangle = orthonormal(self._comm, columns)
        outer, cosines, inner = np.linalg.svd(self._comm.allreduce(null.T @ base, op=MPI.SUM))
        count = int(np.count_nonzero(cosines > CONTAINED))
        coefficients = np.linalg.lstsq(triangle, inner[:count].T, rcond=1e-10)[0]
        return coefficients, null @ outer[:, count:]

    def _largest(self, vector: np.ndarray) -> str:
        """The largest entries of a vector (owned,): components and places. Collective."""
        own = [entry for leaf in leaves(self._unknown) for entry in _entries(leaf, vector)]
        every = [entry for part in self._comm.allgather(own) for entry in part]
        top = sorted(every, key=lambda entry: -entry[0])[:NAMED]
        least = 0.5 * top[0][0] if top else 0.0
        return ", ".join(f"{name} in {in_words(place)}" for size, name, place in top if size > least)


def singular(what: str, more: str) -> NotConverged:
    """The failure of a singular system, in whose solution something is free."""
    message = f"the system is singular: free is {what} ({more})"
    return NotConverged(message, reason=f"singular: free is {what}", final=True)


def _entries(leaf: Leaf, vector: np.ndarray) -> list[tuple[float, str, np.ndarray]]:
    """Size, component and place of a function's largest entries in a vector (owned,)."""
    found = []
    for component in leaf.components:
        owned = component.dofs < len(vector)
        sizes = np.abs(vector[component.dofs[owned]])
        for k in np.argsort(-sizes, kind="stable")[:NAMED]:
            found.append((float(sizes[k]), component.name, component.points[owned][k]))
    return found
