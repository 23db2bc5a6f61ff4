"""Training while samples arrive, against training on all of them after the last one came."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
import time

import numpy as np
from rich.table import Table
from scipy.stats import qmc
import torch
from torch import Tensor, nn

from benchmarks.active_sampling import BOREHOLE, Function, borehole
from sobofem import surrogate
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers.base import Monitor

SEEDS = 5
SAMPLES, WATERMARK, INTERVAL = 64, 16, 0.15
NETWORK = surrogate.MLP(width=24, depth=2)
ENOUGH = 1.1


def five(x: Tensor) -> Tensor:
    """Five responses of unlike smoothness and scale in six inputs."""
    a, b, c, d, e, f = x
    return torch.stack(
        [
            torch.exp(0.5 * a * b) + c,
            1e3 / (2.0 + a + 0.5 * d) + 50.0 * e * f,
            torch.sin(2.0 * a + b) * torch.cos(c) + 0.1 * d**3,
            1e-3 * (1.0 + a * a) * (1.0 + 0.3 * b) / (1.5 + f),
            a + 2.0 * b + 0.3 * c * d,
        ]
    )


FUNCTIONS = (
    Function("borehole, 8 inputs", borehole, np.array(BOREHOLE)),
    Function("five responses, 6 inputs", five, np.array([[-1.0, 1.0]] * 6)),
)


@dataclass
class Watch(surrogate.Optimizer):
    """A first stage that trains nothing, and after it the errors of the network over time, evaluations not counted.

    Attributes:
        score: Errors of values and derivatives of a network.
        seconds: When it looked, since training began.
        errors: What it saw.
    """

    score: Callable[[nn.Module], tuple[float, float]]
    seconds: list[float] = field(default_factory=list)
    errors: list[tuple[float, float]] = field(default_factory=list)

    def run(self, objective: Objective, monitor: Monitor) -> None:
        """Start the clock."""
        monitor.begin("watch", 1, None)
        self._module, self._began = objective.module, time.perf_counter()

    def look(self, progress: surrogate.Progress) -> None:
        """Note the errors now."""
        now = time.perf_counter()
        self.seconds.append(now - self._began)
        self.errors.append(self.score(self._module))
        self._began += time.perf_counter() - now

    def first(self, limit: np.ndarray) -> float:
        """Seconds until both errors were below the limit; infinite if they never were."""
        below = (np.array(self.errors) <= limit).all(axis=1)
        return self.seconds[int(np.argmax(below))] if below.any() else float("inf")


def scorer(scaling: surrogate.scaling.Scaling, unseen: surrogate.Samples) -> Callable[[nn.Module], tuple[float, float]]:
    """What measures a network: root mean square errors of scaled values and Jacobians, relative, on unseen samples."""
    x, y = torch.from_numpy(scaling.scale_x(unseen.x)), scaling.scale_y(unseen.y)
    assert unseen.jacobian is not None
    slopes = scaling.scale_jacobian(unseen.jacobian)

    def score(module: nn.Module) -> tuple[float, float]:
        with torch.no_grad():
            values, jacobian = (tensor.numpy() for tensor in value_and_jacobian(module, x))
        value = np.sqrt(((values - y) ** 2).mean(axis=0) / y.var(axis=0)).mean()
        slope = np.sqrt(((jacobian - slopes) ** 2).mean(axis=(0, 2)) / (slopes**2).mean(axis=(0, 2))).mean()
        return float(value), float(slope)

    return score


def streamed(samples: surrogate.Samples, seed: int) -> surrogate.OnlineTraining:
    """A training to which one sample came every INTERVAL seconds of its time, and that has just got the last one."""
    settings = surrogate.OnlineSettings(network=NETWORK, watermark=WATERMARK, expected=SAMPLES, seed=seed)
    training = surrogate.OnlineTraining(samples.parameters, samples.responses, samples.bounds, settings=settings)
    came = 0
    while came < SAMPLES:
        due = min(WATERMARK + int(training.seconds / INTERVAL), SAMPLES)
        if due > came:
            rows = np.arange(came, due)
            training.add(rows, samples.x[rows], samples.y[rows], samples.jacobian[rows])
            came = due
        if came < SAMPLES:
            training.step()
    training.end()
    return training


def trial(function: Function, seed: int) -> dict[str, float]:
    """Errors and seconds after the last sample, offline and online, with the same samples, network and weighting."""
    rng = np.random.default_rng(seed)
    samples = function.sample(qmc.Sobol(len(function.bounds), rng=rng).random(SAMPLES))
    unseen = function.sample(np.random.default_rng(1000).uniform(size=(1000, len(function.bounds))))
    score = scorer(surrogate.scaling.Scaling.from_data(samples.bounds, samples.y, samples.responses), unseen)
    offline, online = Watch(score), Watch(score)
    surrogate.train(
        samples,
        network=NETWORK,
        seed=seed,
        optimizers=(offline, *surrogate.training.PIPELINE),
        progress=offline.look,
    )
    training = streamed(samples, seed)
    training.finish((online, surrogate.LBFGS(1000)), progress=online.look)
    limit = ENOUGH * np.array(offline.errors[-1])
    ratios = np.array(online.errors[-1]) / np.array(offline.errors[-1])
    return {
        "offline value": offline.errors[-1][0],
        "offline derivative": offline.errors[-1][1],
        "ratio value": ratios[0],
        "ratio derivative": ratios[1],
        "offline seconds": offline.seconds[-1],
        "offline to limit": offline.first(limit),
        "online to limit": online.first(limit),
    }


def table() -> Table:
    """Medians over seeds; seconds count from the last sample."""
    torch.set_num_threads(1)
    shown = Table(
        "function", "values", "slopes", "ratio values", "slopes", "offline [s]", "to limit [s]", "online [s]", "never",
        title=f"online training, {SAMPLES} samples, one every {INTERVAL} s, {SEEDS} seeds; errors offline, ratios "
        f"online to offline, seconds after the last sample: offline in all, both to {ENOUGH} × the offline errors",
    )  # fmt: skip
    for function in FUNCTIONS:
        trials = [trial(function, seed) for seed in range(SEEDS)]
        median = {name: float(np.median([t[name] for t in trials])) for name in trials[0]}
        never = sum(np.isinf(t["online to limit"]) for t in trials)
        shown.add_row(
            function.name,
            f"{median['offline value']:.4f}",
            f"{median['offline derivative']:.4f}",
            f"{median['ratio value']:.2f}",
            f"{median['ratio derivative']:.2f}",
            f"{median['offline seconds']:.1f}",
            f"{median['offline to limit']:.1f}",
            f"{median['online to limit']:.1f}",
            f"{never} of {SEEDS}",
        )
    return shown
