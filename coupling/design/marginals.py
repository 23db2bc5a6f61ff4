"""How one input is distributed over its bounds: evenly, by its logarithm, or normally about a centre.

All are truncated to the bounds, outside which a model can't be evaluated.
"""

from __future__ import annotations

from dataclasses import dataclass
import math

KINDS = {"uniform": 0, "log": 0, "normal": 2, "lognormal": 2}
"""Kinds of marginal distributions, and how many numbers each takes."""


@dataclass(frozen=True)
class Marginal:
    """The distribution of one input.

    Args:
        kind: "uniform"; "log", uniform in the logarithm; "normal", or "lognormal": normal in the logarithm.
        centre: Mean of a normal, median of a lognormal distribution.
        spread: Standard deviation of the value, or of its natural logarithm.
    """

    kind: str
    centre: float = 0.0
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"no distribution is called {self.kind!r}; there are {', '.join(KINDS)}")
        if self.normal and not (math.isfinite(self.centre) and 0.0 < self.spread < math.inf):
            raise ValueError(
                f"{self.kind} has centre {self.centre:g} and spread {self.spread:g}; expected spread > 0: an input "
                "that does not scatter is held at its value (--fix NAME=VALUE)"
            )
        if self.kind == "lognormal" and self.centre <= 0.0:
            raise ValueError(f"lognormal has median {self.centre:g}, expected a positive one")

    def __str__(self) -> str:
        """As `parse` reads it."""
        return f"{self.kind}:{self.centre:g},{self.spread:g}" if self.normal else self.kind

    @property
    def logarithmic(self) -> bool:
        """Whether it is flat or normal in the logarithm of the input."""
        return self.kind in ("log", "lognormal")

    @property
    def normal(self) -> bool:
        """Whether it has a centre and a spread."""
        return KINDS[self.kind] > 0


def parse(text: str) -> Marginal:
    """A marginal distribution from text: `uniform`, `log`, `normal:MEAN,STD` or `lognormal:MEDIAN,STD_OF_LOG`."""
    kind, _, rest = text.partition(":")
    try:
        numbers = [float(word) for word in rest.split(",")] if rest else []
    except ValueError:
        numbers = []
    if kind in KINDS and len(numbers) != KINDS[kind]:
        raise ValueError(f"{text!r} is no distribution; write uniform, log, normal:MEAN,STD or lognormal:MEDIAN,STD")
    return Marginal(kind, *numbers)
