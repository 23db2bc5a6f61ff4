"""Mistakes that would give wrong numbers are refused on construction, with the way to do it right."""

import math

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem

SQUARE = dolfinx.mesh.create_unit_square


def poisson(**changes):
    """A scalar Poisson problem on a unit square; `changes` maps names to functions of (mesh, u, k)."""
    mesh = SQUARE(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    k = dolfinx.fem.Constant(mesh, 1.0)
    arguments = {
        "form": 0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx,
        "bcs": [fixed(space)],
        "parameters": [fem.Scalar("k", k, (0.5, 2.0))],
        "responses": [fem.Response("mean", u * ufl.dx)],
    } | {name: change(mesh, u, k) for name, change in changes.items()}
    return fem.Problem(arguments.pop("form"), u, **arguments)


def fixed(space):
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return dolfinx.fem.dirichletbc(0.0, dofs, space)


def twins(mesh, u, k):
    return [fem.Scalar("one", k, (0.5, 2.0)), fem.Scalar("two", k, (0.5, 2.0))]


def pair(a):
    return ufl.as_vector([a, 2 * a])


def radius(mesh, u, k):
    still = fem.Shape("s", lambda x: 0.1 * x, (0.0, 1.0), 0.0)
    return [fem.Scalar("k", k, (0.5, 2.0)), still]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bcs": lambda m, u, k: [fixed(dolfinx.fem.functionspace(m, ("Lagrange", 1)))]}, "another function space"),
        ({"parameters": twins}, "'one' and 'two' set the same"),
        ({"parameters": lambda m, u, k: [fem.Field("f", u, [u.copy()], (0.0, 1.0))]}, "is the unknown itself"),
        ({"responses": lambda m, u, k: [fem.Response("r", u * ufl.dx, lambda a: a * k)]}, "derivative would be lost"),
        (
            {
                "parameters": radius,
                "responses": lambda m, u, k: [fem.Response("r", ufl.Circumradius(m) * u * ufl.dx)],
            },
            r"abs\(ufl\.JacobianDeterminant\(mesh\)\) \*\* \(1 / 2\)",
        ),
        (
            {
                "parameters": radius,
                "responses": lambda m, u, k: [fem.Response("r", ufl.classes.CellVertices(m)[0, 0] * u * ufl.dx)],
            },
            "does not differentiate Circumradius, CellDiameter, vertices",
        ),
        (
            {"responses": lambda m, u, k: [fem.Response("r", ufl.classes.CellCoordinate(m)[0] * u * ufl.dx)]},
            r"FFCx does not compile CellCoordinate\. With x = .*JacobianInverse\(mesh\) \* \(x - ufl\.classes\.CellV",
        ),
        ({"responses": lambda m, u, k: [fem.average("r", u, ufl.ds(m)(77))]}, "empty region; check its facet tag"),
        ({"responses": lambda m, u, k: []}, "responses is empty"),
        ({"parameters": lambda m, u, k: [fem.Scalar("k", k, (0.5, 2.0, 3.0))]}, "expected two numbers"),
        ({"solver": lambda m, u, k: {"ksp_type": "cgg"}}, "refuses the solver options"),
        (
            {"parameters": lambda m, u, k: [fem.Shape("s", lambda x: 0 * x, (0.0, 1.0), 0.0)]},
            "vanishes on the whole mesh",
        ),
    ],
)
def test_what_would_be_wrong_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        poisson(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"form": lambda m, u, k: 5.0}, "expected a UFL form"),
        ({"parameters": lambda m, u, k: fem.Scalar("k", k, (0.5, 2.0))}, "must be a list"),
        ({"responses": lambda m, u, k: [fem.Response("r", u)]}, "times ufl.dx"),
        ({"responses": lambda m, u, k: [fem.Response("r", u * ufl.dx, lambda a: math.sqrt(a))]}, "ufl.sqrt"),
        (
            {
                "responses": lambda m, u, k: [
                    fem.Response("r", u * ufl.dx, lambda a: ufl.sqrt(ufl.inner(pair(a), pair(a))))
                ]
            },
            "evaluated",
        ),
        ({"parameters": lambda m, u, k: [fem.Scalar("k", 1.0, (0.5, 2.0))]}, "expected a dolfinx.fem.Constant"),
        ({"parameters": lambda m, u, k: [fem.Scalar("k", k, (0.5, 2.0), component=True)]}, "expected integers"),
    ],
)
def test_what_is_of_the_wrong_kind_is_refused(changes, message):
    with pytest.raises(TypeError, match=message):
        poisson(**changes)


