"""Light or stiff: all the best trade-offs of a truss of two bars, by evolution and by gradients.

python examples/two_bar_front.py --out two_bar_front.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.optimize import Front, pareto

HALF_SPAN = 1.0


class Truss:
    """Two bars from (±1, 0) to (0, height) with a load at the top: closed form, exact derivatives."""

    parameters, responses = ("height", "area"), ("volume", "displacement", "stress")
    bounds = np.array([[0.3, 2.0], [0.2, 2.0]])

    def evaluate(self, x, *, jacobian=True):
        """Responses (3,) and their Jacobian (3, 2), for unit load and modulus."""
        (h, a), length = x, np.hypot(HALF_SPAN, x[0])
        y = np.array([2 * a * length, length**3 / (2 * a * h**2), length / (2 * a * h)])
        by_height = np.array([h / length**2, 3 * h / length**2 - 2 / h, h / length**2 - 1 / h]) * y
        return y, np.stack([by_height, np.array([1.0, -1.0, -1.0]) * y / a], axis=1)


def draw(path: Path, *, points: int = 24, generations: int = 60) -> Front:
    """The front among random trusses, and how height and area change along it."""
    model = Truss()
    front = pareto(model, ("volume", "displacement"), at_most={"stress": 1.5}, points=points, generations=generations)
    others = np.random.default_rng(1).uniform(*model.bounds.T, (1500, 2))
    y = np.array([model.evaluate(x)[0] for x in others])
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*y[y[:, 2] <= 1.5, :2].T, ".", color="lightgrey", label="random trusses")
    left.plot(*front.y[:, :2].T, "o-", label="none is better in both")
    left.set(xlabel="volume", ylabel="displacement", xlim=(0.0, 6.0), ylim=(0.0, 6.0))
    left.legend()
    right.plot(front.y[:, 0], front.x, "o-", label=front.parameters)
    right.set(xlabel="volume", title="along the front")
    right.legend()
    figure.savefig(path, dpi=110)
    return front


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("two_bar_front.png"), help="picture to write")
    print(len(draw(parser.parse_args().out).x), "points")
