"""Settings of Newton's method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np


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
        warm_start: Whether to begin where the last solve ended, which saves iterations where points follow each other
            closely. By default each begins at the initial state, so that its answer does not depend on the one
            before: where there are several equilibria, it might. A problem with history always does.
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
    warm_start: bool = False
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
        patient = replace(self, max_iterations=2 * self.max_iterations, smallest_step=shortest, warm_start=False)
        if history:
            return replace(patient, growth=1.0)
        return replace(patient, first_step=max(self.first_step / 8, patient.smallest_step))
