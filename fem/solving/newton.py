"""Settings of Newton's method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sobofem.fem.errors import NotConverged


@dataclass(frozen=True)
class Newton:
    """How far and how patiently to iterate.

    Args:
        rtol: Residual at which to stop, relative to that at the start of a load step; round-off stops it, too.
        max_iterations: Iterations after which a load step has failed.
        smallest_step: Part of the way between two points of the load path at which cutting it back ends.
        growth: A line search: Newton steps are halved until the residual grows by no more than this factor, such as 2.
            By default whole steps are taken, and a load step is cut back where they lead astray. The residual of a
            slender body that turns rises by orders of magnitude before it falls, and a step that was halved out of an
            impossible state may end in a wrong one.
        first_step: Part of the way between two points of the load path to try first, by default all of it. A shorter
            one follows an equilibrium where a longer one may jump to another; with history, whose steps are part of
            the answer, it means finer ones.
        unstable: What to do with an equilibrium that is no minimum of the energy, where the solver counts negative
            pivots: "accept" it (`Problem.stability` says so), or "refuse" it, so that the step is cut back to find
            another, and fails with the reason "unstable" if there is none.
    """

    rtol: float = 1e-10
    max_iterations: int = 25
    smallest_step: float = 1 / 64
    growth: float = np.inf
    first_step: float = 1.0
    unstable: Literal["accept", "refuse"] = "accept"

    def __post_init__(self) -> None:
        if not (0.0 < self.rtol < 1.0 and self.max_iterations >= 1 and 0.0 < self.smallest_step <= 1.0):
            raise ValueError(f"{self}: expected rtol in (0, 1), max_iterations >= 1, smallest_step in (0, 1]")
        if not self.growth >= 1.0:
            raise ValueError(f"growth is {self.growth}, expected at least 1")
        if self.unstable not in ("accept", "refuse"):
            raise ValueError(f"unstable is {self.unstable!r}, expected 'accept' or 'refuse'")
        if not self.smallest_step <= self.first_step <= 1.0:
            raise ValueError(f"first_step is {self.first_step}, expected {self.smallest_step:g} (smallest_step) to 1")

    def gentle(self, *, history: bool) -> Newton:
        """More patient settings, for a second try where these fail: more iterations, shorter steps.

        Args:
            history: Whether there are internal variables. Steps of load and time are part of the answer then, and are
                cut back only where they fail; instead Newton steps are halved, without which return mappings may go in
                circles.
                Otherwise the way begins with short steps; halved Newton steps would lead to other equilibria.
        """
        shortest = self.smallest_step / 16 if self.smallest_step < 1.0 else 1.0  # 1 forbids shorter steps
        patient = replace(self, max_iterations=2 * self.max_iterations, smallest_step=shortest)
        if history:
            return replace(patient, growth=1.0)
        return replace(patient, first_step=max(self.first_step / 8, patient.smallest_step))


SHRINKAGE = 0.5
"""Size of a Newton step over the larger of the two before, up to which a solution is near."""

CONTRIBUTION = 1e-9
"""Size of the Newton step that would come next, relative to the solution, at which to stop."""

ROUND_OFF = 1e-12
"""Size of a Newton step, relative to the solution, up to which it need not shrink further."""


@dataclass
class Contraction:
    """Watches Newton's method from a state that is taken to be close to a solution: whether its steps shrink.

    They do, quadratically, near a regular solution, of which there is no other close by (Kantorovich). Two are looked
    at together, since in a slender body one stretches what should turn, and the next takes that back. The test is one
    of steps and not of residuals, since in such a body these are large close to equilibrium already.

    Args:
        scale: Residual that the tolerance is relative to, in place of that at the start, which is small.
        largest: Size of a step beyond which the state was not close.

    Attributes:
        settled: Whether the next step would change the solution by nothing that counts.
    """

    scale: float
    largest: float
    settled: bool = False
    _steps: tuple[float, ...] = ()

    def check(self, step: float, solution: float) -> None:
        """Take the size of a Newton step, and of the solution after it; raises `NotConverged` if it is too large."""
        limit = self.largest if len(self._steps) < 2 else SHRINKAGE * max(self._steps[-2:])
        if not step <= max(limit, ROUND_OFF * solution):
            raise NotConverged("the state to begin with is not close to equilibrium", reason="not close", final=True)
        ratio = step / max(self._steps[-1] if self._steps else solution, np.finfo(float).tiny)
        self.settled = ratio**2 * step <= CONTRIBUTION * solution
        self._steps = (*self._steps, step)


def finite_residual(size: float) -> float:
    """The norm of a residual, or `NotConverged` if it is no number."""
    if not np.isfinite(size):
        raise NotConverged(
            "the residual is not finite; check loads and coefficients, and the initial guess, which is what the "
            "unknown holds when the problem is made",
            reason="NaN in residual",
        )
    return size
