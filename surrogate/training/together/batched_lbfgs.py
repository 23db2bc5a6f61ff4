"""L-BFGS on several functions at once: curvature pairs and line searches, evaluated together."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

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


_ARRAYS = ("_S", "_Y", "_SY", "_YY", "_gamma", "count")

MIN_CURVATURE = 1e-14
"""A pair is kept if its curvature, relative to the lengths of step and gradient change, is more than this."""


class CurvaturePairs:
    """K inverse Hessians of size P × P, each of at most M pairs, in compact form.

    With pairs s_i, y_i in the columns of S and Y, R the upper triangle of SᵀY (older pairs first), D its diagonal, and
    γ = s·y / y·y of the newest pair (Byrd, Nocedal & Schnabel 1994, *Representations of quasi-Newton matrices*),

        H g = γ g + S R⁻ᵀ (D u + γ YᵀY u − γ Yᵀg) − γ Y u,  u = R⁻¹ Sᵀg.

    Members take pairs in at different times: each fills its own ring of M slots. What is of size P is done in a few
    batched products.

    Args:
        like: Any tensor (K, P) of the type and on the device that is wanted.
        length: M.

    Attributes:
        count: Pairs that each member has taken in (K,), since they were cleared.
    """

    def __init__(self, like: Tensor, length: int) -> None:
        K, P = like.shape
        self._S, self._Y = like.new_zeros(K, length, P), like.new_zeros(K, length, P)
        self._SY, self._YY = like.new_zeros(K, length, length), like.new_zeros(K, length, length)
        self._gamma = like.new_ones(K)
        self.count = torch.zeros(K, dtype=torch.long, device=like.device)
        self._slots = torch.arange(length, device=like.device)

    def select(self, members: Tensor) -> CurvaturePairs:
        """Copies of those of these members (k,)."""
        return self._of(vars(self)[name][members] for name in _ARRAYS)

    def joined(self, others: Iterable[CurvaturePairs]) -> CurvaturePairs:
        """Copies of these, and of others after them."""
        every = (self, *others)
        return self._of(torch.cat([vars(one)[name] for one in every]) for name in _ARRAYS)

    def clear(self, members: Tensor) -> None:
        """Forget all pairs of these members (k,)."""
        for array in (self._S, self._Y, self._SY, self._YY, self.count):
            array[members] = 0
        self._gamma[members] = 1.0

    def add(self, steps: Tensor, changes: Tensor, where: Tensor) -> None:
        """Take in steps and changes of the gradient (K, P) of the members where that is True (K,).

        Pairs along which the function does not curve upwards are left out.
        """
        sy, yy = (steps * changes).sum(1), changes.square().sum(1)
        where = where & (sy > MIN_CURVATURE * (steps.square().sum(1) * yy).sqrt())
        members = where.nonzero().squeeze(1)
        if not len(members):
            return
        slot = self.count[members] % len(self._slots)
        self._S[members, slot], self._Y[members, slot] = steps[members], changes[members]
        self._gamma[members] = (sy / yy)[members]
        self.count[members] += 1
        with_s, with_y = (_products(A, changes)[members] for A in (self._S, self._Y))
        self._SY[members, :, slot] = with_s
        self._YY[members, :, slot] = with_y
        self._YY[members, slot, :] = with_y

    def _of(self, arrays: Iterable[Tensor]) -> CurvaturePairs:
        """Others that are made of these arrays."""
        new = copy(self)
        for name, array in zip(_ARRAYS, arrays, strict=True):
            setattr(new, name, array)
        return new

    def times(self, g: Tensor) -> Tensor:
        """H g (K, P) of all members."""
        M = len(self._slots)
        order = (self._slots + self.count.unsqueeze(1)) % M  # oldest first; empty slots add nothing wherever they are
        rows = order.unsqueeze(2).expand(-1, -1, M)
        SY, YY = (A.gather(1, rows).gather(2, rows.mT) for A in (self._SY, self._YY))
        p, q = (_products(A, g).gather(1, order) for A in (self._S, self._Y))
        D = SY.diagonal(dim1=1, dim2=2).clone()
        R = SY.triu_()
        R.diagonal(dim1=1, dim2=2).add_((D == 0.0).to(D.dtype))
        gamma = self._gamma.unsqueeze(1)
        u = torch.linalg.solve_triangular(R, p.unsqueeze(2), upper=True).squeeze(2)
        v = D * u + gamma * (_products(YY, u) - q)
        v = torch.linalg.solve_triangular(R.mT, v.unsqueeze(2), upper=False).squeeze(2)
        back = order.argsort(dim=1)
        u, v = u.gather(1, back), v.gather(1, back)
        total = torch.baddbmm((gamma * g).unsqueeze(1), v.unsqueeze(1), self._S)
        return total.baddbmm_((-gamma * u).unsqueeze(1), self._Y).squeeze(1)


def _products(A: Tensor, x: Tensor) -> Tensor:
    """A x (K, M) for matrices A (K, M, P) and vectors x (K, P).

    A row times the transpose takes a tenth of the time that the matrix times a column takes, in MKL 2024.
    """
    return torch.bmm(x.unsqueeze(1), A.mT).squeeze(1)


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
        curvature: CurvaturePairs | None = None,
    ) -> None:
        self._losses, self._most, self._tolerance = losses, iterations, tolerance
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
        lost = self._working & ~good & (search.trials >= MAX_TRIALS)
        self._working &= ~(lost & (self._pairs.count == 0))
        self._pairs.clear((lost & self._working).nonzero().squeeze(1))
        if good.any():
            gain = search.value - value
            slow = good & (gain <= self._tolerance * search.value.abs().clamp(min=1.0))
            self._slow = torch.where(slow, self._slow + 1, torch.where(good, 0, self._slow))
            still = (gain.abs() < STILL_STEP) | (steps.abs().amax(1) < STILL_STEP) | (self._slow >= SLOW_STEPS)
            self._pairs.add(steps, gradient - self._g, good)
            self._x, self._g = (torch.where(good.unsqueeze(1), a, b) for a, b in ((x, self._x), (gradient, self._g)))
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

    descent = Descent(losses, start.unsqueeze(0), iterations=iterations, history=MAX_PAIRS, tolerance=tolerance)
    while not descent.done:
        descent.step()
    points, values = descent.result()
    return Minimum(points[0], float(values[0]), int(descent.iterations[0]))
