r"""Conditions that whole regions take part in, such as vanishing means, held by multipliers.

With conditions Qᵀ u = g the system is K u + Q λ = f. K may be singular for the motions that the conditions hold, and
with a row for each the matrix would be no longer sparse in the way that solvers like. So springs W σ Wᵀ on few degrees
of freedom hold these motions just as the conditions do (Wᵀ z = Qᵀ z for every rigid motion and constant z), K_σ =
K + W σ Wᵀ is factorized, and what the springs do is given back exactly (as in `continuation`):

    K_σ u + B y = f,    Bᵀ u + D y = (g, 0),    B = (Q, W),    D = diag(0, 1/σ).

By Haynsworth's theorem K has on the null space of Qᵀ as many negative pivots as K_σ, and as the Schur complement
S = D − Bᵀ K_σ⁻¹ B beyond one for each condition. Reactions Q λ take from a force what lies in the span of Q.
"""

from __future__ import annotations

from collections.abc import Callable

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc

from sobofem.fem.assembly.stacking import summed
from sobofem.fem.errors import NotConverged
from sobofem.fem.solving.rigid_motions import families
from sobofem.fem.solving.singularity import orthonormal

INDEPENDENT = 1e-9
"""Part of a condition, of a motion or of a direction, over the largest, from which on it is one of its own."""

HELD = 1e-12
"""Part of the square of a motion that is forbidden, up to which it is not."""

STIFFNESS = 3.1
"""Stiffness of a spring over that of K where it is put."""

Solve = Callable[[np.ndarray], np.ndarray]


