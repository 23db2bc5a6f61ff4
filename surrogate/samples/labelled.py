"""Tables with names, of any library: which columns they have, and in what order their rows are.

Data frames, mappings, structured arrays and labelled arrays are known by what they offer: pandas, polars, pyarrow and
xarray do, and are not imported.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@runtime_checkable
class _Frame(Protocol):
    """A table with named columns, as those of pandas and polars."""

    @property
    def columns(self) -> Iterable[Any]:
        """Names of the columns."""

    def __getitem__(self, name: Any, /) -> Any:
        """One column."""


@runtime_checkable
class ColumnStore(Protocol):
    """A table with named columns, as those of pyarrow."""

    @property
    def column_names(self) -> Iterable[str]:
        """Names of the columns."""

    def column(self, name: Any, /) -> Any:
        """One column."""


@runtime_checkable
class Indexed(Protocol):
    """Something with a label for each of its rows, as series and frames of pandas. Lists have an `index`, too."""

    @property
    def index(self) -> Any:
        """The labels."""

    @property
    def iloc(self) -> Any:
        """The rows by number."""


_ROWS = (Mapping, Indexed)
"""What is a point by names inside a list of points."""


@runtime_checkable
class _Coordinates(Protocol):
    """An array with named dimensions and labels along them, as those of xarray."""

    @property
    def dims(self) -> Sequence[Any]:
        """Names of the dimensions."""

    @property
    def coords(self) -> Mapping[Any, Any]:
        """Labels along dimensions."""


@runtime_checkable
class _Named(Protocol):
    """One column that knows its name."""

    @property
    def name(self) -> Any:
        """The name."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N,)."""

    def to_numpy(self) -> NDArray[Any]:
        """Its numbers."""


def column_names(values: Any, what: str) -> tuple[str, ...]:
    """Names of the columns, where there are any."""
    found = columns_by_name(values, what)
    if found is not None:
        return tuple(found)
    return (values.name,) if is_named_column(values) else ()


def columns_by_name(values: Any, what: str) -> dict[str, Any] | None:
    """The columns (N,), or the numbers of one point, by name; None where there are no names."""
    if isinstance(values, list | tuple) and values and isinstance(values[0], _ROWS):
        return _of_rows(values, what)
    if isinstance(values, np.ndarray):
        return None if values.dtype.names is None else {name: values[name] for name in values.dtype.names}
    if isinstance(values, Mapping):
        return _unique([(key, values[key]) for key in values], what)
    if isinstance(values, ColumnStore):
        return _unique([(key, values.column(k)) for k, key in enumerate(values.column_names)], what)
    if isinstance(values, _Coordinates):
        return _of_coordinates(values)
    if isinstance(values, _Frame) and not callable(values.columns):
        labels = list(values.columns)
        _check_unique(labels, what)
        return None if _are_numbers(labels) else {str(label): values[label] for label in labels}
    if isinstance(values, Indexed) and not _are_numbers(list(values.index)):
        return _of_index(values, what)
    return None


def check_rows(**columns: Any) -> None:
    """Check that those of several tables whose rows have labels have the same ones, in the same order.

    Raises:
        ValueError: If they differ: rows that belong together are then not beside each other.
    """
    indexes = {what: values.index for what, values in columns.items() if isinstance(values, Indexed)}
    first = next(iter(indexes), "")
    for what, index in indexes.items():
        if index is indexes[first]:
            continue
        its, labels = list(index), list(indexes[first])
        if len(its) == len(labels) and its != labels:
            k = next(k for k, pair in enumerate(zip(labels, its, strict=True)) if pair[0] != pair[1])
            raise ValueError(
                f"the rows of {what} are labelled otherwise than those of {first} "
                f"(at row {k}: {its[k]!r}, {labels[k]!r}); "
                f"align them by {what}.loc[{first}.index], or drop the labels by .to_numpy()"
            )


def is_named_column(values: Any) -> bool:
    """Whether values are one column that knows its name."""
    return isinstance(values, _Named) and len(values.shape) == 1 and isinstance(values.name, str) and bool(values.name)


def _of_rows(values: Sequence[Any], what: str) -> dict[str, Any] | None:
    """The columns of a list of points, all of which have the same names or none; in whatever order each has them."""
    rows = [columns_by_name(row, what) if isinstance(row, _ROWS) else None for row in values]
    names = None if rows[0] is None else set(rows[0])
    for k, row in enumerate(rows):
        if (None if row is None else set(row)) != names:
            raise ValueError(f"row {k} of {what} has other names than row 0; expected the same in all")
    return None if rows[0] is None else {name: [row[name] for row in rows if row] for name in rows[0]}


def _of_index(values: Indexed, what: str) -> dict[str, Any] | None:
    """A series by its labels, if they are names."""
    labels = list(values.index)
    if not labels or not all(isinstance(label, str) for label in labels):
        return None
    return _unique([(label, values.iloc[k]) for k, label in enumerate(labels)], what)


def _of_coordinates(values: Any) -> dict[str, Any] | None:
    """The columns of an array that has names along one of its dimensions, the last of those that have."""
    array = np.asarray(values)
    for axis, dimension in reversed(list(enumerate(values.dims))):
        labels = np.asarray(values.coords[dimension]).tolist() if dimension in values.coords else []
        if labels and all(isinstance(label, str) for label in labels):
            return _unique(list(zip(labels, np.moveaxis(array, axis, 0), strict=True)), "the array")
    return None


def _unique(columns: list[tuple[Any, Any]], what: str) -> dict[str, Any]:
    _check_unique([name for name, _ in columns], what)
    return {str(name): column for name, column in columns}


def _check_unique(labels: list[Any], what: str) -> None:
    repeated = sorted(str(label) for label, count in Counter(labels).items() if count > 1)
    if repeated:
        raise ValueError(f"{what} has several columns of one name: {', '.join(map(repr, repeated))}; expected one each")


def _are_numbers(labels: list[Any]) -> bool:
    """Whether labels are row or column numbers, which name nothing."""
    return all(isinstance(label, int | np.integer) for label in labels)
