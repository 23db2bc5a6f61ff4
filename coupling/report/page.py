"""Pages that a colleague can read: one HTML file of sections, tables and figures that needs nothing else.

A study says what is on its page by a `Page`; how that looks is in `page.html`, which escapes all that it is given.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
import json
import math
from pathlib import Path
from typing import Any, Literal

import jinja2
from markupsafe import Markup, escape
from matplotlib.figure import Figure

from sobofem.coupling.contract import shown
from sobofem.coupling.dataset import origin
from sobofem.coupling.report.vector import as_html

State = Literal["good", "bad", "open"]
"""Whether a result may be relied upon, may not, or is not there yet."""


@dataclass(frozen=True)
class Number:
    """A number, and how it is written.

    Attributes:
        value: As it stands in the record.
        text: As it stands on the page.
    """

    value: float
    text: str


type Cell = str | int | float | Number | None
"""What stands in a table: texts as they are, numbers to six digits, nothing for None."""


@dataclass(frozen=True)
class Table:
    """A table, whose first column says what each row is about.

    Attributes:
        heading: Titles of the columns.
        rows: Of as many cells each; of thousands of them the page shows those at both ends.
        caption: What it shows.
    """

    heading: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    caption: str = ""

    def columns(self) -> Iterator[tuple[str, bool]]:
        """Title of each column, and whether it holds numbers."""
        for k, title in enumerate(self.heading):
            yield title, k > 0 and any(_number(row[k]) for row in self.rows)

    def shown(self) -> Iterator[Sequence[Cell]]:
        """The rows that the page has."""
        kept, gap = shown(len(self.rows))
        for place, k in enumerate(kept):
            if gap and place == gap:
                yield [f"… {len(self.rows) - len(kept)} others", *[""] * (len(self.heading) - 1)]
            yield self.rows[k]


@dataclass(frozen=True, eq=False)
class Picture:
    """A figure in a page.

    Attributes:
        figure: As matplotlib draws it, on any background.
        alt: What there is to see, for those who can't.
        caption: What stands below it.
    """

    figure: Figure
    alt: str
    caption: str = ""


@dataclass(frozen=True)
class Points:
    """Sentences, each with a bullet."""

    sentences: Sequence[str]


type Part = str | Table | Picture | Points


@dataclass(frozen=True)
class Section:
    """A part of a page with a title.

    Attributes:
        title: Its title.
        parts: Prose, tables, figures.
        folded: Whether it is long and seldom read: it then opens by a click.
    """

    title: str
    parts: Sequence[Part]
    folded: bool = False


@dataclass(frozen=True)
class Page:
    """A page.

    Attributes:
        title: What it is about.
        state: What to think of the result, for a colour.
        headline: The same in a word or two.
        verdict: The same in a sentence or two.
        warnings: What speaks against it, as sentences.
        sections: The rest.
        origin: Where it comes from, in words by what they tell, besides command, versions, ranks and time.
    """

    title: str
    state: State
    headline: str
    verdict: str
    sections: Sequence[Section]
    warnings: Sequence[str] = ()
    origin: Mapping[str, str] = field(default_factory=dict)

    def html(self, record: str = "", others: Sequence[str] = ()) -> str:
        """The page as text.

        Args:
            record: Name of the file beside it that holds its numbers.
            others: Names of further files beside it.
        """
        environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(Path(__file__).parent),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters |= {
            "kind": lambda part: type(part).__name__,
            "number": _number,
            "drawn": _drawn,
            "marked": _marked,
        }
        return environment.get_template("page.html").render(
            page=self,
            record=record,
            others=others,
            commands=origin.commands(),
            origin={**self.origin, **origin.origin()},
            written=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        )


def short(name: str) -> str:
    """What a model is called by itself, without the file or module that it is in."""
    return name.rpartition(":")[2] or name


def write_record(record: Any, path: Path) -> None:
    """Write plain values as JSON, with null for numbers that JSON does not have; whole or not at all."""
    _write(json.dumps(finite(record), indent=2, allow_nan=False) + "\n", path)


def write_page(page: Page, path: Path, *, record: str = "", others: Sequence[str] = ()) -> None:
    """Write a page to an HTML file, whole or not at all.

    Args:
        page: What it shows.
        path: Where.
        record: Name of the file beside it that holds its numbers.
        others: Names of further files beside it.
    """
    _write(page.html(record, others), path)


def _write(text: str, path: Path) -> None:
    """To a file beside it first: a signal may end the program meanwhile."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)


def finite(value: Any) -> Any:
    """The same with None for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _number(cell: Cell) -> Number | None:
    """A cell as a number; None if it is none that can be written down."""
    if isinstance(cell, Number):
        return cell if math.isfinite(cell.value) else None
    if isinstance(cell, bool) or not isinstance(cell, int | float) or not math.isfinite(cell):
        return None
    return Number(cell, str(cell) if isinstance(cell, int) else f"{cell:.6g}")


def _marked(words: str) -> Markup:
    """Words, of which those between backticks are to be typed."""
    parts = [
        escape(part) if k % 2 == 0 else Markup("<code>{}</code>").format(part)
        for k, part in enumerate(words.split("`"))
    ]
    return Markup("").join(parts)


def _drawn(picture: Picture, number: int) -> Markup:
    return Markup(as_html(picture.figure, picture.alt, f"f{number}-"))
