"""Whatever changes a problem's answers changes its digest, and nothing else does."""

import subprocess
import sys

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
from problems import OwnKind
import pytest
import ufl

from sobofem import fem


def problem(
    comm=MPI.COMM_SELF,
    *,
    power=1.0,
    combine=lambda a, b: a / b,
    velocity=lambda x: np.stack([x[0], 0 * x[0]]),
    diagonal=dolfinx.mesh.DiagonalType.right,
    origin=0.0,
    side=0,
    part=None,
    mean=lambda x: np.cos(2 * np.pi * x[0]),
    values=(1, 2),
    exchanged=False,
    number=1.0,
    bounds=(0.5, 2.0),
    path=None,
):
    """Springs, loads and a support on a square; of two unknowns, one of which is held, where a part is named."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[origin, 0.0], [origin + 1, 1.0]], [4, 4], diagonal=diagonal)
    scalar = ("Lagrange", 1)
    if part is None:
        space = dolfinx.fem.functionspace(mesh, scalar)
    else:
        pair = [basix.ufl.element("Lagrange", mesh.basix_cell(), 1)] * 2
        space = dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element(pair))
    u = dolfinx.fem.Function(space)
    w = u if part is None else u[0] + u[1]
    k, a, b = (dolfinx.fem.Constant(mesh, 1.0) for _ in range(3))
    f = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, scalar))
    f.interpolate(mean)
    sides = [
        dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x, s=s: np.isclose(x[0], origin + s)) for s in (0, 1)
    ]
    facets = np.concatenate(sides)
    order = np.argsort(facets)
    marks = np.concatenate([np.full(len(s), v, dtype=np.int32) for s, v in zip(sides, values, strict=True)])
    ds = ufl.Measure("ds", domain=mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 1, facets[order], marks[order]))
    energy = 0.5 * (k * ufl.inner(ufl.grad(u), ufl.grad(u)) + ufl.inner(u, u)) * ufl.dx(mesh)
    energy -= a * (f + 2) * w * ufl.dx(mesh) + number * b * w * ds(1)
    return fem.Problem(
        energy,
        u,
        bcs=[_support(space, origin + side, part)],
        parameters=[
            fem.Scalar("a", b if exchanged else a, bounds),
            fem.Scalar("b", a if exchanged else b, bounds),
            OwnKind(k, power),
            fem.Shape("width", velocity, (-0.2, 0.2), 0.0),
        ],
        responses=[fem.Response("ratio", (w * ufl.dx(mesh), (1 + w**2) * ufl.dx(mesh)), combine)],
        path=path or fem.LoadPath(),
    )


def _support(space, place, part):
    def where(x):
        return np.isclose(x[0], place)

    if part is None:
        return dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_geometrical(space, where), space)
    own, _ = space.sub(part).collapse()
    dofs = dolfinx.fem.locate_dofs_geometrical((space.sub(part), own), where)
    return dolfinx.fem.dirichletbc(dolfinx.fem.Function(own), dofs, space.sub(part))


CHANGES = {
    "an own kind of parameter": {"power": 2.0},
    "combine": {"combine": lambda a, b: a / (b + 1e-3)},
    "combine, far from usual values": {"combine": lambda a, b: ufl.conditional(ufl.gt(b, 1e3), a, a * b / 1e3) / b},
    "a velocity in a closure": {"velocity": lambda x: np.stack([1.001 * x[0], 0 * x[0]])},
    "how cells connect the same nodes": {"diagonal": dolfinx.mesh.DiagonalType.left},
    "the other side held": {"side": 1},
    "a mean that moments can't tell apart": {"mean": lambda x: np.cos(4 * np.pi * x[0])},
    "tags exchanged": {"values": (2, 1)},
    "constants exchanged": {"exchanged": True},
    "a number in the form": {"number": 1.0001},
    "another place, far away": {"origin": 1e6},
    "a mixed unknown": {"part": 0},
    "its other part held": {"part": 1},
    "its first part held elsewhere": {"part": 0, "side": 1},
    "points of the path": {"path": fem.LoadPath([0.5, 1.0])},
}


@pytest.fixture(scope="module")
def digests():
    found = {name: problem(**change).digest for name, change in CHANGES.items()}
    return found | {"nothing": problem().digest}


@pytest.mark.slow
def test_every_change_of_answers_has_a_digest_of_its_own(digests):
    same = [(a, b) for a in digests for b in digests if a < b and digests[a] == digests[b]]
    assert not same


@pytest.mark.slow
def test_bounds_round_off_and_another_process_change_nothing(digests):
    assert problem(bounds=(0.4, 3.0)).digest == digests["nothing"]
    assert problem(number=1.0 + 2e-16).digest == digests["nothing"]
    solved = problem()
    solved.evaluate([1.0, 1.1, 0.9, 1.2, 0.0])
    assert solved.digest == digests["nothing"]
    code = "import sys; sys.path[:0] = sys.argv[1:]; import test_digest as t; print(t.problem().digest)"
    there = subprocess.run(
        [sys.executable, "-c", code, *sys.path], capture_output=True, text=True, check=True
    ).stdout.split()
    assert there[-1] == digests["nothing"]


@pytest.mark.slow
def test_which_constant_the_load_factor_sets_is_part_of_the_digest():
    def loaded(second):
        mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 3)
        u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
        p, q, k = (dolfinx.fem.Constant(mesh, 1.0) for _ in range(3))
        x = ufl.SpatialCoordinate(mesh)[0]
        return fem.Problem(
            (0.5 * k * u**2 - (p + x * q) * u) * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
            path=fem.LoadPath([0.5, 1.0], factor=q if second else p),
        ).digest

    assert loaded(second=True) != loaded(second=False) == loaded(second=False)
