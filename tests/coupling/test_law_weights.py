"""Responses differentiated by the weights of a learned law, through the structure that it is part of."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import torch
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LawWeights, LearnedEnergy, taylor_test
from sobofem.fem.materials.hyperelasticity import (
    deformation_gradient,
    first_piola_kirchhoff,
    invariants,
    neo_hooke,
)

RULE = {"quadrature_degree": 2}
PULL, T = 0.3, 0.4


def first_and_last(F):
    return invariants(F)[::2]


def strain(F):
    E = 0.5 * (F.T * F - ufl.Identity(3))
    return E[0, 0] + E[1, 1], E[0, 1] ** 2


KINDS = {
    "invariants": (first_and_last, {"I1": (2.9, 3.1), "J": (0.8, 1.2)}),
    "strain": (strain, {"E": (-0.1, 0.4), "E12": (0.0, 0.1)}),
}


def untrained(ranges, seed=0):
    module = surrogate.MLP(5, 2).build(len(ranges), 1, torch.Generator().manual_seed(seed))
    return surrogate.Surrogate.from_module(module, ranges, ("energy",))


def stretched(model, measures, *, comm=MPI.COMM_SELF, warm=False, varied=True):
    """A strip of a stable law and a part that is learned, pulled; with a temperature if wanted."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[0, 0], [3, 1]], [4, 2], dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    pull, warmth = dolfinx.fem.Constant(mesh, PULL), dolfinx.fem.Constant(mesh, T)
    learned = LearnedEnergy(model, mesh, measures, quadrature_degree=2)
    dx, F = ufl.dx(mesh, metadata=RULE), deformation_gradient(u)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 3.0))
    right = dolfinx.fem.locate_dofs_topological(space.sub(0), 1, facets)

    def law(F):
        return neo_hooke(F, 1.0, 2.0) + 0.3 * learned(F, *([warmth] if warm else []))

    problem = fem.Problem(
        law(F) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), left, space), dolfinx.fem.dirichletbc(pull, right, space.sub(0))],
        parameters=[
            *([LawWeights("weight", learned, (-1.0, 1.0))] if varied else []),
            *([fem.Scalar("T", warmth, (0.0, 1.0))] if warm else []),
            fem.Scalar("pull", pull, (0.0, 0.6)),
        ],
        responses=[
            fem.Response("energy", law(F) * dx),
            fem.Response("narrowing", u[1] ** 2 * dx),
            fem.Response("stress", first_piola_kirchhoff(law, F)[0, 0] * dx),
        ],
    )
    return problem, learned


def somewhere(problem, scale=0.1):
    """Parameters with random changes of the weights."""
    count = sum(name.startswith("weight") for name in problem.parameters)
    others = [T, PULL][-(len(problem.parameters) - count) :]
    return np.concatenate([np.random.default_rng(0).uniform(-scale, scale, count), others])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "warm"), [pytest.param("invariants", False, marks=pytest.mark.slow), ("strain", True)]
)
def test_derivatives_by_all_weights_are_those_of_differences(kind, warm):
    measures, ranges = KINDS[kind]
    problem, _ = stretched(untrained({**ranges, "T": (0.0, 1.0)} if warm else ranges), measures, warm=warm)
    x, h = somewhere(problem), 1e-5
    direction = np.random.default_rng(1).normal(size=len(x))
    up, down = (problem.evaluate(x + s * h * direction, jacobian=False)[0] for s in (1.0, -1.0))
    expected = (up - down) / (2 * h)
    assert problem.jvp(x, direction) == pytest.approx(expected, rel=1e-7)
    assert problem.vjp(x, np.eye(3)) @ direction == pytest.approx(expected, rel=1e-7)


@pytest.mark.slow
def test_they_pass_a_taylor_test_and_are_the_same_by_adjoint_and_tangent():
    problem, _ = stretched(untrained({"I1": (2.9, 3.1), "J": (0.8, 1.2)}), first_and_last)
    report = taylor_test(problem, directions=2)
    assert report.passed, str(report)
    assert min(row.rate for row in report.rows if np.isfinite(row.rate)) >= 1.95
    x = somewhere(problem)
    adjoint, tangent = (problem.evaluate(x, method=method)[1] for method in ("adjoint", "tangent"))
    assert tangent == pytest.approx(adjoint, rel=1e-9, abs=1e-12)


