"""The notched specimen's force-displacement curve with its derivatives, and where the material has yielded.

python examples/force_displacement.py --out force_displacement.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.library.notched_specimen import notched_specimen
from sobofem.fem.output import Picture, picture

POINT = {
    "young": 200e3,
    "poisson": 0.3,
    "yield_stress": 300.0,
    "saturation": 150.0,
    "rate": 30.0,
    "kinematic": 3000.0,
    "end_displacement": 0.1,
    "notch_radius": 1.0,
}
CHANGES = {"yield_stress": 30.0, "notch_radius": -0.2}


def curves(problem: fem.Problem) -> tuple[np.ndarray, dict[str, tuple[np.ndarray, np.ndarray]]]:
    """Forces (N,) at all points of the load path; with each change, as the Jacobian says and as the model says."""
    x = np.array(list(POINT.values()))
    force, jacobian = problem.evaluate(x)
    changed = {}
    for name, change in CHANGES.items():
        k = problem.parameters.index(name)
        moved = x + change * np.eye(len(x))[k]
        changed[name] = (force + change * jacobian[:, k], problem.evaluate(moved, jacobian=False)[0])
    problem.evaluate(x, jacobian=False)
    return force, changed


def draw(problem: fem.Problem, path: Path) -> Path:
    """The curves, and the plastic strain of the whole specimen at the end."""
    force, changed = curves(problem)
    displacement = 1e3 * POINT["end_displacement"] * np.array([0.0, *problem.path.points])
    figure = Figure(figsize=(11, 5), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    left.plot(displacement, [0.0, *force], "o-", color="black", markersize=4, label="as it is")
    for (name, (predicted, solved)), colour in zip(changed.items(), ("tab:blue", "tab:orange"), strict=True):
        label = f"{name} {CHANGES[name]:+g} {problem.units[name]}"
        left.plot(displacement, [0.0, *predicted], "-", color=colour, label=f"{label}, by the Jacobian")
        left.plot(displacement, [0.0, *solved], "x", color=colour, label=f"{label}, solved")
    left.set(xlabel="displacement of an end [µm]", ylabel="force [N/mm]", title="force and its derivatives")
    left.grid(alpha=0.3)
    left.legend()
    _draw_specimen(figure, right, picture(problem, "equivalent_plastic_strain"))
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def _draw_specimen(figure: Figure, axes, shown: Picture) -> None:
    for sx, sy in ((1, 1), (-1, 1), (1, -1), (-1, -1)):
        x, y = shown.points.T * np.array([[sx], [sy]])
        colours = axes.tripcolor(x, y, shown.triangles, 100 * shown.values, shading="gouraud", cmap="inferno_r")
    axes.set(aspect="equal", xlabel="x [mm]", ylabel="y [mm]", title="equivalent plastic strain [%]")
    figure.colorbar(colours, ax=axes)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("force_displacement.png"), help="picture to write")
    print(draw(notched_specimen(curve=True), parser.parse_args().out))
