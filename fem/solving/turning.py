"""Cyclic symmetry: vectors on a face are those on its image, turned as the image turns the face."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sobofem.fem.solving.tie import Equation, Link

ORTHOGONAL = 1e-6
"""Part by which lengths and angles may change under a map that is taken for a rotation or a reflection."""


def rotation_between(points: np.ndarray, images: np.ndarray, tolerance: float) -> np.ndarray | None:
    """The rotation (gdim, gdim) that takes points (N, gdim) of a face to their images, but for a translation.

    None where there is no turn, or images are no rigid motion of the face. A face is flat or a curve, so that a
    reflection would do as well; of the two the rotation is that of a sector of a body (Kabsch 1976).
    """
    first, second = (places - places.mean(axis=0) for places in (points, images))
    if np.abs(first - second).max(initial=0.0) <= tolerance:
        return None
    left, _, right = np.linalg.svd(second.T @ first)
    signs = np.ones(points.shape[1])
    signs[-1] = np.sign(np.linalg.det(left @ right))
    rotation = np.asarray(left * signs @ right)
    return rotation if np.abs(second - first @ rotation.T).max() <= tolerance else None


def mirrors(image: Callable[[np.ndarray], np.ndarray], place: np.ndarray, size: float) -> bool:
    """Whether a map of points (N, gdim), looked at near a place (gdim,), is a reflection."""
    places = np.concatenate([place[None], place + size * np.eye(len(place))])
    found = image(places)
    linear = (found[1:] - found[0]).T / size
    orthogonal = np.abs(linear.T @ linear - np.eye(len(place))).max() <= ORTHOGONAL
    return bool(orthogonal and np.linalg.det(linear) < 0.0)


class Turned(Link):
    """u = Rᵀ u' at nodes, with u' at their images.

    Args:
        followers: Degrees of freedom (N, gdim) of these nodes, in global numbers.
        leaders: Of their images, (N, gdim).
        rotation: R, (gdim, gdim).
    """

    def __init__(self, followers: np.ndarray, leaders: np.ndarray, rotation: np.ndarray) -> None:
        self._followers, self._leaders, self._rotation = followers, leaders, rotation

    def equations(self) -> list[Equation]:
        """One for each component at each node; on the axis nodes follow themselves, and are free along it."""
        found = []
        for own, other in zip(self._followers.tolist(), self._leaders.tolist(), strict=True):
            for k, follower in enumerate(own):
                equation: Equation = {follower: 1.0}
                for leader, weight in zip(other, self._rotation[:, k].tolist(), strict=True):
                    equation[leader] = equation.get(leader, 0.0) - weight
                # along the axis round-off is left of 1 - 1, by which nothing is to be held
                if max(map(abs, equation.values())) > ORTHOGONAL:
                    found.append(equation)
        return found

    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """None: the turn stays."""
        return [{} for _ in self.equations()]

    def geometry(self) -> np.ndarray:
        """Nothing that changes."""
        return np.zeros(1)

    def marks(self) -> Equation:
        """The sines of the turn, at nodes that follow."""
        numbers = (self._rotation - self._rotation.T).ravel().round(9)
        text = 2.0 + float(numbers @ np.cos(np.arange(len(numbers))))
        return dict.fromkeys(self._followers.ravel().tolist(), text)
