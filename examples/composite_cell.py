"""A periodic cell of rubber with a stiff fibre: its mean stress in shear, and the macroscopic tangent as its Jacobian.

python examples/composite_cell.py --out composite_cell.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.library.composite_cell import composite_cell

CELL = {"stretch_x": 0.0, "stretch_y": 0.0, "shear": 0.0, "matrix": 1.0, "fibre": 20.0, "radius": 0.3}


def curve(problem: fem.Problem, shears: np.ndarray, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Mean shear stress [MPa] at each shear, (N,), and its slope: an entry of the macroscopic tangent."""
    row, column = problem.responses.index("stress_xy"), problem.parameters.index("shear")
    found = [problem.evaluate(list((CELL | {"shear": shear, "radius": radius}).values())) for shear in shears]
    return np.array([y[row] for y, _ in found]), np.array([jacobian[row, column] for _, jacobian in found])


def draw(problem: fem.Problem, path: Path) -> Path:
    """Stress by shear for three fibres, with tangents; and the cell's part of the displacement that is periodic."""
    shears = np.linspace(-0.3, 0.3, 7)
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    left, right = figure.subplots(1, 2)
    for radius, colour in ((0.2, "tab:blue"), (0.3, "tab:orange"), (0.4, "tab:green")):
        stress, slope = curve(problem, shears, radius)
        left.plot(shears, stress, "o", color=colour, label=f"fibre of radius {radius:g}")
        for at, value, rise in zip(shears, stress, slope, strict=True):
            left.plot(at + np.array([-0.04, 0.04]), value + rise * np.array([-0.04, 0.04]), color=colour)
    left.set(xlabel="shear", ylabel="mean stress [MPa]", title="tangents are entries of the Jacobian")
    left.grid(alpha=0.3)
    left.legend()
    places, moves = problem.unknown.function_space.tabulate_dof_coordinates(), problem.unknown.x.array.reshape(-1, 2)
    size = np.linalg.norm(moves, axis=1)
    shown = right.tripcolor(*places[:, :2].T, size, shading="gouraud")
    figure.colorbar(shown, ax=right, label="displacement beside the mean, per size of the cell")
    right.set(aspect="equal", title="at the last point")
    figure.savefig(path, dpi=110)
    return path


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("composite_cell.png"), help="picture to write")
    print(draw(composite_cell(), parser.parse_args().out))
