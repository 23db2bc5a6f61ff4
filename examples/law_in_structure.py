"""A learned law in a structure: a network, trained on energies and stresses, is the material of a block that is pulled.

python examples/law_in_structure.py --out law_in_structure.png
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant, dirichletbc
from matplotlib.figure import Figure
import numpy as np
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LearnedEnergy
from sobofem.fem.materials.hyperelasticity import (
    deformation_gradient,
    first_piola_kirchhoff,
    invariants,
    neo_hooke,
)

RANGES, MU, LAMBDA = {"I1": (2.5, 4.5), "J": (0.7, 1.4)}, 1.0, 2.0


def learned(*, points: int = 40, iterations: int = 150) -> surrogate.Surrogate:
    """A network for the energy of a neo-Hookean material by two invariants, from energies and slopes."""
    x = np.random.default_rng(0).uniform(*np.transpose(list(RANGES.values())), (points, 2))
    I1, J = x.T
    energy = MU / 2 * (I1 - 3) - MU * np.log(J) + LAMBDA / 2 * np.log(J) ** 2
    slopes = np.stack([np.full(points, MU / 2), (LAMBDA * np.log(J) - MU) / J], axis=1)
    samples = surrogate.Samples(x, energy, slopes[:, None], tuple(RANGES), ("energy",), bounds=RANGES)
    return surrogate.train(samples, network=surrogate.MLP(12, 2), optimizers=(surrogate.LBFGS(iterations),))


def block(law: Callable | None) -> fem.Problem:
    """A block in plane strain, pulled at its right: mean stress there; of the closed form, or of a learned law."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0, 0], [2, 1]], [8, 4], dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, pull = dolfinx.fem.Function(space), Constant(mesh, 0.1)
    dx, F = ufl.dx(mesh, metadata={"quadrature_degree": 2}), deformation_gradient(u)
    energy = law(mesh) if law else lambda F: neo_hooke(F, MU, LAMBDA)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0))
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 2))
    right = dolfinx.fem.locate_dofs_topological(space.sub(0), 1, facets)
    return fem.Problem(
        energy(F) * dx,
        u,
        bcs=[dirichletbc(np.zeros(2), left, space), dirichletbc(pull, right, space.sub(0))],
        parameters=[fem.Scalar("pull", pull, (0.0, 0.5))],
        responses=[fem.Response("stress", first_piola_kirchhoff(energy, F)[0, 0] / 2 * dx)],
    )


def draw(path: Path, **training: int) -> tuple[np.ndarray, np.ndarray]:
    """Stress by stretch, of both laws, (2, N), and their slopes."""
    model, pulls = learned(**training), np.linspace(0.05, 0.5, 6)

    def law(mesh):
        return LearnedEnergy(model, mesh, lambda F: invariants(F)[::2], quadrature_degree=2)

    problems = {"closed form": block(None), "network": block(law)}
    found = {name: [problem.evaluate([pull]) for pull in pulls] for name, problem in problems.items()}
    stress = np.array([[y[0] for y, _ in rows] for rows in found.values()])
    slopes = np.array([[jacobian[0, 0] for _, jacobian in rows] for rows in found.values()])
    figure = Figure(figsize=(10, 4.5), layout="constrained")
    for axes, values, words in zip(figure.subplots(1, 2), (stress, slopes), ("stress", "its slope"), strict=True):
        axes.plot(pulls, values[0], "-", label="closed form")
        axes.plot(pulls, values[1], "o", label="network")
        axes.set(xlabel="pull", ylabel=words)
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)
    return stress, slopes


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("law_in_structure.png"), help="picture to write")
    print(draw(parser.parse_args().out))
