"""Followers as combinations of free degrees of freedom, found from the equations that tie them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sobofem.fem.solving.tie import Equation

if TYPE_CHECKING:
    import scipy

REDUNDANT = 1e-5
"""Largest coefficient, over that of an equation before others are put in, at which nothing is left of it: meshers round
places to some 1e-9 of a body, and normals by that over a cell's size, which nobody means to hold a node by."""

DUST = 1e-9
"""The same for single coefficients of an equation of which more is left: round-off."""

THRESHOLD = 0.1
"""Part of the largest coefficient from which on the first of an equation follows: larger ones later would spread."""


class Elimination:
    """Solves equations Σ c u = 0 one after the other; each makes one more degree of freedom follow, or is redundant.

    Args:
        pairs: Followers with what they follow, which follows nothing itself.
        held: Degrees of freedom with prescribed values, which follow nothing.

    Attributes:
        rows: Each follower as weights of degrees of freedom that don't follow.
        among_held: What is left of equations in which nothing else is: prescribed values have to obey these.
    """

    def __init__(self, pairs: Mapping[int, int], held: set[int]) -> None:
        self._held = held
        self.rows: dict[int, Equation] = {}
        self.among_held: list[Equation] = []
        self._users: dict[int, set[int]] = {}
        for follower, leader in pairs.items():
            self._follow(follower, {leader: 1.0})

    def add(self, equation: Equation) -> int | None:
        """Take one more equation; the degree of freedom that follows by it, None if it is redundant."""
        reduced: Equation = {}
        size = max(map(abs, equation.values()))
        for dof, coefficient in equation.items():
            for leader, weight in self.rows.get(dof, {dof: 1.0}).items():
                reduced[leader] = reduced.get(leader, 0.0) + coefficient * weight
        largest = max((abs(coefficient) for dof, coefficient in reduced.items() if dof not in self._held), default=0.0)
        if largest <= REDUNDANT * size:
            left = {dof: coefficient / size for dof, coefficient in reduced.items() if dof in self._held}
            self.among_held.append(
                {dof: coefficient for dof, coefficient in left.items() if abs(coefficient) > REDUNDANT}
            )
            return None
        reduced = {dof: coefficient for dof, coefficient in reduced.items() if abs(coefficient) > DUST * size}
        follower = next(
            dof
            for dof, coefficient in reduced.items()
            if dof not in self._held and abs(coefficient) >= THRESHOLD * largest
        )
        pivot = reduced.pop(follower)
        row = {dof: -coefficient / pivot for dof, coefficient in reduced.items()}
        for user in self._users.pop(follower, set()):
            weight = self.rows[user].pop(follower)
            for dof, own in row.items():
                self.rows[user][dof] = self.rows[user].get(dof, 0.0) + weight * own
                self._users.setdefault(dof, set()).add(user)
        self._follow(follower, row)
        return follower

    def _follow(self, follower: int, row: Equation) -> None:
        self.rows[follower] = row
        for leader in row:
            self._users.setdefault(leader, set()).add(follower)


def followed(edges: set[tuple[int, int]], held: set[int]) -> dict[int, int]:
    """Each follower with what it follows in the end: one node of all that ties connect, which follows no other itself.

    Raises:
        ValueError: If a node is to follow itself.
    """
    import scipy

    if any(follower == leader for follower, leader in edges):
        raise ValueError(
            "ties lead back to where they began; let each `where` mark one face, and `image` lead to the other"
        )
    pairs = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    numbers, ends = np.unique(pairs, return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = scipy.sparse.coo_array((np.ones(len(pairs)), (first, second)), shape=(len(numbers), len(numbers)))
    _, labels = scipy.sparse.csgraph.connected_components(graph, directed=False)
    follows, free = np.isin(numbers, pairs[:, 0]), ~np.isin(numbers, list(held))
    order = np.lexsort((numbers, free, follows, labels))
    leaders = numbers[order[np.flatnonzero(np.diff(labels[order], prepend=-1))]][labels]
    return {int(f): int(leader) for f, leader in zip(numbers, leaders, strict=True) if f != leader}


def carried(
    rows: Sequence[Equation],
    slopes: Sequence[Sequence[Equation]],
    dofs: np.ndarray,
    followers: np.ndarray,
    values: np.ndarray,
    forces: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """What changes A' of independent equations A u = 0 do to followers, and to the forces Aᵀ μ that hold these.

    Args:
        rows: The equations, as many as followers.
        slopes: s changes of them.
        dofs: Sorted degrees of freedom (N,) that these are about.
        followers: Those that follow by them.
        values: u (N,).
        forces: Which Aᵀ μ takes at followers, (N,).

    Returns:
        Changes (N, s) of followers with which A u = 0 goes on at fixed others; and A'ᵀ μ, (N, s).
    """
    import scipy

    at_followers = np.searchsorted(dofs, np.sort(followers))
    solver = scipy.sparse.linalg.splu(scipy.sparse.csc_array(matrix_of(rows, dofs)[:, at_followers]))
    reactions = -solver.solve(forces[at_followers], trans="T")
    moved, pulled = np.zeros((2, len(dofs), len(slopes)))
    for s, part in enumerate(slopes):
        slope = matrix_of(part, dofs)
        moved[at_followers, s] = -solver.solve(slope @ values)
        pulled[:, s] = slope.T @ reactions
    return moved, pulled


def matrix_of(rows: Sequence[Equation], dofs: np.ndarray) -> scipy.sparse.csc_array:
    """Equations as a matrix (equations, N)."""
    import scipy

    entries = [(k, dof, value) for k, row in enumerate(rows) for dof, value in row.items()]
    at, columns, values = zip(*entries, strict=True)
    return scipy.sparse.csc_array((values, (at, np.searchsorted(dofs, columns))), shape=(len(rows), len(dofs)))
