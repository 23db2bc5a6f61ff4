"""The cache of compiled forms survives killed compilations, nobody waits for a dead process, or runs code of others."""

import contextlib
import os
from pathlib import Path
import shutil
import stat
import subprocess
import sys
import sysconfig
import time

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem.fem.assembly import compilation as jit
from sobofem.fem.assembly import sending
from sobofem.fem.assembly.compilation import compile_expression, compile_form

SUFFIX = sysconfig.get_config_var("EXT_SUFFIX")


@pytest.fixture(autouse=True)
def _forgotten():
    """Each test looks at its cache as a new process does."""
    jit._directory.cache_clear()
    yield
    jit._directory.cache_clear()


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path))
    return tmp_path


def area_form(factor):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    return factor * ufl.dx(mesh)


def test_an_unfinished_compilation_is_done_again(cache):
    compile_form(area_form(2.0), MPI.COMM_SELF)
    (source,) = cache.glob("*/libffcx_forms_*.c")
    for leftover in cache.glob("*/libffcx_*"):
        leftover.unlink()
    source.touch()  # what a compiler killed at work leaves behind
    begin = time.monotonic()
    form = compile_form(area_form(2.0), MPI.COMM_SELF)
    assert dolfinx.fem.assemble_scalar(form) == pytest.approx(2.0)
    assert time.monotonic() - begin < 60  # and not after waiting in vain


