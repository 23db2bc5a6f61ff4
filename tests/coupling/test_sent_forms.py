"""Nodes that don't see each other's compiled forms: ranks with folders of their own, some without a compiler."""

import subprocess
import sys

from launching import MPIEXEC, environment
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")]

MODEL = """
from mpi4py import MPI
import dolfinx, ufl
from dolfinx.fem import Constant
from sobofem import fem

def bar(comm=MPI.COMM_WORLD):
    mesh = dolfinx.mesh.create_unit_interval(comm, 4)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    modulus, dx = Constant(mesh, 1.0), ufl.dx(mesh)
    energy = modulus * u.dx(0) ** 2 / 2 + u**2 / 2 - ufl.SpatialCoordinate(mesh)[0] * u
    return fem.Problem(
        energy * dx, u, bcs=[], parameters=[fem.Scalar("modulus", modulus, (0.5, 2.0))],
        responses=[fem.average("mean", u**2, dx)],
    )
"""

RANK = """
import os, sys
number = os.environ["PMI_RANK"]
os.environ["SOBOFEM_CACHE"] = f"{sys.argv[1]}/node-{number}"
if number != "0":
    os.environ["CC"] = "/no/compiler"
sys.argv = ["sobofem", "generate", "model.py:bar", "--samples", "8", "--seed", "1", "--out", "a.h5"]
from sobofem.coupling.start import main
main()
"""


def test_forms_are_compiled_on_one_node_and_sent_to_the_others(tmp_path):
    (tmp_path / "model.py").write_text(MODEL)
    line = [MPIEXEC, "-n", "3", sys.executable, "-c", RANK, str(tmp_path)]
    done = subprocess.run(
        line, capture_output=True, text=True, timeout=300, env=environment(), cwd=tmp_path, check=False
    )
    assert "8 samples, 0 failed" in done.stdout, done.stderr
    first, *others = (sorted(p.relative_to(f) for p in f.rglob("*.so")) for f in sorted(tmp_path.glob("node-*")))
    assert len(first) > 2 and others == [first, first]
