"""A metal learned from tests of a bar, put into a beam: a cycle of loading and unloading, with derivatives.

The tests are made by the same finite elements. Hardening becomes the slope of a convex network, so that no cycle gives
back more energy than was put in; it is trained on stresses along paths and on how they change with the strain.

python examples/learned_plasticity.py --out learned_plasticity.png
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant
from matplotlib.figure import Figure
import numpy as np
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LearnedPlasticity, train_plasticity
from sobofem.fem.materials import plasticity

RULE = {"quadrature_degree": 2}
TESTS = fem.LoadPath.cyclic([1.0, -0.8, 1.0], 4)
PULLS = np.linspace(0.003, 0.02, 5)  # strains at which bars are reversed
UNSEEN = np.cumsum(np.repeat([0.005, -0.0015, 0.004, -0.004, 0.002], 4)) / 2  # a path of other reversals
BENDING = fem.LoadPath.cyclic([1.0, 0.5, 1.2, -0.6], 4)
DEFLECTION = 1.5  # mm

Material = Callable[[Any, plasticity.Memory], plasticity.Step]


def true_metal(epsilon: Any, before: plasticity.Memory) -> plasticity.Step:
    """Steel with Voce's isotropic and Prager's kinematic hardening, in MPa."""
    hardening = plasticity.voce_hardening(250.0, 120.0, 100.0)
    return plasticity.return_mapping(epsilon, before, young=200e3, poisson=0.3, hardening=hardening, kinematic=4000.0)


def body(mesh: dolfinx.mesh.Mesh, fixed: list[int], moved: int, most: float, material: Material, path: fem.LoadPath):
    """A body of which components are fixed at x = 0, and one moved at the other end: the force there, along a path."""
    dim, length = mesh.geometry.dim, float(mesh.geometry.x[:, 0].max())
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1 if dim == 3 else 2, (dim,)))
    u, v, move = dolfinx.fem.Function(space), ufl.TestFunction(space), Constant(mesh, most)

    def on(axis: int, place: float, component: int) -> np.ndarray:
        facets = dolfinx.mesh.locate_entities_boundary(mesh, dim - 1, lambda x: np.isclose(x[axis], place))
        return np.asarray(dolfinx.fem.locate_dofs_topological(space.sub(component), dim - 1, facets))

    before = plasticity.memory(mesh, **RULE)
    after = material(plasticity.strain(u), before)
    dx, end, lift = ufl.dx(mesh, metadata=RULE), on(0, length, moved), dolfinx.fem.Function(space)
    bcs = [dolfinx.fem.dirichletbc(0.0, on(0, 0.0, i), space.sub(i)) for i in fixed]
    if dim == 3:  # planes of symmetry
        bcs += [dolfinx.fem.dirichletbc(0.0, on(i, 0.0, i), space.sub(i)) for i in (1, 2)]
    bcs.append(dolfinx.fem.dirichletbc(move, end, space.sub(moved)))
    lift.x.array[bcs[-1].dof_indices()[0]] = 1.0
    force = ufl.inner(after.stress, plasticity.strain(lift)) * dx
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(v)) * dx,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("move", move, (0.1 * most, 2.0 * most), unit="mm")],
        responses=[fem.Response(f"force_{k}", force, unit="N", at=k) for k in range(len(path.points))],
        path=path,
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(rtol=1e-10, growth=1.0),
    )


def bar(material: Material, path: fem.LoadPath) -> fem.Problem:
    """A cube of 1 mm with free sides: its force is the stress, its elongation the strain."""
    cube = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, dolfinx.mesh.CellType.hexahedron)
    return body(cube, [0], 0, 0.01, material, path)


def beam(material: Material) -> fem.Problem:
    """A beam in plane strain, clamped, bent up and down at its end."""
    kind = dolfinx.mesh.CellType.quadrilateral
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [[0.0, 0.0], [20.0, 2.0]], [8, 3], kind)
    return body(mesh, [0, 1], 1, DEFLECTION, material, BENDING)


def learn(iterations: int = 60) -> LearnedPlasticity:
    """The metal that the tests tell of."""
    problem = bar(true_metal, TESTS)
    stresses, slopes = zip(*(problem.evaluate([pull]) for pull in PULLS), strict=True)
    samples = surrogate.Samples(PULLS[:, None], stresses, slopes, problem.parameters, problem.responses)
    return train_plasticity(samples, np.array(TESTS.points)[:, None], iterations=iterations)


def draw(law: LearnedPlasticity, path: Path) -> dict[str, float]:
    """Both metals on a path that no test took, and in the beam; errors as parts of the largest values."""
    top = UNSEEN.max()
    true = bar(true_metal, fem.LoadPath((UNSEEN / top).tolist())).evaluate([top], jacobian=False)[0]
    bent = [beam(metal).evaluate([DEFLECTION]) for metal in (true_metal, lambda e, before: law(e, before, poisson=0.3))]
    figure = Figure(figsize=(11, 4.5), layout="constrained")
    curves = (
        (UNSEEN, true, law.follow([UNSEEN]).stress[0]),
        (DEFLECTION * np.array(BENDING.points), *(y for y, _ in bent)),
    )
    words = ("strain of a bar", "stress [MPa]"), ("deflection of a beam [mm]", "force [N/mm]")
    for axes, (x, expected, found), (along, up) in zip(figure.subplots(1, 2), curves, words, strict=True):
        axes.plot([0.0, *x], [0.0, *expected], "o", label="closed form")
        axes.plot([0.0, *x], [0.0, *found], "-", label="learned")
        axes.set(xlabel=along, ylabel=up)
        axes.legend()
    figure.savefig(path, dpi=110)
    pairs = {"stress": curves[0][1:], "force": curves[1][1:], "slope of the force": [slope for _, slope in bent]}
    return {name: float(np.abs(b - a).max() / np.abs(a).max()) for name, (a, b) in pairs.items()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("learned_plasticity.png"), help="picture to write")
    for name, error in draw(learn(), parser.parse_args().out).items():
        print(f"error of the {name}: {error:.2%}")
