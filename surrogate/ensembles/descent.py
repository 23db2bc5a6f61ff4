"""L-BFGS on several functions at once."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from surrogate.ensembles.curvature_pairs import CurvaturePairs
from surrogate.ensembles.line_search import LineSearch

Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`losses(flat, members)`: values (k,) and gradients (k, P) of the functions of these numbers (k,) at points (k, P)."""

TRIALS = 25
"""Most evaluations of a line search."""
FLAT, STILL = 1e-12, 1e-14
"""A function has converged when its gradient's largest entry, or its last change of value or point, is below these."""


class Descent:
    """K independent minimizations by L-BFGS (Liu & Nocedal 1989) that share each evaluation.

    No member waits for another: one may be in the middle of a line search while the next begins a new iteration. A
    member that has converged or done its iterations is frozen, and no longer computed once half of all are.

    Args:
        losses: What to minimize.
        start: Points (K, P).
        iterations: Most iterations of each member.
        history: Pairs of steps and gradient changes that each remembers.
        curvature: Pairs to begin with, as a descent on much the same functions has left them.

    Attributes:
        iterations: Done by each member (K,).
    """

    def __init__(
        self,
        losses: Losses,
        start: Tensor,
        *,
        iterations: int,
        history: int,
        curvature: CurvaturePairs | None = None,
    ) -> None:
        self._losses, self._most = losses, iterations
        self._members = torch.arange(len(start), device=start.device)
        value, gradient = losses(start, self._members)
        self._x, self._g, self._d = start.clone(), gradient.clone(), torch.zeros_like(start)
        self._points, self._values = start.clone(), value.clone()
        self.iterations = torch.zeros_like(self._members)
        self._pairs = CurvaturePairs(start, history) if curvature is None else curvature
        self._frozen: list[tuple[Tensor, CurvaturePairs]] = []
        self._working = value.isfinite() & (gradient.abs().amax(1) > FLAT)
        self._search = self._aim(value, torch.ones_like(self._working))

    @property
    def done(self) -> bool:
        """Whether no member goes on."""
        return not bool(self._working.any())

    def result(self) -> tuple[Tensor, Tensor]:
        """The best points so far (K, P) and the values there (K,)."""
        points, values = self._points.clone(), self._values.clone()
        points[self._members], values[self._members] = self._x, self._search.value
        return points, values

    def curvature(self) -> CurvaturePairs:
        """What all members have learned of the curvature, those that are frozen included."""
        numbers = torch.cat([self._members, *(members for members, _ in self._frozen)])
        return self._pairs.joined(pairs for _, pairs in self._frozen).select(numbers.argsort())

    def step(self) -> None:
        """One evaluation of each member that is still computed, and what follows from it."""
        if 2 * int(self._working.sum()) <= len(self._working):
            self._drop()
        length = self._search.trial
        steps = length.unsqueeze(1) * self._d
        x = self._x + steps
        value, gradient = self._losses(x, self._members)
        good, search = self._search.judge(value, (gradient * self._d).sum(1))
        good &= self._working
        lost = self._working & ~good & (search.trials >= TRIALS)
        self._working &= ~(lost & (self._pairs.count == 0))
        self._pairs.clear((lost & self._working).nonzero().squeeze(1))
        if good.any():
            still = ((value - search.value).abs() < STILL) | (steps.abs().amax(1) < STILL)
            self._pairs.add(steps, gradient - self._g, good)
            self._x, self._g = (torch.where(good.unsqueeze(1), a, b) for a, b in ((x, self._x), (gradient, self._g)))
            self.iterations[self._members] += good
            over = self.iterations[self._members] >= self._most
            self._working &= ~(good & (still | over | (self._g.abs().amax(1) <= FLAT)))
        anew = good | (lost & self._working)
        self._search = search
        if anew.any():
            self._search = search.replaced(anew, self._aim(torch.where(good, value, search.value), anew))

    def _aim(self, value: Tensor, anew: Tensor) -> LineSearch:
        """Turn where `anew` says so (K,); searches for all, of which only those count."""
        d = self._pairs.times(self._g).neg_()
        slope = (d * self._g).sum(1)
        bad = anew & ~((slope < 0.0) & slope.isfinite())
        if bad.any():
            self._pairs.clear(bad.nonzero().squeeze(1))
            d = torch.where(bad.unsqueeze(1), -self._g, d)
            slope = torch.where(bad, -self._g.square().sum(1), slope)
        self._d = torch.where(anew.unsqueeze(1), d, self._d)
        cautious = (1.0 / self._g.abs().sum(1)).clamp(max=1.0)
        return LineSearch.along(value, slope, torch.where(self._pairs.count == 0, cautious, torch.ones_like(slope)))

    def _drop(self) -> None:
        """Leave out the members that are frozen."""
        kept, frozen = (where.nonzero().squeeze(1) for where in (self._working, ~self._working))
        self._points, self._values = self.result()
        self._frozen.append((self._members[frozen], self._pairs.select(frozen)))
        self._pairs = self._pairs.select(kept)
        self._search = self._search.select(kept)
        for name in ("_members", "_x", "_g", "_d", "_working"):
            setattr(self, name, getattr(self, name)[kept])
