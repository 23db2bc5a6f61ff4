"""Readings of options that may be repeated: texts such as NAME=VALUE, and the values that they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

from sobofem.coupling.design.marginals import Marginal, parse


@dataclass(frozen=True)
class Named[T]:
    """Texts NAME=VALUE, of which a mapping by name is made.

    Attributes:
        metavar: What a text looks like.
        example: One that is right.
        parse: Makes a value of what follows the sign; ValueError if it is none.
        text: Writes a value.
    """

    metavar: str
    example: str
    parse: Callable[[str], T]
    text: Callable[[T], str]

    def read(self, texts: Sequence[tuple[str, str]]) -> dict[str, T]:
        """Values by name."""
        found: dict[str, T] = {}
        for flag, text in texts:
            name, _, value = text.partition("=")
            if not (name and value):
                raise ValueError(self.refusal(flag, text))
            if name in found:
                raise ValueError(f"{flag.lstrip('-')} {name!r} is given twice; give it once")
            try:
                found[name] = self.parse(value)
            except _NoNumberError as error:
                raise ValueError(self.refusal(flag, text)) from error
        return found

    def write(self, value: Mapping[str, T], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A text for each name."""
        return ((flags[0], f"{name}={self.text(each)}") for name, each in value.items())

    def refusal(self, flag: str, text: str) -> str:
        """Why a text can't be read, and how it is written."""
        return f"{text!r} is no {self.metavar}; write {flag} {self.example}"


class _NoNumberError(ValueError):
    """A text is no finite number."""


def number(text: str) -> float:
    """A finite number from text."""
    try:
        value = float(text)
    except ValueError as error:
        raise _NoNumberError(text) from error
    if not math.isfinite(value):
        raise _NoNumberError(text)
    return value


def exact(value: float) -> str:
    """A number to the last digit."""
    return repr(float(value))


def exact_marginal(how: Any) -> str:
    """A distribution, all that `Marginal.of` takes, as `parse` reads it, to the last digit.

    Raises:
        ValueError: If SciPy has no name for it.
    """
    marginal = Marginal.of(how)
    if marginal.custom is not None:
        raise ValueError(f"{marginal.kind} is a distribution of your own, which no command line can name")
    return marginal.written(exact)


def values(example: str, metavar: str = "NAME=VALUE") -> Named[float]:
    """Texts NAME=VALUE of numbers."""
    return Named(metavar, example, number, exact)


def distributions(example: str, metavar: str = "NAME=HOW") -> Named[Marginal]:
    """Texts NAME=HOW of distributions."""
    return Named(metavar, example, parse, exact_marginal)


LONGEST_RANGE = 100_000
"""Values that a range may stand for: more are a slip of the pen."""


def choices(text: str) -> tuple[float, ...]:
    """Numbers from text: `1,2,5`, from first to last by one as in `17..28`, or by another step as in `0.5..2:0.25`.

    Raises:
        ValueError: If a range is empty, or of more than 100,000 values.
    """
    found = list[float]()
    for part in text.split(","):
        first, dots, rest = part.partition("..")
        last, _, step = rest.partition(":")
        if not dots:
            found.append(number(part))
            continue
        a, b, by = number(first), number(last), number(step) if step else 1.0
        if not (by > 0.0 and a <= b and (b - a) / by < LONGEST_RANGE):
            raise ValueError(f"{part!r} is a range without values, or of too many; write FIRST..LAST:STEP")
        count = math.floor((b - a) / by + 1e-9) + 1
        found += [min(a + k * by, b) for k in range(count)]  # round-off leaves no bound
    return tuple(found)


CHOICES = Named[Sequence[float]](
    "NAME=A,B,C",
    "layers=1,2,3, or teeth=17..28",
    choices,
    lambda each: ",".join(map(exact, each)),
)
"""Texts NAME=A,B,C of numbers to choose from."""


class Names:
    """Texts A,B,C: names; all count where the option is repeated."""

    metavar = "A,B,C"

    def read(self, texts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """All names, in order."""
        return tuple(name.strip() for _, text in texts for name in text.split(",") if name.strip())

    def write(self, value: Sequence[str], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """All in one text."""
        yield flags[0], ",".join(value)


@dataclass(frozen=True)
class Texts:
    """Texts as they are."""

    metavar: str

    def read(self, texts: Sequence[tuple[str, str]]) -> tuple[str, ...]:
        """All of them, in order."""
        return tuple(text for _, text in texts)

    def write(self, value: Sequence[str], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A text each."""
        return ((flags[0], text) for text in value)


class Weights:
    """Texts NAME or NAME=WEIGHT: weights by name, which the second of two flags makes negative.

    A name alone, without a weight, is that name.
    """

    metavar = "NAME[=WEIGHT]"
    _pairs = values("mass=0.5")

    def read(self, texts: Sequence[tuple[str, str]]) -> str | dict[str, float]:
        """The sole name, or weights by name."""
        flags = list(dict.fromkeys(flag for flag, _ in texts))
        found: dict[str, float] = {}
        for flag in flags:
            pairs = [(flag, text if "=" in text else f"{text}=1") for each, text in texts if each == flag]
            sign = -1.0 if flag == "--maximize" else 1.0
            weights = {name: sign * weight for name, weight in self._pairs.read(pairs).items()}
            if both := sorted(set(found) & set(weights)):
                raise ValueError(f"{', '.join(both)} is to be minimized and maximized; give it once")
            found |= weights
        if not found:
            raise ValueError("nothing to minimize or maximize; name a response: --minimize mass")
        return texts[0][1] if len(texts) == 1 and flags == ["--minimize"] and "=" not in texts[0][1] else found

    def write(self, value: str | Mapping[str, float], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """A text for each response, under the flag of its sign."""
        if isinstance(value, str):
            return iter([(flags[0], value)])
        return ((flags[weight < 0.0], f"{name}={exact(abs(weight))}") for name, weight in value.items())


class Levels:
    """Texts K, or NAME=K: one number of levels, or numbers by name."""

    metavar = "K|NAME=K"

    def read(self, texts: Sequence[tuple[str, str]]) -> int | dict[str, int]:
        """One number for all, or numbers by name."""
        said = f"{texts[0][0]} {' '.join(text for _, text in texts)}"
        pairs = [text.rpartition("=") for _, text in texts]
        if not all(count.isdigit() and int(count) > 0 for _, _, count in pairs):
            raise ValueError(f"{said}: expected whole numbers K or NAME=K, at least 1")
        if len(pairs) == 1 and not pairs[0][0]:
            return int(pairs[0][2])
        if not all(name for name, _, _ in pairs):
            raise ValueError(f"{said}: one K for all inputs, or NAME=K for each that varies")
        return {name: int(count) for name, _, count in pairs}

    def write(self, value: int | Mapping[str, int], flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """One text for all, or one for each name."""
        every = value if isinstance(value, Mapping) else {"": value}
        return ((flags[0], f"{name}={count}" if name else str(count)) for name, count in every.items())
