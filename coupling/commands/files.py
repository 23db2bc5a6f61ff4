"""Files that commands read and write: what is wrong with them is said before the work, not after it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
import tempfile
from typing import TYPE_CHECKING, Annotated

import typer

from sobofem.coupling import options
from sobofem.coupling.contract import Model
from sobofem.coupling.dataset import sources
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.study.settings import Table

if TYPE_CHECKING:
    from sobofem.surrogate import Surrogate
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

SurrogateFile = Annotated[
    Path, typer.Argument(metavar="SURROGATE", help="Surrogate (safetensors).", show_default=False)
]
DatasetFile = Annotated[Path, typer.Argument(metavar="DATA", help="Dataset (HDF5).", show_default=False)]
TABLES = "CSV, Parquet or NumPy files, or a folder of them"
"""What samples of other programs are in."""
SamplesFile = Annotated[Path, typer.Argument(metavar="DATA", help=f"Dataset (HDF5); or {TABLES}.", show_default=False)]


def open_samples(path: Path, table: Table) -> Dataset:
    """The samples of a dataset, or of another program's table.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is neither, or a dataset is told what its columns are.
    """
    if sources.is_table(path):
        return Dataset.from_file(path, **vars(table))
    if given := options.words(table):
        raise ValueError(f"{path} is a dataset, which knows what its columns are; leave out {given[0]}")
    return Dataset.open(path)


def open_fields(path: Path) -> Dataset | None:
    """The samples of a dataset of fields on a mesh, which stay in the file; None if it is of something else."""
    if sources.is_table(path):
        return None
    found = Dataset.open(path, in_memory=False)
    return None if found.on_mesh is None else found


def open_unseen(path: Path, model: Model) -> Dataset:
    """The samples of a dataset, or of another program's table, to judge a model by.

    Raises:
        As `open_samples`.
    """
    if not sources.is_table(path):
        return Dataset.open(path)
    bounds = dict(zip(model.parameters, map(tuple, model.bounds.tolist()), strict=True))
    return Dataset.from_file(
        path, parameters=model.parameters, responses=model.responses, bounds=bounds, keep_repeats=True
    )


def load_model_of_responses(path: Path) -> Model:
    """Read a surrogate that is a model: of responses, not of a field.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no surrogate, is damaged, or holds parts that nothing has registered.
        TypeError: If it is a surrogate of something else.
    """
    from sobofem.surrogate import load

    found = load(path)
    if not isinstance(found, Model):
        raise TypeError(f"{path} is a {type(found).__name__}; expected a surrogate of responses")
    return found


def load_surrogate(path: Path) -> Surrogate | OperatorSurrogate | ReducedOperator:
    """Read a surrogate of responses, or between fields, that says how it was trained.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no surrogate, is damaged, or holds parts that nothing has registered.
        TypeError: If it is a surrogate of something else.
    """
    from sobofem.surrogate import Surrogate, load
    from sobofem.surrogate.operators import OperatorSurrogate, ReducedOperator

    found = load(path)
    if not isinstance(found, Surrogate | OperatorSurrogate | ReducedOperator):
        raise TypeError(f"{path} is a {type(found).__name__}; expected a Surrogate of responses")
    return found


def absolute(path: Path | None) -> Path | None:
    """The same file, also after a model has changed the working directory."""
    return None if path is None else path.absolute()


def check_new(path: Path) -> None:
    """Check that a file can be written at `path`, where none is yet.

    Raises:
        FileExistsError: If there is one.
        OSError: As `check_writable`.
    """
    if path.exists():
        raise FileExistsError(f"{path} exists; name a new file, or remove it")
    check_writable(path)


def make_folder(path: Path) -> None:
    """Make a folder for results.

    Raises:
        FileExistsError: If it is a file.
    """
    if path.exists() and not path.is_dir():
        raise FileExistsError(f"{path} is a file; name a folder for the results")
    path.mkdir(parents=True, exist_ok=True)


def check_writable(path: Path) -> None:
    """Check that a file can be written at `path`, by making a file beside it and removing it again.

    Raises:
        IsADirectoryError: If `path` is a folder.
        FileNotFoundError: If there is no folder to write it to.
        PermissionError: If that folder takes no files.
        OSError: If the disk refuses.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "is a folder; name a file in it", str(path))
    if not path.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {path.parent} to write {path.name} to; make it first")
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        os.unlink(temporary)
    except OSError as error:
        raise OSError(error.errno, f"can't be written: {error.strerror}", str(path)) from error
