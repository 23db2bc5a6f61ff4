"""Any family, on logarithms."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from surrogate.families.base import Family, Learned, Watch
from surrogate.families.solved import Solved
from surrogate.logarithm import Axes, LogarithmicModule, Logarithms, between, input_axes, output_axes
from surrogate.loss import Targets
from surrogate.scaling import Scaling


@dataclass(frozen=True)
class Logarithmic:
    """A family that learns logarithms of responses as functions of logarithms of inputs.

    Mechanics is full of products and powers: a displacement goes with load over stiffness, a frequency with its root,
    and among logarithms all that is linear (Box & Cox 1964 on such transformations). What is positive or negative all
    over the box, or on all samples, is taken the logarithm of; what changes sign is left as it is, and so are inputs
    that come nearer to zero than samples show.

    Attributes:
        family: What learns.
        scaling: Between physical units and those of the samples: `fit` sets it.
    """

    family: Family = Solved()  # noqa: RUF009  (frozen)
    scaling: Scaling | None = None

    def __post_init__(self) -> None:
        """Refuse logarithms of logarithms."""
        if hasattr(self.family, "within"):
            raise TypeError(f"{self.family.name} is given physical units by fit, and can't learn inside another family")

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"{self.family.name} of logarithms"

    def within(self, scaling: Scaling) -> Logarithmic:
        """The same for samples scaled in this way."""
        return replace(self, scaling=scaling)

    def refuses(self, targets: Targets) -> str:
        """Where there is nothing to take the logarithm of."""
        inputs, outputs = self._axes(targets)
        if not (inputs.sign.any() or outputs.sign.any()):
            return "no input and no response keeps to one side of zero"
        return self.family.refuses(between(inputs, outputs, targets))

    def learn(self, targets: Targets, *, seed: int, watch: Watch, trial: bool = False) -> Learned:
        """Have the family learn the logarithms.

        Raises:
            ArithmeticError: If it fails.
        """
        inputs, outputs = self._axes(targets)
        found = self.family.learn(between(inputs, outputs, targets), seed=seed, watch=watch, trial=trial)
        module = LogarithmicModule.around(found.module, inputs.to("cpu"), outputs.to("cpu"))
        return replace(found, module=module.eval(), network=Logarithms(found.network), noise=None)

    def _axes(self, targets: Targets) -> tuple[Axes, Axes]:
        if self.scaling is None:
            raise ValueError("Logarithmic does not know where zero is: give it the scaling of the samples, as fit does")
        with torch.no_grad():
            return input_axes(self.scaling, targets.x), output_axes(self.scaling, targets.y)
