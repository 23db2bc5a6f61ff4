"""The protocol of derivative-informed operators: from a random modulus at every node to the displacement.

    python -m benchmarks.derivative_informed --mesh 32 --seeds 5 --data benchmarks-data

Mean relative errors on fields never solved, in L2 and H1, and of the Jacobian along 128 fresh draws of the modulus
(Frobenius), by the number of training samples; beside what the bases alone leave. Seeds start the networks, the
samples are the same for all. Samples and results are kept in the folder: what is there is not computed again.
Source: Qiu, Bridges and Chen, NeurIPS 2024 (arXiv 2402.19242), who have a mesh of 64 x 64 and 500 test samples.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
import tempfile
import time

import numpy as np
from rich.console import Console
from rich.table import Table
import torch

from benchmarks import derivative_network
from benchmarks.square_data import PUBLISHED, SquareData, solved
from benchmarks.tasks import folder
from sobofem.surrogate import Samples, fit_coefficients

COUNTS = (16, 64, 256, 1024)
RANK, BOUND = 96, 8.0
"""Modes that are learned; and how far coordinates reach, of variance one."""
DINO = {True: "DINO, values and Jacobians", False: "DINO, values"}
OURS = {True: "fit_coefficients, values and Jacobians", False: "fit_coefficients, values"}
TESTS = {32: 250, 64: 500}
"""Test samples by the cells along a side."""

type Errors = tuple[float, float, float]
"""Mean relative errors: L2, H1, Jacobian."""


@dataclass(frozen=True)
class Bases:
    """Where a surrogate lives: some modes of the displacement, some coordinates of the modulus.

    Attributes:
        rank: Number of modes.
        coordinates: Number of coordinates.
        published: Whether the modes are those of 64 fields, without derivatives.
        principal: Whether the coordinates are the Karhunen-Loève basis' own, instead of the active subspace's.
    """

    rank: int
    coordinates: int
    published: bool = False
    principal: bool = False

    def rows(self, data: SquareData) -> slice:
        """Its coefficients among those of both output bases."""
        start = data.modes.shape[1] if self.published else 0
        return slice(start, start + self.rank)

    def modes(self, data: SquareData) -> np.ndarray:
        """(M, r)."""
        return (data.published if self.published else data.modes)[:, : self.rank]

    def encoder(self, data: SquareData) -> np.ndarray:
        """(k, n)."""
        return (data.principal_encoder if self.principal else data.encoder)[: self.coordinates]


def errors(data: SquareData, bases: Bases, coefficients: np.ndarray, slopes: np.ndarray) -> Errors:
    """Of predicted coefficients (T, r) and their derivatives by the coordinates (T, r, k) for the test samples."""
    modes = bases.modes(data)
    off = data.truth - coefficients @ modes.T
    along = (data.span.T @ modes) @ (slopes @ (bases.encoder(data) @ data.drawn))
    beside = data.sizes - (data.along_drawn**2).sum(axis=(1, 2))  # which no basis here holds
    jacobian = np.sqrt((beside + ((data.along_drawn - along) ** 2).sum(axis=(1, 2))) / data.sizes)
    mass, whole = data.mass, data.mass + data.stiffness
    L2, H1 = (np.sqrt(_squares(off, W) / _squares(data.truth, W)) for W in (mass, whole))
    return float(L2.mean()), float(H1.mean()), float(jacobian.mean())


def _squares(fields: np.ndarray, matrix: object) -> np.ndarray:
    return np.einsum("tm,tm->t", fields, (matrix @ fields.T).T)  # type: ignore[operator]


def floor(data: SquareData, bases: Bases) -> Errors:
    """Errors of the exact coefficients, and of their exact derivatives along the coordinates."""
    start = data.active.shape[1] if bases.principal else 0
    slopes = data.along_lift[:, bases.rows(data), start : start + bases.coordinates]
    return errors(data, bases, data.truth @ (data.mass @ bases.modes(data)), slopes)


FLOORS = (
    Bases(*PUBLISHED, published=True, principal=True),
    Bases(*PUBLISHED, published=True),
    Bases(RANK, 16),
    Bases(RANK, 32),
    Bases(RANK, 64),
    Bases(RANK, 64, principal=True),
)


@dataclass(frozen=True)
class Result:
    """One training, judged.

    Attributes:
        arm: What was trained.
        count: Training samples.
        seed: Of the start.
        L2: Mean relative error of the displacement.
        H1: The same with its gradient.
        jacobian: The same of its derivatives.
        seconds: Of processor time, for training.
        what: Modes and coordinates.
    """

    arm: str
    count: int
    seed: int
    L2: float
    H1: float
    jacobian: float
    seconds: float
    what: str


def published(data: SquareData, count: int, seeds: int, *, derivatives: bool, steps: int) -> list[Result]:
    """The published recipe, all seeds side by side."""
    bases, start = Bases(*PUBLISHED, published=True), time.process_time()
    z, y = data.x[:count] @ bases.encoder(data).T, data.u[:count] @ (data.mass @ bases.modes(data))
    slopes = data.slopes[:count, bases.rows(data), : bases.coordinates] if derivatives else None
    trained = derivative_network.train(z, y, slopes, seeds=seeds, steps=steps)
    seconds, unseen = (time.process_time() - start) / seeds, data.unseen @ bases.encoder(data).T
    what = f"{bases.rank} modes, {bases.coordinates} coordinates"
    return [
        Result(DINO[derivatives], count, seed, *errors(data, bases, *predict(unseen)), seconds, what)
        for seed, predict in enumerate(trained)
    ]


def toolkit(data: SquareData, count: int, seed: int, *, derivatives: bool) -> Result:
    """`fit_coefficients`; without derivatives, which find coordinates, on as many as published."""
    bases = Bases(RANK, data.encoder.shape[0] if derivatives else PUBLISHED[1])
    start, encoder, k = time.process_time(), bases.encoder(data), bases.coordinates
    samples = Samples(
        data.x[:count] @ encoder.T,
        data.u[:count] @ (data.mass @ bases.modes(data)),
        data.slopes[:count, bases.rows(data), :k] if derivatives else None,
        tuple(f"z_{j}" for j in range(1, k + 1)),
        tuple(f"c_{j}" for j in range(1, bases.rank + 1)),
        np.tile((-BOUND, BOUND), (k, 1)),
    )
    model = fit_coefficients(samples, covariance=np.eye(k), seed=seed)
    seconds = time.process_time() - start
    found = errors(data, bases, *model.predict(data.unseen @ encoder.T, extrapolate=True))
    what = model.provenance["choice"]["taken"]  # type: ignore[attr-defined]  # it was chosen
    return Result(OURS[derivatives], count, seed, *found, seconds, f"{bases.rank} modes, {what}")


def run(data: SquareData, counts: Sequence[int], seeds: int, *, steps: int, path: Path | None = None) -> list[Result]:
    """All arms at all counts, small ones first, but for what is in the file, where results are appended."""
    done = [Result(**json.loads(line)) for line in path.open()] if path is not None and path.exists() else []

    def keep(results: list[Result]) -> None:
        done.extend(results)
        if path is not None:
            with path.open("a") as file:
                file.writelines(json.dumps(asdict(result)) + "\n" for result in results)

    for count in counts:
        for derivatives in (True, False):
            there = {(result.arm, result.seed) for result in done if result.count == count}
            for seed in range(seeds):
                if (OURS[derivatives], seed) not in there:
                    keep([toolkit(data, count, seed, derivatives=derivatives)])
            if any((DINO[derivatives], seed) not in there for seed in range(seeds)):
                keep(published(data, count, seeds, derivatives=derivatives, steps=steps))
    return [result for result in done if result.count in counts and result.seed < seeds]


def report(data: SquareData, results: Sequence[Result]) -> Table:
    """Means over seeds, with the largest deviation from them, and what bases leave."""
    cells, solves = round(data.x.shape[1] ** 0.5) - 1, len(data.truth)
    title = f"{cells} x {cells} cells, {solves} unseen samples: mean relative errors"
    shown = Table("samples", "what", "L2", "H1", "Jacobian", "processor s", title=title)
    for arm, count in sorted({(r.arm, r.count) for r in results}, key=lambda key: (key[1], key[0])):
        same = [r for r in results if (r.arm, r.count) == (arm, count)]
        means = (_spread([getattr(r, name) for r in same]) for name in ("L2", "H1", "jacobian"))
        shown.add_row(str(count), arm, *means, f"{np.mean([r.seconds for r in same]):.0f}")
    for bases in FLOORS:
        what = f"{bases.rank} modes {'of fields' if bases.published else 'with derivatives'}, {bases.coordinates} "
        what += "Karhunen-Loève coordinates" if bases.principal else "coordinates"
        shown.add_row("", f"floor: {what}", *(f"{error:.4f}" for error in floor(data, bases)), "")
    return shown


def _spread(values: list[float]) -> str:
    mean = float(np.mean(values))
    return f"{mean:.4f} ± {np.abs(np.array(values) - mean).max():.4f}" if len(values) > 1 else f"{mean:.4f}"


def table() -> Table:
    """The protocol in a reduced form: 16 x 16 cells, 16 samples, one seed, a short training as published."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as path:
        data = solved(Path(path), cells=16, train=64, test=40)
        return report(data, run(data, (16,), 1, steps=1500))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.derivative_informed",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--mesh", type=int, choices=tuple(TESTS), default=32, help="cells along a side")
    parser.add_argument("--counts", nargs="+", type=int, default=COUNTS, metavar="N", help="training samples")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--data", type=Path, help="folder of samples and results (default: that of the other tasks)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    where = options.data or folder()
    data = solved(where, cells=options.mesh, train=max(COUNTS), test=TESTS[options.mesh])
    path = where / f"derivative-informed-{options.mesh}.jsonl"
    results = run(data, options.counts, options.seeds, steps=derivative_network.STEPS, path=path)
    Console(width=120).print(report(data, results))


if __name__ == "__main__":
    main()
