"""A material of one's own: Norton's creep, implicit in time, in a bracket under constant load.

sobofem check examples/own_material.py:creeping_bracket
python examples/own_material.py --out own_material.png
"""

import argparse
from pathlib import Path

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant
from matplotlib.figure import Figure
import numpy as np
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import stress, von_mises
from sobofem.fem.materials.plasticity import strain

LENGTH, HEIGHT = 100.0, 20.0  # mm
HOURS = (1.0, 3.0, 10.0, 30.0, 100.0)
DEGREE = 2  # of quadrature


def creeping_bracket(comm: MPI.Intracomm = MPI.COMM_WORLD) -> fem.Problem:
    """The bracket, clamped at the left and loaded at the right: deflection after an hour and after a hundred."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [LENGTH, HEIGHT]], [20, 4])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space, name="displacement"), ufl.TestFunction(space)
    young, poisson, traction = Constant(mesh, 150e3), Constant(mesh, 0.3), Constant(mesh, 3.0)
    rate, exponent = Constant(mesh, 3e-12), Constant(mesh, 4.0)  # of creep at 1 MPa [1/h], of stress

    hours = Constant(mesh, 0.0)  # that the present step takes
    creep = fem.internal_variable(mesh, "creep_strain", (3, 3), quadrature_degree=DEGREE)
    growth = fem.LocalUnknown(mesh, quadrature_degree=DEGREE, name="creep increment")

    trial = stress(strain(u) - creep, young, poisson)
    shear = young / (2 * (1 + poisson))
    size = ufl.sqrt(1.5 * ufl.inner(ufl.dev(trial), ufl.dev(trial)) + 1e-6)
    gamma = growth.solving(lambda g: g - hours * rate * (size - 3 * shear * g) ** exponent)  # Norton's law
    grown = 1.5 * gamma / size * ufl.dev(trial)
    sigma = trial - 2 * shear * grown

    path = fem.LoadPath(times=HOURS, step=hours)
    history = {creep: creep + grown}

    dx = ufl.dx(mesh, metadata={"quadrature_degree": DEGREE})
    right = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], LENGTH))
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(right), np.ones(len(right), dtype=np.int32))
    end = ufl.ds(mesh, subdomain_data=tags, metadata={"quadrature_degree": 2})(1)
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))

    return fem.Problem(
        ufl.inner(sigma, strain(v)) * dx + traction * v[1] * end,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
        parameters=[
            fem.Scalar("young", young, (130e3, 170e3), unit="MPa"),
            fem.Scalar("traction", traction, (2.0, 4.0), unit="MPa"),
            fem.Scalar("rate", rate, (1e-12, 5e-12), unit="1/h"),
            fem.Scalar("exponent", exponent, (3.5, 4.2)),
        ],
        responses=[
            fem.average("after_1_h", -u[1], end, unit="mm", at=0),
            fem.average("after_100_h", -u[1], end, unit="mm"),
            fem.p_norm("stress", von_mises(sigma), dx, p=4, unit="MPa"),
        ],
        path=path,
        history=history,
        local=[growth],
    )


def draw(problem: fem.Problem, path: Path) -> None:
    """How far the bracket has sunk with time, under three loads."""
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    for traction in (2.0, 3.0, 4.0):
        sunk = [np.abs(problem.unknown.x.array[1::2]).max() for _ in problem.walk([150e3, traction, 3e-12, 4.0])]
        axes.semilogx(HOURS, sunk, "o-", label=f"{traction:g} MPa")
    axes.set(xlabel="hours", ylabel="deflection [mm]")
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("own_material.png"), help="picture to write")
    problem = creeping_bracket()
    draw(problem, parser.parse_args().out)
    response, jacobian = problem.evaluate([150e3, 3.0, 3e-12, 4.0])
    print(dict(zip(problem.responses, response, strict=True)))
    print(jacobian)
