"""Five problems of topology optimization, with projected densities, step by step sharper, and files for ParaView.

    python examples/topology_problems.py conductor --out topology-output

- `cantilever`: the stiffest console of 40 % of its box, held at the left, pulled down at the lower right corner
  (Sigmund, Struct. Multidisc. Optim. 21 (2001) 120-127).
- `bridge`: the stiffest bridge of 30 %, under a load along its lower edge.
- `conductor`: the coolest plate of 40 % of good material, heated everywhere, with one sink in its middle at the top
  (Bendsøe and Sigmund, Topology Optimization, Springer 2003).
- `inverter`: the mechanism of 30 % that moves its right end to the left when its left end is pushed to the right,
  against springs (the same book); the upper half of it.
- `bracket`: the lightest L under a limit of the p-norm of its relaxed von Mises stresses (Le et al., Struct. Multidisc.
  Optim. 41 (2010) 605-620).

Lengths are cells; forces, moduli and conductivities one. Densities are filtered by a cone, projected by a smoothed step
(Wang, Lazarov and Sigmund, Struct. Multidisc. Optim. 43 (2011) 767-784), and penalized with a power of three. The
sharpness of the step is a parameter that the searches keep fixed: each begins at the optimum of the one before, which
was less sharp, and is certified by itself.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from mpi4py import MPI
import dolfinx
from matplotlib.figure import Figure
import numpy as np
import ufl

from sobofem import fem
from sobofem.coupling.optimize import Solution, Step, Task, minimize
from sobofem.fem.fields import CellField
from sobofem.fem.output import write_vtk
from sobofem.fem.problem import Problem

POISSON, PENALTY, VOID = 0.3, 3.0, 1e-4
EXPONENT, LIMIT = 8.0, 1.6  # of the p-norm of stresses, and what it may be under a force of a twentieth of the span
SPRING = 0.1  # stiffness at both ends of the mechanism
SHARPNESS = (1.0, 4.0, 8.0)
EVERY = 10  # solves between files for ParaView


def _near(p: np.ndarray, x: float, y: float) -> np.ndarray:
    """Which points (3, k) are the one at x and y."""
    return np.isclose(p[0], x) & np.isclose(p[1], y)


@dataclass(frozen=True)
class Plate:
    """A rectangle of square cells, a field on it, and the projected densities.

    Attributes:
        size: Cells along x and y.
        u: The unknown.
        material: Projected density.
        parameters: Densities, and the sharpness of the projection.
    """

    size: tuple[int, int]
    u: dolfinx.fem.Function
    material: Any
    parameters: tuple[Any, ...]

    @classmethod
    def of(
        cls,
        size: tuple[int, int],
        components: int,
        radius: float,
        where: Callable[[np.ndarray], np.ndarray] | None = None,
    ) -> Plate:
        """With densities in the cells that are marked, zero in others."""
        corners = [(0.0, 0.0), (float(size[0]), float(size[1]))]
        mesh = dolfinx.mesh.create_rectangle(MPI.COMM_WORLD, corners, size, dolfinx.mesh.CellType.quadrilateral)
        shape = (components,) if components > 1 else ()
        u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, shape)), name="solution")
        density = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)), name="density")
        sharp = dolfinx.fem.Constant(mesh, 1.0)
        half = ufl.tanh(sharp / 2)
        filtering = fem.DensityFilter(radius=radius, where=where)
        parameters = (
            fem.Field("density", density, filtering, (0.0, 1.0)),
            fem.Scalar("sharpness", sharp, (0.01, 64.0)),
        )
        return cls(size, u, (half + ufl.tanh(sharp * (density - 0.5))) / (2 * half), parameters)

    @property
    def dx(self) -> ufl.Measure:
        """Exact for what is constant in a cell times squares of slopes."""
        return ufl.dx(self.u.function_space.mesh, metadata={"quadrature_degree": 2})

    def at(self, *points: tuple[float, float]) -> list[ufl.Measure]:
        """The nodes at some points of the boundary, as measures."""
        mesh, nodes = self.u.function_space.mesh, list[np.ndarray]()
        for x, y in points:
            near = partial(_near, x=x, y=y)
            nodes.append(dolfinx.mesh.locate_entities_boundary(mesh, 0, near))
        every, marks = np.concatenate(nodes), np.repeat(np.arange(len(nodes), dtype=np.int32), [len(n) for n in nodes])
        order = np.argsort(every)
        tags = dolfinx.mesh.meshtags(mesh, 0, every[order], marks[order])
        measure = ufl.Measure("dP", mesh, subdomain_data=tags)
        return [measure(k) for k in range(len(nodes))]

    def held(self, where: Callable[[np.ndarray], np.ndarray], component: int | None = None) -> Any:
        """A component, or all of them, zero where points are marked."""
        space = self.u.function_space
        if component is None:
            own = part = space
            dofs = dolfinx.fem.locate_dofs_geometrical(space, where)
        else:
            part, (own, _) = space.sub(component), space.sub(component).collapse()
            dofs = dolfinx.fem.locate_dofs_geometrical((part, own), where)
        zero = dolfinx.fem.Function(own)
        return dolfinx.fem.dirichletbc(zero, dofs) if component is None else dolfinx.fem.dirichletbc(zero, dofs, part)

    def stiffness(self) -> Any:
        """Penalized density."""
        return VOID + (1.0 - VOID) * self.material**PENALTY

    def elastic(self) -> Any:
        """Strain energy density, in plane stress."""
        strain = ufl.sym(ufl.grad(self.u))
        volumetric = POISSON / (1.0 - POISSON**2) * ufl.tr(strain) ** 2
        return self.stiffness() / 2 * (volumetric + ufl.inner(strain, strain) / (1.0 + POISSON))

    def problem(self, energy: Any, bcs: Sequence[Any], responses: Sequence[Any], **fields: Any) -> Problem:
        """With the share of the box that is filled as the last response."""
        filled = fem.average("volume", self.material, self.dx)
        shown = {"material": self.material, **fields}
        return Problem(
            energy, self.u, bcs=bcs, parameters=self.parameters, responses=[*responses, filled], fields=shown
        )


def cantilever(size: tuple[int, int] = (32, 20)) -> Problem:
    """Least compliance under a force at the lower right corner."""
    plate = Plate.of(size, 2, 1.5)
    (corner,) = plate.at((size[0], 0.0))
    work = -plate.u[1] * corner
    return plate.problem(
        plate.elastic() * plate.dx - work,
        [plate.held(lambda p: np.isclose(p[0], 0.0))],
        [fem.Response("compliance", work)],
    )


def bridge(size: tuple[int, int] = (60, 20)) -> Problem:
    """Least compliance under an even load of one along the lower edge, held at the left, on a roller at the right."""
    plate = Plate.of(size, 2, 1.5)
    mesh = plate.u.function_space.mesh
    edge = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda p: np.isclose(p[1], 0.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, edge, np.ones_like(edge))
    work = -plate.u[1] / size[0] * ufl.Measure("ds", mesh, subdomain_data=tags)(1)
    supports = [plate.held(lambda p: _near(p, 0.0, 0.0)), plate.held(lambda p: _near(p, size[0], 0.0), 1)]
    return plate.problem(plate.elastic() * plate.dx - work, supports, [fem.Response("compliance", work)])


def conductor(size: tuple[int, int] = (30, 30)) -> Problem:
    """Least mean temperature, times the heat, of a plate that is heated evenly: 0.01 for each cell."""
    plate = Plate.of(size, 1, 1.5)
    heat = 0.01 * plate.u * plate.dx
    energy = plate.stiffness() / 2 * ufl.inner(ufl.grad(plate.u), ufl.grad(plate.u)) * plate.dx - heat
    middle, width = size[0] / 2, max(size[0] / 20, 1.0)
    sink = plate.held(lambda p: np.isclose(p[1], size[1]) & (np.abs(p[0] - middle) <= width + 1e-9))
    return plate.problem(energy, [sink], [fem.Response("compliance", heat)])


def inverter(size: tuple[int, int] = (40, 20)) -> Problem:
    """Least displacement of the right end, so that it goes left; the axis of symmetry is the lower edge."""
    plate = Plate.of(size, 2, 1.5)
    left, right = plate.at((0.0, 0.0), (size[0], 0.0))
    along = plate.u[0]
    springs = SPRING / 2 * along**2 * left + SPRING / 2 * along**2 * right
    supports = [
        plate.held(lambda p: np.isclose(p[0], 0.0) & (p[1] >= size[1] - 1.5)),
        plate.held(lambda p: np.isclose(p[1], 0.0), 1),
    ]
    output, given = fem.Response("output", along * right), fem.Response("input", along * left)
    return plate.problem(plate.elastic() * plate.dx + springs - along * left, supports, [output, given])


def bracket(size: tuple[int, int] = (30, 30)) -> Problem:
    """Least volume of an L, hung at its top, under a force at its right end; its upper right part is empty."""
    edge = 0.4
    inside = lambda p: (p[0] < edge * size[0]) | (p[1] < edge * size[1])  # noqa: E731
    plate = Plate.of(size, 2, 1.5, inside)
    tip = round(edge * size[1])
    ends = plate.at(*((size[0], float(y)) for y in (tip - 2, tip - 1, tip)))
    work = sum(-plate.u[1] * size[0] / 20 / len(ends) * end for end in ends)
    strain = ufl.sym(ufl.grad(plate.u))
    stress = (strain + POISSON / (1.0 - POISSON) * ufl.tr(strain) * ufl.Identity(2)) / (1.0 + POISSON)
    mises = ufl.sqrt(1.5 * ufl.inner(stress, stress) - 0.5 * ufl.tr(stress) ** 2 + 1e-12)
    relaxed = ufl.sqrt(plate.material + 1e-6) * mises
    top = plate.held(lambda p: np.isclose(p[1], size[1]) & (p[0] <= edge * size[0] + 1e-9))
    norm = fem.p_norm("stress", relaxed, plate.dx, p=EXPONENT)
    return plate.problem(
        plate.elastic() * plate.dx - work, [top], [fem.Response("compliance", work), norm], relaxed=relaxed
    )


PROBLEMS: dict[str, tuple[Callable[..., Problem], str, dict[str, float], float]] = {
    "cantilever": (cantilever, "compliance", {"volume": 0.4}, 0.4),
    "bridge": (bridge, "compliance", {"volume": 0.3}, 0.3),
    "conductor": (conductor, "compliance", {"volume": 0.4}, 0.4),
    "inverter": (inverter, "output", {"volume": 0.3}, 0.3),
    "bracket": (bracket, "volume", {"stress": LIMIT}, 1.0),
}
"""Each with what is minimized, its limits, and the even density at the start."""


def sharpened(
    problem: Problem,
    objective: str,
    limits: dict[str, float],
    first: float,
    *,
    sharpness: Sequence[float] = SHARPNESS,
    solves: int = 150,
    out: Path | None = None,
) -> list[Solution]:
    """An optimum for each sharpness, from the one before; every tenth solve goes to ParaView if there is a folder."""
    x, found = np.full(len(problem.parameters), first), list[Solution]()

    def checkpoint(step: Step) -> None:
        if out is not None and step.number % EVERY == 0 and not step.failure:
            write_vtk(problem, out / f"stage_{len(found)}" / f"solve_{step.number:04d}.pvd")

    for sharp in sharpness:
        task = Task(objective, at_most=limits, fixed={"sharpness": sharp})
        found.append(minimize(problem, task, start=x, solves=solves, progress=checkpoint))
        x = found[-1].x
    return found


def picture(problem: Problem, size: tuple[int, int], found: Sequence[Solution]) -> Figure:
    """The material at each sharpness."""
    figure = Figure(figsize=(3.2 * len(found), 3.2), layout="constrained")
    for axes, solution in zip(np.atleast_1d(figure.subplots(1, len(found))), found, strict=True):
        material = CellField(problem, "material").evaluate(solution.x, jacobian=False)[0].reshape(size)
        axes.imshow(material.T, cmap="gray_r", origin="lower", vmin=0, vmax=1)
        axes.set(title=f"{solution.objective:.4g} after {solution.solves} solves", xticks=[], yticks=[])
    return figure


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("problem", choices=PROBLEMS)
    parser.add_argument("--size", type=int, nargs=2, help="cells along x and y")
    parser.add_argument("--solves", type=int, default=150, help="at most, at each sharpness")
    parser.add_argument("--out", type=Path, default=Path("topology-output"), help="folder for picture and files")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    make, objective, limits, first = PROBLEMS[args.problem]
    problem = make(tuple(args.size)) if args.size else make()
    found = sharpened(problem, objective, limits, first, solves=args.solves, out=args.out)
    for sharp, solution in zip(SHARPNESS, found, strict=True):
        print(
            f"sharpness {sharp:g}: {objective} {solution.objective:.5g}, {solution.solves} solves: {solution.message}"
        )
    if "stress" in limits:
        largest = CellField(problem, "relaxed").evaluate(found[-1].x, jacobian=False)[0].max()
        print(f"p-norm of stresses {found[-1].optimum.y[1]:.4g}, the largest one of a cell {largest:.4g}")
    cells = (
        tuple(args.size)
        if args.size
        else {"cantilever": (32, 20), "bridge": (60, 20), "inverter": (40, 20)}.get(args.problem, (30, 30))
    )
    picture(problem, cells, found).savefig(args.out / f"{args.problem}.png", dpi=150)


if __name__ == "__main__":
    main()
