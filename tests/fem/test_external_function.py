"""Functions that other code computes at the quadrature points: what they give is what the same law in UFL gives."""

from mpi4py import MPI
import basix
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.fields import CellField
from sobofem.fem.materials.hyperelasticity import deformation_gradient, first_piola_kirchhoff, neo_hooke

LAMBDA = 2.1
RULE = {"quadrature_degree": 2}
POINTS, _ = basix.make_quadrature(basix.CellType.quadrilateral, 2)
X = (1.3, 0.25, 0.4, 0.05)


def energy_of_invariants(z, order):
    """mu/2 (I1 - 3) - mu ln J + lambda/2 ln² J of z = (I1, J, mu), with its derivatives."""
    first, J, mu = z.T
    log, k = np.log(J), len(z)
    gradient, hessian, third = np.zeros((k, 3)), np.zeros((k, 3, 3)), np.zeros((k, 3, 3, 3))
    gradient[:, 0] = mu / 2
    gradient[:, 1] = (LAMBDA * log - mu) / J
    gradient[:, 2] = (first - 3) / 2 - log
    hessian[:, 0, 2] = hessian[:, 2, 0] = 0.5
    hessian[:, 1, 2] = hessian[:, 2, 1] = -1 / J
    hessian[:, 1, 1] = (LAMBDA * (1 - log) + mu) / J**2
    third[:, 1, 1, 1] = (LAMBDA * (2 * log - 3) - 2 * mu) / J**3
    third[:, 1, 1, 2] = third[:, 1, 2, 1] = third[:, 2, 1, 1] = 1 / J**2
    value = mu / 2 * (first - 3) - mu * log + LAMBDA / 2 * log**2
    return (value, gradient, hessian, third)[: order + 1]


def external_function(mesh, *, digest="neo-Hooke"):
    return fem.ExternalFunction(mesh, energy_of_invariants, quadrature_degree=2, digest=digest, name="learned energy")


def external_law(mesh, **options):
    function = external_function(mesh, **options)
    return lambda F, mu: function(ufl.inner(F, F), ufl.det(F), mu)


def closed_law(mesh):
    return lambda F, mu: neo_hooke(F, mu, LAMBDA)


def plate(make_law, *, comm=MPI.COMM_SELF, responses=(), shape=True, fields=()):
    """A block in plane strain, clamped below and pulled above, with a modulus, a displacement, a load and a shape."""
    mesh = dolfinx.mesh.create_rectangle(comm, [[0.0, 0.0], [1.0, 0.7]], [4, 3], dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    mu, pull, load = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 0.1, 0.2))
    dx, F, law, x = ufl.dx(mesh, metadata=RULE), deformation_gradient(u), make_law(mesh), ufl.SpatialCoordinate(mesh)
    stiffness = mu * (1 + 0.3 * x[0])
    energy = (law(F, stiffness) - load * u[0] * (1 + x[1])) * dx
    P = first_piola_kirchhoff(lambda F: law(F, stiffness), F)
    bottom = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[1], 0.0))
    part = space.sub(1)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[1], 0.7))
    top = dolfinx.fem.locate_dofs_topological(part, 1, facets)
    bulge = fem.Shape("bulge", lambda x: np.stack([x[0] * x[1], 0.3 * x[0] ** 2]), (-0.2, 0.2), reference=0.0)
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), bottom, space), dolfinx.fem.dirichletbc(pull, top, part)],
        parameters=[
            fem.Scalar("mu", mu, (0.5, 2.0)),
            fem.Scalar("pull", pull, (-0.1, 0.4)),
            fem.Scalar("load", load, (-0.5, 0.5)),
            *([bulge] if shape else []),
        ],
        responses=[
            fem.Response("energy", law(F, stiffness) * dx),
            fem.Response("stress", P[1, 1] * dx),
            fem.Response("shear", P[0, 1] ** 2 * dx),
            *(make(law, F, stiffness, dx) for make in responses),
        ],
        fields={make.__name__: make(F, law, stiffness) for make in fields},
    )


@pytest.mark.slow
def test_values_and_derivatives_are_those_of_the_law_in_ufl():
    external, closed = plate(external_law), plate(closed_law)
    for method in ("adjoint", "tangent"):
        found, expected = external.evaluate(X, method=method), closed.evaluate(X, method=method)
        for one, other in zip(found, expected, strict=True):
            assert one == pytest.approx(other, rel=1e-10, abs=1e-12)


