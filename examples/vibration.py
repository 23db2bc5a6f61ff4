"""Mode shapes of a column under an axial load, and its frequencies on the way to the load at which it buckles.

python examples/vibration.py --out vibration.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from matplotlib.figure import Figure
import numpy as np

from sobofem import fem
from sobofem.fem.library.loaded_column import SIZE, loaded_column

COLUMN = {"young": 70e3, "density": 2.7e-9, "load": 100.0, "width_foot": 20.0, "width_tip": 14.0}
COLOURS = {"vibration_1": "tab:blue", "vibration_2": "tab:orange", "buckling": "tab:red"}


def frequencies(problem: fem.Problem, loads: np.ndarray) -> tuple[np.ndarray, np.ndarray, float]:
    """Two frequencies [Hz] at each load, (N, 2), their slopes by the load, and the load [N/mm] at which it buckles."""
    names, k = problem.responses, problem.parameters.index("load")
    rows = [names.index(name) for name in ("frequency_1", "frequency_2")]
    values, slopes, buckling = [], [], 0.0
    for load in loads:
        y, jacobian = problem.evaluate(list((COLUMN | {"load": load}).values()))
        values.append(y[rows])
        slopes.append(jacobian[rows, k])
        buckling = float(load * y[names.index("load_factor")])
    return np.array(values), np.array(slopes), buckling


def draw(problem: fem.Problem, path: Path) -> Path:
    """The modes of the column at half its largest load, and the frequencies with their slopes."""
    low, high = problem.bounds[problem.parameters.index("load")]
    loads = np.linspace(low, high, 6)
    values, slopes, buckling = frequencies(problem, loads)
    problem.evaluate(list((COLUMN | {"load": 0.5 * high}).values()), jacobian=False)
    figure = Figure(figsize=(10, 5), layout="constrained")
    left, *columns = figure.subplots(1, 4, width_ratios=(4, 1, 1, 1))
    for number, colour in enumerate(("tab:blue", "tab:orange")):
        squares, changes = values[:, number] ** 2, 2 * values[:, number] * slopes[:, number]
        unloaded = squares[0] - changes[0] * loads[0]
        left.plot(loads, squares / unloaded, "o", color=colour, label=f"vibration {number + 1}")
        ends = np.array([0.0, buckling])
        tangent = squares[-1] + changes[-1] * (ends - loads[-1])
        left.plot(ends, tangent / unloaded, color=colour, label="its slope at the last, by the Jacobian")
    left.plot(buckling, 0.0, "s", color="tab:red", label="buckling load", clip_on=False)
    left.set(xlabel="load [N/mm]", ylabel="square of the frequency, over that without load", ylim=(0.0, None))
    left.set(xlim=(0.0, None), title="frequencies fall with the load")
    left.grid(alpha=0.3)
    left.legend()
    for axes, name in zip(columns, COLOURS, strict=True):
        _draw_mode(axes, problem, name)
    figure.savefig(path, dpi=130, bbox_inches="tight")
    return path


def _draw_mode(axes, problem: fem.Problem, name: str) -> None:
    """The column upright, as it is and moved by a mode."""
    mode = problem.fields[name]
    places = mode.function_space.tabulate_dof_coordinates()[:, :2]
    moves = mode.x.array.reshape(-1, 2)
    moves = moves * 40.0 / moves[np.argmax(np.abs(moves[:, 1])), 1]
    for points, style in ((places, {"color": "lightgrey"}), (places + moves, {"color": COLOURS[name]})):
        order = np.lexsort((points[:, 1], places[:, 0]))
        axes.plot(points[order, 1], points[order, 0], ".", markersize=2, **style)
    axes.set(aspect="equal", xlim=(-60, 60), ylim=(-10, SIZE[0] + 20), title=name.replace("_", " "))
    axes.axis("off")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("vibration.png"), help="picture to write")
    print(draw(loaded_column(), parser.parse_args().out))
