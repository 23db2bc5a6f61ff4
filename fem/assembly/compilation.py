"""Compile UFL once, in a cache that a killed job can't poison.

FFCx marks a form as "being compiled" by a lone `.c` file; if that process dies, every later one waits for it in vain.
Here a process compiles under a file lock, which the kernel drops with it: whoever holds the lock may therefore delete
a lone `.c` file, and no one waits for the dead. What is compiled already is loaded without the lock.

Each form has a folder of its own: processes compile different forms at the same time, and loading one takes no longer
because there are many, whose files Python would list each time.
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Iterator
import contextlib
import fcntl
import functools
import importlib.metadata
import logging
import os
from pathlib import Path
import shutil
import sysconfig
import tempfile
from typing import Any
import warnings

from mpi4py import MPI
import cffi
import dolfinx
import ffcx
import ffcx.naming
import ffcx.options
import numpy as np
import ufl
from ufl.algorithms.analysis import extract_type
from ufl.geometry import GeometricQuantity

from sobofem.fem.assembly.private_folder import check_content, make_private
from sobofem.fem.assembly.submeshes import maps_for
from sobofem.fem.errors import agree

_VARIABLE = "SOBOFEM_CACHE"
_loaded: dict[Path, None] = {}
_REMEDY = f"or name another folder of your own by ${_VARIABLE}"


def cache_directory() -> Path:
    """Where compiled forms live: `$SOBOFEM_CACHE`, else `$XDG_CACHE_HOME/sobofem`, else `~/.cache/sobofem`.

    It is made, for this account alone, and checked when it is first used. Without a usable home, it is a temporary
    folder of this process.

    Raises:
        OSError: If a folder that was named can't be made, or others could put their code into it.
    """
    named = _VARIABLE in os.environ
    setting = os.environ[_VARIABLE] if named else os.environ.get("XDG_CACHE_HOME", "")
    return _directory(setting, named=named)


@functools.cache
def _directory(setting: str, *, named: bool) -> Path:
    """The folder of a setting: `$SOBOFEM_CACHE` itself if that is named, else its parent, empty for the default.

    Kept, so that a model that changes the working directory changes nothing here.
    """
    if setting:
        try:
            folder = Path(setting).expanduser().absolute() / ("" if named else "sobofem")
        except RuntimeError as error:
            raise OSError(f"there is no account for the ~ of {setting}") from error
        make_private(folder)
        return folder
    try:
        folder = Path("~/.cache/sobofem").expanduser()
        make_private(folder)
        return folder
    except (OSError, RuntimeError) as error:  # a read-only home, or none
        warnings.warn(f"compiled forms are not kept ({_words(error)}); {_REMEDY}", stacklevel=2)
        folder = Path(tempfile.mkdtemp(prefix="sobofem-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder


def _words(error: Exception) -> str:
    """What is wrong with a folder."""
    known = isinstance(error, OSError) and error.filename
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) and known else str(error)


def compiled_here() -> tuple[Path, ...]:
    """Folders of the forms that this process has loaded, all of them whole."""
    return tuple(folder for folder in _loaded if is_compiled(folder))


def compile_form(form: ufl.Form, comm: MPI.Intracomm) -> dolfinx.fem.Form:
    """Compile a form on the first rank of `comm`, then load it on all. Collective.

    Raises:
        OSError: If the cache can't be written, or the C compiler fails, on every rank.
        ValueError: If the form can't be compiled, on every rank.
    """
    maps = maps_for(form)

    def build(options: dict[str, Any]) -> dolfinx.fem.Form:
        return dolfinx.fem.form(form, jit_options=options, jit_comm=MPI.COMM_SELF, entity_maps=maps)

    return _compiled(form, comm, build)


def compile_expression(expression: Any, points: np.ndarray, comm: MPI.Intracomm) -> dolfinx.fem.Expression:
    """Compile a UFL expression for evaluation at reference points (k, tdim) of each cell. Collective.

    Raises:
        ValueError: If its functions live on several meshes: cells would be taken for others of the same number.
    """
    domains = ufl.domain.extract_domains(expression)
    if len(domains) > 1:
        raise ValueError("an expression holds functions on several meshes; interpolate them to one")

    def build(options: dict[str, Any]) -> dolfinx.fem.Expression:
        # DOLFINx would take a Function's own type, by which FFCx names another module than the one compiled before
        scalar = dolfinx.default_scalar_type
        return dolfinx.fem.Expression(expression, points, jit_options=options, comm=MPI.COMM_SELF, dtype=scalar)

    return _compiled((expression, points), comm, build)


def _compiled[T](what: Any, comm: MPI.Intracomm, build: Callable[[dict[str, Any]], T]) -> T:
    """Compile on the first rank, under its lock and without it where that was done before; then build on all."""
    options: dict[str, Any] = {"timeout": 600, "cffi_extra_compile_args": _compiler_flags()}
    trouble = refused = None
    try:
        scalar = {"scalar_type": dolfinx.default_scalar_type}
        folder = cache_directory() / ffcx.naming.compute_signature([what], _build_settings(scalar))
        make_private(folder)
        check_content(folder)
        options["cache_dir"] = str(folder)
        if comm.rank == 0:
            _compile(what, folder, scalar, options)
    except OSError as error:
        trouble = f"compiled forms can't be kept: {_words(error)}; {_REMEDY}"
    except cffi.VerificationError as error:
        trouble = (
            f"the C compiler failed ({error}), its own words are above; is one installed, and does $CC name it? "
            "Compiled forms need gcc or clang, for example from the package build-essential"
        )
    except Exception as error:
        refused = f"this form can't be compiled: {error}{_advice(error, what)}"
    if trouble := agree(comm, trouble):
        raise OSError(trouble)
    if refused := agree(comm, refused):
        raise ValueError(refused)
    try:
        built = build(options)
        _loaded[folder] = None
        return built
    except ImportError as error:
        raise OSError(f"a compiled form can't be loaded ({error}); remove {folder}, {_REMEDY}") from error
    except RuntimeError as error:
        raise ValueError(f"DOLFINx can't make this form: {error}{_advice(error, what)}") from error


def _compile(what: Any, folder: Path, scalar: dict[str, Any], options: dict[str, Any]) -> None:
    """Compile into its folder, unless that was done before."""
    if is_compiled(folder):
        return
    whole = folder / "whole"
    with locked(folder), _quietly(), _packages_read_once():  # building a form is collective, compiling it is not
        if whole.exists() and not is_compiled(folder):  # damaged: to load half a library would crash
            for file in [*folder.glob("libffcx_*"), whole]:
                file.unlink()
        _, module, _ = dolfinx.jit.ffcx_jit(MPI.COMM_SELF, what, form_compiler_options=scalar, jit_options=options)
        whole.write_text(f"{module.__name__} {Path(str(module.__file__)).stat().st_size}")


def _build_settings(scalar: dict[str, Any]) -> str:
    """All that FFCx names a module by beside the form: a folder of other settings has a module that nobody will load.

    The one that is loaded would be compiled without the lock then, and be taken for an orphan by others.
    """
    options = sorted(ffcx.options.get_options(scalar).items())
    python = [sysconfig.get_config_var(name) for name in ("CFLAGS", "SOABI")]
    return str((dolfinx.__version__, ffcx.__version__, options, _compiler_flags(), python))


def _compiler_flags() -> list[str]:
    """DOLFINx's flags for the C compiler, and that it keeps its warnings of generated code to itself."""
    return [*dolfinx.jit.get_options()["cffi_extra_compile_args"], "-w"]


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without UFL's warnings of what it then raises, and with the handlers of logging as they were, even on errors."""
    root = logging.getLogger()
    handlers = root.handlers.copy()
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        root.handlers = handlers


