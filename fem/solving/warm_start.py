"""Where Newton's method begins: at a state predicted from earlier ones, if that is safe, and else at the initial one.

What is found is checked, so that it is what the ordinary way finds:

- Newton's steps from a prediction must be small, and shrink as they do near a regular solution, and this must be as
  close to the prediction as that promised;
- its tangents must have no negative pivots, and the solver must count them; nor is anything learned of a state on the
  ordinary way to which there were some, since that may have snapped to a branch which others don't reach;
- of the first predictions and of some of the later ones the ordinary way is gone as well, and its answer is taken. If
  another state was found, nothing is predicted any more.

It is off as well once an equilibrium was no minimum of the energy: there is more than one.
"""

from __future__ import annotations

from collections import deque
import warnings

from mpi4py import MPI
import dolfinx
import numpy as np

from sobofem.fem.errors import NotConverged, together
from sobofem.fem.solving.equilibrium import Equilibrium
from sobofem.fem.solving.newton import Contraction
from sobofem.fem.solving.stability import Stability
from sobofem.fem.solving.state_prediction import StatePrediction

LOOK_BACK = 3
"""Predictions by whose errors and costs the next is judged; before so many none is believed."""

CLOSE = 0.1
"""Error of a prediction, relative to the state, up to which Newton's method may begin there, and size of its steps."""

SURPRISE = 5.0
"""Largest error of a prediction over the expected one, which is corrected by the last ones."""

CHECKED = 2
"""First states from predictions that are checked by the ordinary way."""

EVERY = 24
"""Which of the others are."""

SAME = 1e-7
"""Difference between the two ways, relative to the state, up to which it is that of two approaches to one state."""

LOOSE = 100.0
"""The same in tolerances of Newton's method, where these are loose: at them the ordinary way ends."""

RECOVERY = 1.5
"""Factor by which the error of predictions to be tried grows again with each sample in which none was tried."""

PATIENCE = 32
"""Samples in a row by which it is judged whether predictions are worth their while."""

WORTH = 0.1
"""Share of the ordinary way's Newton steps that they must have saved then; else there are no more."""

OTHER_STATE = (
    "a warm start led to another state than the ordinary way, by {:.1e} of its size: there is more than one "
    "equilibrium. No other sample of this run is started so here; those that were may belong to another branch: "
    "compute them again without --warm-start"
)


class WarmStart:
    """Predicts states of one problem, and says where to begin. Collective, as are the methods.

    Args:
        equilibrium: Solves.
        unknown: What it solves for.
        bounds: Of the parameters, (n, 2).

    Attributes:
        begun: Load paths whose ends were found from a prediction, and believed or checked.
    """

    def __init__(self, equilibrium: Equilibrium, unknown: dolfinx.fem.Function, bounds: np.ndarray) -> None:
        self._equilibrium, self._unknown, self._comm = equilibrium, unknown, equilibrium.comm
        # prescribed values, and what follows others, are put in place by themselves
        self._free = equilibrium.tangent.is_solved_for()
        self._prediction: StatePrediction | None = StatePrediction(self._comm, len(self._free), bounds)
        self._scale = np.inf
        self._ratios: deque[float] = deque(maxlen=LOOK_BACK)
        self._ordinary: deque[int] = deque(maxlen=LOOK_BACK)
        self._close = CLOSE
        self._failures = self.begun = 0
        self._saved: deque[float] = deque(maxlen=PATIENCE)
        self.aim(None)

    @property
    def wants_slopes(self) -> bool:
        """Whether derivatives of the state by the parameters would be learned."""
        return self._x is not None and self._prediction is not None and self._prediction.wants_slopes

    def aim(self, x: np.ndarray | None) -> None:
        """Take the parameters (n,) of the next load path; None where that is to go the ordinary way, unnoticed."""
        self._x = None if self._prediction is None else x
        self._guess: tuple[np.ndarray, float] | None = None
        self._to_check: np.ndarray | None = None
        self._found = False

    def begin(self, factor: float) -> bool:
        """Find the end of the load path, at a load factor, from a prediction. Its loads are in place.

        Returns:
            Whether that was found; otherwise the ordinary way is to be gone.
        """
        saved = 0.0
        if self._x is None or self._prediction is None:
            return False
        if len(self._prediction) > 1:
            self._guess = state, error = self._prediction.at(self._x)
            expected, size = error * max([1.0, *self._ratios]), self._norm(state)
            if len(self._ratios) >= LOOK_BACK and expected < self._close * size:
                before = self._equilibrium.steps
                self._found = self._try(state, factor, expected, size)
                saved = self._found - (self._equilibrium.steps - before) / float(np.mean(self._ordinary))
                # after a failure only what promises to be closer is tried
                self._failures = 0 if saved > 0.0 else self._failures + 1
                self._close = min(CLOSE, 2.0 * self._close) if saved > 0.0 else 0.5**self._failures * expected / size
            else:
                self._close = min(CLOSE, RECOVERY * self._close)
        self.begun += self._found
        self._saved.append(saved)
        if self._found and (self.begun <= CHECKED or self.begun % EVERY == 0):
            self._to_check, self._found = self._state(), False
        self._start = self._equilibrium.steps
        return self._found

    def _try(self, state: np.ndarray, factor: float, expected: float, size: float) -> bool:
        """Whether an equilibrium is found from a prediction of that size with that expected error."""
        self._equilibrium.pivots.begin_step()
        try:
            self._equilibrium.begin_at(state, factor)
            self._equilibrium.solve(near=Contraction(self._scale, CLOSE * size))
            return not self._equilibrium.pivots.seen and self._norm(self._state() - state) <= SURPRISE * expected
        except NotConverged:
            return False

    def learn(self, stability: Stability, slopes: np.ndarray | None) -> None:
        """Learn of the state that was found, by whichever way, once.

        Args:
            stability: Of the load path.
            slopes: Derivatives of the state by the parameters (owned, n) at what is solved for; None if unknown.
        """
        if self._x is None or self._prediction is None:
            return
        state, x = self._state(), self._x
        size = max(self._norm(state), np.finfo(float).tiny)
        off = 0.0 if self._to_check is None else self._norm(self._to_check - state) / size
        other = off > max(SAME, LOOSE * self._equilibrium.newton.rtol)
        idle = len(self._saved) == PATIENCE and np.mean(self._saved) < WORTH
        if other or stability.negative_pivots != 0 or idle:
            self._prediction = None
            if other:  # where a warning is an error, it is one on all ranks
                text = OTHER_STATE.format(off) if self._comm.rank == 0 else ""
                together(self._comm, lambda: text and warnings.warn(text, RuntimeWarning, stacklevel=2))
            return
        if not self._found:
            self._ordinary.append(self._equilibrium.steps - self._start)
            self._scale = min(self._scale, self._equilibrium.residuals[0])
        if self._guess is not None:
            self._ratios.append(self._norm(self._guess[0] - state) / max(self._guess[1], np.finfo(float).tiny))
        if not stability.crossings:
            self._prediction.add(x, state, None if slopes is None else slopes * self._free[:, None])
        self.aim(None)

    def _state(self) -> np.ndarray:
        return np.where(self._free, self._unknown.x.array[: len(self._free)], 0.0)

    def _norm(self, owned: np.ndarray) -> float:
        return float(np.sqrt(self._comm.allreduce(float(np.einsum("i,i", owned, owned)), op=MPI.SUM)))