def test_an_expression_that_is_a_function_is_compiled_once(cache):
    """DOLFINx gives its type another name than the default one has: it would be compiled once more, without lock."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    compile_expression(u, np.array([[0.25, 0.25]]), MPI.COMM_SELF)
    assert len([*cache.glob("*/libffcx_expressions_*.c")]) == 1


def test_a_compilation_whose_source_is_gone_is_done_again(cache):
    compile_form(area_form(5.0), MPI.COMM_SELF)
    (source,) = cache.glob("*/libffcx_forms_*.c")
    source.unlink()
    assert dolfinx.fem.assemble_scalar(compile_form(area_form(5.0), MPI.COMM_SELF)) == pytest.approx(5.0)
    assert source.exists()


def test_what_other_compiler_flags_made_is_not_taken_for_ones_own(cache, monkeypatch):
    with monkeypatch.context() as other:
        other.setattr(jit, "_compiler_flags", lambda: ["-O1", "-w"])
        compile_form(area_form(6.0), MPI.COMM_SELF)
    locks, lock = [], jit.locked

    def watched(directory):
        locks.append(directory)
        return lock(directory)

    monkeypatch.setattr(jit, "locked", watched)
    compile_form(area_form(6.0), MPI.COMM_SELF)
    assert [lock.parent for lock in locks] == [cache]
    assert len(list(cache.glob("*/*.c.cached"))) == 2


@pytest.mark.slow
def test_two_processes_compiling_the_same_form_both_succeed(cache):
    script = (
        "from mpi4py import MPI\nfrom sobofem import fem\nimport dolfinx, ufl\n"
        "from sobofem.fem.assembly.compilation import compile_form\n"
        "mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)\n"
        "print(dolfinx.fem.assemble_scalar(compile_form(3.0 * ufl.dx(mesh), MPI.COMM_SELF)))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0
        assert float(output) == pytest.approx(3.0)
    assert len(list(cache.glob("*/*.c.cached"))) == 1


def test_a_form_is_compiled_under_the_lock_again_once_the_compiler_s_settings_change(cache, monkeypatch):
    before = jit._compiler_flags
    compile_form(area_form(2.5), MPI.COMM_SELF)
    monkeypatch.setattr(jit, "_compiler_flags", lambda: [*before(), "-DCHANGED"])
    locked, made = jit.locked, []

    @contextlib.contextmanager
    def watched(directory):
        with locked(directory):
            yield
            made.extend(directory.parent.glob("*/*.c.cached"))

    monkeypatch.setattr(jit, "locked", watched)
    compile_form(area_form(2.5), MPI.COMM_SELF)
    assert len(made) == 2  # none of them made after the lock was given back
    assert set(made) == set(cache.glob("*/*.c.cached"))


def refused(cache, monkeypatch):
    """What is said of a cache; nothing may be compiled or touched."""
    monkeypatch.setenv("SOBOFEM_CACHE", str(cache))
    jit._directory.cache_clear()
    with pytest.raises(OSError) as refusal:
        compile_form(area_form(4.0), MPI.COMM_SELF)
    assert "$SOBOFEM_CACHE" in str(refusal.value)
    return str(refusal.value)


def test_a_new_cache_is_for_its_owner_alone(tmp_path, monkeypatch):
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path / "a" / "b"))
    before = os.umask(0)
    try:
        made = jit.cache_directory()
    finally:
        os.umask(before)
    assert [stat.S_IMODE(place.stat().st_mode) for place in (made, made.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
def test_a_cache_that_others_may_write_to_is_refused(tmp_path, monkeypatch, mode):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    assert f"others may write to {tmp_path / 'cache'}" in refused(tmp_path / "cache", monkeypatch)


@pytest.mark.parametrize(("mode", "sound"), [(0o777, False), (0o770, False), (0o1777, True), (0o755, True)])
def test_no_parent_may_be_open_unless_it_keeps_what_lies_in_it(tmp_path, monkeypatch, mode, sound):
    (tmp_path / "open" / "way").mkdir(parents=True)
    (tmp_path / "open").chmod(mode)
    cache = tmp_path / "open" / "way" / "cache"
    if sound:
        monkeypatch.setenv("SOBOFEM_CACHE", str(cache))
        assert jit.cache_directory() == cache
    else:
        assert f"chmod go-w {tmp_path / 'open'}" in refused(cache, monkeypatch)


def test_a_link_is_no_cache_and_one_on_the_way_is_followed_with_the_same_care(tmp_path, monkeypatch):
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    (tmp_path / "closed").mkdir(mode=0o700)
    (tmp_path / "link").symlink_to("closed")
    (tmp_path / "way").symlink_to(tmp_path / "open")
    assert f"name the folder that it points to, {tmp_path / 'closed'}" in refused(tmp_path / "link", monkeypatch)
    assert "others may write to" in refused(tmp_path / "way" / "cache", monkeypatch)
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path / "link" / "cache"))
    assert jit.cache_directory().resolve() == tmp_path / "closed" / "cache"


@pytest.fixture
def form_folder(tmp_path, monkeypatch):
    """The folder, in a cache of its own, of the form that `refused` asks for."""
    cache = tmp_path / "own" / "cache"
    monkeypatch.setenv("SOBOFEM_CACHE", str(cache))
    compile_form(area_form(4.0), MPI.COMM_SELF)
    (folder,) = cache.iterdir()
    return folder


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make files of others")
@pytest.mark.parametrize("whose", ["../..", "..", ".", "libffcx_forms_0.so", "lock"])
def test_nothing_of_another_account_is_believed(form_folder, monkeypatch, whose):
    place = form_folder / whose
    if not place.exists():
        place.touch()
    os.chown(place, 65533, 65533)
    assert "the account with number 65533" in refused(form_folder.parent, monkeypatch)


def test_a_lock_that_is_a_link_truncates_nothing(form_folder, tmp_path, monkeypatch):
    (tmp_path / "precious").write_text("data")
    (form_folder / "lock").unlink()
    (form_folder / "lock").symlink_to(tmp_path / "precious")
    assert "is a link" in refused(form_folder.parent, monkeypatch)
    with pytest.raises(OSError), jit.locked(form_folder):  # also where it came after the check
        pass
    assert (tmp_path / "precious").read_text() == "data"


def test_other_forms_cost_nothing(form_folder, monkeypatch):
    """On thousands of ranks a look at each of thousands of folders is a load on the file system."""
    listed, scan = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(Path(path)) or scan(path))
    jit._directory.cache_clear()
    compile_form(area_form(4.0), MPI.COMM_SELF)
    assert form_folder in listed and form_folder.parent not in listed


def test_without_a_usable_home_a_folder_of_the_process_does(tmp_path, monkeypatch):
    for name in ("SOBOFEM_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / ".cache").mkdir()
    (tmp_path / ".cache").chmod(0o777)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.warns(UserWarning, match=r"compiled forms are not kept \(others may write to"):
        made = jit.cache_directory()
    assert stat.S_IMODE(made.stat().st_mode) == 0o700 and not list((tmp_path / ".cache").iterdir())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / ".cache"))
    with pytest.raises(PermissionError, match="chmod go-w"):  # what was named is used, or refused
        jit.cache_directory()


def test_a_relative_cache_stays_where_it_was(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOBOFEM_CACHE", "here")
    made = jit.cache_directory()
    monkeypatch.chdir("/")
    assert jit.cache_directory() == made == tmp_path / "here"


def test_a_finished_mark_whose_source_is_gone_does_not_block_its_form(tmp_path, monkeypatch):
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path))
    jit._directory.cache_clear()
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    form = 3.5 * ufl.dx(mesh)
    compile_form(form, mesh.comm)
    for path in [*tmp_path.glob("*/*.c"), *tmp_path.glob("*/whole")]:
        path.unlink()
    assert dolfinx.fem.assemble_scalar(compile_form(form, mesh.comm)) == pytest.approx(3.5)


@pytest.mark.slow
def test_a_compiled_form_that_was_damaged_is_compiled_again(tmp_path, monkeypatch):
    """In a process of its own: to load half a library ends it."""
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path / "sound"))
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    compile_form(4.5 * ufl.dx(mesh), mesh.comm)
    damaged = [tmp_path / kind for kind in ("gone", "empty", "half", "marker")]
    for folder in damaged:
        shutil.copytree(tmp_path / "sound", folder)
        (library,), (marker,) = folder.glob("*/*.so"), folder.glob("*/whole")
        if folder.name == "gone":
            library.unlink()
        elif folder.name == "marker":
            marker.write_bytes(b"\xff/")
        else:
            whole = library.read_bytes()
            library.write_bytes(whole[: len(whole) // 2] if folder.name == "half" else b"")
    code = """
