"""The lightest plate with a hole whose stress concentration keeps a limit: found without a surrogate, and certified.

python examples/shape_optimum.py --out shape_optimum.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure

from sobofem import fem
from sobofem.coupling.optimize import Task, minimize
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.output import picture

LOADS = {"young": 70e3, "poisson": 0.33, "traction_x": 100.0, "traction_y": 60.0}
TASK = Task("mass", at_most={"stress_concentration": 1.95}, fixed=LOADS)


def draw(problem: fem.Problem, path: Path):
    """The plate at the middle of its bounds and at the optimum; returns the solution."""
    solution = minimize(problem, TASK)
    middle = dict(zip(problem.parameters, problem.bounds.mean(axis=1), strict=True)) | LOADS
    best = dict(zip(solution.optimum.parameters, solution.optimum.x, strict=True)) | LOADS
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, point, title in zip(figure.subplots(1, 2), (middle, best), ("start", "optimum"), strict=True):
        response, _ = problem.evaluate([point[name] for name in problem.parameters], jacobian=False)
        values = dict(zip(problem.responses, response, strict=True))
        shown = picture(problem)
        colours = axes.tripcolor(*shown.points.T, shown.triangles, shown.values, shading="gouraud")
        axes.set(aspect="equal", title=f"{title}: mass {values['mass']:.4g}, {values['stress_concentration']:.3f}")
        figure.colorbar(colours, ax=axes, label=shown.name)
    figure.suptitle(f"mass and stress concentration; certified: {solution.certified}, {solution.solves} solves")
    figure.savefig(path, dpi=110)
    return solution


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("shape_optimum.png"), help="picture to write")
    print(draw(plate_with_hole(), parser.parse_args().out).message)