def test_a_view_of_the_unknown_is_refused():
    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    k = dolfinx.fem.Constant(mesh, 1.0)
    with pytest.raises(ValueError, match=r"use ufl\.split"):
        fem.Problem(
            0.5 * k * ufl.inner(u, u) * ufl.dx - u[0] * ufl.dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (1.0, 2.0))],
            responses=[fem.Response("r", u.sub(0) * ufl.dx)],
        )


def test_a_view_of_a_field_is_refused():
    def view(mesh, u, k):
        pair = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
        return [fem.Scalar("k", k, (0.5, 2.0)), fem.Field("pair", pair, [pair.copy()], (0.0, 1.0))]

    def response(mesh, u, k):
        return [fem.Response("r", parameters[1].function.sub(0) * u * ufl.dx)]

    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    parameters = view(mesh, u, k)
    with pytest.raises(ValueError, match="view of field 'pair'"):
        fem.Problem(
            0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx,
            u,
            bcs=[fixed(u.function_space)],
            parameters=parameters,
            responses=response(mesh, u, k),
        )


def test_a_load_factor_is_neither_parameter_nor_boundary_value():
    def path(mesh, u, k):
        return fem.LoadPath((0.5, 1.0), factor=k)

    def follows(mesh, u, k):
        dofs = dolfinx.fem.locate_dofs_geometrical(u.function_space, lambda x: np.isclose(x[0], 0.0))
        return [dolfinx.fem.dirichletbc(k, dofs, u.function_space)]

    def other(mesh, u, k):
        return [fem.Field("f", f := dolfinx.fem.Function(u.function_space), [f.copy()], (0.0, 1.0))]

    with pytest.raises(ValueError, match="'k' is the load path's factor"):
        poisson(path=path)
    with pytest.raises(ValueError, match="boundary values are multiplied by it anyway"):
        poisson(path=path, bcs=follows, parameters=other)


@pytest.mark.slow
def test_a_solver_for_symmetric_matrices_refuses_others():
    def convected(mesh, u, k):
        v = ufl.TestFunction(u.function_space)
        return (k * ufl.inner(ufl.grad(u), ufl.grad(v)) + u.dx(0) * v - v) * ufl.dx

    problem = poisson(form=convected, solver=lambda m, u, k: fem.SYMMETRIC)
    with pytest.raises(ValueError, match="for symmetric matrices"):
        problem.evaluate([1.0])
    assert poisson(solver=lambda m, u, k: fem.SYMMETRIC).evaluate([1.0])[0] == pytest.approx(
        poisson().evaluate([1.0])[0], rel=1e-12
    )


def test_a_walk_that_was_interrupted_says_so():
    problem = poisson(path=lambda m, u, k: fem.LoadPath((0.5, 1.0)))
    steps = problem.walk([1.0])
    next(steps)
    problem.evaluate([2.0])
    with pytest.raises(RuntimeError, match="solved again during a walk"):
        next(steps)
    assert [step.factor for step in problem.walk([1.0])] == [0.5, 1.0]


def test_the_digest_changes_with_what_decides_the_answers_and_with_nothing_else():
    def value(number):
        def bcs(mesh, u, k):
            dofs = dolfinx.fem.locate_dofs_geometrical(u.function_space, lambda x: np.isclose(x[0], 0.0))
            return [dolfinx.fem.dirichletbc(number, dofs, u.function_space)]

        return bcs

    base = poisson().digest
    assert poisson().digest == base
    assert poisson(parameters=lambda m, u, k: [fem.Scalar("k", k, (0.7, 1.5))]).digest == base  # bounds stand apart
    others = [
        poisson(bcs=value(0.1)).digest,
        poisson(bcs=value(0.2)).digest,
        poisson(responses=lambda m, u, k: [fem.Response("mean", u * ufl.dx, lambda a: 2 * a)]).digest,
        poisson(form=lambda m, u, k: 0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - 2 * u * ufl.dx).digest,
    ]
    assert len({base, *others}) == 5


