r"""Faces of meshes that don't match, tied in the mean: the mortar method with dual multipliers.

That nodes of one face follow the interpolation on the other keeps affine fields, but not the balance of forces: a
constant stress would not pass. Instead, with the jump of the functions u and u' of both sides,

    ∫ ψ_i (u − u') = 0    for every node i that follows,

over what facets of both sides have in common, which is integrated exactly. The ψ_i are dual to the shape functions,
∫ ψ_i N_j = δ_ij d_i, so that each equation has a single follower (Wohlmuth 2000, *A mortar finite element method using
dual spaces for the Lagrange multiplier*). They sum to one: constant stress passes. Nodes that follow already, or have
prescribed values, as those where faces meet, give their ψ to the nearest that don't.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sobofem.fem.errors import together
from sobofem.fem.solving.boundary_facets import Facets, facets_of, found_on, mapped
from sobofem.fem.solving.overlap import Flat, area, common, rule, shape_functions
from sobofem.fem.solving.rigid_motions import Leaf
from sobofem.fem.solving.tie import NEAR, Equation, Link, Nodes

if TYPE_CHECKING:
    import scipy

COVERED = 1e-4
"""Part of a facet that may have no counterpart, or two: round-off of its corners."""

SLIVER = 1e-10
"""Part of a facet that is not worth an integral."""

NO_SHARE = 1e-6
"""Integral of a shape function over that of one, up to which it is zero, as at corners of quadratic triangles."""

AS_NEAR = 1.001
"""Distances, over the least, up to which nodes are the nearest."""


@dataclass(frozen=True, eq=False)
class Condition:
    """∫ ψ_i (u − u') for one function, each component alike.

    Attributes:
        dofs: Degrees of freedom (N, components) of nodes i.
        points: Where these are on the other face, (N, gdim).
        diagonal: ∫ ψ_i N_i, (N,).
        summed: Which ψ_i sum to one, (N,); the others are of no mean.
        parts: Numbers (N,) of what facets join: stresses of bodies that share no node there may differ.
        leaders: Degrees of freedom (L, components) of the nodes of the other face.
        weights: ∫ ψ_i N'_j, (N, L).
    """

    dofs: np.ndarray
    points: np.ndarray
    diagonal: np.ndarray
    summed: np.ndarray
    parts: np.ndarray
    leaders: np.ndarray
    weights: scipy.sparse.csr_array

    def equations(self, settled: set[int], number: int) -> list[Equation]:
        """One a degree of freedom that is not settled, which comes first and has coefficient one.

        Raises:
            ValueError: If none is left.
        """
        return [equation for k in range(self.dofs.shape[1]) for equation in self._of(k, settled, number)]

    def _of(self, component: int, settled: set[int], number: int) -> list[Equation]:
        dofs, leaders = self.dofs[:, component].tolist(), self.leaders[:, component].tolist()
        taken = np.array([dof in settled for dof in dofs])
        takers = np.flatnonzero(~taken & self.summed)
        if not len(takers):
            if taken.all() and settled.issuperset(leaders):  # both faces have prescribed values
                return []
            raise ValueError(
                f"the face of tie {number} has no free node between its edges to follow another; let the finer face "
                "follow, or the one without prescribed values"
            )
        rows: dict[int, dict[int, float]] = {int(i): {int(i): 1.0} for i in np.flatnonzero(~taken)}
        for given in np.flatnonzero(taken & self.summed):
            own = takers[self.parts[takers] == self.parts[given]]
            own = own if len(own) else takers
            distances = np.linalg.norm(self.points[own] - self.points[given], axis=1)
            near = own[distances <= AS_NEAR * distances.min()]
            for i in near:
                rows[int(i)][int(given)] = 1.0 / len(near)
        found = []
        for i, row in rows.items():
            equation: Equation = {dofs[i]: 0.0}
            for k, share in row.items():
                size = share / self.diagonal[i]
                equation[dofs[k]] = equation.get(dofs[k], 0.0) + size * float(self.diagonal[k])
                start, end = self.weights.indptr[k : k + 2]
                for j, weight in zip(self.weights.indices[start:end], self.weights.data[start:end], strict=True):
                    equation[leaders[j]] = equation.get(leaders[j], 0.0) - size * float(weight)
            found.append(equation)
        return found


def conditions(
    nodes: Nodes, followers: Facets, leaders: Facets, gap: float, degree: int, number: int
) -> tuple[list[Condition], np.ndarray]:
    """The conditions of each function, and which of the other facets are in them. Collective.

    Args:
        nodes: Of the unknown.
        followers: Facets that follow, where they lie on the others; of all ranks.
        leaders: The others, of all ranks.
        gap: Greatest distance between the faces.
        degree: Up to which integrals are exact.
        number: Of the tie, for messages.

    Raises:
        ValueError: If others don't cover them, or functions on a facet are not those of Lagrange elements.
    """
    import scipy

    comm, radii, middles = nodes.comm, followers.radii(), followers.middles()
    tree = scipy.spatial.KDTree(leaders.middles()) if len(leaders.corners) else None
    reach = gap + float(leaders.radii().max(initial=0.0))
    bare, used = np.zeros(len(middles), dtype=bool), np.zeros(len(leaders.corners), dtype=bool)
    entries: list[list[Entry]] = [[] for _ in followers.points]
    for points in followers.points:  # elements that it does not work with are refused on all ranks
        first = Flat(followers.corners[0])
        shape_functions(first.corners, first.seen(points[0]), first.corners)

    def integrate() -> None:
        for s in range(comm.rank, len(middles), comm.size):
            near = tree.query_ball_point(middles[s], radii[s] + reach) if tree is not None else []
            flat = Flat(followers.corners[s])
            parts = _parts(flat, leaders.corners, sorted(near), gap, degree)
            used[[part[0] for part in parts]] = True
            bare[s] = abs(sum(float(part[3].sum()) for part in parts) / area(flat.corners) - 1.0) > COVERED
            if not bare[s]:
                for k, own in enumerate(entries):
                    own += _integrals(flat, followers, leaders, s, parts, k)

    together(comm, integrate)
    bare, used = (np.any(comm.allgather(part), axis=0) for part in (bare, used))
    if (where := np.flatnonzero(bare)).size:
        raise ValueError(
            f"tie {number} takes {where.size} facets of its face to where there is none, or several, the first to "
            f"around {np.round(middles[where[0]], 9).tolist()}; the other face has to cover this one, within "
            f"{gap:.2g}: let the smaller one follow, and give fem.Bonded of round faces the gap between their facets"
        )
    return [_condition(nodes, followers, leaders, k, own) for k, own in enumerate(entries)], used


type Part = tuple[int, np.ndarray, np.ndarray, np.ndarray]
"""What a facet has in common with another: its number, its corners as seen from the first, points and weights."""


type Entry = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
"""Followers, leaders, values, and whether they count in the sum."""


def _parts(flat: Flat, corners: np.ndarray, near: list[int], gap: float, degree: int) -> list[Part]:
    found: list[Part] = []
    whole, every = area(flat.corners), flat.seen(corners[near])
    ahead = (every.min(axis=1) < flat.corners.max(axis=0)) & (every.max(axis=1) > flat.corners.min(axis=0))
    for m, seen in ((near[k], every[k]) for k in np.flatnonzero(ahead.all(axis=1))):
        if area(seen) <= SLIVER * whole:
            continue
        polygon = common(flat.corners, seen)
        if not len(polygon) or area(polygon) <= SLIVER * whole:
            continue
        points, weights = rule(polygon, degree)
        flush = flat.distances(corners[m]).max() <= gap
        if flush or flat.distances(shape_functions(seen, seen, points) @ corners[m]).max() <= gap:
            found.append((m, seen, points, weights))
    return found


def _integrals(flat: Flat, followers: Facets, leaders: Facets, s: int, parts: Sequence[Part], k: int) -> list[Entry]:
    """Follower, leader (-1 for the diagonal), value, and whether ψ counts in the sum, for one facet and function."""
    points = np.concatenate([part[2] for part in parts])
    weights = np.concatenate([part[3] for part in parts])
    own = shape_functions(flat.corners, flat.seen(followers.points[k][s]), points)
    sizes, covered = weights @ own, weights.sum()
    counts = np.abs(sizes) > NO_SHARE * covered  # that of a corner of quartic triangles is negative
    diagonal = np.where(counts, sizes, covered / len(sizes))
    dual = np.linalg.solve((own.T * weights) @ own, own.T * weights) * diagonal[:, None]
    numbers = followers.dofs[k][s, :, 0]
    found = [(numbers, np.full_like(numbers, -1), diagonal, counts)]
    ends = np.cumsum([len(part[3]) for part in parts])[:-1]
    for (m, seen, there, _), psi in zip(parts, np.split(dual, ends, axis=1), strict=True):
        values = psi @ shape_functions(seen, flat.seen(leaders.points[k][m]), there)
        others = leaders.dofs[k][m, :, 0]
        first, second = np.repeat(numbers, len(others)), np.tile(others, len(numbers))
        found.append((first, second, values.ravel(), np.repeat(counts, len(others))))
    return found


def _condition(nodes: Nodes, followers: Facets, leaders: Facets, k: int, entries: Sequence[Entry]) -> Condition:
    """Integrals of all ranks, summed."""
    import scipy

    empty = np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=bool)
    mine = [np.concatenate(part) for part in zip(empty, *entries, strict=True)]
    first, second, values, counts = (np.concatenate(part) for part in zip(*nodes.comm.allgather(mine), strict=True))
    own, chosen = np.unique(followers.dofs[k][..., 0], return_index=True)
    others, led = np.unique(leaders.dofs[k][..., 0], return_index=True)
    row, diagonal = np.searchsorted(own, first), second < 0
    shares = np.bincount(row[diagonal], values[diagonal], len(own))
    summed = np.zeros(len(own), dtype=bool)
    summed[row[diagonal & counts]] = True
    at = row[~diagonal], np.searchsorted(others, second[~diagonal])
    weights = scipy.sparse.csr_array(scipy.sparse.coo_array((values[~diagonal], at), shape=(len(own), len(others))))
    components, joined = followers.dofs[k].shape[2], np.searchsorted(own, followers.dofs[k][..., 0])
    pairs = np.repeat(joined[:, 0], joined.shape[1]), joined.ravel()
    graph = scipy.sparse.coo_array((np.ones(joined.size), pairs), shape=(len(own), len(own)))
    return Condition(
        dofs=followers.dofs[k].reshape(-1, components)[chosen],
        points=followers.points[k].reshape(-1, followers.points[k].shape[2])[chosen],
        diagonal=shares,
        summed=summed,
        parts=scipy.sparse.csgraph.connected_components(graph, directed=False)[1],
        leaders=leaders.dofs[k].reshape(-1, components)[led],
        weights=weights,
    )


class Mortar(Link):
    """A face that follows another in the mean. Collective.

    Args:
        nodes: Of the unknown.
        leaves: Its functions that are tied.
        chosen: This rank's facets of the face, and those among which the other one is.
        image: Maps points (N, gdim) of the face to where it lies on the other.
        gap: Greatest distance between the faces.
        direct: For each function nodes (D, components) that take values at points (D, gdim) instead, and others that
            another tie leads.
        number: Of the tie, for messages.
    """

    def __init__(
        self,
        nodes: Nodes,
        leaves: Sequence[Leaf],
        chosen: tuple[np.ndarray, np.ndarray],
        *,
        image: Callable[[np.ndarray], np.ndarray] = lambda points: points,
        gap: float = 0.0,
        direct: Sequence[tuple[np.ndarray, np.ndarray, set[int]]] = (),
        number: int,
    ) -> None:
        import scipy

        self._nodes, self._number = nodes, number
        first, second = (facets_of(nodes, leaves, own, number) for own in chosen)
        first = first.everywhere(nodes.comm)
        corners, *at = together(nodes.comm, lambda: [mapped(image, p) for p in (first.corners, *first.points)])
        first = replace(first, corners=corners, points=tuple(at))
        gap += NEAR * nodes.size
        aims = np.concatenate(
            [first.corners.reshape(-1, nodes.mesh.geometry.dim), *(points for _, points, _ in direct)]
        )
        near = np.zeros(len(second.corners), dtype=bool)
        if len(near):
            distances, _ = scipy.spatial.KDTree(aims).query(second.middles())
            near = distances <= second.radii() + 2 * first.radii().max() + gap
        second = second.select(near).everywhere(nodes.comm)
        degree = 2 * max(leaf.space.ufl_element().embedded_superdegree for leaf in leaves)
        found, used = conditions(nodes, first, second, gap, degree, number)
        self._equations: list[Equation] = []
        self._marks: Equation = {}
        settled = set(nodes.settled)
        for k, (dofs, points, led) in enumerate(direct):
            self._mark(dofs, points)
            settled |= led | set(dofs.ravel().tolist())
            self._equations += _interpolation(second, k, dofs, points, gap, number)
        for condition in found:
            self._mark(condition.dofs, condition.points)
            self._equations += condition.equations(settled, number)
        self._local = chosen[0], chosen[1][near]
        self._used = used
        self._places = first.corners, second.corners[used]

    def _mark(self, dofs: np.ndarray, points: np.ndarray) -> None:
        """By where the nodes are led to."""
        places = (points - self._nodes.low) / self._nodes.size
        waves = 4.0 + np.sin(places @ np.array([1.3, 2.1, 0.7])[: places.shape[1]])
        self._marks |= {int(dof): float(wave) for own, wave in zip(dofs, waves, strict=True) for dof in own}

    def equations(self) -> list[Equation]:
        """One a follower, as on the mesh as loaded: no shape changes them."""
        return self._equations

    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """None."""
        return [{} for _ in self._equations]

    def geometry(self) -> np.ndarray:
        """Nothing that changes."""
        return np.zeros(1)

    def marks(self) -> Equation:
        """Where followers are led to."""
        return self._marks

    def check_moved(self, velocity: np.ndarray, *, apart: bool) -> str | None:
        """Both faces have to move by one affine map, but for a translation if they are `apart`: weights stay then."""

        def look() -> np.ndarray:
            first, second = (
                facets_of(self._nodes, [], own, self._number).everywhere(self._nodes.comm) for own in self._local
            )
            return np.concatenate([first.corners, second.corners[self._used]]).reshape(-1, velocity.shape[1])

        moved = self._nodes.moved(velocity, look) - look()
        places = np.concatenate(self._places).reshape(moved.shape)
        parts = np.arange(len(moved))[:, None] >= self._places[0].size // moved.shape[1]
        sides = [parts, ~parts] if apart else [np.ones_like(parts)]
        map_ = np.concatenate([places / self._nodes.size, *sides], axis=1)
        rest = moved - map_ @ np.linalg.lstsq(map_, moved, rcond=None)[0]
        if np.abs(rest).max() <= NEAR * self._nodes.size:
            return None
        return (
            f"moves the faces of tie {self._number}, whose meshes don't match, otherwise than by one affine map, so "
            "that weights would change; let the velocity vanish there, or stretch or shift both faces alike"
        )


def _interpolation(
    facets: Facets, k: int, dofs: np.ndarray, points: np.ndarray, near: float, number: int
) -> list[Equation]:
    """Function k takes at nodes (D, components) what it has at points (D, gdim) on facets."""
    found: list[Equation] = []
    for own, point, m in zip(dofs, points, found_on(points, facets, near), strict=True):
        if m < 0:
            raise ValueError(
                f"tie {number} takes a node to where there is no face, to {np.round(point, 9).tolist()}; the other "
                "face has to cover this one"
            )
        flat = Flat(facets.corners[m])
        (weights,) = shape_functions(flat.corners, flat.seen(facets.points[k][m]), flat.seen(point[None]))
        for component, dof in enumerate(own.tolist()):
            pairs = zip(facets.dofs[k][m, :, component].tolist(), (-weights).tolist(), strict=True)
            found.append({dof: 1.0} | {leader: w for leader, w in pairs if abs(w) > SLIVER})
    return found