_entry_points = functools.cache(importlib.metadata.entry_points)


@contextlib.contextmanager
def _packages_read_once() -> Iterator[None]:
    """For setuptools, by which cffi compiles: it reads all installed packages six times a form, half of its time."""
    read = importlib.metadata.entry_points
    importlib.metadata.entry_points = lambda **which: _entry_points().select(**which)
    try:
        yield
    finally:
        importlib.metadata.entry_points = read


CELL_SIZE = "abs(ufl.JacobianDeterminant(mesh)) ** (1 / {dimension})"
"""A size of cells, but for a constant factor, that every kind of cell has, and its derivatives by shape."""


COMPILED = ("Spatial", "Normal", "Jacobian", "Reference", "radius", "Diameter", "Volume", "Area", "Edge", "Vertices")
"""Parts of names of quantities that FFCx compiles, on one kind of cell or another."""


def _advice(error: Exception, what: Any) -> str:
    """What to do instead of what cells of a kind have not, or FFCx does not know."""
    if "Multiple entity types" in str(error):
        return ". It does not integrate over facets of prisms and pyramids; take tetrahedra or hexahedra for that"
    held = {type(q).__name__ for q in extract_type(what[0] if isinstance(what, tuple) else what, GeometricQuantity)}
    if unknown := sorted(name for name in held if not any(part in name for part in COMPILED)):
        return (
            f". FFCx does not compile {', '.join(unknown)}. With x = ufl.SpatialCoordinate(mesh), coordinates in a "
            "straight simplex are ufl.JacobianInverse(mesh) * (x - ufl.classes.CellVertices(mesh)[0, :]); what else "
            "differs from cell to cell, a Function on a discontinuous space holds"
        )
    if "ufl.geometry." not in str(error) and "Only know how to compute" not in str(error):
        return ""
    size = CELL_SIZE.format(dimension="dimension of the cells")
    return f". Curved cells, quadrilaterals and hexahedra have no such quantity; a size of cells is {size}"


def is_compiled(folder: Path) -> bool:
    """Whether a form's marker names a library that is there, of its size, and its source: else FFCx compiles."""
    whole = folder / "whole"
    try:
        name, size = whole.read_text().split()
        source = whole.with_name(f"{name}.c")
        library = whole.with_name(name + sysconfig.get_config_var("EXT_SUFFIX"))
        same = library.stat().st_size == int(size)
        return same and source.exists() and source.with_suffix(".c.cached").exists()
    except (OSError, ValueError):
        return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a form's folder; no collective call may be made meanwhile."""
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with contextlib.suppress(OSError):  # a file system without locks: FFCx's own waiting has to do
            fcntl.flock(lock, fcntl.LOCK_EX)
            _remove_orphans(folder)
        yield
    finally:
        os.close(lock)


def _remove_orphans(folder: Path) -> None:
    """Delete sources that were never compiled, and marks without a source. Only the lock's holder may call this."""
    for source in folder.glob("libffcx_*.c"):
        if not source.with_suffix(".c.cached").exists():
            source.unlink(missing_ok=True)
    for marker in folder.glob("libffcx_*.c.cached"):  # without its source, FFCx would fail to make it again
        if not marker.with_suffix("").exists():
            marker.unlink(missing_ok=True)
