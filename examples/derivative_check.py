"""How derivatives are checked: the remainder of an expansion falls with the square of the step, if they are right.

python examples/derivative_check.py --out derivative_check.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.library.shallow_arch import shallow_arch


def remainders(problem: fem.Problem, steps: np.ndarray, *, seed: int = 1) -> tuple[np.ndarray, np.ndarray]:
    """Change of the limit load at steps along a random direction, (N,), and what the Jacobian leaves of it."""
    low, high = problem.bounds.T
    rng, row = np.random.default_rng(seed), problem.responses.index("limit_load")
    middle, direction = (low + high) / 2, rng.choice([-1.0, 1.0], len(low)) * (high - low)
    y, jacobian = problem.evaluate(middle)
    changes = np.array([problem.evaluate(middle + step * direction, jacobian=False)[0][row] - y[row] for step in steps])
    return np.abs(changes), np.abs(changes - steps * (jacobian[row] @ direction))


def draw(problem: fem.Problem, path: Path, *, points: int = 6) -> Path:
    """Both by the step, with lines of slope one and two."""
    steps = np.geomspace(1e-3, 0.2, points)
    change, rest = remainders(problem, steps)
    figure = Figure(figsize=(6, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.loglog(steps, change, "o", label="change of the limit load")
    axes.loglog(steps, rest, "s", label="what the Jacobian leaves of it")
    axes.loglog(steps, change[-1] * steps / steps[-1], color="tab:blue", alpha=0.5, label="slope one")
    axes.loglog(steps, rest[-1] * (steps / steps[-1]) ** 2, color="tab:orange", alpha=0.5, label="slope two")
    axes.set(xlabel="step, per width of the box", ylabel="[MPa]", title="Taylor's test of an arch that snaps through")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("derivative_check.png"), help="picture to write")
    print(draw(shallow_arch(), parser.parse_args().out))
