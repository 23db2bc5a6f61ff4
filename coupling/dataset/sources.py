"""Columns of numbers from files of other programs: CSV, Parquet, NumPy, and folders of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
import zipfile

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.coupling.dataset.roles import name_and_unit
from sobofem.coupling.dataset.tables import Table, read_table

TEXTS = (".csv", ".tsv", ".txt", ".dat")
SUFFIXES = (*TEXTS, ".parquet", ".npz", ".npy")
"""Endings of files that hold tables."""
_POINTS, _VALUES = ("x", "inputs"), ("y", "outputs")
_JACOBIANS = ("jacobian", "dy_dx", "dydx", "dy/dx", "j", "jac")
_ABOUT = ("parameters", "responses", "bounds", "units")
_BESIDE = (*_ABOUT, "rows", "seconds", "design", "negative_pivots")
"""Arrays of `Dataset.to_numpy` beside the samples."""


@dataclass(frozen=True, eq=False)
class Columns:
    """Named columns of numbers, NaN where one is missing, and where their rows stand.

    Attributes:
        read: What reads each column (N,), by name; ValueError if it holds something else than numbers.
        places: Where each of the N rows stands, for messages.
        name: What messages call all of it.
        units: Unit of each column that has one.
        roles: Which columns are parameters and responses, where the source says so.
        bounds: Ranges by parameter, where the source has them.
    """

    read: Mapping[str, Callable[[], Array]]
    places: Sequence[str]
    name: str
    units: Mapping[str, str]
    roles: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    bounds: Mapping[str, tuple[float, float]] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns."""
        return tuple(self.read)

    def renamed(self, parameters: Sequence[str], responses: Sequence[str]) -> Columns:
        """Those of arrays x and y with names of one's own, where there are as many; else itself."""
        new: dict[str, str] = {}
        for wanted, given in zip((parameters, responses), self.roles, strict=True):
            if len(wanted) == len(given) and not set(wanted) & set(self.names):
                new |= dict(zip(given, wanted, strict=True))
        if not new:
            return self
        x, y = (tuple(new.get(name, name) for name in names) for names in self.roles)
        slopes = {
            f"d({q})/d({p})": f"d({new.get(q, q)})/d({new.get(p, p)})" for p in self.roles[0] for q in self.roles[1]
        }
        names = new | slopes
        return replace(
            self,
            read={names.get(name, name): column for name, column in self.read.items()},
            roles=(x, y),
            bounds=None if self.bounds is None else {new.get(p, p): box for p, box in self.bounds.items()},
        )


def is_table(path: Path) -> bool:
    """Whether a path is called like a file of another program, or is a folder."""
    return path.is_dir() or path.suffix.lower() in SUFFIXES


def read_columns(paths: Sequence[Path]) -> Columns:
    """The columns of some files and folders, whose rows are put one behind the other.

    Arrays x, y and jacobian (`dy_dx`) in NumPy files become columns; files `x.npy`, `y.npy`, ... are arrays of these
    names.

    Raises:
        FileNotFoundError: If there is no such file, or nothing in a folder.
        ModuleNotFoundError: If it is Parquet, and pyarrow is not installed.
        ValueError: If one can't be read, or they have different columns; the message names the file.
    """
    files = [file for path in paths for file in _files(Path(path))]
    arrays = [file for file in files if file.suffix.lower() == ".npy"]
    parts = [_READERS[file.suffix.lower()](file) for file in files if file not in arrays]
    if len(arrays) == 1 and arrays[0].stem.lower() not in (*_POINTS, *_VALUES, *_JACOBIANS):
        parts.append(_of_array(arrays[0]))
    elif arrays:
        parts.append(
            _of_arrays({file.stem: load_numpy(file) for file in arrays}, str(arrays[0].parent), arrays[0].parent)
        )
    return _joined(parts, ", ".join(map(str, paths)))


