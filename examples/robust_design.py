"""A plate with a hole under uncertain loads: designed for the medians, for robustness, and for reliability.

The hole's semi-axes are to be chosen, the tractions are uncertain. A surrogate, learned from a few solves with their
derivatives, finds the lightest plate whose stress concentration keeps a limit at the medians of the tractions; in the
mean plus three standard deviations; and with a reliability index of three. The finite-element model judges each, and
corrects the last one until it confirms the index itself.

    python examples/robust_design.py --out robust_design.png
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from mpi4py import MPI
from matplotlib.figure import Figure
import numpy as np

from sobofem import fem, surrogate
from sobofem.coupling import Design, Model
from sobofem.coupling.optimize import Task, search
from sobofem.coupling.uncertainty import (
    DesignPoint,
    Inputs,
    Limit,
    Propagation,
    Reliable,
    Robust,
    corrected_at,
    form,
    inputs,
    propagate,
)
from sobofem.fem.library.plate_with_hole import plate_with_hole

UNCERTAIN = {"traction_x": "normal:100,8", "traction_y": "normal:60,8"}
LIMIT = Limit("stress_concentration", 2.6)
BETA = 3.0
SETTLED = 1e-3
"""Distance of the model's stress from the limit, as a share of it, at which the last design is done."""


class Plate:
    """What matters of the plate here: two tractions, two semi-axes; stress concentration and mass."""

    parameters = ("traction_x", "traction_y", "radius_x", "radius_y")
    responses = ("stress_concentration", "mass")
    bounds = np.array([[64.0, 136.0], [24.0, 96.0], [12.0, 36.0], [12.0, 36.0]])
    units: ClassVar = {"traction_x": "MPa", "traction_y": "MPa", "radius_x": "mm", "radius_y": "mm", "mass": "g"}

    def __init__(self, problem: fem.Problem) -> None:
        self._problem, self.solves = problem, 0
        self._rows = [problem.responses.index(name) for name in self.responses]

    def evaluate(self, x: np.ndarray, *, jacobian: bool = True) -> tuple[np.ndarray, np.ndarray | None]:
        """The problem's responses (2,) and Jacobian (2, 4)."""
        self.solves += 1
        y, dy = self._problem.evaluate([70e3, 0.33, *x], jacobian=jacobian)
        return y[self._rows], None if dy is None else dy[self._rows, 2:]


@dataclass(frozen=True, eq=False)
class Judged:
    """A design, and what the finite-element model says of it.

    Attributes:
        name: What it was made for.
        radii: Semi-axes of the hole (2,) [mm].
        spread: How its responses are distributed, corrected by solves.
        failure: The most probable point beyond the limit, confirmed by solves.
    """

    name: str
    radii: np.ndarray
    spread: Propagation
    failure: DesignPoint

    @property
    def mass(self) -> float:
        """Mass of the quarter plate [g]."""
        return float(self.spread.mean.value[1])


def learn(plate: Model, solves: int = 32, **settings: object) -> surrogate.Surrogate:
    """A surrogate of the plate over its whole box."""
    x = Design("sobol", solves, seed=1).points(plate.bounds)
    y, jacobian = (np.array(part) for part in zip(*map(plate.evaluate, x), strict=True))
    return surrogate.fit(
        surrogate.Samples(x, y, jacobian, plate.parameters, plate.responses, plate.bounds, Plate.units), **settings
    )


def designs(network: Model, plate: Model, *, starts: int = 4) -> dict[str, np.ndarray]:
    """Semi-axes (2,) by what they were made for; the last ones corrected by the finite-element model."""
    given = inputs(network, UNCERTAIN, fixed={"radius_x": 20.0, "radius_y": 20.0})
    worst = f"upper({LIMIT.response})"
    reliable = Reliable(network, given, BETA, upper=(LIMIT.response,))
    in_the_mean = Task("mean(mass)", at_most={f"upper({LIMIT.response})": LIMIT.value})
    found = {
        "medians": search(reliable, Task("mass", at_most={LIMIT.response: LIMIT.value}), starts=starts).x,
        "mean + 3 std": search(Robust(network, given), in_the_mean, starts=starts).x,
        f"index {BETA:g}": search(reliable, Task("mass", at_most={worst: LIMIT.value}), starts=starts).x,
    }
    found[f"index {BETA:g}, corrected"] = confirmed(network, plate, given, found[f"index {BETA:g}"])
    return found


def confirmed(network: Model, plate: Model, given: Inputs, radii: np.ndarray, *, solves: int = 5) -> np.ndarray:
    """Correct the surrogate where the design is worst, and design again, until the model agrees there."""
    task = Task("mass", at_most={f"upper({LIMIT.response})": LIMIT.value})
    model: Model = network
    for _ in range(solves):
        reliable = Reliable(model, given, BETA, upper=(LIMIT.response,))
        point = reliable.point(radii, LIMIT.response)
        before = model.evaluate(point, jacobian=False)[0][0]
        model = corrected_at(network, plate, point)
        if abs(model.evaluate(point, jacobian=False)[0][0] - before) <= SETTLED * LIMIT.value:
            break
        radii = search(Reliable(model, given, BETA, upper=(LIMIT.response,)), task, starts=2).x
    return radii


def judge(name: str, radii: np.ndarray, network: Model, plate: Model, *, solves: int = 16) -> Judged:
    """A design as the finite-element model sees it."""
    fixed = dict(zip(("radius_x", "radius_y"), radii.tolist(), strict=True))
    given = inputs(network, UNCERTAIN, fixed=fixed)
    spread = propagate(network, given, model=plate, solves=solves)
    return Judged(name, radii, spread, form(network, given, LIMIT, model=plate))


def draw(found: Sequence[Judged], path: Path) -> Path:
    """The stress concentration's density for each design, with the limit."""
    figure = Figure(figsize=(7.0, 3.8), layout="constrained")
    ax = figure.add_subplot()
    for design, color in zip(found, ("#d55e00", "#e69f00", "#56b4e9", "#0072b2"), strict=True):
        label = f"{design.name}: {design.mass:.1f} g, index {design.failure.beta:.2f}"
        ax.stairs(design.spread.density.value[0], design.spread.edges[0], color=color, linewidth=1.6, label=label)
    ax.axvline(LIMIT.value, color="0.2", linestyle=":", label=f"limit {LIMIT.value:g}")
    ax.set(xlabel="stress concentration", yticks=[], title="One limit, kept at the medians or with reliability")
    ax.set_ylim(0.0, 1.5 * ax.get_ylim()[1])
    ax.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    return path


def main() -> None:
    """Learn, design, judge, print and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("robust_design.png"), help="picture to write")
    parser.add_argument("--solves", type=int, default=32, help="solves to learn from")
    arguments = parser.parse_args()
    plate = Plate(plate_with_hole(MPI.COMM_SELF))
    network = learn(plate, arguments.solves)
    found = [judge(name, radii, network, plate) for name, radii in designs(network, plate).items()]
    print("design               radius_x radius_y     mass   index  first order  confirmed")
    for design in found:
        failure = design.failure
        numbers = f"{design.radii[0]:8.3f} {design.radii[1]:8.3f} {design.mass:8.3f} {failure.beta:7.3f}"
        print(f"{design.name:20s} {numbers} {failure.probability:12.2e}  {'yes' if failure.confirmed else 'no'}")
    print(f"{plate.solves} solves in all; {draw(found, arguments.out)}")


if __name__ == "__main__":
    main()
