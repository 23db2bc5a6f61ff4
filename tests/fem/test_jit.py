"""The cache of compiled forms survives killed compilations, and no process waits for a dead one."""

import subprocess
import sys
import time

from mpi4py import MPI
import dolfinx
import pytest
import ufl

from fem.jit import compile_form


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SOBOFEM_CACHE", str(tmp_path))
    return tmp_path


def area_form(factor):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    return factor * ufl.dx(mesh)


def test_an_unfinished_compilation_is_done_again(cache):
    compile_form(area_form(2.0), MPI.COMM_SELF)
    (source,) = cache.glob("libffcx_forms_*.c")
    for leftover in cache.glob("libffcx_*"):
        leftover.unlink()
    source.touch()  # what a compiler killed at work leaves behind
    begin = time.monotonic()
    form = compile_form(area_form(2.0), MPI.COMM_SELF)
    assert dolfinx.fem.assemble_scalar(form) == pytest.approx(2.0)
    assert time.monotonic() - begin < 60  # and not after waiting in vain


def test_two_processes_compiling_the_same_form_both_succeed(cache):
    script = (
        "from mpi4py import MPI; import fem, dolfinx, ufl; from fem.jit import compile_form\n"
        "mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)\n"
        "print(dolfinx.fem.assemble_scalar(compile_form(3.0 * ufl.dx(mesh), MPI.COMM_SELF)))"
    )
    runs = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        output, _ = run.communicate(timeout=120)
        assert run.returncode == 0
        assert float(output) == pytest.approx(3.0)
    assert len(list(cache.glob("*.c.cached"))) == 1
