"""The figures of docs/benchmarks.md, from the files of results.

`python -m benchmarks.page` writes them again.

A result is written by `python -m benchmarks NAME --keep`: a file `figures/NAME.json` with the rows of its table, the
command, the machine and the versions. On the page it stands between two comments that name it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
import datetime
import json
import os
from pathlib import Path
import platform
import re

from rich.table import Table
from rich.text import Text

from sobofem.coupling.dataset.origin import versions

ROOT = Path(__file__).parents[1]
FIGURES = ROOT / "benchmarks" / "figures"
PAGE = ROOT / "docs" / "benchmarks.md"
RIVALS = ("scipy", "torch", "dolfin-adjoint", "smt", "jenn", "gpytorch")
"""Packages whose versions count beside ours, where they are installed."""

_BLOCK = re.compile(r"<!-- figures: (\w+) -->\n.*?<!-- end of figures -->", re.DOTALL)


@dataclass(frozen=True)
class Figures:
    """A table of a benchmark, and what it was measured on.

    Attributes:
        name: Of the benchmark.
        command: Prints it.
        date: Of the measurement.
        machine: System, processor and cores.
        versions: By package.
        columns: Their headers.
        rows: A text for each column.
        caption: What is said below.
    """

    name: str
    command: str
    date: str
    machine: str
    versions: dict[str, str]
    columns: list[str]
    rows: list[list[str]]
    caption: str = ""

    @classmethod
    def of(cls, name: str, table: Table) -> Figures:
        """What a benchmark has just measured here."""
        cells = [[_plain(cell) for cell in column.cells] for column in table.columns]
        return cls(
            name,
            f"python -m benchmarks {name}",
            datetime.date.today().isoformat(),
            machine(),
            versions(*RIVALS),
            [_plain(column.header) for column in table.columns],
            [list(row) for row in zip(*cells, strict=True)],
            _plain(table.caption or ""),
        )

    def save(self, folder: Path = FIGURES) -> Path:
        """Write the file of this result; returns which."""
        folder.mkdir(exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        return path

    @classmethod
    def open(cls, path: Path) -> Figures:
        """What `save` wrote."""
        return cls(**json.loads(path.read_text()))

    def markdown(self) -> str:
        """The table, and below it how it was measured."""
        lines = [self.columns, ["---"] * len(self.columns), *self.rows]
        table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
        with_versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        caption = f"{self.caption}. " if self.caption else ""
        return f"{table}\n\n{caption}`{self.command}`, {self.date}; {self.machine}; {with_versions}."


def machine() -> str:
    """This machine in words, without its name."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = re.search(r"model name\s*: (.*)", text)
    return f"{platform.system()}, {model[1] if model else platform.machine()}, {os.cpu_count()} cores"


def filled(page: str, figures: dict[str, Figures]) -> str:
    """The page with the figures of each name in their place.

    Raises:
        ValueError: If there are none of a name that the page has.
    """

    def block(found: re.Match[str]) -> str:
        name = found[1]
        if name not in figures:
            raise ValueError(f"there is no figures/{name}.json; python -m benchmarks {name} --keep writes it")
        return f"<!-- figures: {name} -->\n\n{figures[name].markdown()}\n\n<!-- end of figures -->"

    return _BLOCK.sub(block, page)


def kept() -> dict[str, Figures]:
    """All results that were kept, by name."""
    return {path.stem: Figures.open(path) for path in sorted(FIGURES.glob("*.json"))}


def write() -> None:
    """Put all results that were kept into the page."""
    PAGE.write_text(filled(PAGE.read_text(), kept()))


def _plain(cell: object) -> str:
    return cell.plain if isinstance(cell, Text) else Text.from_markup(str(cell)).plain


if __name__ == "__main__":
    write()
