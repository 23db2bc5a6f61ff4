"""A law learned from the wrong material is calibrated by a test of a plate with a hole, forces and displacements.

The test is made by the same finite elements with a neo-Hookean material, and noise is added. A convex network knows a
softer one of other compressibility. All its weights are changed until the plate answers as in the test:
one solve with one adjoint sweep gives the derivatives by all of them, and SciPy does the rest.

python examples/calibrate_law.py --out calibrate_law.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from mpi4py import MPI
import dolfinx
from matplotlib.figure import Figure
import numpy as np
from scipy.optimize import minimize
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LawWeights, LearnedEnergy
from sobofem.fem.materials import hyperelasticity

TRUTH = {"mu": 1.0, "lmbda": 2.0}  # MPa
WRONG = {"mu": 0.4, "lmbda": 1.0}  # MPa, what the network learns first
PULLS = (0.1, 0.3)  # mm, at which the test is measured
NOISE = {"force": 1e-3, "displacement": 2e-4}  # parts of a force, and mm
HOLE = 0.4  # mm, radius; the quarter that is solved has sides of 1 mm
STEP = 0.005  # change of all weights together that the first step of the search makes
TOLERANCE = 1e-4  # of the sum of squares: what is one for SciPy, whose tolerances are made for that

Law = Callable[[Any], Any]


class Measured(NamedTuple):
    """A test.

    Attributes:
        forces: [N/mm], one for each pull.
        fields: Displacements at the nodes [mm], one row for each pull.
    """

    forces: np.ndarray
    fields: np.ndarray


class Calibrated(NamedTuple):
    """What came out.

    Attributes:
        model: The calibrated surrogate.
        stress_errors: Error of the stress in the plate, over its size, at each solve, and in the end.
    """

    model: surrogate.Surrogate
    stress_errors: tuple[float, ...]


def quarter(cells: int) -> dolfinx.mesh.Mesh:
    """A quarter of a plate with a hole in its middle."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, cells, cells, dolfinx.mesh.CellType.quadrilateral)
    outwards, angle = mesh.geometry.x[:, 0] ** 1.3, mesh.geometry.x[:, 1] * np.pi / 2
    direction = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    edge = 1.0 / direction.max(axis=1)
    mesh.geometry.x[:, :2] = (HOLE + (edge - HOLE) * outwards)[:, None] * direction
    return mesh


def true_law(F: Any) -> Any:
    """Energy density [MPa] of the material that is tested."""
    return hyperelasticity.neo_hooke(F, *TRUTH.values())


def measures(F: Any) -> tuple[Any, Any]:
    """I1 and J, all that an isotropic energy depends on in plane strain."""
    first, _, J = hyperelasticity.invariants(F)
    return first, J


def plate(law: Law, mesh: dolfinx.mesh.Mesh, measured: Measured | None = None) -> fem.Problem:
    """The plate, pulled; with how far it is from a test, if one is given, and from the truth, which no test knows."""
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, scale = dolfinx.fem.Function(space, name="displacement"), dolfinx.fem.Constant(mesh, 1.0)
    dx, F = ufl.dx(mesh, metadata={"quadrature_degree": 4}), hyperelasticity.deformation_gradient(u)

    def at(axis: int, value: float) -> np.ndarray:
        facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[axis], value))
        return np.asarray(dolfinx.fem.locate_dofs_topological(space.sub(axis), 1, facets))

    top = dolfinx.fem.dirichletbc(1.0, at(1, 1.0), space.sub(1))
    extension = dolfinx.fem.Function(space)
    extension.x.array[top.dof_indices()[0]] = 1.0
    P, P_true = (hyperelasticity.first_piola_kirchhoff(own, F) for own in (law, true_law))
    force = sum(P[i, j] * ufl.grad(extension)[i, j] for i in range(2) for j in range(2)) * dx
    responses = [fem.Response(f"force_{k}", force, unit="N/mm", at=k) for k in range(len(PULLS))]
    if measured is not None:
        for k, values in enumerate(measured.fields):
            field = dolfinx.fem.Function(space)
            field.x.array[:] = values
            responses.append(fem.Response(f"misfit_{k}", ufl.inner(u - field, u - field) * dx, unit="mm⁴", at=k))
        # the stress across the plane has no part in what is measured
        wrong, size = (sum(S[i, j] ** 2 for i in range(2) for j in range(2)) * dx for S in (P - P_true, P_true))
        responses.append(fem.Response("stress_error", (wrong, size), lambda a, b: (a / b) ** 0.5))
    return fem.Problem(
        scale * law(F) * dx,
        u,
        bcs=[top, *(dolfinx.fem.dirichletbc(0.0, at(axis, 0.0), space.sub(axis)) for axis in (0, 1))],
        parameters=[
            LawWeights("weight", law)
            if isinstance(law, LearnedEnergy)
            else fem.Scalar("scale", scale, (0.5, 2.0))  # a problem has a parameter
        ],
        responses=responses,
        path=fem.LoadPath(PULLS),
    )


