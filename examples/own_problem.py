"""A problem of one's own in some twenty lines of UFL: a bimetal strip that bends when it is heated.

sobofem check examples/own_problem.py:bimetal
mpiexec -n 2 sobofem generate examples/own_problem.py:bimetal --samples 64 --out bimetal.h5
python examples/own_problem.py --out own_problem.png
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
from sobofem.fem.materials.elasticity import plane_stress, strain

LENGTH, HEIGHT = 50.0, 2.0  # mm; steel in the lower half, brass in the upper


def bimetal(comm: MPI.Intracomm = MPI.COMM_WORLD) -> fem.Problem:
    """The strip, clamped at the left: tip deflection and stress against heating and stiffnesses."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [LENGTH, HEIGHT]], [100, 8])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="displacement")
    steel, brass, heating = Constant(mesh, 210e3), Constant(mesh, 100e3), Constant(mesh, 100.0)

    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    upper = ufl.conditional(ufl.SpatialCoordinate(mesh)[1] > HEIGHT / 2, 1.0, 0.0)
    young = steel + upper * (brass - steel)
    expansion = (12e-6 + upper * (19e-6 - 12e-6)) * heating * ufl.Identity(2)
    elastic = strain(u) - expansion
    stress = plane_stress(elastic, young, 0.3)
    tip = ufl.conditional(ufl.SpatialCoordinate(mesh)[0] > 0.98 * LENGTH, 1.0, 0.0)
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))

    return fem.Problem(
        0.5 * ufl.inner(stress, elastic) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)],
        parameters=[
            fem.Scalar("steel", steel, (190e3, 220e3), unit="MPa"),
            fem.Scalar("brass", brass, (90e3, 120e3), unit="MPa"),
            fem.Scalar("heating", heating, (20.0, 150.0), unit="K"),
        ],
        responses=[
            fem.Response("deflection", (tip * u[1] * dx, tip * dx), lambda moment, area: moment / area, unit="mm"),
            fem.p_norm("stress", ufl.sqrt(ufl.inner(stress, stress)), dx, p=4, unit="MPa"),
        ],
    )


def draw(problem: fem.Problem, path: Path) -> None:
    """The middle of the strip, bent by three heatings; the deflection is shown larger than the length."""
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    nodes = problem.unknown.function_space.tabulate_dof_coordinates()
    middle = np.flatnonzero(np.isclose(nodes[:, 1], HEIGHT / 2))
    middle = middle[nodes[middle, 0].argsort()]
    for heating in (20.0, 80.0, 150.0):
        problem.evaluate([210e3, 100e3, heating], jacobian=False)
        moved = problem.unknown.x.array.reshape(-1, 2)[middle]
        axes.plot(nodes[middle, 0] + moved[:, 0], moved[:, 1], label=f"{heating:g} K")
    axes.set(xlabel="along the strip [mm]", ylabel="deflection [mm]")
    axes.legend()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("own_problem.png"), help="picture to write")
    problem = bimetal()
    draw(problem, parser.parse_args().out)
    response, jacobian = problem.evaluate([210e3, 100e3, 100.0])
    print(dict(zip(problem.responses, response, strict=True)))
    print(jacobian)
