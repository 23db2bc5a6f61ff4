"""Small problems with awkward features, for tests of the sensitivities."""

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem import fem
from sobofem.fem.assembly.forms import Member, by_constant, map_integrands
from sobofem.fem.materials.elasticity import strain, stress

DEGREE = {"quadrature_degree": 4}


def block(comm=MPI.COMM_SELF, *, cells=6):
    """A unit square in plane strain with every kind of parameter at once.

    A scalar in the form, one in a boundary value, one in both, a field of four coefficients, and a shape that
    shears. The residual is unsymmetric (a drag that depends on the gradient), so that adjoint and tangent use
    different matrices.
    """
    mesh = dolfinx.mesh.create_unit_square(comm, cells, cells, dolfinx.mesh.CellType.triangle)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    x = ufl.SpatialCoordinate(mesh)
    drag = dolfinx.fem.Constant(mesh, 3.0)
    pull = dolfinx.fem.Constant(mesh, 0.1)
    load = dolfinx.fem.Constant(mesh, (0.3, -0.2))
    coefficients = dolfinx.fem.functionspace(mesh, ("DG", 0))
    modulus = dolfinx.fem.Function(coefficients)
    modulus.x.array[:] = 10.0
    basis = [dolfinx.fem.Function(coefficients) for _ in range(4)]
    for k, shape in enumerate(basis):
        shape.interpolate(lambda x, k=k: np.cos((k % 2 + 1) * x[0] + (k // 2 + 1) * x[1]))

    dx, ds = ufl.dx(mesh, metadata=DEGREE), ufl.ds(mesh, metadata=DEGREE)
    sigma = stress(strain(u), modulus, 0.3)
    residual = (
        ufl.inner(sigma, strain(v)) * dx
        + drag * ufl.inner(ufl.dot(ufl.grad(u), ufl.as_vector((1.0, 0.5))), v) * dx
        - ufl.inner(load * (1.0 + pull * x[0]), v) * dx
    )
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    right = _component_dofs(space, 0, lambda x: np.isclose(x[0], 1.0))
    return fem.Problem(
        residual,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), left, space),
            dolfinx.fem.dirichletbc(pull, right, space.sub(0)),
        ],
        parameters=[
            fem.Scalar("drag", drag, (1.0, 5.0)),
            fem.Scalar("pull", pull, (0.05, 0.3)),
            fem.Scalar("load_y", load, (-1.0, 1.0), component=1),
            fem.Field("modulus", modulus, basis, (-1.0, 1.0)),
            fem.Shape("shear", lambda x: np.stack([x[0] * x[1], 0.3 * x[0] ** 2]), (-0.2, 0.2), reference=0.05),
        ],
        responses=[
            fem.Response("energy", 0.5 * ufl.inner(sigma, strain(u)) * dx),
            fem.average("deflection", u[1] ** 3 + u[0], ds),
            fem.p_norm("stress", ufl.inner(sigma, sigma), dx, p=2.5),
            fem.Response("weight", modulus * dx),
        ],
    )


def _component_dofs(space, component, where):
    collapsed, _ = space.sub(component).collapse()
    return dolfinx.fem.locate_dofs_geometrical((space.sub(component), collapsed), where)[0]


def interior_point(problem, seed):
    """A random point well inside the bounds."""
    low, high = problem.bounds.T
    return low + np.random.default_rng(seed).uniform(0.15, 0.85, len(low)) * (high - low)


class OwnKind:
    """A kind of parameter of one's own: two inputs whose product, the first to a power, is a constant."""

    bounds = (0.5, 2.0)
    unit = ""
    names = ("own_1", "own_2")

    def __init__(self, constant, power=1.0):
        self.constant, self.power = constant, power

    def bind(self, unknown, bcs):
        return _BoundOwnKind(self.constant, self.power, unknown.function_space.mesh)


class _BoundOwnKind:
    count = 2
    motion = None

    def __init__(self, constant, power, mesh):
        self.constant, self.power = constant, power
        self.slopes = [dolfinx.fem.Constant(mesh, 1.0) for _ in range(2)]

    def assign(self, values):
        self.constant.value = values[0] ** self.power * values[1]
        self.slopes[0].value = self.power * values[0] ** (self.power - 1) * values[1]
        self.slopes[1].value = values[0] ** self.power

    def scale_boundary_values(self, factor):
        pass

    def derivatives(self, form):
        by_product = by_constant(form, self.constant, ())
        return [
            Member(map_integrands(lambda integrand, slope=slope: slope * integrand, by_product))
            for slope in self.slopes
        ]

    def boundary_direction(self, values):
        return 0.0