def experiment(mesh: dolfinx.mesh.Mesh, seed: int = 0) -> Measured:
    """Forces and fields of the true material, with noise."""
    rng, truth = np.random.default_rng(seed), plate(true_law, mesh)
    fields = np.array([truth.unknown.x.array.copy() for _ in truth.walk([1.0])])
    forces, _ = truth.evaluate([1.0], jacobian=False)
    fields += NOISE["displacement"] * rng.normal(size=fields.shape)
    return Measured(forces * (1.0 + NOISE["force"] * rng.normal(size=forces.shape)), fields)


def wrong_model(width: int = 8, seed: int = 0) -> surrogate.Surrogate:
    """A polyconvex network of I1 and J that has learned the wrong material."""
    ranges, (mu, lmbda) = {"I1": (2.8, 4.5), "J": (0.8, 1.3)}, WRONG.values()
    z = np.random.default_rng(seed).uniform(*np.transpose(list(ranges.values())), (100, 2))
    first, J = z.T
    energy = mu / 2 * (first - 3) - mu * np.log(J) + lmbda / 2 * np.log(J) ** 2
    slopes = np.stack([np.full(len(J), mu / 2), (lmbda * np.log(J) - mu) / J], axis=1)
    samples = surrogate.Samples(z, energy, slopes[:, None], tuple(ranges), ("energy",), bounds=ranges)
    network = surrogate.Convex(surrogate.MLP(width, 1), increasing=(0,))
    return surrogate.train(samples, network=network, optimizers=(surrogate.LBFGS(100),))


def calibrate(cells: int = 6, iterations: int = 60, width: int = 8) -> Calibrated:
    """Change the weights until the plate answers as in the test."""
    mesh = quarter(cells)
    measured, law = experiment(mesh), LearnedEnergy(
        wrong_model(width), mesh, measures, quadrature_degree=4
    )  # fmt: skip
    problem, count = plate(law, mesh, measured), len(PULLS)
    sizes, errors = np.mean(measured.fields**2, axis=1), []

    def misfit(steps: np.ndarray) -> tuple[float, np.ndarray]:
        """Squares of how far forces and fields are off, over their sizes."""
        y, jacobian = problem.evaluate(STEP * steps)
        assert jacobian is not None
        errors.append(float(y[-1]))
        off = y[:count] / measured.forces - 1
        weights = np.concatenate([2 * off / measured.forces, 1 / sizes, [0.0]])
        return float(off @ off + (y[count:-1] / sizes).sum()) / TOLERANCE, STEP * weights @ jacobian / TOLERANCE

    start = np.zeros(len(problem.parameters))
    options = {"maxiter": iterations, "maxcor": 30, "ftol": 1e-6}
    found = minimize(misfit, start, jac=True, method="L-BFGS-B", bounds=problem.bounds / STEP, options=options)
    best = STEP * found.x
    after = float(problem.evaluate(best, jacobian=False)[0][-1])
    return Calibrated(LawWeights("weight", law).surrogate(best), (*errors, after))


def draw(found: Calibrated, path: Path) -> None:
    """The error of the stress, which no measurement tells, on the way to the answers of the test."""
    axes = (figure := Figure(figsize=(7, 4), layout="constrained")).subplots()
    axes.semilogy(found.stress_errors)
    axes.set(xlabel="solves", ylabel="error of the stress in the plate")
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, default=Path("calibrate_law.png"), help="picture to write")
    place = parser.parse_args().out
    calibrated = calibrate()
    draw(calibrated, place)
    before, *solves, after = calibrated.stress_errors
    print(f"error of the stress in the plate: {before:.1%} before, {after:.2%} after {1 + len(solves)} solves")
