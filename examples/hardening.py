"""Hardening of steel from a noisy force-displacement curve of the notched specimen.

The curve is made by the same finite elements with twice as many load steps, at parameters that calibration does not
know, and noise is added. A surrogate is trained on 32 solves; the model certifies what it finds.

python examples/hardening.py --out hardening-output
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sobofem import surrogate
from sobofem.coupling import Dataset, Design, Marginal, generate
from sobofem.coupling.calibration import (
    Calibration,
    Fixed,
    Measurements,
    Settings,
    Task,
    accept,
    calibrate,
    estimate,
    sample,
    synthetic,
)
from sobofem.coupling.calibration.report import write

if TYPE_CHECKING:
    from mpi4py import MPI

KNOWN = {"young": 200e3, "poisson": 0.3, "end_displacement": 0.1, "notch_radius": 1.0}
TRUTH = {"yield_stress": 287.0, "saturation": 163.0, "rate": 27.0, "kinematic": 2400.0}
PRIORS = {"saturation": Marginal("log"), "rate": Marginal("log")}
NOISE = 8.0  # N/mm, standard deviation of the force
FOLDER = Path(__file__).parent / "calibration_data"
AXIS = "displacement of an end [µm]"


def hardening(comm: MPI.Comm | None = None, *, steps: int = 6) -> Fixed:
    """The specimen with all but its hardening known; its forces along pulling, unloading and reloading."""
    from mpi4py import MPI

    from sobofem.fem.library.notched_specimen import notched_specimen

    return Fixed(notched_specimen(comm or MPI.COMM_WORLD, steps=steps, curve=True), KNOWN)


def experiment(*, steps: int = 12, seed: int = 4) -> Measurements:
    """A noisy curve of the specimen whose hardening is `TRUTH`, at every load step of the coarser path."""
    fine = hardening(steps=steps)
    force, _ = fine.evaluate(list(TRUTH.values()), jacobian=False)
    coarse = hardening()
    every = len(fine.responses) // len(coarse.responses)
    data = synthetic(force[every - 1 :: every], coarse.responses, NOISE, seed=seed)
    at = 1e3 * KNOWN["end_displacement"] * np.array(coarse.model.path.points)  # type: ignore[attr-defined]
    return Measurements(data.responses, data.values, data.deviations, at=at)


def prepare(out: Path, *, samples: int = 32) -> None:
    """Samples, surrogate and curve, in a folder: what `sobofem calibrate` needs."""
    out.mkdir(parents=True, exist_ok=True)
    data = generate(hardening, Design("sobol", samples, seed=1), out / "train.h5")
    surrogate.fit(data).save(out / "hardening.safetensors")
    experiment().write(out / "curve.csv")


def study(out: Path, *, solves: int = 32, draws: int = 1000) -> Calibration:
    """The calibration of what `prepare` wrote; numbers, draws and pictures go to the same folder."""
    network = surrogate.load(out / "hardening.safetensors")
    task = Task(Measurements.read(out / "curve.csv"), PRIORS)
    found = calibrate(network, task, hardening(), Settings(solves=solves, draws=draws), folder=out)
    write(found, out, units=network.units, axis=AXIS)
    return found


def keep(out: Path, folder: Path = FOLDER) -> None:
    """What the notebook reads, small enough to be kept: a Gaussian process, the curve, and solves at draws.

    Args:
        out: Where `prepare` has been.
        folder: Where to.
    """
    folder.mkdir(exist_ok=True)
    network = surrogate.fit(Dataset.open(out / "train.h5"), families=(surrogate.Kriging(),))
    network.save(folder / "hardening.safetensors")
    curve = Measurements.read(out / "curve.csv")
    curve.write(folder / "curve.csv")
    posterior = sample(estimate(network, Task(curve, PRIORS)), draws=100, tune=100, seed=1)
    accept(posterior, network, hardening(), solves=24, path=folder / "solves.h5")


def report(found: Calibration) -> None:
    """Print what came out beside the truth."""
    print(found.identifiability.verdict())
    for name, value, (low, high) in zip(TRUTH, found.estimate.x, found.posterior.interval(), strict=True):
        print(f"{name}: {value:.4g}, 95 % in {low:.4g} to {high:.4g}; made with {TRUTH[name]:.4g}")
    if found.accepted is not None:
        print(found.accepted.verdict())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, default=Path("hardening-output"), help="folder for data, numbers and pictures"
    )
    parser.add_argument("--prepare", action="store_true", help="end before the calibration")
    parser.add_argument("--keep", action="store_true", help="also write what the notebook reads")
    arguments = parser.parse_args()
    prepare(arguments.out)
    if arguments.keep:
        keep(arguments.out)
    if not arguments.prepare:
        report(study(arguments.out))
