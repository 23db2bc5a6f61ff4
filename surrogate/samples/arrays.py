"""Arrays as people have them: the one place where whatever holds numbers becomes an array of float64.

What has names is put into order by them, and never by position.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from sobofem.surrogate.samples.labelled import ColumnStore, Indexed, check_rows, columns_by_name, is_named_column

Array = NDArray[np.float64]

_PARTS = (Tensor, np.ma.MaskedArray, list, tuple)
"""What NumPy does not read right inside lists: it stumbles over gradients, and passes over masks."""

MISSING = ("NAType", "NaTType", "NoneType")
"""Names of the types whose only value says that there is none."""


def optional(owner: object, name: str, default: Any = None) -> Any:
    """An attribute that data of other libraries may have; the default where it is missing or None."""
    value = getattr(owner, name, None)
    return default if value is None else value


@runtime_checkable
class _Sparse(Protocol):
    """A sparse matrix, as those of SciPy."""

    def toarray(self) -> NDArray[Any]:
        """All entries."""


def numbers(values: Any, what: str) -> Array:
    """Anything that holds real numbers as an array of float64 of the same shape, NaN where a number is missing.

    Args:
        values: An array of any library and precision, a tensor of torch on any device, or nested lists. Of frames all
            columns in their order, whatever their names.
        what: What it is, for the message.

    Raises:
        TypeError: If it holds complex numbers, text, dates or other objects; the message names the first.
        ValueError: If its rows are of unequal lengths.
    """
    array = values if type(values) is np.ndarray else _as_numpy(values, what)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64, copy=False)
    if array.dtype.kind == "c":
        raise TypeError(
            f"{what} is complex; expected real numbers: take its real part, or real and imaginary part as two columns"
        )
    if array.dtype.kind == "O" and array.ndim:
        each = [_number(entry, what, k, array.shape) for k, entry in enumerate(array.flat)]
        return np.array(each, dtype=np.float64).reshape(array.shape)
    if array.dtype.kind in "US":
        raise TypeError(f"{what} holds text ({_first(array)!r}); expected numbers: convert it, or code it as numbers")
    kind = "dates or times" if array.dtype.kind in "mM" else f"no numbers ({type(values).__name__})"
    raise TypeError(f"{what} holds {kind}; expected an array of real numbers")


def table(values: Any, names: Sequence[str], what: str) -> Array:
    """Rows (N, k) of one number for each name, columns put into the order of the names where they have names.

    One point by names, such as a mapping or a series, is one row; without names (N,) is a column where k is 1.

    Args:
        values: Whatever `numbers` takes.
        names: The k names.
        what: What it is, for the message.

    Raises:
        TypeError: As `numbers`.
        ValueError: If columns are missing or unknown, by name, or their number is another.
    """
    array = _by_name(values, names, what)
    if array is not None:
        return np.atleast_2d(array)
    array = numbers(values, what)
    if array.ndim == 1 and len(names) == 1:
        _check_name(values, names[0], what)
        return array[:, None]
    return array


def point(values: Any, names: Sequence[str], what: str) -> Array:
    """One point (k,), put into the order of the names where its numbers have names.

    Raises:
        TypeError: As `numbers`.
        ValueError: If names are missing or unknown, or their number is another.
    """
    array = _by_name(values, names, what)
    if array is not None and array.shape[:-1] == (1,):
        array = array[0]  # a frame of one row
    elif array is None:
        array = numbers(values, what)
    if array.shape != (len(names),):
        raise ValueError(f"{what} has shape {array.shape}, expected {(len(names),)}: {tuple(names)}")
    return array


def entries(values: Any, names: Sequence[str], what: str) -> Array:
    """Numbers (..., k) of one entry for each name, put into the order of the names where they have names.

    Raises:
        TypeError: As `numbers`.
        ValueError: If names are missing or unknown.
    """
    array = _by_name(values, names, what)
    return numbers(values, what) if array is None else array


def jacobians(values: Any, responses: Sequence[str], parameters: Sequence[str], what: str) -> Array:
    """Derivatives (N, m, n) of the responses by the parameters.

    Columns named `d(response)/d(parameter)` are put into order, and so are those named by the parameters where there is
    one response. Without names (N, n) is taken for one response, (N, m) for one parameter.

    Raises:
        TypeError: As `numbers`.
        ValueError: If columns are missing or unknown, by name.
    """
    m, n = len(responses), len(parameters)
    found = columns_by_name(values, what)
    if found is not None:
        names = [f"d({response})/d({parameter})" for response in responses for parameter in parameters]
        if m == 1 and set(found) == set(parameters):
            names = list(parameters)
        return np.atleast_2d(_ordered(found, names, what)).reshape(-1, m, n)
    array = numbers(values, what)
    if m == 1 and array.ndim == 2:
        return array[:, None, :]
    if n == 1 and array.ndim == 2:
        return array[:, :, None]
    return array[:, None, None] if m == n == 1 and array.ndim == 1 else array


def box(bounds: Any, parameters: Sequence[str]) -> Array:
    """Bounds (n, 2) in the order of the names: of a mapping from each to its range, or a frame with one axis named.

    Raises:
        TypeError: As `numbers`.
        ValueError: If names are missing or unknown.
    """
    if isinstance(bounds, Indexed) and set(map(str, bounds.index)) == set(parameters):
        array = numbers(bounds, "bounds")
        return array[[list(map(str, bounds.index)).index(name) for name in parameters]]
    named = _by_name(bounds, parameters, "bounds")
    if named is not None:
        return named.T
    array = numbers(bounds, "bounds")
    return array[None] if array.shape == (2,) and len(parameters) == 1 else array


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """Names as a tuple of text.

    Raises:
        TypeError: If it is one text instead of several, or something in it is none.
    """
    if isinstance(values, str):
        raise TypeError(f"{what} is the text {values!r}; expected several names, such as ({values!r},)")
    names = tuple(values)
    for name in names:
        if not isinstance(name, str):
            raise TypeError(f"{what} holds {name!r} of type {type(name).__name__}; expected names, which are text")
    return tuple(str(name) for name in names)


def _as_numpy(values: Any, what: str) -> NDArray[Any]:
    """Any array as one of NumPy, of whatever type."""
    if isinstance(values, Tensor):
        return _of_tensor(values, what)
    if isinstance(values, list | tuple) and any(isinstance(entry, _PARTS) for entry in values):
        values = [_as_numpy(entry, what) if isinstance(entry, _PARTS) else entry for entry in values]
    if isinstance(values, np.ma.MaskedArray) and values.dtype.kind in "biufO" and values.dtype.names is None:
        whole = values.dtype.kind != "O"
        return np.ma.filled(values.astype(np.float64) if whole else values, np.nan)
    if isinstance(values, _Sparse):
        values = values.toarray()
    if isinstance(values, Mapping | ColumnStore) or (isinstance(values, np.ndarray) and values.dtype.names):
        columns = (columns_by_name(values, what) or {}).items()
        return np.stack([_as_numpy(column, f"{name!r} of {what}") for name, column in columns], axis=-1)
    try:
        return np.asarray(values)
    except ValueError as error:
        raise ValueError(f"{what} is ragged ({error}); expected rows of equal lengths") from error


def _of_tensor(values: Tensor, what: str) -> NDArray[Any]:
    """A tensor of any kind, on any device, with or without a graph behind it."""
    if values.is_complex():
        return np.empty(tuple(values.shape), dtype=np.complex128)
    try:
        dense = values.detach().cpu()
        dense = dense.to_dense() if dense.layout is not None and dense.is_sparse else dense
        return dense.double().numpy()
    except (NotImplementedError, RuntimeError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise TypeError(f"{what} is a tensor whose numbers can't be read ({reason}); give an array") from error


def _by_name(values: Any, names: Sequence[str], what: str) -> Array | None:
    """Numbers (..., k) in the order of the names; None where they have none."""
    found = columns_by_name(values, what)
    if found is None or (is_named_column(values) and len(names) == 1 and names[0] not in found):
        return None  # the labels of one column are those of its rows
    return _ordered(found, names, what)


def _ordered(found: Mapping[str, Any], names: Sequence[str], what: str) -> Array:
    known = set(names)
    missing = [name for name in names if name not in found]
    surplus = [name for name in found if name not in known]
    if missing or surplus:
        faults = [_listed("lacks", missing)] if missing else []
        faults += [_listed("has besides", surplus)] if surplus else []
        raise ValueError(f"{what} {' and '.join(faults)}; expected columns named {', '.join(map(repr, names))}")
    check_rows(**{f"{what}[{name!r}]": found[name] for name in names})
    columns = [numbers(found[name], f"{name!r} of {what}") for name in names]
    if len({column.shape for column in columns}) > 1:
        shapes = ", ".join(f"{name!r} {column.shape}" for name, column in zip(names, columns, strict=True))
        raise ValueError(f"the columns of {what} have different shapes: {shapes}")
    return np.stack(columns, axis=-1)


def _listed(verb: str, names: list[str]) -> str:
    return f"{verb} {', '.join(map(repr, names[:8]))}" + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _check_name(values: Any, name: str, what: str) -> None:
    if is_named_column(values) and values.name != name:
        raise ValueError(f"{what} is a column named {values.name!r}; expected {name!r}")


def _number(entry: Any, what: str, position: int, shape: tuple[int, ...]) -> float:
    """One entry of an array of objects; NaN for what says that it is missing."""
    if type(entry).__name__ in MISSING:
        return float("nan")
    if not isinstance(entry, str | bytes | complex | np.complexfloating):
        convert: Callable[[Any], float] = float
        try:
            return convert(entry)
        except (TypeError, ValueError, OverflowError, RuntimeError):
            pass
    row = int(np.unravel_index(position, shape)[0])
    kind = "text" if isinstance(entry, str | bytes) else f"a {type(entry).__name__}"
    raise TypeError(f"{what} holds {kind} ({str(entry)[:40]!r}) in row {row}; expected real numbers")


def _first(array: NDArray[Any]) -> str:
    return str(array.flat[0])[:40] if array.size else ""
