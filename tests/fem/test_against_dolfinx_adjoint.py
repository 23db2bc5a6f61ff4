"""Jacobians and Hessians against dolfinx-adjoint's, of a neo-Hookean block with a follower load and a moved grip.

Both get the same UFL, but for the grip: a prescribed displacement here, part of the form there.
"""

from types import SimpleNamespace

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import interior_point
import pytest
import ufl

from sobofem import fem

dolfinx_adjoint = pytest.importorskip("dolfinx_adjoint")
pyadjoint = pytest.importorskip("pyadjoint")

MODES = 4
WEIGHTS = np.array([1.5, -0.7, 0.4, 2.0])
NEWTON = {"snes_linesearch_type": "none", "snes_rtol": 1e-13, "snes_atol": 1e-14, "snes_error_if_not_converged": True}
MUMPS = {"ksp_type": "preonly", "pc_type": "lu", "pc_factor_mat_solver_type": "mumps"}


def block(library, *, prescribed):
    """The forms, with functions and constants of `dolfinx.fem` or of `dolfinx_adjoint`.

    The grip at the top is prescribed, or else a linear function that is added to an unknown that vanishes there.
    """
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 6, 6)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    scalars = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v = library.Function(space), ufl.TestFunction(space)
    modulus = library.Function(scalars)
    modulus.interpolate(lambda x: 10.0 + x[0])
    basis = [dolfinx.fem.Function(scalars) for _ in range(MODES)]
    for k, shape in enumerate(basis):
        shape.interpolate(lambda x, k=k: np.cos((k % 2 + 1) * x[0] + (k // 2 + 1) * x[1]) / (k + 1))
    ratio, pressure = library.Constant(mesh, 0.6), library.Constant(mesh, 0.4)
    grip = library.Constant(mesh, (0.0, 0.0))

    d = u if prescribed else u + ufl.SpatialCoordinate(mesh)[1] * grip
    normal, F = ufl.FacetNormal(mesh), ufl.Identity(2) + ufl.grad(d)
    J, mu, lmbda = ufl.det(F), modulus, ratio * modulus
    energy = mu / 2 * (ufl.inner(F, F) - 2 - 2 * ufl.ln(J)) + lmbda / 2 * ufl.ln(J) ** 2
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 4})
    ds = ufl.ds(mesh, subdomain_data=_right(mesh), metadata={"quadrature_degree": 4})
    follower = ufl.inner(pressure * J * ufl.dot(ufl.inv(F).T, normal), v) * ds(1)
    bottom, top = (dolfinx.fem.locate_dofs_geometrical(space, lambda x, y=y: np.isclose(x[1], y)) for y in (0.0, 1.0))
    return SimpleNamespace(
        u=u,
        modulus=modulus,
        basis=basis,
        constants=(ratio, pressure, grip),
        residual=ufl.derivative(energy * dx, u, v) + follower,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), bottom, space),
            dolfinx.fem.dirichletbc(grip if prescribed else np.zeros(2), top, space),
        ],
        responses=[
            fem.Response("energy", energy * dx),
            fem.Response("bulge", (d[0] * ds(1), ufl.exp(d[1]) * ds(1)), lambda a, b: a * a / b),
            fem.Response("stretch", ufl.inner(F, F) ** 3 * dx, lambda a: a ** (1 / 3)),
            fem.Response("squeeze", pressure * modulus * J * d[0] ** 2 * dx),
        ],
    )


def _right(mesh):
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[0], 1.0))
    return dolfinx.mesh.meshtags(mesh, 1, facets, np.ones(len(facets), dtype=np.int32))


