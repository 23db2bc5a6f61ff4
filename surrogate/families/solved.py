"""Shallow networks whose last layer is solved for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import APART_BELOW, Labels, Learned, Sharing, Training
from sobofem.surrogate.families.evidence import HiddenLayer
from sobofem.surrogate.families.race import Race, Report, Result, trained
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import Progress, ProgressCallback
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.networks.layers import activation


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


RACE = 3
"""After this part of the steps the best start is chosen for parts of the samples; the others are for the families that
these show to be of use."""
STUCK_MARGIN = 0.5
"""Negative log evidence a label, above that of the best start, from which on a start counts as stuck; and above that of
the median part of the samples, from which on a part is tried from another start."""
EXACT_LOSS = 1e-5
"""Share of the labels not yet explained up to which twice as many steps pay: the error of a smooth response goes on
falling. What is rougher the units would follow into its noise."""
MAX_ITERATIONS = 400
"""Most steps of L-BFGS, if nothing else is said."""
FEW_SAMPLES, MANY_SAMPLES = 50, 100
"""From so many samples on parts of them have one start instead of two, and a layer has 256 units instead of 128."""


@dataclass(frozen=True)
class Solved(Sharing):
    """One hidden layer trained on the marginal likelihood, the last layer solved for; several starts, averaged.

    Every response has networks of its own, with its own length scale for each input. Following the idea of
    variable projection (Golub & Pereyra 1973) and of the evidence framework (MacKay 1992).

    All starts of a response are trained as one computation, and so are all parts of the samples. These begin with the
    start that is best on all samples, at the length scales found there unless samples are few, and with none of the
    directions: what those have learned would tell a part of the rest.

    Attributes:
        units: Units of a hidden layer, even; 128, and 256 from 100 samples on, where None.
        members: Starts. All are trained to the end, and those that got stuck are left out of the mean.
        activation: `softplus`, `sine` or `tanh`.
        iterations: Most steps of L-BFGS a start; where None, 4 times the number of samples, from 80 to 400, and twice
            as many up to 400 for a response that units can follow.
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

    def begin(self, targets: Targets, *, seed: int) -> Training:
        """All starts on all samples, and the best of them on parts."""
        return _Training(self, targets, seed)


