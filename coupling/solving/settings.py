"""Settings of solving: how samples are computed, alone or while a surrogate is trained on them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

from sobofem.coupling.design import KINDS, Design
from sobofem.coupling.options import option

if TYPE_CHECKING:
    from sobofem.surrogate import OnlineSettings

_LONGEST = 1e8  # that a timer takes [s]

POOL = 8
"""Points to choose from where the trainer steers, for each sample."""


@dataclass(frozen=True)
class SolveRanks:
    """How many ranks solve a sample."""

    ranks_per_solve: int = option(
        1, help="MPI ranks that solve one sample together; one is best as long as it fits in memory."
    )

    def __post_init__(self) -> None:
        if self.ranks_per_solve < 1:
            raise ValueError(f"{self.ranks_per_solve} ranks a solve were asked for; expected at least one")


@dataclass(frozen=True)
class Solving(SolveRanks):
    """How samples are solved, and when there are too many failures."""

    max_failures: float = option(0.5, help="Stop, and say where samples fail, when more than this share of them does.")
    sample_timeout: float | None = option(
        None,
        metavar="SECONDS",
        help="A sample that takes longer is a failure, and does not stop the others.",
    )
    sync_interval: float = option(
        1.0,
        metavar="SECONDS",
        help="How long a finished sample may wait for the disk while others follow: what a node that loses power may "
        "lose. A killed process loses nothing. Longer ones spare the file system where thousands of ranks write.",
        min=0.0,
    )

    warm_start: bool = option(
        False,
        help="Begin Newton's method at states predicted from earlier samples of this run, where that is safe: the same "
        "answers to eight digits, in fewer steps. Linear problems, histories (plasticity), limit loads, and where an "
        "equilibrium is unstable or a prediction not close, are solved as ever.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.max_failures <= 1.0:
            raise ValueError(f"max_failures is {self.max_failures:g}; expected a share of the samples from 0 to 1")
        if self.sample_timeout is not None and not 0.0 < self.sample_timeout < _LONGEST:
            raise ValueError(
                f"sample_timeout is {self.sample_timeout:g}; expected seconds, more than 0, or none at all"
            )
        if not self.sync_interval >= 0.0:
            raise ValueError(f"sync_interval is {self.sync_interval:g}; expected seconds, 0 to wait for each sample")


class Steering(StrEnum):
    """How the next points are chosen."""

    DISAGREEMENT = "disagreement"
    GRADIENT_RESIDUAL = "gradient-residual"


@dataclass(frozen=True)
class Streaming:
    """Where to solve, and what to train meanwhile."""

    samples: int = option(64, help="Number of samples to solve.", min=4)
    design: str = option("sobol", help=f"How the points are spread: {', '.join(KINDS)}.")
    seed: int = option(0, help="Seed of the design, the networks and the batches.", min=0)
    steer: Steering | None = option(
        None,
        help="Let the trainer choose the next points: where networks disagree (trains four), or near samples whose "
        f"Jacobian is met badly. It chooses from {POOL} times as many points of the design.",
    )
    watermark: int = option(16, help="Samples to have before training begins.", min=4)
    capacity: int = option(
        4096, help="Samples that the trainer keeps in memory; solvers wait where it has not used them."
    )
    width: int = option(48, help="Units of a hidden layer.", min=1)
    depth: int = option(3, help="Number of hidden layers.", min=1)
    device: str = option("cpu", help="Where to train: cpu, cuda or cuda:1.")
    threads: int = option(1, help="CPU threads of the trainer.", min=1)

    @property
    def recipe(self) -> Design:
        """The points to solve, or to choose from."""
        return Design(self.design, self.samples * (POOL if self.steer else 1), self.seed)

    @property
    def choice(self) -> Literal["", "disagreement", "gradient residual"]:
        """How the next points are chosen, in the words of `stream`."""
        if self.steer is None:
            return ""
        return "disagreement" if self.steer is Steering.DISAGREEMENT else "gradient residual"

    def online(self) -> OnlineSettings:
        """The settings of the training."""
        from sobofem.surrogate import MLP, OnlineSettings

        return OnlineSettings(
            network=MLP(width=self.width, depth=self.depth),
            watermark=min(self.watermark, self.samples),
            capacity=self.capacity,
            members=4 if self.steer is Steering.DISAGREEMENT else 1,
            seed=self.seed,
            device=self.device,
        )
