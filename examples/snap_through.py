"""The load at which a shallow arch snaps through, by imperfection and rise, with slopes of the limit load.

python examples/snap_through.py --out snap_through.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.library.shallow_arch import RISE, shallow_arch

ARCH = {"young": 70e3, "rise": RISE, "thickening": 0.0, "imperfection": 0.05}
VARIED = {"imperfection": (0.0, 0.2), "rise": (0.87 * RISE, 1.18 * RISE), "thickening": (-0.19, 0.19)}


def limit_loads(problem: fem.Problem, name: str, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Limit load [MPa] at each value of a parameter, (N,), and its slope by it."""
    row, column = problem.responses.index("limit_load"), problem.parameters.index(name)
    found = [problem.evaluate(list((ARCH | {name: value}).values())) for value in values]
    return np.array([y[row] for y, _ in found]), np.array([jacobian[row, column] for _, jacobian in found])


def draw(problem: fem.Problem, path: Path, *, points: int = 5) -> Path:
    """A panel for each parameter: limit loads, and tangents through them."""
    figure = Figure(figsize=(12, 4), layout="constrained")
    for axes, (name, (low, high)) in zip(figure.subplots(1, 3, sharey=True), VARIED.items(), strict=True):
        values = np.linspace(low, high, points)
        loads, slopes = limit_loads(problem, name, values)
        axes.plot(values, 1e3 * loads, "o")
        reach = 0.4 * (values[1] - values[0]) * np.array([-1.0, 1.0])
        for value, load, slope in zip(values, loads, slopes, strict=True):
            axes.plot(value + reach, 1e3 * (load + slope * reach), color="tab:orange")
        axes.set(xlabel=f"{name} [mm]")
        axes.grid(alpha=0.3)
    figure.axes[0].set(ylabel="limit load [kPa]")
    figure.suptitle("an arch that snaps through; tangents by the Jacobian")
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("snap_through.png"), help="picture to write")
    print(draw(shallow_arch(), parser.parse_args().out))
