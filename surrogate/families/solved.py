"""Shallow networks whose last layer is solved for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.quasirandom import SobolEngine

from sobofem.surrogate.device import CPU
from sobofem.surrogate.families.base import APART_BELOW, Labels, Learned, Sharing, Training
from sobofem.surrogate.families.hidden_layer import HiddenLayer
from sobofem.surrogate.families.race import MAX_PAIRS, Race, Report, Result, trained
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

    def members(self, x: Tensor, r: int) -> Tensor:
        """Of response number r what each member says, values then slopes (N, K, 1 + n)."""
        z = linear(x, self.W[r].flatten(0, 1), self.b[r].flatten()).unflatten(1, self.b[r].shape)
        a, p = self.act.value_and_slope(z)
        y, slopes = (a * self.v[r]).sum(-1) + self.c[r], torch.einsum("nku,kui->nki", p * self.v[r], self.W[r])
        return torch.cat((y.unsqueeze(-1), slopes), -1)

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
EDGE, PLACES, SMALLEST = 3.0**0.5, 128, 1e-200
"""Half the box in scaled inputs, points in it at which members are compared, and what is as good as no difference."""
STUCK_MARGIN = 0.5
"""Negative log evidence a label, above that of the median part of the samples, from which on a part counts as stuck and
is tried from another start."""
MOST_BEHIND = 1.0
"""The same, above that of the best start, from which on a start has no share in the mean."""
EXACT_LOSS = 1e-5
"""Share of the labels not yet explained up to which twice as many steps pay: the error of a smooth response goes on
falling. What is rougher the units would follow into its noise."""
MAX_ITERATIONS = 400
"""Most steps of L-BFGS, if nothing else is said."""
MOST_NUMBERS = 2**25
"""Numbers that what descents remember may take, about: responses beyond that come after the others."""
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
        self._races: dict[int, tuple[Race, int]] = {}

    def parts(self, rows: Sequence[Tensor], responses: Sequence[int], progress: ProgressCallback) -> list[Learned]:
        """Of each part networks from the best starts.

        Raises:
            ArithmeticError: If a response can't be learned.
        """
        modules, courses = [self._module(self._starts) for _ in rows], []
        parts, most = [self._targets.select(chosen) for chosen in rows], self._first + self._trial
        for some in self._together(responses, max(len(rows) * self._starts, self._family.members)):
            self._begin(some, self._share_of(progress, some, most))
            found, course = self._trials(some, parts, self._share_of(progress, some, most, self._first))
            for r, of_parts in zip(some, found, strict=True):
                for module, results in zip(modules, of_parts, strict=True):
                    self._store(module, r, results)
            courses.append(course)
        return [self._learned(module, self._starts, courses) for module in modules]

    def finish(self, responses: Sequence[int], progress: ProgressCallback) -> Learned:
        """All starts, trained to the end.

        Raises:
            ArithmeticError: If a response could be learned from no start.
        """
        module, courses = self._module(self._family.members), []
        for some in self._together(responses, self._family.members):
            report = self._share_of(progress, some, self._most)
            self._begin(some, report)
            for race in {id(self._races[r][0]): self._races[r][0] for r in some}.values():
                own = [self._races[r][1] for r in some if self._races[r][0] is race]
                race.run(self._iterations, own, report)
                exact = [k for k in own if race.courses[k] and race.courses[k][-1] < EXACT_LOSS]
                race.run(self._most, exact, report)
            for r in some:
                race, k = self._races[r]
                self._store(module, r, race.results(k))
                courses.append(race.courses[k])
        return self._learned(module, self._family.members, courses)

    def _together(self, responses: Sequence[int], members: int) -> list[list[int]]:
        """Responses in groups that are trained as one computation, given the members that each has at once."""
        numbers = 2 * MAX_PAIRS * self._layer.parameters * members
        size = max(1, MOST_NUMBERS // numbers)
        return [list(responses[k : k + size]) for k in range(0, len(responses), size)]

    def _begin(self, responses: Sequence[int], report: Report) -> None:
        """The starts of those responses that have none yet, a part of the way trained."""
        fresh = [r for r in responses if r not in self._races]
        if not fresh:
            return
        seeds = [[_seed_for(self._seed, k, r) for k in range(self._family.members)] for r in fresh]
        race = Race([Labels.of(self._targets, r) for r in fresh], self._layer, seeds, self._most, report)
        race.run(self._first, range(len(fresh)), report)
        self._races |= {r: (race, k) for k, r in enumerate(fresh)}

    def _trials(
        self, responses: Sequence[int], parts: Sequence[Targets], report: Report
    ) -> tuple[list[list[list[Result]]], list[float]]:
        """For each response each part from the best starts; parts that got stuck from the next best, too."""
        warm, count = len(self._targets) >= APART_BELOW, self._starts
        starts = [self._races[r][0].starts(self._races[r][1], warm=warm) for r in responses]
        labels = [Labels.of(part, r) for r in responses for part in parts]
        best = [own[:count] for own in starts for _ in parts]
        every, course = trained(labels, self._layer, best, self._trial, report, warm=warm)
        found = [every[k : k + len(parts)] for k in range(0, len(every), len(parts))]
        for r, own, of_parts in zip(responses, starts, found, strict=True):
            race, k = self._races[r]
            race.best[k] += [min(one.value for one in part) for part in of_parts]
            median = sorted(race.best[k])[len(race.best[k]) // 2]
            stuck = [j for j, part in enumerate(of_parts) if min(one.value for one in part) > median + STUCK_MARGIN]
            if not stuck or len(own) <= count:
                continue
            more = [own[count : count + 1]] * len(stuck)
            again = [Labels.of(parts[j], r) for j in stuck]
            others, _ = trained(again, self._layer, more, self._trial, _silent, warm=warm)
            for j, other in zip(stuck, others, strict=True):
                of_parts[j] = sorted(of_parts[j] + other, key=lambda result: result.value)[:count]
        return found, course

    def _share_of(self, progress: ProgressCallback, responses: Sequence[int], most: int, done: int = 0) -> Report:
        """Passes the steps of some responses on as a share of all, of which each takes most steps; some are done."""
        stage, count = self._family.name, self._module_count

        def report(step: int, of: int, loss: float) -> None:
            reached = responses[0] * most + len(responses) * (done + step)
            progress(Progress(stage, reached, count * most, loss, float("nan")))

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
        theta, v = (torch.stack([vars(result)[name] for result in results]).cpu() for name in ("theta", "v"))
        module.W[r], module.b[r] = self._layer.affine(self._layer.split(theta))
        module.v[r], module.c[r] = v[:, :-1] * self._layer.units**-0.5, v[:, -1]
        values = module.share.new_tensor([result.value for result in results])
        good = torch.nonzero(values <= values.min() + MOST_BEHIND).flatten()
        with torch.no_grad(), CPU:
            places = SobolEngine(self._layer.inputs, scramble=True, seed=0).draw(PLACES, dtype=theta.dtype)
            outputs = module.members(EDGE * (2.0 * places - 1.0), r)[:, good]
        module.share[r] = 0.0
        module.share[r, good] = shares(outputs, values[good])


def shares(outputs: Tensor, values: Tensor) -> Tensor:
    """Shares (K,) in their mean of members with these values and slopes at some points (N, K, 1 + n).

    Where the labels are exact, evidence alone is a bad judge: the likeliest of four may err the most. Differences of
    members tell how far each is off, too: with independent errors of squares e, that of two is the sum of theirs (the
    three-cornered hat of clocks; Gray & Allan 1974). Shares go as exp(-2 value) / (e + the median of e), for a value is
    about the logarithm of an error, and both are estimates.

    Args:
        outputs: At points anywhere in the box.
        values: Negative log evidence a label (K,).
    """
    K, likely = outputs.shape[1], torch.exp(2.0 * (values.min() - values))
    if K < 3:  # of two there is no saying
        return likely / likely.sum()
    squares = outputs.square().mean((0, 1))
    size = torch.cat((squares[:1], squares[1:].clamp(min=0.1 * float(squares[1:].mean()))))
    apart = (outputs.unsqueeze(1) - outputs.unsqueeze(2)).square().mean(0) / size.clamp(min=SMALLEST)
    gaps = apart[..., 0] + apart[..., 1:].mean(-1)
    e = ((gaps.sum(1) - gaps.sum() / (2.0 * (K - 1))) / (K - 2)).clamp(min=0.0)
    weights = likely / (e + e.quantile(0.5)).clamp(min=SMALLEST)
    return weights / weights.sum()


def _seed_for(seed: int, member: int, response: int) -> int:
    """A seed for each start of each response."""
    return int(np.random.SeedSequence([seed % 2**64, member, response]).generate_state(1)[0])


def _silent(step: int, of: int, loss: float) -> None:
    """Steps that count no further."""
