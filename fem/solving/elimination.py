"""Followers as combinations of free degrees of freedom, found from the equations that tie them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sobofem.fem.solving.tie import Equation

REDUNDANT = 1e-9
"""Coefficients, over the largest of their equation, that count as zero once others are put in: round-off of directions
such as normals, which nobody means to hold a node by."""

THRESHOLD = 0.1
"""Part of the largest coefficient from which on the first of an equation follows: larger ones later would spread."""


class Elimination:
    """Solves equations Σ c u = 0 one after the other; each makes one more degree of freedom follow, or is redundant.

    Args:
        pairs: Followers with what they follow, which follows nothing itself.
        held: Degrees of freedom with prescribed values; these are taken to be zero in all equations.

    Attributes:
        rows: Each follower as weights of degrees of freedom that neither follow nor are held.
        used: Those that are held and stand in an equation.
    """

    def __init__(self, pairs: Mapping[int, int], held: set[int]) -> None:
        self._held = held
        self.rows: dict[int, Equation] = {}
        self.used = {leader for leader in pairs.values() if leader in held}
        self._users: dict[int, set[int]] = {}
        for follower, leader in pairs.items():
            self._follow(follower, {} if leader in held else {leader: 1.0})

    def add(self, equation: Equation) -> None:
        """Take one more equation."""
        reduced: Equation = {}
        for dof, coefficient in equation.items():
            if dof in self._held and coefficient:
                self.used.add(dof)
                continue
            for leader, weight in self.rows.get(dof, {dof: 1.0}).items():
                reduced[leader] = reduced.get(leader, 0.0) + coefficient * weight
        least = REDUNDANT * max(map(abs, equation.values()))
        reduced = {dof: coefficient for dof, coefficient in reduced.items() if abs(coefficient) > least}
        if not reduced:
            return
        largest = max(map(abs, reduced.values()))
        follower = next(dof for dof, coefficient in reduced.items() if abs(coefficient) >= THRESHOLD * largest)
        pivot = reduced.pop(follower)
        row = {dof: -coefficient / pivot for dof, coefficient in reduced.items()}
        for user in self._users.pop(follower, set()):
            weight = self.rows[user].pop(follower)
            for dof, own in row.items():
                self.rows[user][dof] = self.rows[user].get(dof, 0.0) + weight * own
                self._users.setdefault(dof, set()).add(user)
        self._follow(follower, row)

    def _follow(self, follower: int, row: Equation) -> None:
        self.rows[follower] = row
        for leader in row:
            self._users.setdefault(leader, set()).add(follower)


def followed(edges: set[tuple[int, int]], held: set[int]) -> dict[int, int]:
    """Each follower with what it follows in the end: one node of all that ties connect, which follows no other itself.

    Raises:
        ValueError: If a node is to follow itself.
    """
    if any(follower == leader for follower, leader in edges):
        raise ValueError(
            "ties lead back to where they began; let each `where` mark one face, and `image` lead to the other"
        )
    pairs = np.array(sorted(edges), dtype=np.int64).reshape(-1, 2)
    numbers, ends = np.unique(pairs, return_inverse=True)
    first, second = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(pairs)), (first, second)), shape=(len(numbers), len(numbers)))
    _, labels = connected_components(graph, directed=False)
    follows, free = np.isin(numbers, pairs[:, 0]), ~np.isin(numbers, list(held))
    order = np.lexsort((numbers, free, follows, labels))
    leaders = numbers[order[np.flatnonzero(np.diff(labels[order], prepend=-1))]][labels]
    return {int(f): int(leader) for f, leader in zip(numbers, leaders, strict=True) if f != leader}
