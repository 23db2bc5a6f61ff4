"""Shallow networks whose last layer is solved for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import Family, Labels, Learned
from sobofem.surrogate.families.evidence import NOISE, Evidence, HiddenLayer
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.activations import activation
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.training.optimizers.vector_lbfgs import minimize


@register
@dataclass(frozen=True)
class ShallowNetworks:
    """The mean of several networks of one hidden layer, each response with its own.

    Attributes:
        units: Units of a hidden layer.
        members: Networks whose mean predicts a response.
        activation: `softplus`, `sine` or `tanh`.
    """

    units: int
    members: int
    activation: str

    def build(self, n: int, m: int, generator: torch.Generator) -> ShallowModule:
        """An untrained module of the right shape."""
        return ShallowModule(n, m, self)


class ShallowModule(NetworkModule):
    """Σ over members of share · (v · a(W x + b) + c), for each of m responses.

    Attributes:
        W: (m, K, M, n).
        b: (m, K, M).
        v: (m, K, M).
        c: (m, K).
        share: (m, K), not negative, sums of one.
    """

    def __init__(self, n: int, m: int, spec: ShallowNetworks) -> None:
        super().__init__()
        K, M = spec.members, spec.units
        self.act = activation(spec.activation)
        for name, shape in {"W": (m, K, M, n), "b": (m, K, M), "v": (m, K, M), "c": (m, K), "share": (m, K)}.items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch.float64))

    W: Tensor
    b: Tensor
    v: Tensor
    c: Tensor
    share: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        a = self.act.value(self._arguments(x))
        return self._values(a)

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        a, p = self.act.value_and_slope(self._arguments(x))
        return self._values(a), torch.einsum("nru,rui->nri", p * self._output_weights(), self.W.flatten(1, 2))

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Spread of the members' outputs (N, m) and of their Jacobians (N, m, n)."""
        K = self.share.shape[1]
        a, p = (part.unflatten(2, (K, -1)) for part in self.act.value_and_slope(self._arguments(x)))
        y = (a * self.v).sum(-1) + self.c
        slopes = torch.einsum("nrku,rkui->nrki", p * self.v, self.W)
        return _spread(y.unsqueeze(-1), self.share).squeeze(-1), _spread(slopes, self.share)

    def _arguments(self, x: Tensor) -> Tensor:
        """(N, m, K·M)."""
        m, n = self.W.shape[0], self.W.shape[3]
        return linear(x, self.W.reshape(-1, n), self.b.flatten()).unflatten(1, (m, -1))

    def _output_weights(self) -> Tensor:
        return (self.share.unsqueeze(-1) * self.v).flatten(1)

    def _values(self, a: Tensor) -> Tensor:
        return torch.einsum("nru,ru->nr", a, self._output_weights()) + (self.share * self.c).sum(1)


def _spread(members: Tensor, share: Tensor) -> Tensor:
    """Standard deviation over members (N, m, K, k) of these shares (m, K), unbiased: (N, m, k)."""
    weights = share.unsqueeze(-1)
    mean = (weights * members).sum(2, keepdim=True)
    variance = (weights * (members - mean).square()).sum(2)
    effective = (1.0 - share.square().sum(1)).clamp(min=1e-12).unsqueeze(-1)
    return (variance / effective).clamp(min=0.0).sqrt()


Report = Callable[[int, int, float], None]
"""Called with the step of a start, how many there will be at most, and the share of the labels not yet explained."""
LENGTHS = (3.0, 1.0, 3.0, 0.7)
"""Length scales of the inputs that the starts begin with, in units of the scaled inputs: smooth and less smooth."""
WARM_UP = 60
"""Most steps in which the scales alone move: the units' directions follow once these are about right."""
STUCK_MARGIN = 0.5
"""Negative log evidence a label, above the best start's, from which on a start counts as stuck."""
MAX_HIDDEN_SAMPLES = 4096
"""Most samples that the hidden layer is trained on; the last layer is solved for with all."""
MANY_SAMPLES = 50
"""From so many samples on one start will do for a comparison."""


@dataclass(frozen=True)
class Solved(Family):
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
            raise ValueError(f"{self} needs at least one member and one iteration")

    @property
    def name(self) -> str:
        """What messages call it."""
        return "shallow network" if self.activation == "softplus" else f"shallow {self.activation} network"

    def learn(self, targets: Targets, *, seed: int, progress: ProgressCallback, quick: bool = False) -> Learned:
        """Train each start of each response.

        Raises:
            ArithmeticError: If a response could be learned from no start.
        """
        n, m = targets.x.shape[1], targets.y.shape[1]
        units = self.units or (128 if len(targets) < 256 else 256)
        members = min(self.members, 2 if len(targets) < MANY_SAMPLES else 1) if quick else self.members
        iterations = self.iterations or min(max(4 * len(targets), 80), 200 if quick else 400)
        layer = HiddenLayer(n, units, self.activation)
        network = ShallowNetworks(units, members, self.activation)
        # Results are on the CPU, whatever torch's default device is; the labels stay where they are.
        with CPU:
            module, weights, courses = ShallowModule(n, m, network), torch.ones(m, 1 + n, dtype=torch.float64), []
        for r in range(m):
            labels = Labels.of(targets, r)
            results = []
            for k in range(members):
                report = _share_of(progress, self.name, r * members + k, m * members)
                length = LENGTHS[k % len(LENGTHS)]
                results.append(self._start(labels, layer, length, iterations, _seed_for(seed, k, r), report))
            self._store(module, r, layer, results)
            courses.append(results[0].course)
            weights[r, 1:] = labels.row_weights().square()
        steps = max(len(course) for course in courses)
        losses = weights.new_tensor([c + c[-1:] * (steps - len(c)) for c in courses])
        return Learned(module.eval(), network, torch.arange(1.0, steps + 1.0, device=CPU), losses.mean(0), weights)

    def _start(
        self, labels: Labels, layer: HiddenLayer, length: float, iterations: int, seed: int, report: Report
    ) -> _Result:
        """Scales alone first, then all; the last layer on all samples, the hidden one on the first of very many."""
        evidence = Evidence(labels.some(MAX_HIDDEN_SAMPLES, seed), layer)
        theta = layer.start(length, seed).to(labels.x)
        theta = minimize(evidence, _solvable(evidence, theta), free=layer.scales_only(theta), iterations=WARM_UP).point
        theta[layer.inputs + 1] = NOISE[0]
        course: list[float] = []

        def record(step: int, value: float) -> None:
            course.append(evidence.loss)
            if step % 10 == 0:
                report(step, iterations, evidence.loss)

        best = minimize(evidence, _solvable(evidence, theta), iterations=iterations, progress=record)
        everything = evidence if len(labels.y) <= MAX_HIDDEN_SAMPLES else Evidence(labels, layer)
        v = everything.last_layer(best.point)
        return _Result(best.point, v, best.value / evidence.labels.rows, course or [1.0])

    def _store(self, module: ShallowModule, r: int, layer: HiddenLayer, results: list[_Result]) -> None:
        """Put the starts of a response into the module; those far from the best get no share."""
        values = module.share.new_tensor([result.value for result in results])
        keep = (values <= values.min() + STUCK_MARGIN).to(values)
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


def _seed_for(seed: int, member: int, response: int) -> int:
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


def _share_of(progress: ProgressCallback, name: str, number: int, count: int) -> Report:
    """Passes the progress of one start on as a share of all."""

    def report(step: int, of: int, loss: float) -> None:
        progress(Progress(name, number * of + step, count * of, loss, float("nan")))

    return report
