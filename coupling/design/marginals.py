"""How one input is distributed: evenly, by its logarithm, normally about a centre, or as any distribution of SciPy.

All are truncated to the bounds, outside which a model can't be evaluated.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
import math
from typing import Any

import numpy as np

KINDS = {"uniform": 0, "log": 0, "normal": 2, "lognormal": 2}
"""Kinds of marginal distributions of our own, and how many numbers each takes."""

HOW = "uniform, log, normal:MEAN,STD or lognormal:MEDIAN,STD"


@dataclass(frozen=True)
class Marginal:
    """The distribution of one input.

    Args:
        kind: "uniform"; "log", uniform in the logarithm; "normal", or "lognormal": normal in the logarithm; or the name
            of a continuous distribution of `scipy.stats`.
        centre: Mean of a normal, median of a lognormal distribution.
        spread: Standard deviation of the value, or of its natural logarithm.
        numbers: Shape parameters, `loc` and `scale` of a distribution of SciPy, by name.
        custom: A frozen distribution that SciPy has no name for.
    """

    kind: str
    centre: float = 0.0
    spread: float = 0.0
    numbers: tuple[tuple[str, float], ...] = ()
    custom: Any = None

    def __post_init__(self) -> None:
        if self.of_scipy:
            _ = self.frozen  # refused now
            return
        if self.normal and not (math.isfinite(self.centre) and 0.0 < self.spread < math.inf):
            raise ValueError(
                f"{self.kind} has centre {self.centre:g} and spread {self.spread:g}; expected spread > 0: an input "
                "that does not scatter is held at its value (--fix NAME=VALUE)"
            )
        if self.kind == "lognormal" and self.centre <= 0.0:
            raise ValueError(f"lognormal has median {self.centre:g}, expected a positive one")

    @classmethod
    def of(cls, how: Marginal | str | Any) -> Marginal:
        """A marginal as such, from text, or from a frozen distribution of SciPy such as `weibull_min(2, scale=3)`.

        Raises:
            ValueError: If a text can't be read, or a distribution is not continuous or of several variables.
            TypeError: If it is nothing like that.
        """
        if isinstance(how, Marginal):
            return how
        if isinstance(how, str):
            return parse(how)
        if not hasattr(how, "dist") or not hasattr(how, "kwds"):
            raise TypeError(
                f"{how!r} is no distribution; give a Marginal, its text, or a frozen one of scipy.stats, such as "
                "weibull_min(2, scale=3)"
            )
        import scipy.stats  # takes a second to import

        name, names = how.dist.name, _parameters(how.dist)
        numbers = dict(zip(names, how.args, strict=False)) | how.kwds
        if several := [key for key, value in numbers.items() if np.ndim(value)]:
            raise ValueError(f"{', '.join(several)} of {name} has several values; give one distribution per input")
        custom = how if type(getattr(scipy.stats, name or "", None)) is not type(how.dist) else None
        if custom is None and name in KINDS:  # SciPy's, all of whose numbers are said
            numbers = {"loc": 0.0, "scale": 1.0} | numbers
        said = tuple((key, float(numbers[key])) for key in names if key in numbers)
        return cls(name or type(how.dist).__name__, numbers=said, custom=custom)

    def __str__(self) -> str:
        """As `parse` reads it."""
        return self.written(lambda value: f"{value:g}")

    def written(self, number: Callable[[float], str]) -> str:
        """As `parse` reads it, with numbers as a function writes them."""
        words = [f"{name}={number(value)}" for name, value in self.numbers]
        words += [number(self.centre), number(self.spread)] if self.normal else []
        return f"{self.kind}:{','.join(words)}" if words else self.kind

    @property
    def of_scipy(self) -> bool:
        """Whether it is one of SciPy's distributions."""
        return self.kind not in KINDS or bool(self.numbers) or self.custom is not None

    @cached_property
    def frozen(self) -> Any:
        """The distribution of SciPy, with its numbers.

        Raises:
            ValueError: If there is none of that name, or its numbers are none that it can have.
        """
        if self.custom is not None:
            found = self.custom
            if not callable(getattr(found.dist, "logpdf", None)):
                raise ValueError(f"{self.kind} is not continuous; inputs have densities")
        else:
            import scipy.stats  # takes a second to import

            law = getattr(scipy.stats, self.kind, None)
            if not isinstance(law, scipy.stats.rv_continuous):
                raise ValueError(
                    f"no distribution is called {self.kind!r}; there are {', '.join(KINDS)}, and continuous ones of "
                    "SciPy, as weibull_min:c=2,scale=3"
                )
            given, names = dict(self.numbers), _parameters(law)
            if len(given) < len(self.numbers):
                raise ValueError(f"{self} says one of its numbers twice; say it once")
            if set(given) - set(names) or not set(names) - {"loc", "scale"} <= set(given):
                raise ValueError(
                    f"SciPy's {self.kind} has the numbers {', '.join(names)}, but {', '.join(given) or 'none'} are "
                    f"given; write {self.kind}:{','.join(f'{name}=...' for name in names)}"
                )
            found = law(**given)
        if not math.isfinite(found.ppf(0.5)):
            raise ValueError(f"{self} is no distribution: its numbers are none that SciPy's {self.kind} can have")
        return found

    @property
    def logarithmic(self) -> bool:
        """Whether it is flat or normal in the logarithm of the input."""
        return not self.of_scipy and self.kind in ("log", "lognormal")

    @property
    def normal(self) -> bool:
        """Whether it has a centre and a spread."""
        return not self.of_scipy and KINDS[self.kind] > 0


def _parameters(law: Any) -> list[str]:
    """Names of the numbers of a distribution of SciPy, in their order."""
    return [*(law.shapes.split(", ") if law.shapes else ()), "loc", "scale"]


def parse(text: str) -> Marginal:
    """A marginal distribution from text.

    `uniform`, `log`, `normal:MEAN,STD`, `lognormal:MEDIAN,STD_OF_LOG`, or SciPy's, as `weibull_min:c=2,scale=3`.
    """
    kind, _, rest = text.partition(":")
    words = rest.split(",") if rest else []
    if kind in KINDS and "=" not in rest:
        try:
            numbers = [float(word) for word in words]
        except ValueError:
            numbers = []
        if len(numbers) != KINDS[kind]:
            raise ValueError(f"{text!r} is no distribution; write {HOW}")
        centre, spread = numbers or (0.0, 0.0)
        return Marginal(kind, centre, spread)
    return Marginal(kind, numbers=tuple(_named(word) for word in words))


def _named(word: str) -> tuple[str, float]:
    """The name and the value of a number; not a number where it is none."""
    name, _, value = word.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        return name.strip(), math.nan
