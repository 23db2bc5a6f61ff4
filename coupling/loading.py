"""Models by name, as on a command line: `package.module:name` or `path/file.py:name`."""

from __future__ import annotations

from collections.abc import Callable
import difflib
import importlib
import importlib.util
import inspect
from pathlib import Path
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from coupling.contract import Model
from coupling.usercode import UserCode

if TYPE_CHECKING:
    from mpi4py import MPI


def load_model(spec: str, comm: MPI.Comm | None = None) -> Model:
    """Find a model, or a function that makes one, and return the model.

    Args:
        spec: `package.module:name` or `path/file.py:name`. The name is a `Model`, or is called without arguments,
            or with `comm=comm` where it takes that.
        comm: Ranks that solve one sample together; where it is None the factory's own default holds.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the specification has no colon, or names no module, or nothing in it.
        EndsProgram: If its code tried to end the program.
        TypeError: If what it names is no model and makes none.
    """
    return build(find(spec), comm, spec)


def find(spec: str) -> Any:
    """What a specification names, not yet called. Under MPI all ranks do it at once: importing PETSc is collective.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If the specification has no colon, or names no module, or nothing in it.
    """
    source, colon, name = spec.rpartition(":")
    if not (colon and source and name):
        raise ValueError(f"{spec!r} names no model; expected `package.module:name` or `path/file.py:name`")
    with UserCode(source):
        module = _from_file(Path(source)) if source.endswith(".py") else _from_package(source)
    if not hasattr(module, name):
        raise ValueError(f"{source} has no {name!r}; {_offer(name, _candidates(module))}")
    return getattr(module, name)


def build(found: Model | Callable[..., Model], comm: MPI.Comm | None, spec: str = "the factory") -> Model:
    """The model itself, or what a factory makes: called with `comm=comm` if it takes that and there is one."""
    if isinstance(found, Model) and not inspect.isclass(found):
        return found
    if not callable(found):
        raise TypeError(f"{spec} is of type {type(found).__name__}, neither a Model nor a function that makes one")
    takes_comm = comm is not None and "comm" in inspect.signature(found).parameters
    with UserCode(spec):
        made = found(comm=comm) if takes_comm else found()
    if not isinstance(made, Model):
        raise TypeError(f"{spec} made an object of type {type(made).__name__}, which is no Model")
    return made


def source_of(found: Model | Callable[..., Model], spec: object) -> Path | None:
    """The file that makes a model: that of its factory, or else of its specification; None where neither is known."""
    if inspect.isroutine(found):
        name = found.__module__
    elif isinstance(spec, str):
        source = spec.rpartition(":")[0]
        name = module_name(Path(source)) if source.endswith(".py") else source
    else:
        return None
    file = getattr(sys.modules.get(name), "__file__", None)
    return Path(file) if file else None


def _from_file(path: Path) -> ModuleType:
    """Run a file as a module of a name of its own; its folder goes to the END of the search path.

    In front, a script named like a standard module (`signal.py`) would be imported by compilers in its place.
    """
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    path = path.resolve()
    name = module_name(path)
    _append_to_path(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def module_name(path: Path) -> str:
    """Name that the module of a model's file has."""
    return f"sobofem_model_{path.stem}"


def _from_package(name: str) -> ModuleType:
    _append_to_path(Path.cwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise ValueError(
                f"there is no module {name!r} (no {error.name!r}); a file is given with its ending: file.py:name"
            ) from error
        raise


def _append_to_path(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.append(str(folder))


def _candidates(module: ModuleType) -> list[str]:
    """Names in a module that could be meant: models, and functions and classes that are defined there."""
    return [
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and (_defined_in(module, value) or (isinstance(value, Model) and not inspect.isclass(value)))
    ]


def _defined_in(module: ModuleType, value: Any) -> bool:
    return callable(value) and getattr(value, "__module__", "") == module.__name__


def _offer(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    offered = ", ".join(sorted(names)) or "nothing to offer"
    return f"did you mean {close[0]!r}? It has {offered}" if close else f"it has {offered}"
