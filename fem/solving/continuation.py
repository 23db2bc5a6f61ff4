"""Equilibria whose load factor is an unknown: by arc length, to a limit point, to values of a control."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sobofem.fem.errors import NotConverged
from sobofem.fem.load_path import Step
from sobofem.fem.solving.bordered_newton import FINEST, BorderedNewton, Point

EASY = 4
"""Newton iterations after which a step of arc length stays as long as it is; fewer lengthen the next."""

SHORTEST = 2.0**-12
"""Step of arc length, over the first one, at which the path is lost."""

BISECTIONS = 12
"""How often the step that passed a limit point is divided until Newton's method finds that point within."""

ROUNDS = 6
"""Of inverse iteration for the mode at a bifurcation, which is close: each gains some three digits."""

UNSEEN = 1e-6
"""Cosine of the angle between a control and a mode up to which the control does not see it."""


class Continuation(BorderedNewton):
    """Walks along the states of a load path that finds its factor. Collective, as are the methods."""

    def to_control(self, points: Sequence[float], bifurcation: float | None, max_steps: int) -> Iterator[Step]:
        """States at the points of the path, one after the other, on the branch that leaves at a bifurcation or not."""
        self.start()
        if bifurcation is None:
            self._first_tangent(1.0)
        else:
            self._leave(bifurcation, max_steps, points[0])
        for point, end in enumerate(points):
            begin, before = self._values.assemble()[0], self._here()

            def attempt(part: float, begin: float = begin, end: float = end) -> None:
                here = self._here()
                try:
                    self._newton(self._controlled((1 - part) * begin + part * end))
                except NotConverged:
                    self._put(here)
                    raise

            for _ in self._marched(attempt):
                self._brace(self._unknown.x.array[: self._owned] - before[0][: self._owned])
            self._settle()
            yield Step(float(self._factor.value), point)

    def to_limit(self, increment: float, max_steps: int) -> Iterator[Step]:
        """The first limit point, of the path or of the branch that leaves it."""
        self.start()
        branching = self._side is not None
        start, length = self._leave(increment, max_steps, None) if branching else self._first_tangent(increment)
        if np.sign(increment) * start.slope <= 0.0:
            raise NotConverged(
                f"the load falls along the branch that leaves at load factor {start.factor:g}: the structure carries "
                "no more than at the bifurcation, which is no limit point; small imperfections have one",
                reason="no limit point",
            )
        for point, following, step in self._along(start, length, max_steps):
            if np.sign(increment) * following.slope <= 0.0:
                self._refine(point, following, step)
                yield Step(float(self._factor.value), 0)
                return
        raise self._nothing("limit point", max_steps)

    def _along(self, point: Point, step: float, max_steps: int) -> Iterator[tuple[Point, Point, float]]:
        """Points from one on, each with the next one and the step between them."""
        shortest = SHORTEST * step
        for _ in range(max_steps):
            following, iterations = self._advance(point, step, shortest)
            step = float(self._sum((following.unknown - point.unknown)[: self._owned] @ point.tangent))
            yield point, following, step
            point = following
            step *= float(np.clip(EASY / iterations, 0.5, 2.0))

    def _nothing(self, what: str, max_steps: int) -> NotConverged:
        return NotConverged(
            f"no {what} up to load factor {float(self._factor.value):g}, in {max_steps} steps of arc length: the "
            "structure may have none; allow more by max_steps, or a larger increment",
            reason=f"no {what}",
        )

    def _leave(self, increment: float, max_steps: int, target: float | None) -> tuple[Point, float]:
        """Go to the first bifurcation, and a little along the branch there.

        Args:
            increment: Of the load factor in the first step.
            max_steps: On the way there.
            target: Value of the control whose side the branch is to go to; None for that on which `side` grows.

        Returns:
            The point, and how far it is from the bifurcation.
        """
        for point, following, step in self._along(*self._first_tangent(increment), max_steps):
            if following.negative is None:
                raise ValueError("bifurcations are found by negative pivots; take an energy, or solver=fem.SYMMETRIC")
            if np.sign(increment) * following.slope <= 0.0:
                raise NotConverged(
                    f"a limit point comes before any bifurcation, near load factor {following.factor:g}; leave out "
                    "`bifurcation`, or `branch`",
                    reason="no bifurcation",
                )
            if point.is_across(following):
                return self._switch(following, abs(increment) * step / abs(following.factor - point.factor), target)
        raise self._nothing("bifurcation", max_steps)

    def _switch(self, at: Point, length: float, target: float | None) -> tuple[Point, float]:
        """Onto the branch that leaves where the tangent is singular: its null vector is where to, as far as it works.

        The component along it is prescribed, so that the path itself is no solution.
        """
        assert self._side is not None
        across, mode = self._side.assemble().times()[:, 0], self._null_vector()
        seen = self._sum(across @ mode)
        if not abs(seen) > UNSEEN * self._norm(across):
            raise NotConverged(
                f"the {'branch' if target is None else 'control'} of the path does not see the mode that leaves it at "
                f"load factor {at.factor:g}; take one that does, such as a displacement to the side",
                reason="unseen branch",
            )
        ahead = 1.0 if target is None else target - self._at_limit()[2]
        if target is not None and abs(ahead) <= UNSEEN * abs(seen) * length:
            raise NotConverged(
                f"the first point of the path is {target:g}, which the control has where branches leave at load factor "
                f"{at.factor:g}; put one before it that says to which side",
                reason="unseen branch",
            )
        mode *= np.sign(seen * ahead)
        self._brace(mode)
        for _ in range(BISECTIONS):
            self._put((at.unknown, at.factor))
            self._move(length * mode, 0.0)
            try:
                self._newton(self._on_plane(Point(at.unknown, at.factor, mode, 0.0), length))
                return self._with_tangent(mode), length
            except NotConverged as failure:
                if failure.final:
                    raise
            length *= 0.5
        raise NotConverged(f"no branch was found at load factor {at.factor:g}", reason="branch not found")

    def _null_vector(self) -> np.ndarray:
        """The unit vector (owned,) that the tangent there nearly maps to nothing, by inverse iteration."""
        vector = np.random.default_rng([0, self._comm.rank]).standard_normal(self._owned)
        for _ in range(ROUNDS):
            vector = self._equilibrium.solve_tangent(vector[:, None])[:, 0]
            vector /= self._norm(vector)
        return vector

    def _advance(self, point: Point, step: float, shortest: float) -> tuple[Point, int]:
        """One step of arc length, shortened until Newton's method succeeds and the path does not turn too far."""
        while True:
            self._brace(point.tangent)
            self._put((point.unknown, point.factor))
            self._move(step * point.tangent, step * point.slope)
            try:
                iterations = self._newton(self._on_plane(point, step))
                following = self._with_tangent(point.tangent)
                cosine = self._sum(following.tangent @ point.tangent)
                if point.leads_to(following, step, cosine, fine=step * SHORTEST < FINEST * shortest):
                    return following, iterations
            except NotConverged as failure:
                if failure.final:
                    raise
            step *= 0.5
            if not step >= shortest:
                raise NotConverged(
                    f"the path was lost at load factor {point.factor:g}; take a smaller increment",
                    reason="path lost",
                )

    def _refine(self, before: Point, after: Point, step: float) -> None:
        """Newton's method for the limit point between two points of the path, which come closer until it succeeds."""
        self._brace(before.tangent)
        for _ in range(BISECTIONS):
            share = before.slope / (before.slope - after.slope)
            self._put((before.unknown, before.factor))
            self._move(share * step * before.tangent, 0.5 * share * step * before.slope)
            try:
                self._newton(self._at_limit)
                moved = self._sum((self._unknown.x.array - before.unknown)[: self._owned] @ before.tangent)
            except NotConverged as failure:
                if failure.final:
                    raise
                moved = np.inf
            if -0.1 * step <= moved <= 1.1 * step:
                self._settle(limit=True)
                return
            middle, _ = self._advance(before, 0.5 * step, 0.4 * step)
            passed = middle.slope * before.slope <= 0.0
            before, after = (before, middle) if passed else (middle, after)
            step *= 0.5
        raise NotConverged(
            f"a limit point near load factor {before.factor:g} was passed, but not found; take a smaller increment",
            reason="limit point not found",
        )
