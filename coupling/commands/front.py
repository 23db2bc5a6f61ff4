"""`sobofem optimize --pareto`: a front of a surrogate, points of which the model certifies."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
import numpy as np

from sobofem.coupling.contract import Model, describe, units_of
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.optimize import Front, Step, Task, pareto
from sobofem.coupling.optimize.front_report import front_picture, show_front, write_front
from sobofem.coupling.parallel.abort import ranks
from sobofem.coupling.parallel.interruption import keeping
from sobofem.coupling.parallel.world import on_root, world
from sobofem.coupling.report.geometry import fields_figure, is_drawable, states

DRAWN = 3
"""Points of a front at which the structure is drawn: both ends, and the middle."""


@dataclass(eq=False)
class FrontSearch:
    """A front under way, and where its record goes.

    Attributes:
        name: What the model is called.
        model: The model.
        task: What is asked for; its objective names all objectives.
        tolerance: Of an optimum.
        steps: The solves so far, on rank 0.
        data: Where these are kept, or None.
        out: The JSON file for its record, or None.
        uncertain: Which inputs are uncertain, and what is taken of the responses, in a sentence; empty without any.
        front: The front so far.
        waiting: Points of it that the model is still to certify.
        begun: How many solves there were before the first of these.
    """

    name: str
    model: Model | str
    task: Task
    tolerance: float
    steps: list[Step]
    data: Path | None
    out: Path | None
    uncertain: str = ""
    front: Front | None = None
    waiting: list[int] = field(default_factory=list)
    begun: int = 0

    def __call__(self, points: int, seed: int, how: dict[str, Any], picture: Path | None) -> bool:
        """Find it, certify points of it, show and write it; whether the model certifies all of these. Collective.

        Args:
            points: How many points the model is to certify.
            seed: Of the evolution on the surrogate.
            how: Arguments of `Front.certify`; a surrogate that is None is trained on the samples at hand.
            picture: Where to draw the front, or None.
        """
        model, task = self.model, self.task
        if isinstance(model, str):
            raise ValueError("a front is certified point by point; leave --ranks-per-solve out")
        if task.discrete:
            raise ValueError("a front over discrete parameters is not offered; fix them, one value after the other")
        with keeping(self._kept):
            how = how | {"surrogate": how["surrogate"] or _fitted(how["path"])}
            self.front = front = self._cheap(how["surrogate"], seed)
            most = min(points, len(front.x))
            self.waiting = np.unique(np.linspace(0, len(front.x) - 1, most).round().astype(int)).tolist()
            try:
                self._certify(model, how)
            except Exception as error:
                self._write(f"the search ended with an error: {error}")
                raise
            front = self.front
            if ranks()[0] == 0:
                show_front(front, units_of(model))
                self._write()
                if picture is not None:
                    front_picture(front, picture)
        with keeping(lambda: f"{self.out} is complete, but for pictures of the structure"):
            self._draw(model)
        return not front.unanswered and all(solution.certified for solution in front.certificates.values())

    def _cheap(self, cheap: Model, seed: int) -> Front:
        """The front by the surrogate alone, found on rank 0."""
        weights, task = self.task.weights, self.task
        minimized = [name for name, weight in weights.items() if weight > 0.0]
        maximized = [name for name, weight in weights.items() if weight < 0.0]
        how: dict[str, Any] = {"at_most": task.at_most, "at_least": task.at_least, "fixed": task.fixed, "seed": seed}
        return on_root(world(), lambda: pareto(cheap, minimized + maximized, maximized=maximized, **how))

    def _certify(self, model: Model, how: dict[str, Any]) -> None:
        """Have the model certify one point after the other, from the samples of all before."""
        assert self.front is not None
        while self.waiting:
            self.begun = len(self.steps)
            self.front = self.front.certify(model, self.waiting[:1], **how)
            del self.waiting[0]

    def _kept(self) -> str:
        """What is there of an interrupted front, after that was written to the page."""
        kept = (
            f"all solves are in {self.data}: repeat the same command" if self.data else "with --data, solves are kept"
        )
        on = f"the command below goes on from {self.data.name}" if self.data else kept
        self._write(f"the search was interrupted; {on}")
        certified = 0 if self.front is None else sum(each.certified for each in self.front.certificates.values())
        return f"{certified} points are certified, {len(self.waiting)} are not yet; {kept}"

    def _write(self, why: str = "", fields: Figure | None = None) -> None:
        """Write what is there so far, and why it is not all."""
        if self.out is None or self.front is None or ranks()[0] != 0:
            return
        assert not isinstance(self.model, str)
        about = replace(describe(self.model), name=self.name)
        how: dict[str, Any] = {"waiting": self.waiting, "under_way": self.steps[self.begun :] if self.waiting else ()}
        how |= {"tolerance": self.tolerance, "why": why, "fields": fields, "uncertain": self.uncertain}
        write_front(self.front, self.out, about, **how)

    def _draw(self, model: Model) -> None:
        """Solve at both ends of the front and in its middle, for a picture of the structure. Collective."""
        assert self.front is not None
        rows = sorted(self.front.certificates)
        if self.out is None or not rows or not is_drawable(model):
            return
        kept = np.unique(np.linspace(0, len(rows) - 1, DRAWN).round().astype(int))
        shown = states(model, {f"point {rows[k]}": self.front.x[rows[k]] for k in kept})
        if shown and ranks()[0] == 0:
            self._write(fields=fields_figure(shown))


def _fitted(data: Path | None) -> Model:
    """A surrogate of the samples at hand."""
    if data is None or not data.exists():
        raise ValueError("a front is sought on a surrogate: give --surrogate, or --data with samples to train one on")
    from sobofem import surrogate

    fitted: Model = surrogate.fit(Dataset.open(data))
    return fitted