def frame_columns(frame: Any, name: str) -> Columns:
    """The columns of anything that has `columns` and hands out one by `[name]`, as frames of pandas and polars do."""
    if not hasattr(frame, "columns") or callable(frame.columns):
        raise TypeError(
            f"{name} is of type {type(frame).__name__}; expected a frame with `columns`, as those of pandas and polars"
        )
    labels = list(frame.columns)
    if not all(isinstance(label, str) for label in labels):
        raise ValueError(f"{name} has columns without names ({labels[0]!r}, ...); name them, as text")
    if repeated := sorted({label for label in labels if labels.count(label) > 1}):
        raise ValueError(f"{name} names a column twice: {', '.join(repeated)}; rename one")
    return _named({label: partial(_of_frame, frame, label, name) for label in labels}, len(frame), name)


def _files(path: Path) -> Iterator[Path]:
    """The file, or those in a folder that are tables, by name."""
    if not path.exists():
        raise FileNotFoundError(f"there is no file {path}")
    found = sorted(each for each in path.iterdir() if each.suffix.lower() in SUFFIXES) if path.is_dir() else [path]
    if not found:
        raise FileNotFoundError(f"folder {path} holds no file {', '.join(SUFFIXES)}")
    for file in found:
        if file.suffix.lower() not in SUFFIXES:
            raise ValueError(f"{file} is none of {', '.join(SUFFIXES)}; save the table as one of these")
        if not file.is_file():  # a pipe would be waited for
            raise ValueError(f"{file} is no file but a folder, a pipe or a device; save the table in a file")
        yield file


def _named(
    read: Mapping[str, Callable[[], Array]], count: int, name: str, places: Sequence[str] = (), **more: Any
) -> Columns:
    """Columns whose headings may have units."""
    pairs = {label: name_and_unit(label) for label in read}
    if len({plain for plain, _ in pairs.values()}) < len(pairs):
        pairs = {label: (label, "") for label in read}  # what stands in brackets tells them apart
    units = {plain: unit for plain, unit in pairs.values() if unit}
    return Columns(
        {pairs[label][0]: column for label, column in read.items()},
        places or [f"{name}, row {k}" for k in range(count)],
        name,
        units,
        **more,
    )


def _of_text(path: Path) -> Columns:
    table = read_table(path)
    read = {name: partial(_of_cells, table, name) for name in table.header}
    places = [f"{path}, line {line}" for line in table.lines]
    return _named(read, len(places), str(path), places)


