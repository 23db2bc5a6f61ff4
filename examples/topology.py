"""The stiffest beam of half a box of material: 1,200 densities, and the model's own certificate.

    python examples/topology.py --out topology-output

Writes `topology.png`: where the material lies, and how compliance and residual fall with the solves.
"""

from __future__ import annotations

import argparse
from pathlib import Path
import time

from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.optimize import Solution, Task, minimize
from sobofem.fem.fields import CellField
from sobofem.fem.library.mbb_beam import mbb_beam
from sobofem.fem.problem import Problem


def stiffest(beam: Problem, share: float, solves: int) -> Solution:
    """The densities of least compliance that fill no more than a share of the box, from an even start."""
    task = Task("compliance", at_most={"volume": share})
    return minimize(beam, task, start=np.full(len(beam.parameters), share), solves=solves)


def picture(beam: Problem, cells: tuple[int, int], found: Solution) -> Figure:
    """The whole beam, and the history of the search."""
    density = CellField(beam, "density").evaluate(found.optimum.x, jacobian=False)[0].reshape(cells)
    figure = Figure(figsize=(9.0, 4.2), layout="constrained")
    body, history = figure.subplots(2, 1, height_ratios=(2, 3))
    body.imshow(np.vstack([density[::-1], density]).T, cmap="gray_r", origin="lower", vmin=0, vmax=1)
    body.set_axis_off()
    body.set_title(f"compliance {found.optimum.y[0]:.1f} N with {100 * found.optimum.y[1]:.0f} % of the material")
    steps = [step for step in found.path if step.accepted]
    numbers = [step.number for step in steps]
    history.plot(numbers, [step.objective for step in steps], color="C0")
    history.set(xlabel="solves", yscale="log")
    history.set_ylabel("compliance [N]", color="C0")
    residual = history.twinx()
    residual.plot(numbers, [step.optimality for step in steps], color="C1")
    residual.set_yscale("log")
    residual.set_ylabel("residual of the first-order conditions", color="C1")
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("topology-output"), help="folder for the picture")
    parser.add_argument("--cells", type=int, nargs=2, default=(60, 20), help="along span and height")
    parser.add_argument("--share", type=float, default=0.5, help="of the box that may be filled")
    parser.add_argument("--solves", type=int, default=300, help="at most")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    cells = tuple(args.cells)
    beam, start = mbb_beam(cells=cells), time.perf_counter()
    found = stiffest(beam, args.share, args.solves)
    print(f"{len(beam.parameters)} densities, {found.solves} solves in {time.perf_counter() - start:.1f} s")
    print(f"compliance {found.optimum.y[0]:.4f} N: {found.message}")
    picture(beam, cells, found).savefig(args.out / "topology.png", dpi=150)


if __name__ == "__main__":
    main()