@pytest.mark.slow
def test_products_with_hessians_are_those_of_the_law_in_ufl():
    external, closed = plate(external_law, shape=False), plate(closed_law, shape=False)
    weights, directions = [0.3, -1.0, 0.7], np.eye(3)
    expected = closed.hvp(X[:3], weights, directions)
    assert external.hvp(X[:3], weights, directions) == pytest.approx(expected, rel=1e-9, abs=1e-10)
    assert external.hvp(X[:3], weights, directions[1]) == pytest.approx(expected[1], rel=1e-9, abs=1e-10)


@pytest.mark.slow  # compiling second derivatives by shape takes 20 s
def test_products_with_hessians_by_shape_are_those_of_the_law_in_ufl():
    weights, direction = [0.3, -1.0, 0.7], [0.5, -0.2, 1.0, 0.7]
    expected = plate(closed_law).hvp(X, weights, direction)
    assert plate(external_law).hvp(X, weights, direction) == pytest.approx(expected, rel=1e-9, abs=1e-10)


def stretched(F, law, stiffness):
    """The modulus of extension along x: a second derivative of the law."""
    variable = ufl.variable(F)
    return ufl.diff(ufl.diff(law(variable, stiffness), variable)[0, 0], variable)[0, 0]


@pytest.mark.slow
def test_a_response_may_hold_the_tangent_of_a_law_but_not_its_derivative():
    modulus = [lambda law, F, stiffness, dx: fem.Response("modulus", stretched(F, law, stiffness) * dx)]
    external, closed = (plate(law, responses=modulus, shape=False) for law in (external_law, closed_law))
    for one, other in zip(external.evaluate(X[:3]), closed.evaluate(X[:3]), strict=True):
        assert one == pytest.approx(other, rel=1e-10, abs=1e-12)
    with pytest.raises(NotImplementedError, match="holds the tangent of an external function"):
        external.hvp(X[:3], [0.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0])

    def softening(law, F, stiffness, dx):
        variable = ufl.variable(F)
        return fem.Response("softening", ufl.diff(stretched(variable, law, stiffness), variable)[0, 0] * dx)

    with pytest.raises(ValueError, match="derivative 3 of 'learned energy'"):
        plate(external_law, responses=[softening], shape=False)


def softening(F, law, stiffness):
    """How that modulus changes with the extension: a third derivative."""
    variable = ufl.variable(F)
    return ufl.diff(stretched(variable, law, stiffness), variable)[0, 0]


@pytest.mark.slow
def test_fields_may_hold_the_tangent_of_a_law_and_look_at_its_derivative():
    external, closed = (plate(law, shape=False, fields=[stretched, softening]) for law in (external_law, closed_law))
    one, other = (CellField(problem, "stretched", degree=2) for problem in (external, closed))
    for found, expected in zip(one.evaluate(X[:3]), other.evaluate(X[:3]), strict=True):
        assert found == pytest.approx(expected, rel=1e-9, abs=1e-11)
    with pytest.raises(ValueError, match="'softening' holds derivative 3 of 'learned energy', of which there are 3"):
        CellField(external, "softening", degree=2)
    expression = compile_expression(external.fields["softening"], POINTS, external.comm)
    exact = compile_expression(closed.fields["softening"], POINTS, external.comm)
    cells = np.arange(12, dtype=np.int32)
    found, expected = expression.eval(external.mesh, cells), exact.eval(closed.mesh, cells)
    assert found == pytest.approx(expected, rel=1e-9)


def test_a_field_of_a_law_that_the_problem_does_not_evaluate_is_refused():
    problem = plate(external_law, shape=False)
    u, law = problem.unknown, external_law(problem.mesh)
    with pytest.raises(ValueError, match="'density' holds 'learned energy', which the problem evaluates where its own"):
        CellField(problem, law(deformation_gradient(u), 1.0), name="density", degree=2)


@pytest.mark.slow
def test_the_digest_knows_the_function_but_not_what_it_gave_last():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    load, dx = dolfinx.fem.Constant(mesh, 0.3), ufl.dx(mesh, metadata=RULE)
    F = deformation_gradient(u)

    def problem(function):
        return fem.Problem(
            (function(ufl.inner(F, F), ufl.det(F), 1.0) + ufl.inner(u, u) - load * u[0]) * dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("load", load, (0.0, 1.0))],
            responses=[fem.Response("mean", u[0] * dx)],
        )

    function = external_function(mesh)
    first = problem(function)
    first.evaluate([0.7])
    u.x.array[:] = 0.0
    assert problem(function).digest == first.digest
    assert problem(external_function(mesh, digest="another")).digest != first.digest


def test_an_integral_by_another_rule_than_that_of_the_points_is_refused():
    with pytest.raises(ValueError, match="'arguments of learned energy', which lives at the points of degree 2"):
        other = {"quadrature_degree": 4}
        plate(external_law, responses=[lambda law, F, s, dx: fem.Response("more", law(F, s) * dx(metadata=other))])


