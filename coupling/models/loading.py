"""Models by name, as on a command line: `package.module:name`, `path/file.py:name` or a problem of the library."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
import contextlib
import difflib
import importlib
import importlib.util
import inspect
from pathlib import Path
import sys
import traceback
from types import ModuleType
from typing import TYPE_CHECKING, Any

from sobofem.coupling.contract import Model
from sobofem.coupling.parallel.usercode import EndsProgram, UserCode

if TYPE_CHECKING:
    from mpi4py import MPI

ROOT = Path(__file__).parents[2]
LIBRARIES = ("fem.library", "coupling.library")
"""Where the library's problems are, whose names are found without importing FEniCSx."""


def load_model(spec: str, comm: MPI.Comm | None = None) -> Model:
    """Find a model, or a function that makes one, and return the model.

    Args:
        spec: `package.module:name`, `path/file.py:name`, or the name of a problem of the library. It is a `Model`,
            or is called without arguments, or with `comm=comm` where it takes that.
        comm: Ranks that solve one sample together; where it is None the factory's own default holds.

    Raises:
        OSError: If there is no such file, or it may not be read.
        ValueError: If the specification has no colon, names no module, or nothing in it, or its code fails; the message
            says in which line.
        ModuleNotFoundError: If its code imports what is not installed.
        EndsProgram: If its code tried to end the program.
        TypeError: If what it names is no model and makes none.
    """
    return build(find(spec), comm, spec)


def find(spec: str) -> Any:
    """What a specification names, not yet called. Under MPI all ranks do it at once: importing PETSc is collective.

    Raises:
        OSError: If there is no such file, or it may not be read.
        ValueError: If the specification has no colon, names no module, or nothing in it, or its code fails.
        ModuleNotFoundError: If its code imports what is not installed.
        EndsProgram: If its code tried to end the program.
    """
    source, colon, name = full_name(spec).rpartition(":")
    if not (colon and source and name):
        raise ValueError(
            f"{spec!r} names no model; expected `package.module:name`, `path/file.py:name` or one of "
            f"{', '.join(library())}"
        )
    if source.endswith(".py"):
        check_file(Path(source))
    with _saying_where(source), UserCode(source):
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


USED: list[Path] = []
"""Files that `run_file` has run, in order: what they registered stands, so that they are not run a second time."""


def run_file(path: Path) -> None:
    """Run a file of a user's own, so that what it registers is known. Under MPI all ranks do it at once.

    Raises:
        OSError: If there is no such file, or it may not be read.
        ValueError: If it is no Python file, or its code fails; the message says in which line.
        ModuleNotFoundError: If its code imports what is not installed.
        EndsProgram: If its code tried to end the program.
    """
    if path.suffix != ".py":
        raise ValueError(f"{path} is no Python file; give one whose name ends in .py")
    check_file(path)
    with _saying_where(str(path)), UserCode(str(path)):
        _from_file(path)
    if (resolved := path.resolve()) not in USED:
        USED.append(resolved)


def _from_file(path: Path) -> ModuleType:
    """Run a file as a module of a name of its own; its folder goes to the END of the search path.

    In front, a script named like a standard module (`signal.py`) would be imported by compilers in its place.
    """
    path = path.resolve()
    name = module_name(path)
    if path in USED:
        return sys.modules[name]
    _append_to_path(path.parent)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def check_file(path: Path) -> None:
    """Raise if a file of Python code is missing, is no file or may not be read: `OSError` or `ValueError`."""
    if path.exists() and not path.is_file():
        raise ValueError(f"{path} is no file; expected one of Python code")
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb"):
        pass


def module_name(path: Path) -> str:
    """Name that the module of a model's file has."""
    return f"sobofem_model_{path.stem}"


def _from_package(name: str) -> ModuleType:
    _append_to_path(Path.cwd())
    if name.startswith("fem.library."):  # as it was called before all stood in one package
        name = f"sobofem.{name}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise _NoModule(
                f"there is no module {name!r} (no {error.name!r}); a file is given with its ending: file.py:name"
            ) from error
        raise


class _NoModule(ValueError):
    """There is no module of that name."""


@contextlib.contextmanager
def _saying_where(source: str) -> Iterator[None]:
    """Have the errors of a module that is being imported say in which file and line, in one sentence."""
    try:
        yield
    except (FileNotFoundError, _NoModule) as error:
        if _line(error):
            raise ValueError(f"{_line(error)}: {type(error).__name__}: {error}") from error
        raise
    except EndsProgram as error:
        raise EndsProgram(f"{_line(error.__cause__) or _line(error) or source}: {error}") from error
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{_line(error) or source}: {error}", name=error.name) from error
    except SyntaxError as error:
        where = f"{error.filename or source}" + (f", line {error.lineno}" if error.lineno else "")
        raise ValueError(f"{where} is no Python code: {error.msg}{_encoding_hint(error.msg)}") from error
    except Exception as error:
        text = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ValueError(f"{_line(error) or source}: {text}") from error


def _line(error: BaseException | None) -> str:
    """The last line of code that led to an error and is neither ours nor of an installed package, with its file."""
    foreign = ("<frozen", sys.prefix, sys.base_prefix, str(Path(__file__).parents[2]))
    frames = [] if error is None else traceback.extract_tb(error.__traceback__)
    lines = [f"{frame.filename}, line {frame.lineno}" for frame in frames if not frame.filename.startswith(foreign)]
    return lines[-1] if lines else ""


def _encoding_hint(message: str) -> str:
    """What to do about a file whose bytes are no text in UTF-8."""
    return "; save it as UTF-8" if "null byte" in message or "codec can't decode" in message else ""


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


def library() -> dict[str, str]:
    """Return the name of each problem of the library, and in a sentence what it is."""
    return {name: _sentence(path) for name, path in sorted(_problems())}


def _problems() -> Iterator[tuple[str, Path]]:
    """Name and file of each problem of the library."""
    for room in LIBRARIES:
        for path in ROOT.joinpath(*room.split(".")).glob("[!_]*.py"):
            yield path.stem, path


def full_name(spec: str) -> str:
    """Return the `module:name` that a specification stands for: a short name is that of a problem of the library."""
    path = dict(_problems()).get(spec)
    return spec if path is None else f"sobofem.{'.'.join(path.relative_to(ROOT).with_suffix('').parts)}:{spec}"


def _sentence(path: Path) -> str:
    """The first sentence of a module's docstring."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0].replace("\n", " ")
