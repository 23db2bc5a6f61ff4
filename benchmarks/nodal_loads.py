"""Blocks of rubber under forces at single nodes: the displacement by a reduced basis and by networks between fields.

    python -m benchmarks.nodal_loads --steps 20000 --data benchmarks-data

Mean relative errors in L2 of fields never solved, and those of the sample of largest displacement, of which the authors
of MAgNET publish their networks' (Deshpande, Sosa, Bordas and Lengiewicz 2024 and 2023; values from their data files).
All are trained on a tenth of the published number of samples, with derivatives. Samples are kept in the folder.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
import tempfile
import time
from typing import TYPE_CHECKING

from mpi4py import MPI
import numpy as np
from rich.console import Console
from rich.table import Table
import torch

from sobofem.coupling.dataset.mesh import on_mesh_of
from sobofem.fem.library.l_shape import l_shape
from sobofem.fem.library.line_loaded_block import line_loaded_block
from sobofem.fem.library.strip_with_hole import strip_with_hole
from sobofem.surrogate import FieldSamples, fit_field
from sobofem.surrogate.operators import (
    DeepONet,
    FieldNetwork,
    GraphUNet,
    GridUNet,
    Mesh,
    MgNO,
    OperatorSamples,
    PerceiverIO,
    train_operator,
)

if TYPE_CHECKING:
    from sobofem.fem.fields import FieldMap

type Predict = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Example:
    """One of the published examples.

    Attributes:
        make: Its model.
        samples: Published number of samples.
        published: Relative error of the sample of largest displacement, and by which network.
    """

    make: Callable[..., FieldMap]
    samples: int
    published: tuple[float, str]


EXAMPLES = {
    "L-shape": Example(l_shape, 4000, (0.0036, "MAgNET")),
    "strip with a hole": Example(strip_with_hole, 4800, (0.0022, "MAgNET")),
    "line-loaded block": Example(line_loaded_block, 7500, (0.0004, "Perceiver IO")),
}
NETWORKS: tuple[FieldNetwork, ...] = (DeepONet(), GraphUNet(), GridUNet(), MgNO(), PerceiverIO())
UNSEEN, TRAIN_SEED, TEST_SEED, ALONG = 500, 1, 2, 2
"""Samples to judge by; seeds; and directions of each sample whose J v networks are trained on."""
STEPS = 300
"""Of each network in `table`, which show that it trains and what a step costs, no more."""


@dataclass(frozen=True, eq=False)
class Solved:
    """Samples (N, n), fields (N, M), Jacobians (N, M, n); unseen inputs and fields; seconds of a solve."""

    x: np.ndarray
    y: np.ndarray
    jacobian: np.ndarray
    unseen: np.ndarray
    truth: np.ndarray
    seconds: float

    @classmethod
    def of(cls, model: FieldMap, count: int, path: Path) -> Solved:
        """Read, or else solved and kept."""
        if not path.exists():
            x, unseen = model.sample(count, TRAIN_SEED), model.sample(UNSEEN, TEST_SEED)
            y, slopes = zip(*map(model.evaluate, x), strict=True)
            start = time.process_time()
            truth = [model.evaluate(point, jacobian=False)[0] for point in unseen]
            seconds = (time.process_time() - start) / UNSEEN
            path.parent.mkdir(parents=True, exist_ok=True)
            unfinished = path.with_suffix(".part.npz")
            np.savez(unfinished, x=x, y=y, jacobian=slopes, unseen=unseen, truth=truth, seconds=seconds)
            unfinished.rename(path)
        with np.load(path) as stored:
            arrays = {name: stored[name] for name in stored.files}
        return cls(**arrays)


def reduced(model: FieldMap, data: Solved) -> Predict:
    """By `fit_field`, with all Jacobians."""
    samples = FieldSamples(data.x, data.y, data.jacobian, model.parameters, model.bounds, model.name)
    found = fit_field(samples)
    return lambda x: np.asarray(found.predict(x)[0])


def network(kind: FieldNetwork, model: FieldMap, data: Solved, steps: int) -> Predict:
    """By a network between nodal fields, with derivatives along two random loads of each sample."""
    on, N = on_mesh_of(model), len(data.x)
    assert on is not None
    along = np.where(data.x != 0.0, 1.0, 0.0)[:, None] * np.random.default_rng(0).standard_normal(
        (N, ALONG, data.x.shape[1])
    )
    samples = OperatorSamples(
        Mesh.of(on.mesh),
        on.input_field(data.x),
        on.output_field(data.y),
        on.input_field(along),
        on.output_field(np.einsum("nmk,ndk->ndm", data.jacobian, along)),
        input_names=on.input_names,
        output_names=on.output_names,
    )
    found = train_operator(samples, kind, steps=steps, products=1)
    to_field = on.input_field
    return lambda x: np.asarray(found.predict(to_field(x))).reshape(len(x), -1)


def table(steps: int = STEPS, folder: Path | None = None) -> Table:
    """A row an example and surrogate."""
    torch.set_num_threads(1)
    shown = Table(
        "example",
        "surrogate",
        "mean",
        "largest field",
        "published",
        "training [s]",
        "predictions a solve",
        title=f"relative errors of {UNSEEN} displacement fields; networks trained for {steps} steps",
    )
    with tempfile.TemporaryDirectory() as scratch:
        for name, example in EXAMPLES.items():
            model, count = example.make(MPI.COMM_SELF), example.samples // 10
            data = Solved.of(model, count, (folder or Path(scratch)) / f"{name.replace(' ', '-')}-{count}.npz")
            shown.add_row(name, "reduced basis", *_judged(partial(reduced, model, data), data, example))
            for kind in NETWORKS:
                learn = partial(network, kind, model, data, steps)
                shown.add_row(name, type(kind).__name__, *_judged(learn, data, example))
    return shown


def _judged(learn: Callable[[], Predict], data: Solved, example: Example) -> tuple[str, ...]:
    start = time.process_time()
    try:
        predict = learn()
    except ValueError:  # a network of grids on a mesh that is none
        return "-", "-", "", "", ""
    trained = time.process_time() - start
    start = time.process_time()
    off = np.linalg.norm(predict(data.unseen) - data.truth, axis=1)
    each = (time.process_time() - start) / UNSEEN
    errors = off / np.linalg.norm(data.truth, axis=1)
    largest = np.abs(data.truth).max(axis=1).argmax()
    value, who = example.published
    return (
        f"{errors.mean():.2g}",
        f"{errors[largest]:.2g}",
        f"{value:g} ({who})",
        f"{trained:.0f}",
        f"{data.seconds / each:.0f}",
    )


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nodal_loads", description=__doc__)
    parser.add_argument("--steps", type=int, default=STEPS, help="of each network")
    parser.add_argument("--data", type=Path, help="folder in which samples are kept")
    given = parser.parse_args()
    Console(width=130).print(table(given.steps, given.data))


if __name__ == "__main__":
    main()
