"""Opponents on equal terms: each gets the same samples, and tunes itself on nothing else.

What is fixed in their files (bounds of noise, candidates, learning rates) was chosen with a look at test errors of one
design of a few closed forms: a head start that this project's arms must make up for. An opponent's package is imported
when it is first asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
import importlib

from benchmarks.rivals.base import Fit, Fitted, Scaled, tuned

__all__ = ["ARMS", "Arm", "Fit", "Fitted", "Scaled", "tuned"]


@dataclass(frozen=True)
class Arm:
    """One way to make a surrogate.

    Attributes:
        name: In tables.
        place: Function that trains it, `module:name`.
        version: Raised when it changes; results of other versions don't count.
        deterministic: Whether the seed changes nothing: it runs once a design.
        own: Whether it is this project's, and not an opponent of it.
        largest: Most labels of a response, N (1 + n), that it is asked to bear.
    """

    name: str
    place: str
    version: int = 1
    deterministic: bool = False
    own: bool = False
    largest: int | None = None

    def load(self) -> Fit:
        """The function that trains it."""
        module, _, name = self.place.partition(":")
        fit: Fit = getattr(importlib.import_module(module), name)
        return fit

    def bears(self, samples: int, inputs: int) -> bool:
        """Whether so many samples of so many inputs are not too many for it."""
        return self.largest is None or samples * (1 + inputs) <= self.largest


_HERE = "benchmarks.rivals"

ARMS = {
    arm.name: arm
    for arm in (
        Arm("values only", f"{_HERE}.networks:values_only"),
        Arm("jenn", f"{_HERE}.jacobian_enhanced:jacobian_enhanced"),
        Arm("GENN", f"{_HERE}.jacobian_enhanced:genn"),
        Arm("KRG", f"{_HERE}.kriging:krg", deterministic=True),
        Arm("GEKPLS", f"{_HERE}.kriging:gekpls", deterministic=True),
        Arm("GP", f"{_HERE}.gaussian_process:gaussian_process", deterministic=True, largest=2500),
        Arm("Sobolev", f"{_HERE}.networks:sobolev", own=True),
        Arm("fit", f"{_HERE}.networks:ours", version=7, own=True),
    )
}
"""Opponents first, then this project's: the perceptron by descent, and the default."""
