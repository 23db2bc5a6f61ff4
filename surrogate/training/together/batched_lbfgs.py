"""L-BFGS on several functions at once, evaluated together, each with its own line search."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.training.together.curvature_pairs import CurvaturePairs

SUFFICIENT_DECREASE, CURVATURE_SHARE = 1e-4, 0.9
"""Constants of the weak Wolfe conditions."""
TRIAL_GROWTH = 3.0
"""Factor between trials while no end of the interval is known."""


@dataclass(eq=False)
class LineSearch:
    """Trial steps for K functions along their directions, until the weak Wolfe conditions hold.

    A trial that decreases too little closes the interval from above, one that still goes down steeply from below
    (Lewis & Overton 2013, *Nonsmooth optimization via quasi-Newton methods*); the next one minimizes the cubic through
    both ends, kept away from them. All attributes are (K,).

    Attributes:
        value: At the start.
        slope: There, along the direction; negative.
        trial: Step length to evaluate next, in units of the direction.
        low: Longest step known to be too short.
        low_value: Value there.
        low_slope: Slope there.
        high: Shortest step known to be too long; infinite until there is one.
        high_value: Value there.
        high_slope: Slope there.
        trials: Trials evaluated so far.
    """

    value: Tensor
    slope: Tensor
    trial: Tensor
    low: Tensor
    low_value: Tensor
    low_slope: Tensor
    high: Tensor
    high_value: Tensor
    high_slope: Tensor
    trials: Tensor

    @classmethod
    def along(cls, value: Tensor, slope: Tensor, trial: Tensor) -> LineSearch:
        """Searches that start with these trials."""
        nothing = torch.zeros_like(value)
        never = torch.full_like(value, torch.inf)
        return cls(value, slope, trial, nothing, value, slope, never, nothing, nothing, nothing)

    def replaced(self, where: Tensor, other: LineSearch) -> LineSearch:
        """These searches, with others in the places (K,) where that is True."""
        return LineSearch(*(torch.where(where, b, a) for a, b in zip(self._all(), other._all(), strict=True)))

    def select(self, members: Tensor) -> LineSearch:
        """The searches of these members."""
        return LineSearch(*(tensor[members] for tensor in self._all()))

    def judge(self, value: Tensor, slope: Tensor) -> tuple[Tensor, LineSearch]:
        """Which trials are good (K,), given value and slope (K,) there, and the searches that go on from the others."""
        enough = value <= self.value + SUFFICIENT_DECREASE * self.trial * self.slope
        flat = slope >= CURVATURE_SHARE * self.slope
        short = enough & ~flat
        low, low_value, low_slope = (
            torch.where(short, a, b)
            for a, b in ((self.trial, self.low), (value, self.low_value), (slope, self.low_slope))
        )
        high, high_value, high_slope = (
            torch.where(enough, b, a)
            for a, b in ((self.trial, self.high), (value, self.high_value), (slope, self.high_slope))
        )
        inside = _cubic_minimum(low, low_value, low_slope, high, high_value, high_slope)
        trial = torch.where(high.isinf(), TRIAL_GROWTH * self.trial, inside)
        ends = low, low_value, low_slope, high, high_value, high_slope
        return enough & flat, LineSearch(self.value, self.slope, trial, *ends, self.trials + 1.0)

    def _all(self) -> list[Tensor]:
        return list(vars(self).values())


def _cubic_minimum(a: Tensor, fa: Tensor, da: Tensor, b: Tensor, fb: Tensor, db: Tensor) -> Tensor:
    """Minimum of the cubic with these values and slopes at a < b, at least a tenth inside; the middle if none."""
    width = b - a
    theta = da + db - 3.0 * (fb - fa) / width
    root = (theta.square() - da * db).sqrt()
    best = b - width * (db + root - theta) / (db - da + 2.0 * root)
    best = torch.where(best.isfinite(), best, a + 0.5 * width)
    return torch.minimum(torch.maximum(best, a + 0.1 * width), b - 0.1 * width)


Losses = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
"""`losses(flat, members)`: values (k,) and gradients (k, P) of the functions of these numbers (k,) at points (k, P)."""

MAX_TRIALS = 25
"""Most evaluations of a line search."""
MAX_PAIRS = 20
"""Pairs of steps and gradient changes that `minimize` remembers."""
SLOW_STEPS = 5
"""Steps in a row of little gain after which a function has converged."""
FLAT_GRADIENT, STILL_STEP = 1e-12, 1e-14
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
        tolerance: A member has converged, too, when five steps in a row gain less than this share of its value each.
        least: Share of its value that the next trial of a line search must promise, for it to go on.
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
        tolerance: float = 0.0,
        least: float = 0.0,
        curvature: CurvaturePairs | None = None,
    ) -> None:
        self._losses, self._most, self._tolerance, self._least = losses, iterations, tolerance, least
        self._members = torch.arange(len(start), device=start.device)
        value, gradient = losses(start, self._members)
        self._x, self._g, self._d = start.clone(), gradient.clone(), torch.zeros_like(start)
        self._points, self._values = start.clone(), value.clone()
        self.iterations = torch.zeros_like(self._members)
        self._slow = torch.zeros_like(self._members)
        self._pairs = CurvaturePairs(start, history) if curvature is None else curvature
        self._frozen: list[tuple[Tensor, CurvaturePairs]] = []
        self._working = value.isfinite() & (gradient.abs().amax(1) > FLAT_GRADIENT)
        self._search = self._aim(value, torch.ones_like(self._working))

    @property
    def done(self) -> bool:
        """Whether no member goes on."""
        return not bool(self._working.any())

    @property
    def most_steps(self) -> int:
        """Iterations of the member that is ahead of all that go on; 0 where none does."""
        return int((self.iterations[self._members] * self._working).max())

    def keep(self, members: Tensor) -> None:
        """Go on with these members (k,) alone."""
        self._working &= torch.isin(self._members, members)

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
        # A search that found nothing is the fault of old curvature, or the end where there is none.
        # So is one whose next trial would gain too little to count, were the function as steep all the way.
        little = -search.slope * search.trial <= self._least * search.value.abs().clamp(min=1.0)
        lost = self._working & ~good & (little | (search.trials >= MAX_TRIALS))
        self._working &= ~(lost & (self._pairs.count == 0))
        self._pairs.clear((lost & self._working).nonzero().squeeze(1))
        if good.any():
            gain = search.value - value
            slow = good & (gain <= self._tolerance * search.value.abs().clamp(min=1.0))
            self._slow = torch.where(slow, self._slow + 1, torch.where(good, 0, self._slow))
            still = (gain.abs() < STILL_STEP) | (steps.abs().amax(1) < STILL_STEP) | (self._slow >= SLOW_STEPS)
            after = torch.where(good.unsqueeze(1), gradient, self._g)
            self._pairs.add(steps, self._g, after, good)
            self._x, self._g = torch.where(good.unsqueeze(1), x, self._x), after
            self.iterations[self._members] += good
            over = self.iterations[self._members] >= self._most
            self._working &= ~(good & (still | over | (self._g.abs().amax(1) <= FLAT_GRADIENT)))
        turning = good | (lost & self._working)
        self._search = search
        if turning.any():
            self._search = search.replaced(turning, self._aim(torch.where(good, value, search.value), turning))

    def _aim(self, value: Tensor, turning: Tensor) -> LineSearch:
        """New directions where `turning` (K,); searches for all, of which only those count."""
        d = self._pairs.times(self._g).neg_()
        slope = (d * self._g).sum(1)
        bad = turning & ~((slope < 0.0) & slope.isfinite())
        if bad.any():
            self._pairs.clear(bad.nonzero().squeeze(1))
            d = torch.where(bad.unsqueeze(1), -self._g, d)
            slope = torch.where(bad, -self._g.square().sum(1), slope)
        self._d = torch.where(turning.unsqueeze(1), d, self._d)
        cautious = (1.0 / self._g.abs().sum(1)).clamp(max=1.0)
        return LineSearch.along(value, slope, torch.where(self._pairs.count == 0, cautious, torch.ones_like(slope)))

    def _drop(self) -> None:
        """Leave out the members that are frozen."""
        kept, frozen = (where.nonzero().squeeze(1) for where in (self._working, ~self._working))
        self._points, self._values = self.result()
        self._frozen.append((self._members[frozen], self._pairs.select(frozen)))
        self._pairs = self._pairs.select(kept)
        self._search = self._search.select(kept)
        for name in ("_members", "_x", "_g", "_d", "_slow", "_working"):
            setattr(self, name, vars(self)[name][kept])


@dataclass(frozen=True)
class Minimum:
    """Where a minimization ended.

    Attributes:
        point: Best point seen (P,).
        value: The function there; infinite if it was never finite.
        iterations: Steps done.
    """

    point: Tensor
    value: float
    iterations: int


def minimize(
    function: Callable[[Tensor], tuple[float, Tensor]], start: Tensor, *, iterations: int, tolerance: float = 1e-9
) -> Minimum:
    """Minimize one function of a vector by L-BFGS; an infinite value counts as a bad point, to step back from.

    Args:
        function: Point (P,) to value and gradient (P,).
        start: Where to begin (P,); the function is finite there.
        iterations: Most steps.
        tolerance: As in `Descent`.
    """

    def losses(points: Tensor, _: Tensor) -> tuple[Tensor, Tensor]:
        value, gradient = function(points[0])
        return points.new_tensor([value]), gradient.unsqueeze(0)

    at = start.unsqueeze(0)
    descent = Descent(losses, at, iterations=iterations, history=MAX_PAIRS, tolerance=tolerance, least=tolerance)
    while not descent.done:
        descent.step()
    points, values = descent.result()
    return Minimum(points[0], float(values[0]), int(descent.iterations[0]))
