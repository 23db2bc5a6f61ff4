"""Neo-Hooke's and Mooney's and Rivlin's energies learned from samples and put back: error, Newton steps and time.

A sample is an energy with its slopes, which are stresses, and its Hessian in one direction, a part of the tangent. A
block is pulled by 40 % with the law in UFL and with what was learned.
"""

from __future__ import annotations

from collections.abc import Callable
from time import process_time
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
from rich.table import Table
import torch
from torch import Tensor
from torch.func import grad, jacrev, jvp, vmap
import ufl

from sobofem import fem, surrogate
from sobofem.coupling.materials import LearnedEnergy
from sobofem.fem.materials import hyperelasticity as laws
from sobofem.surrogate.model.derivatives import derivatives

MU, LAMBDA, C10, C01, BULK = 1.0, 2.0, 0.35, 0.15, 10.0
STRETCH, PULL = 0.25, 0.4
"""Entries of F − I in training, at most, and how far the block is pulled."""

CELLS, SAMPLES, UNSEEN, REPEATS = 12, 200, 1000, 3
NETWORK = surrogate.MLP(32, 2)


class Law:
    """A closed form: in UFL, and of measures in PyTorch, one point at a time.

    Args:
        name: What is learned, of what.
        names: Of the measures.
        measures: Of F in UFL.
        of_gradient: Of F (3, 3) in PyTorch.
        energy: Of measures in PyTorch.
        closed: Of F in UFL.
    """

    def __init__(
        self,
        name: str,
        names: tuple[str, ...],
        measures: Callable[[Any], tuple[Any, ...]],
        of_gradient: Callable[[Tensor], Tensor],
        energy: Callable[[Tensor], Tensor],
        closed: Callable[[Any], Any],
    ) -> None:
        self.name, self.names, self.measures = name, names, measures
        self.of_gradient, self.energy, self.closed = of_gradient, energy, closed

    def samples(self, count: int) -> surrogate.Samples:
        """Energies with slopes, and Hessians in random directions, at random deformations."""
        z = vmap(self.of_gradient)(_gradients(count, 1.2 * STRETCH, 0))
        low, high = z.amin(0), z.amax(0)
        directions = torch.randn(z.shape, dtype=z.dtype, generator=torch.Generator().manual_seed(1)) * (high - low)
        slopes, actions = vmap(lambda at, v: jvp(grad(self.energy), (at,), (v,)))(z, directions)
        return surrogate.Samples(
            z.numpy(),
            vmap(self.energy)(z)[:, None].numpy(),
            slopes[:, None].numpy(),
            self.names,
            ("energy",),
            directions=directions.numpy(),
            hessian_actions=actions[:, None].numpy(),
        )

    def stress_error(self, model: surrogate.Surrogate) -> float:
        """Error of the first Piola-Kirchhoff stress at deformations not seen, over its size, in root mean squares."""
        F = _gradients(UNSEEN, STRETCH, 2)
        z, by_gradient = vmap(self.of_gradient)(F), vmap(jacrev(self.of_gradient))(F)
        found = torch.from_numpy(model.predict(z.numpy(), extrapolate=True)[1][:, 0])
        wrong = torch.einsum("zi,ziab->zab", found - vmap(grad(self.energy))(z), by_gradient)
        true = torch.einsum("zi,ziab->zab", vmap(grad(self.energy))(z), by_gradient)
        return float(wrong.norm() / true.norm())


def _gradients(count: int, size: float, seed: int) -> Tensor:
    """Deformation gradients (count, 3, 3) with entries of F − I up to a size."""
    return torch.from_numpy(np.eye(3) + np.random.default_rng(seed).uniform(-size, size, (count, 3, 3)))


