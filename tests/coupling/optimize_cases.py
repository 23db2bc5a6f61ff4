"""Closed-form models to optimize, which count how often they are evaluated."""

from functools import partial

import numpy as np

from sobofem.coupling import optimize

minimize = partial(optimize.minimize, predictors="quasi-newton")
"""For tests that are not about learned predictors, which take ten times as long as the search itself."""


class NoAnswer(ArithmeticError):
    """A sample without an answer, as `fem.NotConverged` is: known by its attributes alone."""

    load_factor = 0.5

    @property
    def reason(self):
        return str(self)


class Counted:
    """A model by formulas that each give a value and its gradient."""

    units = {}  # noqa: RUF012
    digest = "formulas"

    def __init__(self, parameters, bounds, fails=lambda x: False, **formulas):
        self.parameters, self.responses = tuple(parameters), tuple(formulas)
        self.bounds = np.array(bounds, dtype=float)
        self.formulas, self.fails = formulas, fails
        self.calls = []

    def evaluate(self, x, *, jacobian=True):
        x = np.array(x, dtype=float)
        self.calls.append(x)
        if self.fails(x):
            raise NoAnswer("no equilibrium")
        pairs = [formula(x) for formula in self.formulas.values()]
        y = np.array([value for value, _ in pairs], dtype=float)
        return y, np.array([slope for _, slope in pairs], dtype=float) if jacobian else None


def beam(bias=1.0, **options):
    """A cantilever of rectangular section: the lightest one that carries a stress, in closed form.

    Weight w h, stress 1 / (w h²): at a stress of s the weight is 1 / (s h), least for the greatest height.
    """
    return Counted(
        ("width", "height", "idle"),
        [[0.1, 2.0], [0.5, 3.0], [0.0, 1.0]],
        weight=lambda x: (x[0] * x[1], [x[1], x[0], 0.0]),
        stress=lambda x: (
            bias / (x[0] * x[1] ** 2),
            [-bias / (x[0] ** 2 * x[1] ** 2), -2 * bias / (x[0] * x[1] ** 3), 0.0],
        ),
        slenderness=lambda x: (x[1] / x[0], [-x[1] / x[0] ** 2, 1 / x[0], 0.0]),
        **options,
    )


def valley(n=2, **options):
    """Rosenbrock's curved valley in n inputs; its optimum is at one."""

    def height(x):
        gap = x[1:] - x[:-1] ** 2
        slope = np.zeros(n)
        slope[1:] += 200.0 * gap
        slope[:-1] += -400.0 * x[:-1] * gap - 2.0 * (1.0 - x[:-1])
        return (100.0 * gap**2 + (1.0 - x[:-1]) ** 2).sum(), slope

    return Counted([f"x{i}" for i in range(n)], [[-1.5, 2.0]] * n, height=height, **options)


def hock_schittkowski_71(**options):
    """The 71st problem of Hock and Schittkowski (1981): an inequality and an equation."""
    return Counted(
        ("a", "b", "c", "d"),
        [[1.0, 5.0]] * 4,
        cost=lambda x: (
            x[0] * x[3] * x[:3].sum() + x[2],
            [x[3] * (x[:3].sum() + x[0]), x[0] * x[3], x[0] * x[3] + 1.0, x[0] * x[:3].sum()],
        ),
        product=lambda x: (x.prod(), x.prod() / x),
        squares=lambda x: (x @ x, 2.0 * x),
        **options,
    )


def formula(objective, limited=lambda x: (0.0, [0.0, 0.0]), **options):
    """Two inputs in the unit box, an objective and a limited response."""
    return Counted(("a", "b"), [[0.0, 1.0]] * 2, objective=objective, limited=limited, **options)


def bowl(a, b, *, offset=0.0, width=1.0):
    return lambda x: (
        offset + (x[0] - a) ** 2 + width * (x[1] - b) ** 2,
        [2 * (x[0] - a), 2 * width * (x[1] - b)],
    )


class Bars:
    """Bars under forces: what they give way, their weight, and the weight of the first half."""

    responses = ("sag", "weight", "half")
    digest = "bars"

    def __init__(self, n):
        self.n, self.forces = n, 1.0 + np.cos(np.arange(n)) ** 2
        self.parameters = tuple(f"x{k}" for k in range(n))
        self.bounds = np.tile([0.05, 2.0], (n, 1))

    def evaluate(self, x, *, jacobian=True):
        x = np.asarray(x)
        first = (np.arange(self.n) < self.n // 2) / self.n
        y = np.array([self.forces @ (1.0 / x), x.mean(), first @ x])
        return y, np.stack([-self.forces / x**2, np.full(self.n, 1.0 / self.n), first]) if jacobian else None


def analytic(function):
    """A formula with its gradient by complex steps, exact to round-off (Squire & Trapp 1998)."""

    def at(x):
        steps = x + 1e-30j * np.eye(len(x))
        return float(np.real(function(x))), np.array([np.imag(function(step)) for step in steps]) / 1e-30

    return at


def spring():
    """The lightest tension spring (Arora 1989, Belegundu 1982): wire, coil and number of turns; limits at zero."""
    limits = {
        "sag": lambda x: 1 - x[1] ** 3 * x[2] / (71785 * x[0] ** 4),
        "shear": lambda x: (
            (4 * x[1] ** 2 - x[0] * x[1]) / (12566 * (x[1] * x[0] ** 3 - x[0] ** 4)) + 1 / (5108 * x[0] ** 2) - 1
        ),
        "surge": lambda x: 1 - 140.45 * x[0] / (x[1] ** 2 * x[2]),
        "diameter": lambda x: (x[0] + x[1]) / 1.5 - 1,
    }
    formulas = {"weight": lambda x: (x[2] + 2) * x[1] * x[0] ** 2, **limits}
    return Counted(
        ("wire", "coil", "turns"),
        [[0.05, 2.0], [0.25, 1.3], [2.0, 15.0]],
        **{name: analytic(formula) for name, formula in formulas.items()},
    ), dict.fromkeys(limits, 0.0)