class Bordering:
    """Conditions on the free degrees of freedom of one unknown. Collective, as are its methods.

    Args:
        unknown: Whose.
        conditions: What vanishes, as columns (owned, k) to be multiplied by it and by prescribed values.
        free: Which owned degrees of freedom (owned,) are neither prescribed nor follow others.
        broken_by: What boundary conditions and other ties forbid of motions (owned, j).

    Attributes:
        basis: Q, orthonormal, (owned, at most k).
        given: What the conditions are to be less, as of now, in the unit of Qᵀ u.

    Raises:
        ValueError: If a condition holds nothing.
    """

    def __init__(
        self,
        unknown: dolfinx.fem.Function,
        conditions: np.ndarray,
        free: np.ndarray,
        broken_by: Callable[[np.ndarray], np.ndarray],
    ) -> None:
        space = unknown.function_space
        self._comm: MPI.Intracomm = space.mesh.comm
        self._start = space.dofmap.index_map.local_range[0] * space.dofmap.index_map_bs
        conditions, held = (np.where(part[:, None], conditions, 0.0) for part in (free, ~free))
        sizes = np.sqrt(summed(self._comm, (conditions**2).sum(axis=0)))
        if not (sizes > 0.0).all():
            raise ValueError(
                "a mean that is to vanish is one of prescribed values alone, or over an empty region; leave it out"
            )
        self.basis, self._mix, redundant = _span(self._comm, conditions / sizes)
        self._mix, redundant = (part / sizes[:, None] for part in (self._mix, redundant))
        self._held, self._contradiction, self._redundant = held @ self._mix, held @ redundant, redundant
        self.given, self._contradicted = np.zeros(self.basis.shape[1]), np.zeros(redundant.shape[1])
        columns = np.concatenate([family.columns for family in families(unknown)], axis=1)
        self._motions, *_ = _span(self._comm, np.where(free[:, None], self._not_forbidden(columns, broken_by), 0.0))
        # springs: as many as the conditions hold motions, on as few degrees of freedom as tell motions apart
        held = summed(self._comm, self.basis.T @ self._motions)
        _, strengths, rows = np.linalg.svd(held, full_matrices=False)
        rows = rows[strengths > INDEPENDENT * strengths.max(initial=0.0)]
        self._dofs, self._values = self._spread_dofs()
        self._weights = np.linalg.pinv(self._values).T @ rows.T
        self._stiffness = np.zeros(len(rows))
        self._springs = np.zeros((len(self.basis), len(rows)))
        own = (self._dofs >= self._start) & (self._dofs < self._start + len(self.basis))
        self._springs[self._dofs[own] - self._start] = self._weights[own]
        self._border = np.concatenate([self.basis, self._springs], axis=1)
        self._moved: dict[bool, np.ndarray] = {}
        self._schur = np.zeros((0, 0))

    def project(self, forces: np.ndarray) -> np.ndarray:
        """Forces (owned, k) without what reactions take of them."""
        return np.asarray(forces - self.basis @ summed(self._comm, self.basis.T @ forces))

    def held_part(self, columns: np.ndarray) -> np.ndarray:
        """What columns (owned, k) have that the conditions forbid."""
        return columns - self.project(columns)

    def impose(self, values: np.ndarray) -> None:
        """Take off from values (owned,) what breaks the conditions: rigid motions where these do."""
        motions = self._motions @ np.linalg.pinv(summed(self._comm, self.basis.T @ self._motions), rcond=INDEPENDENT)
        for way in (motions, self.basis):
            values -= way @ self.violation(values)

    def violation(self, values: np.ndarray) -> np.ndarray:
        """By how much values (owned,) break the conditions."""
        return np.asarray(summed(self._comm, self.basis.T @ values)) + self.by_held(values) + self.given

    def mixed(self, values: np.ndarray) -> np.ndarray:
        """What the conditions become if parts without the unknown are values (k,): in the unit of Qᵀ u."""
        return np.asarray(self._mix.T @ values)

    def give(self, values: np.ndarray) -> None:
        """Let parts without the unknown be values (k,)."""
        self.given, self._contradicted = self.mixed(values), self._redundant.T @ values

    def by_held(self, values: np.ndarray) -> np.ndarray:
        """What prescribed values (owned,) contribute to the conditions."""
        return np.asarray(summed(self._comm, self._held.T @ values))

    def contradicted(self, values: np.ndarray) -> int:
        """How many conditions that others imply these can't be obeyed with prescribed values (owned,)."""
        sizes = np.abs(self.given) + summed(self._comm, np.abs(self._held).T @ np.abs(values))
        beyond = np.abs(summed(self._comm, self._contradiction.T @ values) + self._contradicted)
        return int(np.count_nonzero(beyond > INDEPENDENT * sizes.max(initial=0.0)))

    def reserve(self, matrix: PETSc.Mat) -> None:
        """Make room for the springs in a matrix that is being filled."""
        if self._comm.rank == 0:
            rows = self._dofs.astype(np.int32)
            matrix.setValues(rows, rows, np.zeros((len(rows), len(rows))), addv=PETSc.InsertMode.ADD_VALUES)

    def brace(self, matrix: PETSc.Mat) -> None:
        """Add the springs to an assembled matrix."""
        diagonal = matrix.getDiagonal()
        own = (self._dofs >= self._start) & (self._dofs < self._start + len(self.basis))
        stiff = np.abs(diagonal.array_r[self._dofs[own] - self._start]).max(initial=0.0)
        diagonal.destroy()
        stiff = self._comm.allreduce(stiff, op=MPI.MAX) or matrix.norm(PETSc.NormType.INFINITY) or 1.0
        self._stiffness = STIFFNESS * stiff / (self._weights**2).max(axis=0, initial=0.0)
        if self._comm.rank == 0:
            rows = self._dofs.astype(np.int32)
            block = (self._weights * self._stiffness) @ self._weights.T
            matrix.setValues(rows, rows, block, addv=PETSc.InsertMode.ADD_VALUES)
        matrix.assemble()

    def factorized(self, solve: Solve) -> int:
        """Take a new factor of K_σ; how many negative pivots to add to its own."""
        moved = solve(self._border)
        self._moved = {False: moved}
        count = self.basis.shape[1]
        self._schur = -summed(self._comm, self._border.T @ moved)
        diagonal = np.concatenate([np.zeros(count), 1.0 / self._stiffness])
        self._schur += np.diag(diagonal)
        return int((np.linalg.eigvalsh(0.5 * (self._schur + self._schur.T)) < 0.0).sum()) - count

    def solve(
        self, solve: Solve, right: np.ndarray, *, transposed: bool, values: np.ndarray | None = None
    ) -> np.ndarray:
        """Solve the system with the conditions, or its transpose, for u (owned, k).

        Args:
            solve: Solves with K_σ, or its transpose.
            right: f, (owned, k).
            transposed: Which of these.
            values: g (conditions, k); zero by default.

        Raises:
            NotConverged: If the conditions leave something free.
        """
        if transposed not in self._moved:
            self._moved[transposed] = solve(self._border)
        found = solve(right)
        wanted = -summed(self._comm, self._border.T @ found)
        if values is not None:
            wanted[: len(values)] += values
        schur = self._schur.T if transposed else self._schur
        scale = 1.0 / np.sqrt(np.concatenate([np.abs(np.diag(schur))[: self.basis.shape[1]], 1.0 / self._stiffness]))
        try:
            border = scale[:, None] * np.linalg.solve(scale[:, None] * schur * scale, scale[:, None] * wanted)
        except np.linalg.LinAlgError:
            border = np.full_like(wanted, np.nan)
        if not np.isfinite(border).all():
            raise NotConverged("means that are to vanish leave something free", reason="singular or invalid matrix")
        return np.asarray(found - self._moved[transposed] @ border)

    def _not_forbidden(self, columns: np.ndarray, broken_by: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """Combinations of motions (owned, j) that nothing but the conditions holds."""
        broken = broken_by(columns)
        gram = summed(self._comm, np.stack([broken.T @ broken, columns.T @ columns]))
        sizes, mix = np.linalg.eigh(gram[0])
        return np.asarray(columns @ mix[:, sizes <= HELD * np.trace(gram[1])])

    def _spread_dofs(self) -> tuple[np.ndarray, np.ndarray]:
        """Degrees of freedom, in global numbers, that tell the motions (n, j) apart, and these there: as far apart."""
        rest, numbers, values = self._motions.copy(), [], []
        for _ in range(rest.shape[1]):
            sizes = np.linalg.norm(rest, axis=1)
            own = int(np.argmax(sizes)) if len(sizes) else -1
            size, rank = self._comm.allreduce((sizes[own] if own >= 0 else -1.0, -self._comm.rank), op=MPI.MAX)
            mine = (own + self._start, self._motions[own], rest[own]) if -rank == self._comm.rank else None
            number, value, direction = self._comm.bcast(mine, root=-rank)
            numbers.append(number)
            values.append(value)
            direction = direction / size
            rest -= np.outer(rest @ direction, direction)
        return np.array(numbers, dtype=np.int64), np.array(values).reshape(len(numbers), rest.shape[1])


def _span(comm: MPI.Intracomm, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An orthonormal basis (owned, j) of what columns (owned, k) span; its mix (k, j) of these; mixes that vanish."""
    base, triangle = orthonormal(comm, columns)
    outer, sizes, inner = np.linalg.svd(triangle)
    full = np.zeros(len(inner))
    full[: len(sizes)] = sizes
    kept = full > INDEPENDENT * full.max(initial=0.0)
    mix = inner[kept].T / full[kept]
    return np.asarray(base @ outer[:, : len(sizes)][:, kept[: len(sizes)]]), mix, inner[~kept].T
