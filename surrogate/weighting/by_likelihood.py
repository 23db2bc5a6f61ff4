"""Weights that are inverse noise variances: learned, in closed form, or profiled."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.weighting.base import Terms, Weights
from sobofem.surrogate.weighting.groups import Grouped, Groups, adam, check_settings, smooth

MIN_FREE = 0.01
"""Least share of a group's labels that counts as free: more parameters than labels leave next to none."""
LEAST_DECAY = 1e-12
"""Decay of all parameters in the hat matrix, as a share of the largest diagonal entry of JᵀJ."""


def noise_levels(strategy: Grouped, weights: Weights, terms: Terms) -> Tensor:
    """Standard deviations (m, T) of normal noise under which the labels are likeliest, the network given.

    One for each group of terms, measured as the strategy measures them: the root of its mean loss. NaN for terms
    without labels.
    """
    groups = Groups(strategy, weights, terms)
    levels = groups.to_weights(groups.counts / groups.losses).values.rsqrt()
    return torch.where((terms.mean_squares > 0.0) | (terms.losses > 0.0), levels, torch.nan)


@register
@dataclass(frozen=True)
class ProfiledLikelihood(Grouped):
    """w_g = 1 / mean loss of the group: the inverse of the noise variances that make the data most likely.

    A Gaussian likelihood with an unknown noise level for each group is largest where its variances are the mean
    losses; what is left is ½ Σ_g c_g log L_g, of which w_g = c_g / L_g is the derivative, c_g the number of terms
    in the group (Kendall & Gal 2018, *Multi-task learning using uncertainty to weigh losses*, minimized over the
    noise levels). A group that is fitted better weighs more and is fitted still better: the floor restrains that, and
    `PowerMean` with an exponent between zero and one.

    Attributes:
        floor: Smallest mean loss of a group that counts, as a share of the largest.
        memory: Share of the old weights that an update keeps.
        groups, scaled, interval: As in `Grouped`.
    """

    floor: float = 1e-4
    memory: float = 0.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 100
    shares = ("floor", "memory")

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Inverse mean losses; where all losses are zero, the same weights."""
        groups = Groups(self, weights, terms)
        means = groups.losses / groups.counts
        largest = means.max()
        if not largest > 0.0:
            return weights
        means = means.clamp(min=float(max(self.floor, 1e-12) * largest))
        return groups.to_weights(smooth(groups.weights, 1.0 / means, self.memory))

    noise = noise_levels


@register
@dataclass(frozen=True)
class Evidence(Grouped):
    """w_g = (N_g − γ_g) / sum of squares of the group: the inverse noise variances that MacKay's updates rest at.

    γ_g is how many degrees of freedom of the network the group's N_g labels use up: the trace of its block of the hat
    matrix, the network linearized in its weights (MacKay 1992, *A practical Bayesian framework for backpropagation
    networks*). `ProfiledLikelihood` leaves it out, and takes for small noise what is merely fitted closely. It is for
    full batches and few labels: an update costs as much as a step of Levenberg-Marquardt.

    Attributes:
        floor: Smallest noise variance of a group, as a share of the largest.
        memory: Share of the old weights, in the geometric mean, that an update keeps.
        least: Smallest noise, as a share of the labels' size, that counts: groups below it weigh as if they had that.
        prior: Number of labels, besides its own, whose noise is that of all groups: a group of few labels is not met
            exactly for want of others.
        groups, scaled, interval: As in `Grouped`; with an interval of 0 weights wait until training has converged, as
            `DecayPath` says.
    """

    floor: float = 1e-4
    memory: float = 0.5
    least: float = 0.0
    prior: float = 0.0
    groups: str = "two"
    scaled: bool = True
    interval: int = 10

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, shares=("floor", "memory", "least"), finite=("prior",), least=0)
        if self.prior < 0.0:
            raise ValueError(f"prior of Evidence is {self.prior:g}; expected zero or more")

    @property
    def late(self) -> bool:
        """Whether weights are updated when training has converged, and not before."""
        return not self.interval

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """Inverse noise variances; the same weights where the labels are met exactly."""
        groups = Groups(self, weights, terms)
        labels = (terms.residuals() != 0.0).sum(0).to(terms.losses)
        count = groups.sum_terms(labels)
        squares = groups.sum_terms(self.base(terms.mean_squares, terms.inputs) * terms.losses * labels)
        free = count - groups.sum_terms(_used(weights, terms))
        free = torch.maximum(free, MIN_FREE * count).clamp(min=MIN_FREE)
        variances = (squares + self.prior * squares.sum() / free.sum()) / (free + self.prior)
        largest = variances.max()
        if not largest > 0.0:
            return weights
        inverse = 1.0 / variances.clamp(min=max(float(max(self.floor, 1e-12) * largest), self.least**2))
        inverse = inverse * len(inverse) / inverse.sum()
        before = groups.weights * len(inverse) / groups.weights.sum()
        return groups.to_weights(before**self.memory * inverse ** (1.0 - self.memory))

    def noise(self, weights: Weights, terms: Terms) -> Tensor | None:
        """As all likelihoods have it; None while a late one has found no noise."""
        found = weights.memory["weights"]
        return None if self.late and bool((found == found[0]).all()) else noise_levels(self, weights, terms)


BY_DEFAULT = Evidence(groups="inputs", least=0.01, prior=5.0, interval=0)
"""`PerChannel` until training has converged; where labels turn out noisy, inverse variances, if they are likelier."""


def _used(weights: Weights, terms: Terms) -> Tensor:
    """Degrees of freedom that the labels of each term use (m, T): traces of blocks of the hat matrix."""
    J = terms.derivatives()
    scale = (weights.values * terms.mean_squares).sum() * J.shape[1]
    rows = (J * (weights.values.flatten() / scale).sqrt()[:, None, None]).flatten(0, 1)
    # A little more on all parameters keeps biases that the labels leave open from making it singular.
    D = terms.decays() + LEAST_DECAY * rows.square().sum(0).amax()
    X = rows / D.sqrt()
    if len(X) < X.shape[1]:
        A = X @ X.T
        identity = torch.eye(len(A), dtype=A.dtype, device=A.device)
        used = 1.0 - torch.cholesky_inverse(torch.linalg.cholesky(A + identity)).diagonal()
    else:
        A = X.T @ X
        A.diagonal().add_(1.0)
        solved = torch.linalg.solve_triangular(torch.linalg.cholesky(A), X.T, upper=False)
        used = solved.square().sum(0)
    return used.reshape(J.shape[:2]).sum(1).reshape(terms.losses.shape)


@register
@dataclass(frozen=True)
class LearnedLikelihood(Grouped):
    """Descent on Σ_g ½ e^(−s_g) L_g + ½ c_g s_g over s, while the network descends; w_g = e^(−s_g).

    s_g is the logarithm of a noise variance, c_g the number of terms in the group (Kendall & Gal 2018, *Multi-task
    learning using uncertainty to weigh losses*). Where it comes to rest, w_g = c_g / L_g, as in
    `ProfiledLikelihood`.

    Attributes:
        optimizer: `adam`, with its own state, or `gradient`, plain descent.
        rate: Learning rate of s.
        steps: Steps of descent at an update.
        groups, scaled, interval: As in `Grouped`.
    """

    optimizer: str = "adam"
    rate: float = 0.02
    steps: int = 1
    groups: str = "two"
    scaled: bool = True
    interval: int = 1

    def __post_init__(self) -> None:
        """Refuse settings out of range."""
        check_settings(self, positive=("rate",))
        if self.optimizer not in ("adam", "gradient"):
            raise ValueError(f"optimizer is {self.optimizer!r}; expected 'adam' or 'gradient'")
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; expected at least 1")

    def start(self, targets: Targets) -> Weights:
        """One for every group: s is zero."""
        return self.initial_weights(targets, adam=None, count=0)

    def update(self, weights: Weights, terms: Terms) -> Weights:
        """So many steps of descent on s."""
        groups = Groups(self, weights, terms)
        s, state, count = -groups.weights.log(), groups.memory("adam"), groups.memory("count")
        for _ in range(self.steps):
            count += 1
            gradient = 0.5 * (groups.counts - torch.exp(-s) * groups.losses)
            if self.optimizer == "adam":
                step, state = adam(gradient, state, self.rate, count)
            else:
                step = -self.rate * gradient
            s = s + step
        return groups.to_weights(torch.exp(-s), adam=state, count=count)

    noise = noise_levels
