"""What the Jacobian costs through the history of an elastic-plastic bar that is loaded, unloaded and reloaded."""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import numpy as np
from rich.table import Table
import ufl

from benchmarks.timing import medians
from sobofem import fem
from sobofem.fem.materials import plasticity

CELLS = (68, 34)
REVERSALS, STEPS = (1.0, 0.3, 0.9, 0.4, 1.0), 10
LENGTH = 2.0  # mm


def bar() -> fem.Problem:
    """J2 plasticity with combined linear hardening in plane strain: 6 parameters, 3 responses, quadratic triangles."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [LENGTH, 1.0]], CELLS)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    young, poisson, yield_stress, isotropic, kinematic, pull = (
        dolfinx.fem.Constant(mesh, value) for value in (200e3, 0.3, 250.0, 1000.0, 500.0, 0.01)
    )
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u),
        before,
        young=young,
        poisson=poisson,
        hardening=plasticity.linear_hardening(yield_stress, isotropic),
        kinematic=kinematic,
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    stretch = dolfinx.fem.Function(space)
    stretch.interpolate(lambda x: np.stack([x[0] / LENGTH, np.zeros_like(x[0])]))
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    right = dolfinx.fem.locate_dofs_geometrical(
        (space.sub(0), space.sub(0).collapse()[0]), lambda x: np.isclose(x[0], LENGTH)
    )[0]
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), left, space),
            dolfinx.fem.dirichletbc(pull, right, space.sub(0)),
        ],
        parameters=[
            fem.Scalar("young", young, (180e3, 220e3)),
            fem.Scalar("poisson", poisson, (0.25, 0.35)),
            fem.Scalar("yield_stress", yield_stress, (200.0, 300.0)),
            fem.Scalar("isotropic", isotropic, (500.0, 1500.0)),
            fem.Scalar("kinematic", kinematic, (300.0, 900.0)),
            fem.Scalar("pull", pull, (0.008, 0.012)),
        ],
        responses=[
            fem.Response("force", ufl.inner(after.stress, plasticity.strain(stretch)) * dx),
            fem.Response("plastic_work", after.work * dx, at="sum"),
            fem.p_norm("plastic_strain", after.accumulated + 1e-9, dx, p=4),
        ],
        path=fem.LoadPath.cyclic(REVERSALS, STEPS),
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(rtol=1e-8),
    )


def table() -> Table:
    """Seconds, ratios, and the difference of the two methods relative to the largest derivative of each response."""
    problem = bar()
    x = problem.bounds.mean(axis=1)
    times = medians(
        {
            "responses": lambda: problem.evaluate(x, jacobian=False),
            "tangent": lambda: problem.evaluate(x, method="tangent"),
            "adjoint": lambda: problem.evaluate(x, method="adjoint"),
        },
        repetitions=3,
    )
    (_, tangent), (_, adjoint) = (problem.evaluate(x, method=method) for method in ("tangent", "adjoint"))
    difference = np.abs((tangent - adjoint) / np.abs(tangent).max(axis=1, keepdims=True)).max()
    dofmap = problem.unknown.function_space.dofmap
    unknowns = dofmap.index_map.size_global * dofmap.index_map_bs
    shown = Table(
        "", "seconds", "ratio",
        title=f"J2 plasticity, {unknowns:,} unknowns, {len(REVERSALS) * STEPS} load steps, 6 × 3; "
        f"tangent - adjoint {difference:.0e}",
    )  # fmt: skip
    rows = {"responses": "responses", "tangent": "and Jacobian, tangent", "adjoint": "and Jacobian, adjoint"}
    for key, name in rows.items():
        shown.add_row(name, f"{times[key]:.2f}", f"{times[key] / times['responses']:.2f}")
    shown.add_row("by central differences", "", f"{2 * len(x) + 1}")
    return shown
