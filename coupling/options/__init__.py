"""Options of a task, each in one place: a field of a settings dataclass with its default, flag, unit and help.

The command line is made from these fields; study files and scripts fill them in by name.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import MISSING, Field, dataclass, field, fields
import inspect
import operator
from typing import Annotated, Any, Protocol, get_type_hints

import typer


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