@pytest.mark.slow
def test_an_argument_may_be_a_number():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    T = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    load, dx = dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh, metadata=RULE)
    problem = fem.Problem(
        (external_function(mesh)(4.0, 1.0, 2) * T**2 / 2 - load * T) * dx,
        T,
        bcs=[],
        parameters=[fem.Scalar("load", load, (0.0, 1.0))],
        responses=[fem.Response("mean", T * dx)],
    )
    assert problem.evaluate([0.5])[0] == pytest.approx([0.5])


def test_arguments_are_scalars():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    with pytest.raises(ValueError, match="argument 0 of 'learned energy' has shape"):
        external_function(mesh)(ufl.Identity(3))


@pytest.mark.slow
def test_a_function_that_gives_too_few_or_other_arrays_is_refused():
    def law(evaluate):
        def on(mesh):
            function = fem.ExternalFunction(mesh, evaluate, quadrature_degree=2, digest="", name="table")
            return lambda F, mu: function(ufl.inner(F, F), ufl.det(F), mu)

        return on

    wrong = {
        "too few": lambda z, order: energy_of_invariants(z, 1),
        "points last": lambda z, order: [np.moveaxis(d, 0, -1) for d in energy_of_invariants(z, order)],
    }
    for evaluate in wrong.values():
        with pytest.raises(ValueError, match=r"'table' gives arrays of shapes .* for order 2, expected"):
            plate(law(evaluate), shape=False).evaluate(X[:3])
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    with pytest.raises(ValueError, match="orders of 'external function' is 1, expected 2 or 3, as"):
        fem.ExternalFunction(mesh, energy_of_invariants, quadrature_degree=2, digest="", orders=1)


def creeping(make_law):
    """A block whose modulus grows with an internal variable that follows the change of volume, on and off load."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, v = dolfinx.fem.Function(space), ufl.TestFunction(space)
    mu, load = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 0.3)
    factor, q = dolfinx.fem.Constant(mesh, 1.0), fem.internal_variable(mesh, "hardening", quadrature_degree=2)
    dx, F, law = ufl.dx(mesh, metadata=RULE), deformation_gradient(u), make_law(mesh)
    now = 0.6 * q + 2.0 * (ufl.inner(F, F) - 3)
    energy = law(F, mu * (1 + now))
    P = first_piola_kirchhoff(lambda F: law(F, mu * (1 + q)), F)
    strain = ufl.grad(v)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        sum(P[i, j] * strain[i, j] for i in range(2) for j in range(2)) * dx - factor * load * v[0] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), left, space)],
        parameters=[fem.Scalar("mu", mu, (0.5, 2.0)), fem.Scalar("load", load, (-0.5, 0.5))],
        responses=[
            fem.Response("energy", energy * dx, at="sum"),
            fem.Response("end", u[0] * dx),
            fem.Response("hardening", q * dx),
        ],
        path=fem.LoadPath((1.0, 0.4, 1.2), factor=factor),
        history={q: now + 0.1 * energy},
    )


@pytest.mark.slow
def test_a_law_may_stand_in_what_has_a_memory():
    x = [1.2, 0.35]
    expected = creeping(closed_law).evaluate(x, method="tangent")
    external = creeping(external_law)
    for method in ("tangent", "adjoint"):
        for one, other in zip(external.evaluate(x, method=method), expected, strict=True):
            assert one == pytest.approx(other, rel=1e-8, abs=1e-10)


def vibrating(make_law):
    """The lowest frequency of a pulled block."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, v, w = dolfinx.fem.Function(space), ufl.TestFunction(space), ufl.TrialFunction(space)
    mu, load = dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 0.3)
    dx, F, law = ufl.dx(mesh, metadata=RULE), deformation_gradient(u), make_law(mesh)
    left = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    bcs = [dolfinx.fem.dirichletbc(np.zeros(2), left, space)]
    energy = law(F, mu) * dx - load * u[0] * dx
    stiffness = ufl.derivative(ufl.derivative(energy, u, v), u, w)
    modes = fem.Vibration(stiffness, ufl.inner(v, w) * dx, bcs, count=2)
    return fem.Problem(
        energy,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("mu", mu, (0.5, 2.0)), fem.Scalar("load", load, (-0.5, 0.5))],
        responses=[modes.frequency("first", 0)],
    )


@pytest.mark.slow
def test_a_frequency_about_a_loaded_state_has_its_derivatives():
    x = [1.2, 0.35]
    for one, other in zip(vibrating(external_law).evaluate(x), vibrating(closed_law).evaluate(x), strict=True):
        assert one == pytest.approx(other, rel=1e-8)
