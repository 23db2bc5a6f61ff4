"""What sensitivities cost in training: one evaluation of the loss and its gradient, with and without them."""

from __future__ import annotations

import numpy as np
from rich.table import Table
import torch

from benchmarks.timing import medians
from sobofem import surrogate
from sobofem.surrogate.loss import Targets, term_losses


def step(n: int, m: int, samples: int, *, jacobian: bool) -> object:
    """A function that computes the loss and its gradient once."""
    generator = torch.Generator().manual_seed(1)
    module = surrogate.MLP().build(n, m, generator)
    rng = np.random.default_rng(1)
    x, y, dy = (torch.as_tensor(rng.normal(size=size)) for size in ((samples, n), (samples, m), (samples, m, n)))
    targets = Targets(x, y, dy if jacobian else None)

    def run() -> None:
        module.zero_grad()
        term_losses(module, targets).sum().backward()

    return run


def table() -> Table:
    """Milliseconds a step and their ratio, full batch, one thread."""
    torch.set_num_threads(1)
    shown = Table("inputs", "responses", "samples", "values only [ms]", "Sobolev [ms]", "ratio", title="training step")
    for n, m, samples in ((8, 1, 128), (8, 1, 1024), (8, 5, 128), (8, 5, 1024)):
        things = {"values": step(n, m, samples, jacobian=False), "Sobolev": step(n, m, samples, jacobian=True)}
        times = medians(things, repetitions=41)
        ratio = times["Sobolev"] / times["values"]
        shown.add_row(
            str(n),
            str(m),
            str(samples),
            f"{1e3 * times['values']:.2f}",
            f"{1e3 * times['Sobolev']:.2f}",
            f"{ratio:.2f}",
        )
    return shown
