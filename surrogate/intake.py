"""Samples on their way into an online training."""

from __future__ import annotations

from collections.abc import Sequence

from numpy.typing import ArrayLike

from surrogate import arrays
from surrogate.device import neutral
from surrogate.online_settings import OnlineSettings
from surrogate.reservoir import Reservoir
from surrogate.samples import as_bounds, check_finite, check_inside, check_names, check_shapes


class Intake:
    """Takes samples of one problem into a reservoir, whole and checked.

    Args:
        parameters: Names of the n inputs.
        responses: Names of the m outputs.
        bounds: The box that the inputs live in, (n, 2).
        settings: What the samples are for.

    Attributes:
        reservoir: The samples held.

    Raises:
        ValueError: If names repeat or bounds have the wrong shape.
    """

    def __init__(
        self, parameters: Sequence[str], responses: Sequence[str], bounds: ArrayLike, settings: OnlineSettings
    ) -> None:
        self.settings = settings
        self.parameters = arrays.names_of(parameters, "parameters")
        self.responses = arrays.names_of(responses, "responses")
        check_names(self.parameters, self.responses)
        self.bounds = as_bounds(bounds, self.parameters)
        self.reservoir = Reservoir(settings.capacity, settings.watermark, seed=int(settings.seed))

    @property
    def room(self) -> int:
        """Samples that can be added before the next step: what may be out as work, at most."""
        return self.reservoir.room

    @property
    def received(self) -> int:
        """Samples that ever came in, each counted once."""
        return self.reservoir.received

    @property
    def unseen(self) -> int:
        """Samples that no step has used yet: step on until there are none before `finish`."""
        return self.reservoir.unseen

    def knows(self, row: int) -> bool:
        """Whether the sample of this design row ever came in: a resumed job need not send it again."""
        return self.reservoir.knows(row)

    @neutral()
    def add(self, rows: ArrayLike, x: ArrayLike, y: ArrayLike, jacobian: ArrayLike | None = None) -> int:
        """Take in samples in physical units; those whose row is known already are ignored.

        Args:
            rows: Design rows (N,), whole numbers that identify the samples.
            x: Inputs (N, n).
            y: Responses (N, m).
            jacobian: Jacobians dy/dx (N, m, n); None only with a weighting that uses none.

        Returns:
            The number of new samples.

        Raises:
            ValueError: If shapes don't fit, a sample holds NaN or infinity or lies outside the bounds, there is no
                `room`, or `end` was called; nothing was taken in then.
        """
        weighting = self.settings.weighting
        if weighting.uses_jacobian and jacobian is None:
            raise ValueError(f"{weighting} weighs sensitivities, but the samples hold no Jacobians; use ValuesOnly()")
        arrays.check_rows(x=x, y=y, jacobian=jacobian)
        points, values = arrays.table(x, self.parameters, "x"), arrays.table(y, self.responses, "y")
        slopes = None
        if weighting.uses_jacobian:
            slopes = arrays.jacobians(jacobian, self.responses, self.parameters, "jacobian")
        check_shapes(points, values, slopes, self.parameters, self.responses)
        check_finite(points, values, slopes)
        check_inside(points, self.bounds, self.parameters)
        return self.reservoir.put(rows, x=points, y=values, jacobian=slopes)

    def end(self) -> None:
        """No more samples will come."""
        self.reservoir.close()