def _of_parquet(path: Path) -> Columns:
    from pyarrow import ArrowException, float64
    import pyarrow.parquet

    with path.open("rb"):  # a right that is missing is named as for any file
        pass
    try:
        table = pyarrow.parquet.read_table(path)
    except (ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as Parquet: {str(error).splitlines()[0]}; write it again") from error

    def column(name: str) -> Array:
        try:
            return np.array(table.column(name).cast(float64()).to_numpy(), dtype=np.float64)
        except ArrowException as error:
            reason = str(error).splitlines()[0]
            raise ValueError(
                f"{path}: column {name!r} holds no numbers ({reason}); leave it out, or code it"
            ) from error

    names = table.column_names
    if repeated := sorted(name for name, count in Counter(names).items() if count > 1):
        raise ValueError(f"{path} names a column twice: {', '.join(repeated)}; rename one")
    return _named({name: partial(column, name) for name in names}, table.num_rows, str(path))


def load_numpy(path: Path) -> Any:
    """What `np.load` makes of a file of numbers.

    Raises:
        OSError: If it can't be opened.
        ValueError: If it is no such file.
    """
    with path.open("rb") as file:
        begin = file.read(2)
        archive = begin == b"PK" and zipfile.is_zipfile(file)
    if not archive and begin != b"\x93N":  # NumPy would take it for objects of Python, and advise to run them
        raise ValueError(f"{path} is no NumPy file; save arrays of numbers by np.save or np.savez")
    try:
        if archive:  # whose arrays are read one by one
            return np.load(path, allow_pickle=False)
        with path.open("rb") as file:
            return np.load(file, allow_pickle=False)
    except Exception as error:  # whatever a damaged archive leads to
        reason = str(error).splitlines()[0] if "allow_pickle" not in str(error) else "it holds objects of Python"
        raise ValueError(f"{path} can't be read as NumPy: {reason}; save arrays of numbers by np.savez") from error


def _of_archive(path: Path) -> Columns:
    with load_numpy(path) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except ValueError as error:
            raise ValueError(f"{path}: {error}; save arrays of numbers, not objects") from error
    return _of_arrays(arrays, str(path), path)


def _of_array(path: Path) -> Columns:
    """One array on its own, whose type has to name its columns."""
    array = load_numpy(path)
    if not array.dtype.names:
        raise ValueError(
            f"{path} holds an array {array.shape} whose columns have no names; name it x.npy beside y.npy (and "
            "dy_dx.npy), or save np.savez('data.npz', x=..., y=..., dy_dx=...)"
        )
    return _of_arrays({name: array[name] for name in array.dtype.names}, str(path), path)


def _of_arrays(arrays: Mapping[str, Any], name: str, path: Path) -> Columns:
    """Arrays x, y and jacobian as columns; or one-dimensional ones, which are columns themselves."""
    lower = {key.lower(): key for key in arrays}
    alike = [[key for key in arrays if key.lower() in keys] for keys in (_POINTS, _VALUES, _JACOBIANS)]
    ambiguous = next((keys for keys in alike if len(keys) > 1), None)
    vectors = all(np.ndim(array) == 1 for array in arrays.values())
    if ambiguous and not vectors:
        raise ValueError(f"{name} holds {' and '.join(ambiguous)}, which mean the same; leave out all but one")
    x, y, slopes = (
        next((np.asarray(arrays[lower[key]]) for key in keys if key in lower), None)
        for keys in (_POINTS, _VALUES, _JACOBIANS)
    )
    if x is None or y is None or ambiguous or (vectors and slopes is None and len(arrays) > 2):
        columns = {key: np.atleast_1d(array) for key, array in arrays.items()}
        return _of_vectors(columns, name)
    x, y, slopes = _shaped(x, y, slopes, name)
    if unknown := [k for k in arrays if k.lower() not in (*_POINTS, *_VALUES, *_JACOBIANS, *_BESIDE)]:
        raise ValueError(f"{name} holds {', '.join(unknown)} beside x and y; expected x, y, jacobian (or dy_dx) alone")
    n, m = x.shape[1], y.shape[1]
    given = [tuple(str(each) for each in np.atleast_1d(arrays[lower[k]])) if k in lower else () for k in _ABOUT[:2]]
    parameters, responses = (
        names or _numbered(letter, count) for names, letter, count in zip(given, "xy", (n, m), strict=True)
    )
    for what, names, count in (("parameters", parameters, n), ("responses", responses, m)):
        if len(names) != count:
            raise ValueError(f"{name} has {count} {what}, but names {len(names)}: {', '.join(names)}")
    # from here on as a table of columns, which has one reader whatever it came from
    read = {q: x[:, k] for k, q in enumerate(parameters)} | {q: y[:, k] for k, q in enumerate(responses)}
    if slopes is not None:
        read |= {f"d({q})/d({p})": slopes[:, i, j] for i, q in enumerate(responses) for j, p in enumerate(parameters)}
    bounds = np.asarray(arrays[lower["bounds"]]) if "bounds" in lower else None
    if bounds is not None and bounds.shape != (n, 2):
        raise ValueError(f"{name} has bounds of shape {bounds.shape}, expected {(n, 2)}")
    ranges = None if bounds is None else {p: (float(a), float(b)) for p, (a, b) in zip(parameters, bounds, strict=True)}
    return _of_vectors(read, name, roles=(parameters, responses), bounds=ranges)


def _numbered(letter: str, count: int) -> tuple[str, ...]:
    return (letter,) if count == 1 else tuple(f"{letter}{k}" for k in range(count))


def _shaped(x: Array, y: Array, slopes: Array | None, name: str) -> tuple[Array, Array, Array | None]:
    """Points (N, n), values (N, m) and Jacobians (N, m, n), of one sample without N, or of one parameter or response.

    Raises:
        ValueError: If the shapes don't fit; the message has those expected.
    """
    if x.ndim == 1 and (y.ndim == 0 or (slopes is not None and slopes.shape == (*y.shape, *x.shape))):
        x, y, slopes = x[None], np.atleast_1d(y)[None], None if slopes is None else np.atleast_2d(slopes)[None]
    x, y = (array[:, None] if array.ndim == 1 else array for array in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise ValueError(f"{name} has x of shape {x.shape} and y of shape {y.shape}; expected (N, n) and (N, m)")
    if slopes is None:
        return x, y, None
    (N, n), m, given = x.shape, y.shape[1], slopes.shape
    if given in ((N, n), (N, m), (N,)) and slopes.size == N * n * m:
        slopes = slopes.reshape(N, m, n)
    if slopes.shape != (N, m, n):
        turned = "; turn it by np.swapaxes(jacobian, 1, 2)" if slopes.shape == (N, n, m) else ""
        raise ValueError(f"{name} has a jacobian of shape {given}, expected (N, m, n) = {(N, m, n)}{turned}")
    return x, y, slopes


def _of_vectors(columns: Mapping[str, Any], name: str, **more: Any) -> Columns:
    """Arrays (N,) as columns."""
    vectors = {key: np.asarray(array) for key, array in columns.items()}
    counts = {key: array.shape for key, array in vectors.items()}
    if any(len(shape) != 1 for shape in counts.values()) or len(set(counts.values())) != 1:
        shapes = ", ".join(f"{key} {shape}" for key, shape in counts.items())
        raise ValueError(
            f"{name} holds arrays of shapes {shapes}; expected columns of one length, or x (N, n), y (N, m) and "
            "jacobian (N, m, n)"
        )
    read = {key: partial(_numeric, vectors[key], key, name) for key in vectors}
    return _named(read, next(iter(counts.values()))[0], name, **more)


def _of_cells(table: Table, name: str) -> Array:
    return np.array(table.numbers(name, missing=True), dtype=np.float64)


def _of_frame(frame: Any, label: str, name: str) -> Array:
    return _numeric(frame[label], label, name)


def _numeric(column: Any, label: str, name: str) -> Array:
    """A column as numbers; where its type is another, as training takes them, for which torch must be there."""
    array = np.asarray(column)
    if array.dtype.kind in "biuf":
        return array.astype(np.float64)
    from sobofem.surrogate.samples import arrays

    try:
        return np.array(arrays.numbers(column, f"column {label!r}"))
    except TypeError as error:
        raise ValueError(f"{name}: {error}") from error


def _joined(parts: Sequence[Columns], name: str) -> Columns:
    """The rows of all parts, one behind the other, by the names of their columns."""
    first = parts[0]
    for part in parts[1:]:
        lacking, surplus = set(first.names) - set(part.names), set(part.names) - set(first.names)
        if lacking or surplus:
            words = [f"lacks {', '.join(sorted(lacking))}"] * bool(lacking)
            words += [f"has besides {', '.join(sorted(surplus))}"] * bool(surplus)
            raise ValueError(f"{part.name} {' and '.join(words)}; {first.name} has {', '.join(first.names)}")
        for what, ours, theirs in (("units", first.units, part.units), ("bounds", first.bounds, part.bounds)):
            if ours != theirs:
                raise ValueError(f"{part.name} has other {what} than {first.name}; convert one of them")
    if len(parts) == 1:
        return replace(first, name=name)

    def column(label: str) -> Array:
        return np.concatenate([part.read[label]() for part in parts])

    places = [place for part in parts for place in part.places]
    return replace(first, read={label: partial(column, label) for label in first.names}, places=places, name=name)


_READERS: dict[str, Callable[[Path], Columns]] = {
    **dict.fromkeys(TEXTS, _of_text),
    ".parquet": _of_parquet,
    ".npz": _of_archive,
}
