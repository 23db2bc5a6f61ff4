"""Closed-form models with known statistics, and surrogates that are wrong in known ways."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import binom
from toys import TooMuch


class Function:
    """A model of one or more responses from functions of points (N, n): values (N, m) and Jacobians (N, m, n)."""

    def __init__(self, values, jacobian, bounds, parameters, responses=("y",)):
        self.values, self.slopes = values, jacobian
        self.bounds = np.asarray(bounds, dtype=float)
        self.parameters, self.responses = tuple(parameters), tuple(responses)
        self.solves = 0

    def predict(self, x, *, jacobian=True):
        return self.values(x), self.slopes(x) if jacobian else None

    def evaluate(self, x, *, jacobian=True):
        self.solves += 1
        y, dy = self.predict(np.asarray(x)[None], jacobian=jacobian)
        return y[0], dy[0] if jacobian else None


def linear(slopes, offset=0.0, reach=9.0):
    """y = slopes · x + offset, of inputs with bounds ± reach."""
    a = np.asarray(slopes, dtype=float)
    n = len(a)
    return Function(
        lambda x: (x @ a + offset)[:, None],
        lambda x: np.broadcast_to(a, (len(x), 1, n)).copy(),
        [[-reach, reach]] * n,
        [f"x{k}" for k in range(n)],
    )


def standard(model):
    """Every input standard normal."""
    return dict.fromkeys(model.parameters, "normal:0,1")


def ishigami(a=7.0, b=0.1):
    def values(x):
        return (np.sin(x[:, 0]) + a * np.sin(x[:, 1]) ** 2 + b * x[:, 2] ** 4 * np.sin(x[:, 0]))[:, None]

    def slopes(x):
        first = np.cos(x[:, 0]) * (1 + b * x[:, 2] ** 4)
        return np.stack([first, a * np.sin(2 * x[:, 1]), 4 * b * x[:, 2] ** 3 * np.sin(x[:, 0])], axis=1)[:, None]

    return Function(values, slopes, [[-np.pi, np.pi]] * 3, ("x1", "x2", "x3"))


def ishigami_truth(a=7.0, b=0.1):
    """Variance, first-order and total indices, and mean squared slopes."""
    pi = np.pi
    v1 = 0.5 * (1 + b * pi**4 / 5) ** 2
    v2, v13 = a**2 / 8, b**2 * pi**8 * (1 / 18 - 1 / 50)
    variance = v1 + v2 + v13
    first, total = np.array([v1, v2, 0.0]) / variance, np.array([v1 + v13, v2, v13]) / variance
    slopes = np.array([0.5 * (1 + 2 * b * pi**4 / 5 + b**2 * pi**8 / 9), a**2 / 2, 8 * b**2 * pi**6 / 7])
    return variance, first, total, slopes


def cover(hits):
    """Whether so many of the intervals may hold the truth that 95 % should: fewer do once in ten thousand times."""
    return binom.cdf(np.sum(hits, axis=0), len(hits), 0.95) > 1e-4


@dataclass
class Imperfect:
    """A surrogate: the model plus a wave of known amplitude, which is also what it claims its deviation to be."""

    model: Function
    amplitude: float
    direction: np.ndarray
    phase: float = 0.0
    claim: float = 1.0

    def __post_init__(self):
        self.parameters, self.responses = self.model.parameters, self.model.responses
        self.bounds = self.model.bounds

    def predict(self, x, *, jacobian=True):
        y, dy = self.model.predict(x, jacobian=jacobian)
        angle = x @ self.direction + self.phase
        y = y + self.amplitude * np.sin(angle)[:, None]
        if jacobian:
            dy = dy + self.amplitude * np.cos(angle)[:, None, None] * self.direction
        return y, dy

    def evaluate(self, x, *, jacobian=True):
        y, dy = self.predict(np.asarray(x)[None], jacobian=jacobian)
        return y[0], dy[0] if jacobian else None

    def standard_deviation(self, x):
        size = self.claim * abs(self.amplitude)
        slopes = size * np.abs(self.direction)
        return np.full((len(x), 1), size), np.broadcast_to(slopes, (len(x), 1, len(slopes))).copy()


class Fragile(Function):
    """Has no answer where the first input is above a limit."""

    most = 0.0

    def evaluate(self, x, *, jacobian=True):
        if x[0] > self.most:
            raise TooMuch(f"buckled at {x[0]:.2f}", 0.5)
        return super().evaluate(x, jacobian=jacobian)