def _invariants(F: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    C = F.T @ F
    first = C.trace()
    return first, 0.5 * (first**2 - (C * C).sum()), torch.linalg.det(F)


def _isochoric(F: Tensor) -> Tensor:
    first, second, J = _invariants(F)
    return torch.stack((J ** (-2 / 3) * first, J ** (-4 / 3) * second, J))


def _strain(F: Tensor) -> Tensor:
    """Green's strain: 11, 22, 33, and twice 12, 13, 23."""
    E = 0.5 * (F.T @ F - torch.eye(3, dtype=F.dtype))
    return torch.stack((E[0, 0], E[1, 1], E[2, 2], 2 * E[0, 1], 2 * E[0, 2], 2 * E[1, 2]))


def _strain_in_ufl(F: Any) -> tuple[Any, ...]:
    E = 0.5 * (F.T * F - ufl.Identity(3))
    return E[0, 0], E[1, 1], E[2, 2], 2 * E[0, 1], 2 * E[0, 2], 2 * E[1, 2]


def _root(E: Tensor) -> Tensor:
    """C of Green's strain; its invariants are all that an isotropic energy needs."""
    a, b, c, d, e, f = E
    return torch.stack((1 + 2 * a, d, e, d, 1 + 2 * b, f, e, f, 1 + 2 * c)).reshape(3, 3)


def _neo_hooke(first: Tensor, J: Tensor) -> Tensor:
    return MU / 2 * (first - 3) - MU * J.log() + LAMBDA / 2 * J.log() ** 2


def _mooney_rivlin(first: Tensor, second: Tensor, J: Tensor) -> Tensor:
    return C10 * (first - 3) + C01 * (second - 3) + BULK / 2 * (J - 1) ** 2


def _neo_hooke_of_strain(E: Tensor) -> Tensor:
    C = _root(E)
    return _neo_hooke(C.trace(), torch.linalg.det(C).sqrt())


def _mooney_rivlin_of_strain(E: Tensor) -> Tensor:
    C = _root(E)
    J, first = torch.linalg.det(C).sqrt(), C.trace()
    second = 0.5 * (first**2 - (C * C).sum())
    return _mooney_rivlin(J ** (-2 / 3) * first, J ** (-4 / 3) * second, J)


def _closed_neo_hooke(F: Any) -> Any:
    return laws.neo_hooke(F, MU, LAMBDA)


def _closed_mooney_rivlin(F: Any) -> Any:
    return laws.mooney_rivlin(F, C10, C01) + laws.volumetric(F, BULK)


STRAINS = ("E11", "E22", "E33", "2E12", "2E13", "2E23")
LAWS = (
    Law(
        "neo-Hooke of I1, J",
        ("I1", "J"),
        lambda F: laws.invariants(F)[::2],
        lambda F: torch.stack(_invariants(F)[::2]),
        lambda z: _neo_hooke(*z),
        _closed_neo_hooke,
    ),
    Law("neo-Hooke of strain", STRAINS, _strain_in_ufl, _strain, _neo_hooke_of_strain, _closed_neo_hooke),
    Law(
        "Mooney-Rivlin of Ī1, Ī2, J",
        ("I1", "I2", "J"),
        lambda F: (*laws.isochoric_invariants(F), ufl.det(F)),
        _isochoric,
        lambda z: _mooney_rivlin(*z),
        _closed_mooney_rivlin,
    ),
    Law("Mooney-Rivlin of strain", STRAINS, _strain_in_ufl, _strain, _mooney_rivlin_of_strain, _closed_mooney_rivlin),
)


def pulled(law_on: Callable[[dolfinx.mesh.Mesh], Callable[[Any], Any]], cells: int) -> fem.Problem:
    """A cube of so many hexahedra a side, one face held, the opposite one pulled."""
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, *3 * (cells,), dolfinx.mesh.CellType.hexahedron)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,)))
    u, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.1)
    law, dx, F = law_on(mesh), ufl.dx(mesh, metadata={"quadrature_degree": 2}), laws.deformation_gradient(u)
    held = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    part = space.sub(0)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 2, lambda x: np.isclose(x[0], 1.0))
    pulled = dolfinx.fem.locate_dofs_topological(part, 2, facets)
    across = [
        dolfinx.fem.dirichletbc(0.0, dolfinx.fem.locate_dofs_topological(space.sub(k), 2, facets), space.sub(k))
        for k in (1, 2)
    ]
    return fem.Problem(
        law(F) * dx,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(3), held, space),
            dolfinx.fem.dirichletbc(pull, pulled, part),
            *across,
        ],
        parameters=[fem.Scalar("pull", pull, (0.0, 0.6))],
        responses=[
            fem.Response("energy", law(F) * dx),
            fem.Response("stress", laws.first_piola_kirchhoff(law, F)[0, 0] * dx),
        ],
    )


def measured(problem: fem.Problem) -> tuple[np.ndarray, np.ndarray, int, float]:
    """Responses, their derivatives, Newton steps and processor seconds of one evaluation, the least of a few."""
    seconds = []
    for _ in range(REPEATS):
        start = process_time()
        response, jacobian = problem.evaluate([PULL])
        seconds.append(process_time() - start)
    assert jacobian is not None
    return response, jacobian, len(problem._equilibrium.residuals) - 1, min(seconds)


def row(law: Law, cells: int = CELLS, samples: int = SAMPLES) -> dict[str, float]:
    """Figures of one law."""
    start = process_time()
    model = surrogate.train(law.samples(samples), network=NETWORK)
    training = process_time() - start
    closed = pulled(lambda _: law.closed, cells)
    learned = pulled(lambda mesh: LearnedEnergy(model, mesh, law.measures, quadrature_degree=2), cells)
    (true, slopes, steps, seconds), (found, own, own_steps, own_seconds) = measured(closed), measured(learned)
    z = np.random.default_rng(0).uniform(*model.bounds.T, (8 * cells**3, len(law.names)))
    start = process_time()
    derivatives(model, z, 2)
    point = (process_time() - start) / len(z)
    return {
        "training": training, "stress error": law.stress_error(model), "force error": abs(found[1] / true[1] - 1),
        "stiffness error": abs(own[1, 0] / slopes[1, 0] - 1), "steps": steps, "own steps": own_steps,
        "seconds": seconds, "own seconds": own_seconds, "ratio": own_seconds / seconds, "µs a point": 1e6 * point,
    }  # fmt: skip


def table() -> Table:
    """All laws."""
    shown = Table(
        "law", "stress error", "force error", "stiffness error", "Newton steps", "learned", "solve [s]", "learned [s]",
        "ratio", "network [µs a point]", "training [s]", title=f"laws learned from {SAMPLES} samples, {CELLS}³ cells",
    )  # fmt: skip
    for law in LAWS:
        found = row(law)
        shown.add_row(
            law.name, *(f"{found[key]:.1e}" for key in ("stress error", "force error", "stiffness error")),
            str(found["steps"]), str(found["own steps"]), f"{found['seconds']:.2f}", f"{found['own seconds']:.2f}",
            f"{found['ratio']:.2f}", f"{found['µs a point']:.1f}", f"{found['training']:.0f}",
        )  # fmt: skip
    return shown
