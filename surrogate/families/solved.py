"""Shallow networks whose last layer is solved for."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor

from surrogate.device import CPU
from surrogate.evidence import Evidence
from surrogate.families.base import Learned, Watch
from surrogate.hidden_layer import NOISE, HiddenLayer
from surrogate.labels import Labels
from surrogate.loss import Targets
from surrogate.quasi_newton import minimize
from surrogate.shallow import Shallow, ShallowNetworks

LENGTHS = (3.0, 1.0, 3.0, 0.7)
WARM_UP = 60
HOPELESS = 0.5
SUBSET = 4096
MANY = 50


@dataclass(frozen=True)
class Solved:
    """One hidden layer trained on the marginal likelihood, the last layer solved for; several starts, averaged.

    Every response has networks of its own, with its own length scale for each input. Following the idea of
    variable projection (Golub & Pereyra 1973) and of the evidence framework (MacKay 1992).

    Attributes:
        units: Units of a hidden layer, even; 128, and 256 from 256 samples on, where None.
        members: Starts. All are trained to the end, and those that got stuck are left out of the mean.
        activation: `softplus`, `sine` or `tanh`.
        iterations: Most steps of L-BFGS a start; 4 times the number of samples, from 80 to 400, where None.
    """

    units: int | None = None
    members: int = 4
    activation: str = "softplus"
    iterations: int | None = None

    def __post_init__(self) -> None:
        """Refuse settings that train nothing."""
        HiddenLayer(1, 2 if self.units is None else self.units, self.activation)
        if self.members < 1 or (self.iterations is not None and self.iterations < 1):
            raise ValueError(f"{self} trains nothing; expected at least one member and one iteration")

    @property
    def name(self) -> str:
        """What messages call it."""
        return "shallow network" if self.activation == "softplus" else f"shallow {self.activation} network"

    def refuses(self, targets: Targets) -> str:
        """It takes all."""
        return ""

    def learn(self, targets: Targets, *, seed: int, watch: Watch, trial: bool = False) -> Learned:
        """Train each start of each response.

        Raises:
            ArithmeticError: If a response could be learned from no start.
        """
        n, m = targets.x.shape[1], targets.y.shape[1]
        units = self.units or (128 if len(targets) < 256 else 256)
        members = min(self.members, 2 if len(targets) < MANY else 1) if trial else self.members
        iterations = self.iterations or min(max(4 * len(targets), 80), 200 if trial else 400)
        layer = HiddenLayer(n, units, self.activation)
        network = ShallowNetworks(units, members, self.activation)
        with CPU:
            module, weights, courses = Shallow(n, m, network), torch.ones(m, 1 + n, dtype=torch.float64), []
        for r in range(m):
            labels = Labels.of(targets, r)
            results = []
            for k in range(members):
                told = _telling(watch, self.name, r * members + k, m * members)
                results.append(
                    self._start(labels, layer, LENGTHS[k % len(LENGTHS)], iterations, _own(seed, k, r), told)
                )
            self._fill(module, r, layer, results)
            courses.append(results[0].course)
            weights[r, 1:] = labels.row_weights().square()
        steps = max(len(course) for course in courses)
        losses = weights.new_tensor([c + c[-1:] * (steps - len(c)) for c in courses])
        return Learned(module.eval(), network, torch.arange(1.0, steps + 1.0, device=CPU), losses.mean(0), weights)

    def _start(
        self, labels: Labels, layer: HiddenLayer, length: float, iterations: int, seed: int, tell: Watch
    ) -> _Result:
        """Scales alone first, then all; the last layer on all samples, the hidden one on the first of very many."""
        evidence = Evidence(labels.some(SUBSET, seed), layer)
        theta = layer.start(length, seed).to(labels.x)
        theta = minimize(evidence, _solvable(evidence, theta), free=layer.scales_only(theta), iterations=WARM_UP).point
        theta[layer.inputs + 1] = NOISE[0]
        course: list[float] = []

        def watch(step: int, value: float) -> None:
            course.append(evidence.loss)
            if step % 10 == 0:
                tell("", step, iterations, evidence.loss)

        best = minimize(evidence, _solvable(evidence, theta), iterations=iterations, watch=watch)
        everything = evidence if len(labels.y) <= SUBSET else Evidence(labels, layer)
        v = everything.last_layer(best.point)
        return _Result(best.point, v, best.value / evidence.labels.rows, course or [1.0])

    def _fill(self, module: Shallow, r: int, layer: HiddenLayer, results: list[_Result]) -> None:
        """Put the starts of a response into the module; those far from the best get no share."""
        values = module.share.new_tensor([result.value for result in results])
        keep = (values <= values.min() + HOPELESS).to(values)
        module.share[r] = keep / keep.sum()
        for k, result in enumerate(results):
            v = result.v.cpu()
            module.W[r, k], module.b[r, k] = layer.affine(layer.split(result.theta.cpu()))
            module.v[r, k] = v[:-1] * layer.units**-0.5
            module.c[r, k] = v[-1]


@dataclass(frozen=True, eq=False)
class _Result:
    """A trained start: θ (P,), the last layer (M + 1,), negative log evidence a label, and the losses on the way."""

    theta: Tensor
    v: Tensor
    value: float
    course: list[float]


def _own(seed: int, member: int, response: int) -> int:
    """A seed for each start of each response."""
    return int(np.random.SeedSequence([seed % 2**64, member, response]).generate_state(1)[0])


def _solvable(evidence: Evidence, theta: Tensor) -> Tensor:
    """θ with its noise raised until the last layer can be solved for."""
    theta = theta.clone()
    while not isfinite(evidence(theta)[0]):
        noise = evidence.layer.split(theta).noise
        if noise > 0.0:
            raise ArithmeticError("the units of a shallow network are not finite; look for outliers in the samples")
        noise += 2.0
    return theta


def _telling(watch: Watch, name: str, number: int, count: int) -> Watch:
    """Passes progress on as a share of all starts."""

    def tell(_: str, step: int, of: int, loss: float) -> None:
        watch(name, number * of + step, count * of, loss)

    return tell