import os, sys
from mpi4py import MPI
import dolfinx, ufl
from sobofem.fem.assembly.compilation import compile_expression, compile_form
mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
for os.environ["SOBOFEM_CACHE"] in sys.argv[1:]:
    print(dolfinx.fem.assemble_scalar(compile_form(4.5 * ufl.dx(mesh), mesh.comm)))
"""
    done = subprocess.run([sys.executable, "-c", code, *map(str, damaged)], capture_output=True, text=True, check=True)
    assert [float(value) for value in done.stdout.split()] == pytest.approx([4.5] * 4)
    assert len(list(tmp_path.rglob("*.so"))) == 5


def test_a_form_that_was_not_sent_whole_has_no_source_and_mark_beside_half_a_library(tmp_path):
    there = tmp_path / "there"
    there.mkdir()
    for name in ("libffcx_a.c", "libffcx_a.c.cached", "libffcx_a.o", f"libffcx_a{SUFFIX}"):
        (there / name).write_text(name)
    (there / "whole").write_text(f"libffcx_a {len(f'libffcx_a{SUFFIX}')}")
    content = sending._read(there)
    assert jit.is_compiled(there) and len(content) == 5
    for count in range(5):
        here = tmp_path / f"cut after {count}"
        sending._write(here, dict(list(content.items())[:count]))
        assert not jit.is_compiled(here)
        loaded = (here / "libffcx_a.c").exists() and (here / "libffcx_a.c.cached").exists()
        assert not loaded or (here / f"libffcx_a{SUFFIX}").exists()
        sending._write(here, content)
        assert jit.is_compiled(here)
        assert {file.name for file in here.iterdir()} == {*content, "lock"}


def test_a_library_that_is_sent_does_not_change_one_that_is_loaded(tmp_path):
    library = tmp_path / "libffcx_a.so"
    library.write_text("loaded")
    with library.open() as loaded:
        sending._replace(library, b"new")
        assert loaded.read() == "loaded" and library.read_text() == "new"
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        sending._replace(tmp_path / "folder", b"new")
    assert {file.name for file in tmp_path.iterdir()} == {"libffcx_a.so", "folder"}
    assert sending._contents((tmp_path / "gone",)) == {}


def test_the_home_of_no_account_is_named(monkeypatch):
    monkeypatch.setenv("SOBOFEM_CACHE", "~no-such-account/forms")
    with pytest.raises(OSError, match="no account for the ~ of ~no-such-account/forms"):
        jit.cache_directory()
