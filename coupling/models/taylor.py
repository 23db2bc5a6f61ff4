"""Taylor tests: is the Jacobian that a model returns the derivative of the responses that it returns?

Along a direction d the remainder |y(x ± h d) − y(x) ∓ h J d| falls by four when h is halved if J is right, and by
two if it is not. Its larger value of both signs is used: there an error of J and the curvature can't cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sobofem.coupling.contract import Array, Model, Recomputed, checked_bounds
from sobofem.coupling.dataset.own_arrays import as_numbers
from sobofem.coupling.models.evaluation import checked_evaluation

ALL_TOGETHER = "all together"
MAX_TESTED_SINGLY = 24  # most parameters that are tested one by one unless that is wanted
RANDOM_DIRECTIONS = 5  # random directions in place of more
VALUE_TOLERANCE = 1e-9  # difference of two ways to a value, as a part of what they sum
MIN_RATE = 1.95  # least rate that passes; two is exact
FIRST = 0.16  # largest step, in widths of the box; less where the box is near
HALVINGS = 9  # at most: no more once every remainder has sunk into the noise
KINKED = 15  # at most, where a rate is still too low: a response with many small kinks is smooth only between them
TINY: Array = np.array([1.0e-8, 1.7e-8, 2.9e-8])  # steps so small that all they show is noise
RELIABLE = 30.0  # remainders this many times above the noise have a rate
BLIND = 1000.0  # changes this many times above the noise are changes
QUIET = 1e-7  # noise below this part of a response lets one say that nothing changes it
LINEAR = 1e-3  # largest remainder that counts as none, as a part of the change, where noise hides the rate


@dataclass(frozen=True)
class TaylorRow:
    """The test of one response along one direction.

    Attributes:
        direction: A parameter, `ALL_TOGETHER` for the random mix of all, or one of several mixes, `random 1`.
        response: The response.
        derivative: Directional derivative by the Jacobian; per unit of the parameter, or of the mix.
        difference: The same by central differences at the smallest step.
        rate: At which the remainder falls; NaN where it has none.
        verdict: `second order`, `linear`, `no influence`; or `WRONG`, `TOO NOISY`.
    """

    direction: str
    response: str
    derivative: float
    difference: float
    rate: float
    verdict: str

    @property
    def passed(self) -> bool:
        """Whether the Jacobian is right here."""
        return self.verdict in ("second order", "linear", "no influence")


@dataclass(frozen=True, eq=False)
class TaylorReport:
    """The Taylor test of a model at one point.

    Attributes:
        point: Where, (n,).
        rows: One for each direction and response.
        noise: Noise found in each response, (m,), in its unit.
        mixed: Whether it was made along random mixes of the parameters alone.
    """

    point: Array
    rows: tuple[TaylorRow, ...]
    noise: Array
    mixed: bool = False

    @property
    def passed(self) -> bool:
        """Whether every derivative is right."""
        return all(row.passed for row in self.rows)

    def __str__(self) -> str:
        width = max(len(row.direction) for row in self.rows)
        wide = max(len(row.response) for row in self.rows)
        return "\n".join(
            f"{row.direction:{width}}  {row.response:{wide}}  {row.derivative:12.5e}  "
            f"{row.difference:12.5e}  {row.rate:5.2f}  {row.verdict}"
            for row in self.rows
        )


@dataclass(frozen=True)
class ValueRow:
    """A response by two ways.

    Attributes:
        response: The response.
        value: As `evaluate` gives it.
        again: By the second way.
        passed: Whether they are the same but for round-off.
    """

    response: str
    value: float
    again: float
    passed: bool


def value_test(model: Model, point: Array) -> tuple[ValueRow, ...]:
    """Compare responses at a point with those that a model computes by a second way; empty where it knows none.

    Collective on the model's communicator.
    """
    if not isinstance(model, Recomputed):
        return ()
    values, again, size = model.recompute(point)
    passed = np.abs(values - again) <= VALUE_TOLERANCE * size
    return tuple(map(ValueRow, model.responses, values.tolist(), again.tolist(), passed.tolist()))


def taylor_test(
    model: Model, *, point: ArrayLike | None = None, seed: int = 0, directions: int | None = None
) -> TaylorReport:
    """Test the Jacobian of every response, along every parameter and a random mix of all, or along several mixes.

    Evaluates a smooth model at most 20 k + 7 times for k directions, one with kinks 32 k + 7 times. If a mix fails, the
    parameters are halved until one is left that does, in some 10 directions more. Collective on its communicator.

    Args:
        model: The model to test.
        point: Where, (n,); by default at random in the middle 40 % of the box.
        seed: Of the random point and the random mixes.
        directions: How many mixes; 0 for every parameter and one mix. By default that for up to
            `MAX_TESTED_SINGLY` parameters, and `RANDOM_DIRECTIONS` mixes for more.

    Raises:
        ValueError: If the point is not inside the box with room for steps of 1 % of its width.
    """
    names, box = model.parameters, checked_bounds(model.bounds, tuple(model.parameters))
    rng = np.random.default_rng(seed)
    width = box[:, 1] - box[:, 0]
    x = box[:, 0] + width * rng.uniform(0.3, 0.7, len(names))
    if directions is None:
        directions = 0 if len(names) <= MAX_TESTED_SINGLY else RANDOM_DIRECTIONS
    mixes = [
        width * rng.uniform(0.5, 1.0, len(names)) * rng.choice([-1.0, 1.0], len(names))
        for _ in range(max(directions, 1))
    ]
    if point is not None:
        x = as_numbers(point, "the point", names)
        if x.shape != width.shape or not (np.abs(x - box.mean(axis=1)) <= 0.49 * width).all():
            raise ValueError(f"the point {x.tolist()} needs {len(names)} values, 1 % of the width inside the bounds")
    # The first step is shorter near a bound, so that both of its ends can be evaluated.
    first = min(FIRST, float(np.min(0.5 - np.abs(x - box.mean(axis=1)) / width)))
    y, jacobian = checked_evaluation(model, x)
    assert jacobian is not None  # checked_evaluation returns one unless it was declined
    base = _Base(model, x, y, jacobian)
    # At a tiny step the remainder is round-off and solver tolerance alone.
    noise = np.maximum(base.remainders(mixes[0], TINY)[0].max(axis=0), 4 * np.finfo(float).eps * np.abs(y))
    rows: list[TaylorRow] = []
    if directions:
        for k, mix in enumerate(mixes, start=1):
            rows += _along(base, f"random {k}", mix, first, 1.0, noise)
            if not all(row.passed for row in rows):
                rows += _culprit(base, mix, first, width, noise)
                break
    else:
        for name, direction, unit in [*zip(names, np.diag(width), width, strict=True), (ALL_TOGETHER, mixes[0], 1.0)]:
            rows += _along(base, name, direction, first, unit, noise)
    return TaylorReport(x, tuple(rows), noise, mixed=directions > 0)


def _culprit(base: _Base, mix: Array, first: float, width: Array, noise: Array) -> list[TaylorRow]:
    """Rows of one parameter along which the test fails, found by halving those of a mix that does."""
    left = np.arange(len(mix))
    while len(left) > 1:
        half = left[: len(left) // 2]
        part = np.zeros_like(mix)
        part[half] = mix[half]
        failed = not all(row.passed for row in _along(base, "", part, first, 1.0, noise))
        left = half if failed else left[len(left) // 2 :]
    name = base.model.parameters[left[0]]
    rows = _along(base, name, np.eye(len(mix))[left[0]] * width, first, float(width[left[0]]), noise)
    return [row for row in rows if not row.passed]


@dataclass(frozen=True, eq=False)
class _Base:
    """The point of expansion."""

    model: Model
    x: Array
    y: Array
    jacobian: Array

    def remainders(self, direction: Array, steps: Array) -> tuple[Array, Array]:
        """Remainders, the larger of both signs, and central differences of y along the direction, (steps, m) each."""
        remainders, slopes = [], []
        for h in steps:
            ends = [self.x + h * direction, self.x - h * direction]
            ahead, behind = (checked_evaluation(self.model, end, jacobian=False)[0] for end in ends)
            expected = [self.y + self.jacobian @ (end - self.x) for end in ends]
            remainders.append(np.maximum(np.abs(ahead - expected[0]), np.abs(behind - expected[1])))
            slopes.append((ahead - behind) / (2 * h))
        return np.array(remainders), np.array(slopes)


def _along(base: _Base, name: str, direction: Array, first: float, unit: float, noise: Array) -> list[TaylorRow]:
    """One row per response along one direction, whose derivatives are shown per `unit`."""
    found, slopes = [], []
    by_jacobian = base.jacobian @ direction
    scale = np.maximum(np.abs(base.y), first * np.abs(base.jacobian * np.diff(base.model.bounds)[:, 0]).max(axis=1))
    rows: list[TaylorRow] = []
    for k in range(KINKED + 1):
        remainder, slope = base.remainders(direction, np.array([first / 2**k]))
        found.append(remainder[0])
        slopes.append(slope[0])
        sunk = k >= 2 and bool((remainder <= RELIABLE * noise).all())
        if not sunk and k < HALVINGS:
            continue
        remainders, rows = np.array(found), []
        for j, response in enumerate(base.model.responses):
            change = first * max(abs(by_jacobian[j]), max(abs(slope[j]) for slope in slopes))
            rate, verdict = judge(remainders[:, j], change, noise[j], scale[j])
            rows.append(TaylorRow(name, response, by_jacobian[j] / unit, slopes[-1][j] / unit, rate, verdict))
        if sunk or all(row.passed for row in rows):
            break
    return rows


def judge(remainders: Array, change: float, noise: float, scale: float) -> tuple[float, str]:
    """Rate and verdict from the remainders at halving steps.

    The rate is taken over two halvings (one, where no more stand out), at the smallest steps whose remainders stand
    out of the noise: larger steps hide an error of the Jacobian behind the curvature. The better of the last two such
    windows counts.

    Args:
        remainders: At steps that halve, largest first.
        change: Of the response at the largest step, to first order.
        noise: Of the response.
        scale: Size of the response, or of its largest change along any parameter.
    """
    clear = int(np.argmin(np.append(remainders > RELIABLE * noise, False)))  # how many, from the largest on
    if clear >= 2:
        span = min(2, clear - 1)
        windows = [np.log2(remainders[k - span] / remainders[k]) / span for k in range(max(span, clear - 2), clear)]
        rate = float(max(windows))
        return rate, "second order" if rate >= MIN_RATE else "WRONG"
    if max(change, remainders[0]) <= BLIND * noise and noise <= QUIET * scale:
        return np.nan, "no influence"
    return np.nan, "linear" if remainders[0] <= LINEAR * change else "TOO NOISY"