@pytest.mark.slow
def test_problems_on_one_mesh_do_not_move_it_for_each_other():
    mesh = SQUARE(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))

    def build(extra):
        u, k = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
        energy = 0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx - u * ufl.dx
        area = fem.Response("area", ufl.as_ufl(1.0) * ufl.dx(mesh))
        parameters = [fem.Scalar("k", k, (0.5, 2.0)), *extra]
        return fem.Problem(energy, u, bcs=[fixed(space)], parameters=parameters, responses=[area])

    moving, still = build([fem.Shape("size", lambda x: x, (0.0, 2.0), reference=0.0)]), build([])
    assert moving.evaluate([1.0, 1.0])[0] == pytest.approx([4.0])
    gradient = moving.vjp([1.0, 1.0], [1.0])
    assert gradient == pytest.approx([0.0, 4.0])
    assert still.evaluate([1.0])[0] == pytest.approx([1.0])
    assert moving.vjp([1.0, 1.0], [1.0]) == pytest.approx(gradient)


def test_a_misspelt_solver_option_is_named():
    with pytest.raises(ValueError, match="'kps_type' is no option"):
        poisson(solver=lambda m, u, k: {"kps_type": "cg", "pc_type": "jacobi"}).evaluate([1.0])


@pytest.mark.parametrize(
    ("quantity", "name"),
    [
        (lambda u: abs(u), "Abs"),
        (lambda u: ufl.max_value(u, 0.1), "MaxValue"),
        (lambda u: 2 * ufl.min_value(u, u**2), "Min"),
        (lambda u: (1 + ufl.max_value(u, 0.0)) ** 2, "MaxValue"),
        (lambda u: ((u + abs(u)) / 2) ** 2 + 1e-6 * abs(u), "Abs"),
    ],
)
def test_a_response_whose_derivative_jumps_is_refused_with_what_to_take_instead(quantity, name):
    with pytest.raises(ValueError, match=f"'r' uses {name}.*p_norm"):
        poisson(responses=lambda m, u, k: [fem.Response("r", quantity(u) * ufl.dx)])


@pytest.mark.slow
def test_a_maximum_that_is_squared_or_of_the_place_alone_is_not():
    poisson(
        responses=lambda m, u, k: [
            fem.Response("squared", ufl.max_value(u, 0.0) ** 2 * ufl.dx),
            fem.Response("energy", ((u + abs(u)) / 2) ** 2 * ufl.dx),
            fem.Response("one_sided", u * ufl.max_value(u - 0.01, 0.0) * (u - 0.01) * ufl.dx),
            fem.Response("guarded", ufl.conditional(ufl.gt(abs(u), 1e-12), u**2, 0.0) * ufl.dx),
            fem.Response("of_place", abs(ufl.SpatialCoordinate(m)[0] - 0.5) * u * ufl.dx),
        ]
    )


def test_a_maximum_in_combine_is_refused():
    with pytest.raises(ValueError, match="combine of response 'r' uses MaxValue"):
        poisson(responses=lambda m, u, k: [fem.Response("r", (u * ufl.dx, u**2 * ufl.dx), ufl.max_value)])


@pytest.mark.slow
def test_two_parameters_that_prescribe_one_boundary_value_are_refused():
    mesh = SQUARE(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, left, bottom = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 2.0)
    dofs = [dolfinx.fem.locate_dofs_geometrical(space, lambda x, i=i: np.isclose(x[i], 0.0)) for i in (0, 1)]

    def build(second):
        return fem.Problem(
            0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) * ufl.dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(left, dofs[0], space), dolfinx.fem.dirichletbc(bottom, second, space)],
            parameters=[fem.Scalar("left", left, (0.0, 1.0)), fem.Scalar("bottom", bottom, (0.0, 1.0))],
            responses=[fem.Response("mean", u * ufl.dx)],
        )

    with pytest.raises(ValueError, match="'left' and 'bottom' prescribe the same boundary value"):
        build(dofs[1])
    response, jacobian = build(np.setdiff1d(dofs[1], dofs[0])).evaluate([0.3, 0.8])
    assert response == pytest.approx(jacobian @ [0.3, 0.8])


