"""Options of a task, each in one place: a field of a settings dataclass with its default, flag, unit and help.

The command line is made from these fields; study files and scripts fill them in by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
import inspect
import math
import operator
from typing import Annotated, Any, Protocol, get_type_hints

import typer

from sobofem.coupling.design.marginals import Marginal, parse


class Reading(Protocol):
    """How the texts of a repeatable option become one value, and back."""

    @property
    def metavar(self) -> str:
        """What help shows in place of a text."""

    def read(self, texts: Sequence[tuple[str, str]]) -> Any:
        """The value of some texts, each with the flag before it; ValueError if they are none."""

    def write(self, value: Any, flags: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Texts, each with its flag, that `read` makes that value of."""


@dataclass(frozen=True)
class Option:
    """What the command line has to know of a field.

    Attributes:
        help: What it is, with its unit; a line for each flag.
        flags: How it is called; by default as its field.
        metavar: What help shows in place of a value.
        panel: Heading in the help that it stands under.
        min: Smallest value that the command line takes.
        max: Largest one.
        reading: How its texts are read where it may be repeated.
        needs: Argument of the command without which it has no effect.
        positional: Whether it is given by its place instead of a flag.
    """

    help: str
    flags: tuple[str, ...] = ()
    metavar: str | None = None
    panel: str | None = None
    min: float | None = None
    max: float | None = None
    reading: Reading | None = None
    needs: str = ""
    positional: bool = False


def option(default: Any = MISSING, *, help: str, flags: str = "", **rest: Any) -> Any:
    """Field of a settings dataclass that is an option of a command, too.

    Args:
        default: Its default, or a function that makes it (`dict`); without one the field is required.
        help: What it is, with its unit.
        flags: How the command line calls it where that isn't the field's name; several, with spaces between.
        rest: Others of `Option`.
    """
    metadata = {"option": Option(help, tuple(flags.split()), **rest)}
    if default is MISSING:
        return field(metadata=metadata)
    return (
        field(default_factory=default, metadata=metadata)
        if callable(default)
        else field(default=default, metadata=metadata)
    )


def options_of(settings: type[Any]) -> Iterator[tuple[Field[Any], Option, tuple[str, ...]]]:
    """The fields of a settings dataclass that are options, what is said of them, and their flags."""
    for each in fields(settings):
        if said := each.metadata.get("option"):
            yield each, said, said.flags or (f"--{each.name.replace('_', '-')}",)


def parameters(settings: type[Any]) -> Iterator[inspect.Parameter]:
    """Parameters of a function for typer, one for each flag of the options."""
    hints = get_type_hints(settings)
    for each, said, flags in options_of(settings):
        if said.positional:
            place = typer.Argument(metavar=each.name.upper(), help=said.help, show_default=False)
            yield _parameter(each.name, Annotated[hints[each.name], place], inspect.Parameter.empty)
            continue
        for flag, text in zip(flags, said.help.split("\n"), strict=True):
            about = typer.Option(
                flag,
                help=text,
                metavar=said.metavar or (said.reading.metavar if said.reading else None),
                rich_help_panel=said.panel,
                min=said.min,
                max=said.max,
            )
            kind = hints[each.name] if said.reading is None else list[str] | None
            default = None if said.reading is not None or each.default is MISSING else each.default
            yield _parameter(key(flag), Annotated[kind, about], default)


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def key(flag: str) -> str:
    """The name of a flag as a parameter."""
    return flag.lstrip("-").replace("-", "_")


def gathered[T](settings: type[T], values: dict[str, Any]) -> T:
    """The settings that values of the command line say; the values are taken out of the dictionary.

    Raises:
        ValueError: If a text can't be read, or contradicts another.
    """
    found: dict[str, Any] = {}
    for each, said, flags in options_of(settings):
        given = [(flag, values.pop(key(flag))) for flag in flags]
        if said.reading is None:
            found[each.name] = given[0][1]
        elif texts := [(flag, text) for flag, all_of_it in given for text in all_of_it or ()]:
            found[each.name] = said.reading.read(texts)
        elif each.default is MISSING and each.default_factory is MISSING:
            found[each.name] = said.reading.read([])  # which says what is missing
    return settings(**found)


def words(settings: Any, given: Sequence[str] = ()) -> list[str]:
    """The options that say settings on a command line; those with their defaults are left out.

    Args:
        settings: An instance of a settings dataclass.
        given: Arguments that the command has besides: without what they need, options have no effect.
    """
    found: list[str] = []
    for each, said, flags in options_of(type(settings)):
        value = getattr(settings, each.name)
        default = each.default if each.default_factory is MISSING else each.default_factory()
        if value == default or said.positional or (said.needs and said.needs not in given):
            continue
        if said.reading is not None:
            found += [word for pair in said.reading.write(value, flags) for word in pair]
        else:
            found += spelled(flags[0], value)
    return found


def check(settings: Any, given: Sequence[str] = ()) -> None:
    """Check that settings are within the range that the command line has, as far as they have an effect.

    Args:
        settings: An instance of a settings dataclass.
        given: Arguments that the command has besides.

    Raises:
        ValueError: If one is not.
    """
    for each, said, _ in options_of(type(settings)):
        value = getattr(settings, each.name)
        if not isinstance(value, int | float) or (said.needs and said.needs not in given):
            continue
        for limit, within, words in ((said.min, operator.ge, "at least"), (said.max, operator.le, "at most")):
            if limit is not None and not within(value, limit):  # NaN is within no range
                raise ValueError(f"{each.name} of {type(settings).__name__} is {value}, expected {words} {limit}")


def places(settings: Any) -> list[str]:
    """What a command line says of settings by its place."""
    return [str(getattr(settings, each.name)) for each, said, _ in options_of(type(settings)) if said.positional]


def spelled(flag: str, value: Any) -> list[str]:
    """An option with its value, as words of a command line; floating-point numbers to the last digit."""
    if value is None or value is False:
        return []
    if value is True:
        return [flag]
    return [flag, repr(value) if isinstance(value, float) else str(value)]


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


def exact_marginal(marginal: Marginal) -> str:
    """A distribution as `parse` reads it, to the last digit."""
    return f"{marginal.kind}:{marginal.centre!r},{marginal.spread!r}" if marginal.normal else marginal.kind


def values(example: str) -> Named[float]:
    """Texts NAME=VALUE of numbers."""
    return Named("NAME=VALUE", example, number, exact)


def distributions(example: str, metavar: str = "NAME=HOW") -> Named[Marginal]:
    """Texts NAME=HOW of distributions."""
    return Named(metavar, example, parse, exact_marginal)


CHOICES = Named[Sequence[float]](
    "NAME=A,B,C",
    "layers=1,2,3",
    lambda text: tuple(number(each) for each in text.split(",")),
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