class _Training(Training):
    learns_apart = True

    def __init__(self, family: Solved, targets: Targets, seed: int) -> None:
        self._family, self._targets, self._seed, N = family, targets, seed, len(targets)
        self._units = family.units or (128 if N < MANY_SAMPLES else 256)
        self._layer = HiddenLayer(targets.x.shape[1], self._units, family.activation)
        self._iterations = family.iterations or min(max(4 * N, 80), MAX_ITERATIONS)
        self._most = family.iterations or min(2 * self._iterations, MAX_ITERATIONS)
        self._trial = family.iterations or min(max(80, min(4 * N, 160), 5 * N // 2), MAX_ITERATIONS)
        self._first = -(-self._iterations // RACE)
        self._races: dict[int, Race] = {}

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """Of each part networks from the best starts.

        Raises:
            ArithmeticError: If a response can't be learned.
        """
        modules, courses = [self._module(self._starts) for _ in rows], []
        parts = [self._targets.select(chosen) for chosen in rows]
        for r in responses:
            most = self._first + self._trial
            race = self._race(r, self._share_of(progress, r, most))
            labels = [Labels.of(part, r) for part in parts]
            found, course = self._trials(race, labels, self._share_of(progress, r, most, self._first))
            for module, results in zip(modules, found, strict=True):
                self._store(module, r, results)
            courses.append(course)
        return [self._learned(module, self._starts, courses) for module in modules]

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """All starts, trained to the end.

        Raises:
            ArithmeticError: If a response could be learned from no start.
        """
        module, courses = self._module(self._family.members), []
        for r in responses:
            report = self._share_of(progress, r, self._most)
            race = self._race(r, report)
            race.run(self._iterations, report)
            if race.course and race.course[-1] < EXACT_LOSS:
                race.run(self._most, report)
            self._store(module, r, race.results())
            courses.append(race.course)
        return self._learned(module, self._family.members, courses)

    def _race(self, r: int, report: Report) -> Race:
        """The starts of a response, a part of the way trained."""
        if r not in self._races:
            seeds = [_seed_for(self._seed, k, r) for k in range(self._family.members)]
            self._races[r] = Race(Labels.of(self._targets, r), self._layer, seeds, self._most, report)
            self._races[r].run(self._first, report)
        return self._races[r]

    def _trials(self, race: Race, labels: list[Labels], report: Report) -> tuple[list[list[Result]], list[float]]:
        """Each part from the best starts; parts that got stuck from the next best, too."""
        order, count, warm = race.order, self._starts, len(self._targets) >= APART_BELOW
        starts = race.warm if warm else race.cold
        found, course = trained(labels, self._layer, starts[order[:count]], self._trial, report, warm=warm)
        race.best += [min(result.value for result in part) for part in found]
        median = sorted(race.best)[len(race.best) // 2]
        stuck = [k for k, part in enumerate(found) if min(one.value for one in part) > median + STUCK_MARGIN]
        if stuck and len(order) > count:
            more = starts[order[count : count + 1]]
            again, _ = trained([labels[k] for k in stuck], self._layer, more, self._trial, _silent, warm=warm)
            for k, other in zip(stuck, again, strict=True):
                found[k] = sorted(found[k] + other, key=lambda result: result.value)[:count]
        return found, course

    def _share_of(self, progress: ProgressCallback, number: int, most: int, done: int = 0) -> Report:
        """Passes the steps of one response on, behind some done, as a share of all, of which each takes most steps."""
        stage, count = self._family.name, self._module_count

        def report(step: int, of: int, loss: float) -> None:
            progress(Progress(stage, number * most + done + step, count * most, loss, float("nan")))

        return report

    @property
    def _starts(self) -> int:
        """Starts of each part."""
        return min(self._family.members, 2 if len(self._targets) < FEW_SAMPLES else 1)

    @property
    def _module_count(self) -> int:
        return self._targets.y.shape[1]

    def _module(self, members: int) -> ShallowModule:
        # Results are on the CPU, whatever torch's default device is; the labels stay where they are.
        with CPU:
            n, m = self._targets.x.shape[1], self._targets.y.shape[1]
            return ShallowModule(n, m, ShallowNetworks(self._units, members, self._family.activation))

    def _learned(self, module: ShallowModule, members: int, courses: list[list[float]]) -> Learned:
        weights = torch.ones(self._module_count, 1 + self._layer.inputs, dtype=torch.float64, device=CPU)
        for r in range(self._module_count):
            weights[r, 1:] = Labels.of(self._targets, r).row_weights().square()
        courses = [course or [1.0] for course in courses or [[]]]
        steps = max(len(course) for course in courses)
        losses = weights.new_tensor([c + c[-1:] * (steps - len(c)) for c in courses])
        network = ShallowNetworks(self._units, members, self._family.activation)
        return Learned(module.eval(), network, torch.arange(1.0, steps + 1.0, device=CPU), losses.mean(0), weights)

    def _store(self, module: ShallowModule, r: int, results: list[Result]) -> None:
        """Put the starts of a response into the module; those far from the best get no share."""
        values = module.share.new_tensor([result.value for result in results])
        keep = (values <= values.min() + STUCK_MARGIN).to(values)
        module.share[r] = keep / keep.sum()
        theta, v = (torch.stack([vars(result)[name] for result in results]).cpu() for name in ("theta", "v"))
        module.W[r], module.b[r] = self._layer.affine(self._layer.split(theta))
        module.v[r], module.c[r] = v[:, :-1] * self._layer.units**-0.5, v[:, -1]


def _seed_for(seed: int, member: int, response: int) -> int:
    """A seed for each start of each response."""
    return int(np.random.SeedSequence([seed % 2**64, member, response]).generate_state(1)[0])


def _silent(step: int, of: int, loss: float) -> None:
    """Steps that count no further."""
