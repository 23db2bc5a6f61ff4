"""Samples with Jacobian a second, against a plain DOLFINx script that rebuilds its problem for every sample."""

from __future__ import annotations

from mpi4py import MPI
import dolfinx
import dolfinx.fem.petsc
import numpy as np
from rich.table import Table
import ufl

from benchmarks.timing import medians
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.materials.elasticity import plane_stress, strain
from sobofem.fem.reading import read_mesh
from sobofem.meshes import FOLDER
from sobofem.meshes.tags import Plate

POINT = [70e3, 0.3, 100.0, 50.0, 20.0, 20.0]


def plain_script(x: list[float]) -> float:
    """One sample as a script would do it: mesh, space, forms and solver anew; the compliance alone, no derivative."""
    young, poisson, traction_x, traction_y, *_ = x
    mesh, facets = read_mesh(FOLDER / "plate_with_hole.xdmf", MPI.COMM_SELF)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = ufl.TrialFunction(space), ufl.TestFunction(space)
    modulus, ratio = dolfinx.fem.Constant(mesh, young), dolfinx.fem.Constant(mesh, poisson)
    traction = dolfinx.fem.Constant(mesh, (traction_x, traction_y))
    dx, ds = ufl.dx(mesh, metadata={"quadrature_degree": 4}), ufl.ds(mesh, subdomain_data=facets)
    stiffness = ufl.inner(plane_stress(strain(u), modulus, ratio), strain(v)) * dx
    load = traction[0] * v[0] * ds(Plate.RIGHT) + traction[1] * v[1] * ds(Plate.TOP)
    bcs = [
        dolfinx.fem.dirichletbc(
            0.0, dolfinx.fem.locate_dofs_topological(space.sub(i), 1, facets.find(edge)), space.sub(i)
        )
        for i, edge in ((0, Plate.LEFT), (1, Plate.BOTTOM))
    ]
    problem = dolfinx.fem.petsc.LinearProblem(
        stiffness, load, bcs=bcs, petsc_options_prefix="plain_",
        petsc_options={"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"},
    )  # fmt: skip
    solution = problem.solve()
    work = traction[0] * solution[0] * ds(Plate.RIGHT) + traction[1] * solution[1] * ds(Plate.TOP)
    return float(dolfinx.fem.assemble_scalar(dolfinx.fem.form(work)))


def table() -> Table:
    """Samples a second: the script by central differences and without derivatives, and `Problem`."""
    problem = plate_with_hole(MPI.COMM_SELF)
    agreement = 10.0 * plain_script(POINT) / problem.evaluate(POINT, jacobian=False)[0][0]
    assert np.isclose(agreement, 1.0, rtol=1e-10), agreement
    times = medians({"script": lambda: plain_script(POINT), "problem": lambda: problem.evaluate(POINT)})
    differences = times["script"] * (2 * len(problem.parameters) + 1)
    shown = Table(
        "plate with a hole, one rank", "samples a second", "times slower", title="against a script that rebuilds"
    )
    rows = (
        ("Problem.evaluate: 5 responses and their Jacobian", times["problem"]),
        ("script: 1 response, no derivative", times["script"]),
        ("script: central differences by 6 parameters", differences),
    )
    for name, seconds in rows:
        shown.add_row(name, f"{1 / seconds:.2f}", f"{seconds / times['problem']:.1f}")
    return shown
