"""How probable is failure? A cantilever under two uncertain forces, by a few samples about the design point.

python examples/reliability.py --out reliability.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.uncertainty import FailureProbability, failure_probability, form, inputs

FORCES = {"down": "normal:500,100", "sideways": "normal:1000,100"}
LIMIT = "stress > 45000"


class Cantilever:
    """A beam of width 2.6 and height 3.3, 100 long: its largest stress by the forces at its tip, in closed form."""

    parameters, responses, bounds = ("down", "sideways"), ("stress",), np.array([[-500.0, 2500.0], [-500.0, 2500.0]])
    slopes = np.array([[600.0 / (2.6 * 3.3**2), 600.0 / (2.6**2 * 3.3)]])

    def evaluate(self, x, *, jacobian=True):
        """Responses and their Jacobian."""
        return self.slopes @ np.asarray(x), self.slopes


def draw(path: Path) -> FailureProbability:
    """Both forces as they scatter, the limit, and the most probable point of failure."""
    model = Cantilever()
    given = inputs(model, FORCES)
    found, point = failure_probability(model, given, LIMIT, seed=1), form(model, given, LIMIT)
    x = np.random.default_rng(1).normal((500.0, 1000.0), 100.0, (3000, 2))
    failed = (x @ model.slopes[0]) > 45000.0
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    axes.plot(*x[~failed].T, ".", markersize=2, label="holds")
    axes.plot(*x[failed].T, ".", markersize=4, color="tab:red", label="fails")
    axes.plot(*point.values, "k*", markersize=12, label=f"design point, index {point.beta:.2f}")
    axes.set(xlabel="force down", ylabel="force sideways", aspect="equal")
    axes.set(title=f"probability of failure {found.value:.2e}")
    axes.legend()
    figure.savefig(path, dpi=110)
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("reliability.png"), help="picture to write")
    print(draw(parser.parse_args().out))