@pytest.fixture(scope="module")
def problem():
    parts = block(dolfinx.fem, prescribed=True)
    ratio, pressure, grip = parts.constants
    return fem.Problem(
        parts.residual,
        parts.u,
        bcs=parts.bcs,
        parameters=[
            fem.Field("modulus", parts.modulus, parts.basis, (-2.0, 2.0)),
            fem.Scalar("ratio", ratio, (0.3, 1.5)),
            fem.Scalar("pressure", pressure, (0.2, 1.0)),
            fem.Scalar("shear", grip, (-0.2, 0.2), component=0),
            fem.Scalar("pull", grip, (-0.1, 0.3), component=1),
        ],
        responses=parts.responses,
    )


class Taped:
    """The block on dolfinx-adjoint's tape. Its controls are the modulus as a function, and the constants."""

    def __init__(self):
        pyadjoint.set_working_tape(pyadjoint.Tape())
        self.parts = block(dolfinx_adjoint, prescribed=False)
        self.solver = dolfinx_adjoint.NonlinearProblem(
            self.parts.residual,
            self.parts.u,
            bcs=self.parts.bcs,
            petsc_options=NEWTON | MUMPS,
            adjoint_petsc_options=MUMPS,
            tlm_petsc_options=MUMPS,
        )
        self.solver.solve()
        self.values = [self._assembled(response) for response in self.parts.responses]
        self.weighted = sum(float(w) * value for w, value in zip(WEIGHTS, self.values, strict=True))
        self.mean = self.parts.modulus.x.array.copy()
        self.inputs = [self.parts.modulus, *self.parts.constants]

    @staticmethod
    def _assembled(response):
        integrals = [dolfinx_adjoint.assemble_scalar(form) for form in response.forms]
        return response.combine(*integrals) if response.combine else integrals[0]

    def reduced(self, value):
        return pyadjoint.ReducedFunctional(value, [pyadjoint.Control(thing) for thing in self.inputs])

    def controls(self, x, mean):
        """Values of the controls for parameters x, or, without the mean, the direction that x stands for."""
        modulus, ratio, pressure, grip = values = [thing._ad_new_like() for thing in self.inputs]
        modulus.x.array[:] = mean + sum(c * f.x.array for c, f in zip(x[:MODES], self.parts.basis, strict=True))
        ratio.x.array[:], pressure.x.array[:] = x[MODES : MODES + 2]
        grip.x.array[:] = x[MODES + 2 :]
        return values

    def by_parameters(self, derivative):
        """Derivatives by the controls as derivatives by the parameters."""
        modulus, ratio, pressure, grip = (part.x.array for part in derivative)
        modes = [shape.x.array @ modulus for shape in self.parts.basis]
        return np.array([*modes, *ratio, *pressure, *grip])


@pytest.fixture(scope="module")
def taped():
    pyadjoint.continue_annotation()
    yield Taped()
    pyadjoint.pause_annotation()


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("method", ["adjoint", "tangent"])
def test_responses_and_jacobian_agree_with_dolfinx_adjoint(problem, taped, seed, method):
    x = interior_point(problem, seed)
    response, jacobian = problem.evaluate(x, method=method)
    for k, value in enumerate(taped.values):
        reduced = taped.reduced(value)
        assert reduced(taped.controls(x, taped.mean)) == pytest.approx(response[k], rel=1e-9)
        gradient = taped.by_parameters(reduced.derivative())
        assert np.allclose(jacobian[k], gradient, rtol=1e-8, atol=1e-11 * np.abs(gradient).max())


@pytest.mark.slow
@pytest.mark.parametrize("seed", [3, 4])
def test_hessian_actions_agree_with_dolfinx_adjoint(problem, taped, seed):
    x = interior_point(problem, seed)
    directions = np.random.default_rng(seed).normal(size=(2, len(x)))
    actions = problem.hvp(x, WEIGHTS, directions)
    reduced = taped.reduced(taped.weighted)
    reduced(taped.controls(x, taped.mean))
    for direction, action in zip(directions, actions, strict=True):
        reduced.derivative()
        theirs = taped.by_parameters(reduced.hessian(taped.controls(direction, 0.0)))
        assert np.allclose(action, theirs, rtol=1e-8, atol=1e-11 * np.abs(theirs).max())
