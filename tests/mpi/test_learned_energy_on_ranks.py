"""A learned law, distributed over all ranks; run serially these tests hold as well.

mpiexec -n 3 python -m pytest tests/mpi
"""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import torch
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LawWeights, LearnedEnergy
from sobofem.fem.materials.hyperelasticity import deformation_gradient, invariants, neo_hooke

WORLD = MPI.COMM_WORLD
X = [0.3, -0.2, 0.25]


def strip(comm, *, seed=0, weights=False):
    """A strip whose law varies from place to place with a field, pulled; and its law, with weights if wanted."""
    module = surrogate.MLP(12, 2).build(3, 1, torch.Generator().manual_seed(seed))
    ranges = {"I1": (2.9, 3.1), "J": (0.8, 1.2), "T": (-1.0, 1.0)}
    model = surrogate.Surrogate.from_module(module, ranges, ("energy",))
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [3.0, 1.0]], [9, 3])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.02)
    warmth = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    basis = [dolfinx.fem.Function(warmth.function_space) for _ in range(2)]
    for k, function in enumerate(basis):
        function.interpolate(lambda x, k=k: np.cos(k * x[0] + x[1]))
    law = LearnedEnergy(model, mesh, lambda F: invariants(F)[::2], quadrature_degree=2)
    dx, F = ufl.dx(mesh, metadata={"quadrature_degree": 2}), deformation_gradient(u)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 3.0))
    right = dolfinx.fem.locate_dofs_topological(space.sub(0), 1, facets)
    energy = neo_hooke(F, 1.0, 2.0) + 0.1 * law(F, warmth)
    problem = fem.Problem(
        energy * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), left, space), dolfinx.fem.dirichletbc(pull, right, space.sub(0))],
        parameters=[
            fem.Field("warmth", warmth, basis, (-0.5, 0.5)),
            fem.Scalar("pull", pull, (-0.2, 0.5)),
            *([LawWeights("weight", law, (-1.0, 1.0))] if weights else []),
        ],
        responses=[fem.Response("energy", energy * dx), fem.Response("height", u[1] ** 2 * dx)],
    )
    return problem, law


def test_values_derivatives_and_digest_are_those_of_one_rank():
    (together, law), (alone, own) = strip(WORLD), strip(MPI.COMM_SELF)
    assert together.digest == alone.digest
    for one, other in zip(together.evaluate(X), alone.evaluate(X), strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-12)
    assert law.share_outside() == own.share_outside() > 0.0


def test_products_with_hessians_are_those_of_one_rank():
    (together, _), (alone, _) = strip(WORLD), strip(MPI.COMM_SELF)
    weights, direction = [1.0, 0.3], [0.2, -1.0, 0.5]
    expected = alone.hvp(X, weights, direction)
    assert together.hvp(X, weights, direction) == pytest.approx(expected, rel=1e-8, abs=1e-11)


def test_derivatives_by_the_weights_of_the_law_are_those_of_one_rank():
    (together, _), (alone, _) = strip(WORLD, weights=True), strip(MPI.COMM_SELF, weights=True)
    assert together.digest == alone.digest
    x = np.concatenate([X, np.random.default_rng(0).uniform(-0.1, 0.1, len(alone.parameters) - len(X))])
    weights, direction = [1.0, 0.3], np.cos(np.arange(len(x)))
    assert together.vjp(x, weights) == pytest.approx(alone.vjp(x, weights), rel=1e-8, abs=1e-12)
    assert together.jvp(x, direction) == pytest.approx(alone.jvp(x, direction), rel=1e-8, abs=1e-12)


def test_ranks_with_different_networks_are_told_so():
    if WORLD.size > 1:
        with pytest.raises(ValueError, match="is another function on rank 1 than on rank 0"):
            strip(WORLD, seed=WORLD.rank)


def test_an_error_of_a_function_on_one_rank_is_raised_on_all():
    mesh = dolfinx.mesh.create_unit_square(WORLD, 3, 3)

    def evaluate(z, order):
        if WORLD.rank == WORLD.size - 1:
            raise ValueError("no table there")
        return [np.ones((len(z), *k * (1,))) for k in range(order + 1)]

    T = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    load, dx = dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh, metadata={"quadrature_degree": 2})
    table = fem.ExternalFunction(mesh, evaluate, quadrature_degree=2, digest="")
    problem = fem.Problem(
        (table(T) + T**2 - load * T) * dx,
        T,
        bcs=[],
        parameters=[fem.Scalar("load", load, (0.0, 1.0))],
        responses=[fem.Response("mean", T * dx)],
    )
    with pytest.raises(ValueError, match="no table there"):
        problem.evaluate([0.5])
