"""Tables from text files as people's programs write them: encodings, separators, decimal commas, remarks.

What can be read in one way only is read; what is ambiguous or no table is refused, with the line and the way out.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
import io
import math
from pathlib import Path
import re

SEPARATORS = (",", ";", "\t", "|")
_MARKS = {b"\xff\xfe\x00\x00": "utf-32", b"\x00\x00\xfe\xff": "utf-32", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_NO_TEXT = {
    b"PK\x03\x04": "a workbook or another zip archive",
    b"\xd0\xcf\x11\xe0": "an old workbook",
    b"\x1f\x8b": "compressed",
}
_NOTHING = ("", "nan", "na", "n/a", "null", "none")
_POINT = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?|[-+]?(nan|inf|infinity)", re.IGNORECASE)
_COMMA = re.compile(r"[-+]?(\d+,\d*|,\d+)([eE][-+]?\d+)?")


@dataclass(frozen=True)
class Table:
    """Rows of cells below a header.

    Attributes:
        path: The file.
        header: Names of the columns.
        rows: The cells of each row, as many as columns.
        lines: The line of the file that each row begins at.
        separator: What stands between cells.
    """

    path: Path
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    lines: tuple[int, ...]
    separator: str

    def column(self, name: str) -> list[str]:
        """The cells of a column."""
        k = self.header.index(name)
        return [row[k] for row in self.rows]

    def numbers(self, name: str, *, missing: bool = False) -> list[float]:
        """The finite numbers of a column; a decimal comma is read where cells are not separated by commas.

        Args:
            name: Of the column.
            missing: Whether cells may be empty, or say that there is nothing (`NaN`, `NA`, `null`); they are NaN.

        Raises:
            ValueError: If a cell is no finite number; the message names the line.
        """
        cells = zip(self.column(name), self.lines, strict=True)
        if not missing:
            return [self._number(cell, name, line) for cell, line in cells]
        return [math.nan if cell.lower() in _NOTHING else self._number(cell, name, line) for cell, line in cells]

    def _number(self, cell: str, name: str, line: int) -> float:
        text = cell.replace("\u2212", "-")  # the minus of typesetters
        if self.separator != "," and _COMMA.fullmatch(text):
            if self._has_points:
                raise ValueError(
                    f"{self.path}, line {line}: {cell!r} has a decimal comma, others have points; write one kind"
                )
            text = text.replace(",", ".")
        if not _POINT.fullmatch(text):
            raise ValueError(f"{self.path}, line {line}: {cell!r} is no number, as {name} must be{_hint(cell)}")
        if not math.isfinite(value := float(text)):
            raise ValueError(f"{self.path}, line {line}: {name} is NaN or infinity; leave out what is not known")
        return value

    @property
    def _has_points(self) -> bool:
        return any("." in cell and _POINT.fullmatch(cell) for row in self.rows for cell in row)


def read_table(path: str | Path) -> Table:
    """Read a text file of cells with a header: UTF-8 or, by their marks, UTF-16 and 32; any other as Windows' Latin.

    Cells are separated by what separates the header: commas, semicolons, tabs or bars. Empty lines, lines that begin
    with # and columns without any content are left out.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it holds no text, no header or rows of another length; the message names the line.
    """
    path = Path(path)
    text = _text(path).replace("\r\n", "\n").replace("\r", "\n").replace("\ufeff", "")  # marks of files put together
    first = next((line for line in text.split("\n") if _speaks(line)), "")
    separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", first).count)  # names in quotes may hold any
    if declared := re.fullmatch(r"sep=(.)", first.strip()):  # as spreadsheets write it
        separator = declared[1]
    parsed = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    found: list[tuple[int, list[str]]] = []
    line = 1
    try:
        for row in parsed:
            cells = [cell.strip() for cell in row]
            if any(cells) and not cells[0].startswith("#") and not (declared and line == parsed.line_num == 1):
                found.append((line, cells))
            line = parsed.line_num + 1
    except csv.Error as error:
        raise ValueError(f"{path}, line {parsed.line_num}: {error}") from error
    if not found:
        raise ValueError(f"{path} is empty; expected a line that names the columns, and numbers below it")
    return _checked(path, found, separator)


def _speaks(line: str) -> bool:
    return bool(line.strip()) and not line.lstrip().startswith("#")


def _checked(path: Path, found: list[tuple[int, list[str]]], separator: str) -> Table:
    """The table of some rows, without columns that are empty all the way."""
    (_, header), *rows = found
    widest = max(len(cells) for _, cells in found)
    while widest and not any(cells[widest - 1] for _, cells in found if len(cells) >= widest):
        widest -= 1
    header = header[:widest]
    for line, cells in rows:
        if len(cells[:widest]) != len(header):
            comma = separator == "," and len(cells) > len(header)
            hint = "; write decimals with a point, or separate cells by semicolons" if comma else ""
            raise ValueError(f"{path}, line {line}: {len(cells)} cells, expected {len(header)}{hint}")
    if len(header) == 1 and len(header[0].split()) == len(rows[0][1][0].split() if rows else ()) > 1:
        raise ValueError(f"{path} separates cells by spaces; separate them by commas, semicolons, tabs or bars")
    if all(_POINT.fullmatch(name) or _COMMA.fullmatch(name) for name in header):
        raise ValueError(f"{path} begins with numbers ({header[0]}, ...); name the columns in a first line without #")
    if repeated := sorted({name for name in header if header.count(name) > 1}):
        raise ValueError(f"{path} names a column twice: {', '.join(repeated)}")
    return Table(
        path,
        tuple(header),
        tuple(tuple(cells[:widest]) for _, cells in rows),
        tuple(line for line, _ in rows),
        separator,
    )


def _text(path: Path) -> str:
    """The file's text."""
    data = path.read_bytes()
    for start, what in _NO_TEXT.items():
        if data.startswith(start):
            raise ValueError(f"{path} is {what}, no text; save it as CSV")
    for mark, encoding in _MARKS.items():
        if data.startswith(mark):
            return _decoded(path, data, encoding)
    if b"\0" in data:
        even, odd = data[::2].count(0), data[1::2].count(0)
        if max(even, odd) < len(data) // 4:
            raise ValueError(f"{path} is no text; save it as CSV in UTF-8")
        return _decoded(path, data, "utf-16-be" if even > odd else "utf-16-le")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return data.decode("cp1252", errors="replace")


def _decoded(path: Path, data: bytes, encoding: str) -> str:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is damaged, or no {encoding.upper()} text ({error.reason}); save it in UTF-8"
        ) from error


def _hint(cell: str) -> str:
    """What to do about a cell that is no number."""
    if not cell:
        return "; leave out the line of what is not known"
    if cell.endswith("%"):
        return "; write a share as the number itself, in the unit of the value"
    if re.search(r"\d[.,]\d{3}[.,]", cell) or re.fullmatch(r"[-+]?\d+,\d+", cell):
        return "; write it with a decimal point and without separators of thousands"
    if re.match(r"[-+]?[\d.,]+\s*[^\d.,\s]", cell):
        return "; write the number alone, in the model's unit"
    return ""