@pytest.mark.slow
def test_the_surrogate_with_changed_weights_gives_what_the_problem_gave():
    model = untrained({"I1": (2.9, 3.1), "J": (0.8, 1.2)})
    problem, law = stretched(model, first_and_last)
    x, digest = somewhere(problem), problem.digest
    expected = problem.evaluate(x, jacobian=False)[0]
    changed = LawWeights("weight", law).surrogate(x[:-1])
    plain, _ = stretched(changed, first_and_last, varied=False)
    assert plain.evaluate(x[-1:], jacobian=False)[0] == pytest.approx(expected, rel=1e-12)
    again, _ = stretched(model, first_and_last)
    other, _ = stretched(changed, first_and_last)
    assert again.digest == digest != other.digest


def creeping():
    """A block whose learned law has a modulus that grows from step to step with its own energy."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    load, factor = dolfinx.fem.Constant(mesh, 0.4), dolfinx.fem.Constant(mesh, 1.0)
    q = fem.internal_variable(mesh, "hardening", quadrature_degree=2)
    dx, F = ufl.dx(mesh, metadata=RULE), deformation_gradient(u)
    model = untrained({"I1": (2.9, 3.1), "J": (0.8, 1.2), "q": (0.0, 1.0)})
    learned = LearnedEnergy(model, mesh, first_and_last, quadrature_degree=2)

    def law(F):
        return neo_hooke(F, 1.0, 2.0) + 0.3 * learned(F, q)

    P, left = first_piola_kirchhoff(law, F), dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0))
    return fem.Problem(
        sum(P[i, j] * ufl.grad(v)[i, j] for i in range(2) for j in range(2)) * dx - factor * load * v[0] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), left, space)],
        parameters=[LawWeights("weight", learned, (-1.0, 1.0)), fem.Scalar("load", load, (-0.5, 0.5))],
        responses=[
            fem.Response("energy", law(F) * dx, at="sum"),
            fem.Response("end", u[0] * dx),
            fem.Response("hardening", q * dx, at=1),
        ],
        path=fem.LoadPath((1.0, 0.4, 1.2), factor=factor),
        history={q: 0.6 * q + 0.5 * learned(F, q) + (ufl.inner(F, F) - 2)},
    )


@pytest.mark.slow
def test_they_go_through_the_history_of_a_material():
    problem = creeping()
    x, h = somewhere(problem), 1e-5
    direction = np.random.default_rng(1).normal(size=len(x))
    up, down = (problem.evaluate(x + s * h * direction, jacobian=False)[0] for s in (1.0, -1.0))
    expected = (up - down) / (2 * h)
    assert problem.vjp(x, np.eye(3)) @ direction == pytest.approx(expected, rel=1e-6)
    assert problem.jvp(x, direction) == pytest.approx(expected, rel=1e-6)


class Fixed(torch.nn.Module):
    """An energy without weights."""

    def forward(self, x):
        return x[:, :1] ** 2


@pytest.mark.slow
def test_what_has_no_derivatives_by_weights_is_said():
    ranges = {"I1": (2.9, 3.1), "J": (0.8, 1.2)}
    problem, law = stretched(untrained(ranges), first_and_last)
    x = somewhere(problem)
    with pytest.raises(NotImplementedError, match="by the weights of a law"):
        problem.hvp(x, [1.0, 0.0, 0.0], np.eye(len(x))[0])
    with pytest.raises(ValueError, match=r"shape \(52,\), expected \(51,\), one a weight"):
        LawWeights("weight", law).surrogate(x)
    with pytest.raises(TypeError, match="law is of type MLP, expected a LearnedEnergy"):
        LawWeights("weight", surrogate.MLP(5, 2))
    with pytest.raises(ValueError, match="parameters of one problem"):
        LawWeights("weight", law).bind(problem.unknown, [])
    fixed = surrogate.Surrogate.from_module(Fixed(), ranges, ("energy",))
    with pytest.raises(ValueError, match="Fixed has no weights that training changes"):
        stretched(fixed, first_and_last)