@pytest.mark.slow
def test_functions_at_points_that_nothing_evolves_are_refused():
    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    old = fem.internal_variable(mesh, "old", quadrature_degree=2)

    def build(degree=2, old=old, **arguments):
        return fem.Problem(
            (0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) - (1 + old) * u) * ufl.dx(degree=degree),
            u,
            bcs=[fixed(space)],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            **({"responses": [fem.Response("mean", u * ufl.dx)]} | arguments),
        )

    with pytest.raises(ValueError, match="neither in history nor in local"):
        build()
    with pytest.raises(ValueError, match=r"use ufl.dx.*'quadrature_degree': 2"):
        build(4, history={old: old + u})
    with pytest.raises(ValueError, match="update of 'old' has shape"):
        build(history={old: ufl.grad(u)})
    with pytest.raises(ValueError, match="solves nothing"):
        build(history={old: old + u}, local=[fem.LocalUnknown(mesh, quadrature_degree=2)])
    with pytest.raises(TypeError, match="internal_variable"):
        build(history={u: u})
    given = dolfinx.fem.Function(old.function_space, name="given")
    given.x.array[:] = 0.5
    assert build(old=given).evaluate([1.0])[0] == pytest.approx(1.5 * build(old=0.0).evaluate([1.0])[0])
    other = fem.internal_variable(mesh, "other", quadrature_degree=2)
    with pytest.raises(ValueError, match="other lives at quadrature points"):
        build(history={old: old + u + other})
    local = fem.LocalUnknown(mesh, quadrature_degree=2)
    root = local.solving(lambda e: e + e**3 - k)
    with pytest.raises(ValueError, match=r"local=\[the LocalUnknown\]"):
        build(history={old: old + root})
    with pytest.raises(ValueError, match="what `solving` returned"):
        build(history={old: old + local.function}, local=[local])
    with pytest.raises(ValueError, match="an energy holds a local unknown"):
        build(old=root, local=[local])
    with pytest.raises(ValueError, match="the vertex quadrature of degree 1"):
        first = fem.internal_variable(mesh, "first", quadrature_degree=1)
        vertices = ufl.dx(mesh, metadata={"quadrature_degree": 1, "quadrature_rule": "vertex"})
        build(old=0, history={first: first + u}, responses=[fem.Response("r", first * vertices)])


@pytest.mark.slow
def test_derivatives_of_local_unknowns_are_refused_but_not_those_beside_them():
    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, v, k = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    local = fem.LocalUnknown(mesh, quadrature_degree=2)
    marked = ufl.variable(u)
    root = local.solving(lambda e: e + e**3 - marked)
    laplace = ufl.derivative(0.5 * k * ufl.inner(ufl.grad(u), ufl.grad(u)) * dx, u, v)

    def build(form, response):
        return fem.Problem(
            form,
            u,
            bcs=[fixed(space)],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("mean", response * dx)],
            local=[local],
        )

    with pytest.raises(ValueError, match=r"ufl\.derivative is applied to a local unknown"):
        build(laplace + ufl.derivative(0.5 * root**2 * dx, u, v), u)
    with pytest.raises(ValueError, match=r"ufl\.diff by a variable in the equation"):
        build(laplace + root * v * dx, ufl.diff(root * u, marked))
    stress = ufl.variable(root)
    problem = build(laplace + ufl.diff(stress**2, stress) * v * dx - v * dx, u)
    h, slope = 1e-5, problem.evaluate([1.0])[1][0, 0]
    ahead, behind = (problem.evaluate([1.0 + s * h], jacobian=False)[0][0] for s in (1, -1))
    assert slope == pytest.approx((ahead - behind) / (2 * h), rel=1e-7)


@pytest.mark.slow
def test_products_notice_a_boundary_value_that_was_changed():
    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u, k, wall = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0), dolfinx.fem.Constant(mesh, 1.0)
    ends = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        (0.5 * ufl.inner(ufl.grad(u), ufl.grad(u)) + 0.5 * k * u**2) * ufl.dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(wall, ends, space)],
        parameters=[fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("square", u**2 * ufl.dx)],
    )
    _, jacobian = problem.evaluate([1.2])
    wall.value = 3.0
    np.testing.assert_allclose(problem.vjp([1.2], [1.0]), 9.0 * jacobian[0], rtol=1e-12)


def test_coordinates_in_a_cell_are_what_the_message_says():
    mesh = SQUARE(MPI.COMM_SELF, 2, 2)
    x = ufl.SpatialCoordinate(mesh)
    local = ufl.JacobianInverse(mesh) * (x - ufl.classes.CellVertices(mesh)[0, :])
    # of a triangle of size a: 2 a ∫∫ X Y dX dY = a / 12
    assert dolfinx.fem.assemble_scalar(dolfinx.fem.form(local[0] * local[1] * ufl.dx(mesh))) == pytest.approx(1 / 12)
