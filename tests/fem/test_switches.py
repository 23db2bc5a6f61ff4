"""Jumps whose derivative UFL takes as zero are refused; conditions whose branches agree are differentiated rightly."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly import forms
from sobofem.fem.definition import checks
from sobofem.fem.definition.varying import Varying
from sobofem.fem.responses import Combination

DX = ufl.dx(metadata={"quadrature_degree": 4})
MESH = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 8, 8)
if_, gt, lt = ufl.conditional, ufl.gt, ufl.lt


def one(a, b, f, x, u):
    return 1.0


def ingredients(stiffness=one, load=one, quantity=lambda a, b, f, x, u: u, velocity=None):
    """A problem's arguments; its load carries the parameter b, its stiffness a and the field f."""
    space = dolfinx.fem.functionspace(MESH, ("Lagrange", 1))
    u, v, f = dolfinx.fem.Function(space), ufl.TestFunction(space), dolfinx.fem.Function(space)
    f.x.array[:] = 1.0
    a, b, x = dolfinx.fem.Constant(MESH, 0.5), dolfinx.fem.Constant(MESH, 1.0), ufl.SpatialCoordinate(MESH)
    known = a, b, f, x, u
    parameters = [fem.Scalar("a", a, (0.2, 0.8)), fem.Scalar("b", b, (0.5, 2.0))]
    parameters.append(fem.Field("f", f, [f.copy()], (-0.5, 0.5)))
    if velocity is not None:
        parameters.append(fem.Shape("shape", velocity, (-0.2, 0.2), 0.0))
    form = (1 + a) * stiffness(*known) * f * ufl.inner(ufl.grad(u), ufl.grad(v)) * DX - b * load(*known) * v * DX
    return form, u, parameters, [fem.Response("r", quantity(*known) * DX)]


def check(form, u, parameters, responses):
    combination = Combination(responses, MESH.ufl_domain())
    integrals = [forms.expand(forms.with_quadrature_degrees(i)) for i in combination.integrals]
    varying = Varying(u, parameters, fem.LoadPath())
    checks.check_differentiability([form, forms.residual(form, u)], responses, combination, integrals, [], varying)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stiffness": lambda a, b, f, x, u: if_(lt(x[0], a), 1.0, 0.1)}, "the form jumps where parameter 'a'.*tanh"),
        ({"stiffness": lambda a, b, f, x, u: 2 + ufl.sign(x[0] - a)}, "the form jumps where parameter 'a'"),
        ({"stiffness": lambda a, b, f, x, u: if_(gt(f, 1.1), 1.0, 2.0)}, "the form jumps where parameter 'f'"),
        ({"stiffness": lambda a, b, f, x, u: 1 + if_(gt(u, a), 1.0, 0.0)}, "the form jumps where parameter 'a'"),
        ({"load": lambda a, b, f, x, u: if_(gt(a, 0.5), 1.0, 2.0)}, "the form jumps where parameter 'a'"),
        ({"load": lambda a, b, f, x, u: if_(ufl.And(gt(x[0], 0.2), lt(x[0], a)), 1.0, 0.0)}, "parameter 'a'"),
        ({"load": lambda a, b, f, x, u: if_(ufl.Not(lt(x[1], b / 2)), 1.0, 0.0)}, "parameter 'b'"),
        ({"load": lambda a, b, f, x, u: if_(ufl.eq(a, 0.5), 1.0, 0.0)}, "parameter 'a'"),
        ({"load": lambda a, b, f, x, u: ufl.max_value(a, 0.5)}, "the form uses MaxValue of parameter 'a'.*sqrt"),
        ({"load": lambda a, b, f, x, u: abs(a - 0.5)}, "the form uses Abs of parameter 'a'"),
        ({"quantity": lambda a, b, f, x, u: ufl.min_value(f, 0.9)}, "'r' uses MinValue of parameter 'f'"),
        ({"quantity": lambda a, b, f, x, u: if_(gt(u, 0.3), 1.0, 0.0)}, "'r' jumps where the solution"),
        ({"quantity": lambda a, b, f, x, u: if_(gt(u, a), 1.0, 0.0)}, "'r' jumps where parameter 'a'"),
        ({"quantity": lambda a, b, f, x, u: ufl.sign(u - 0.1)}, "'r' jumps where the solution"),
        ({"quantity": lambda a, b, f, x, u: if_(gt(u.dx(0), u.dx(1)), u, 0.0)}, "'r' jumps where the solution"),
        (
            {"load": lambda a, b, f, x, u: if_(gt(x[0], 0.51), 1.0, 0.0), "velocity": lambda x: x.copy()},
            "parameter 'shape' .*mesh tags",
        ),
        (  # which cuts cells, whose points it carries across, though no node
            {"load": lambda a, b, f, x, u: if_(gt(x[0], 0.35), 1.0, 0.0), "velocity": lambda x: 0.1 * x},
            "parameter 'shape' .*mesh tags",
        ),
    ],
)
def test_a_jump_whose_derivative_would_be_lost_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        check(*ingredients(**change))


def beside(x):
    """A velocity that moves the left half alone."""
    return np.stack([np.maximum(0.5 - x[0], 0.0) * x[0], 0 * x[0]])


@pytest.mark.parametrize(
    "change",
    [
        {"stiffness": lambda a, b, f, x, u: 1 + if_(lt(x[0], a), 0.0, x[0] - a)},
        {"stiffness": lambda a, b, f, x, u: 1 + if_(gt(u, a), u - a, 0.0)},
        {"stiffness": lambda a, b, f, x, u: 1 + if_(gt(u, 0.3), 1.0, 0.0)},
        {"load": lambda a, b, f, x, u: if_(gt(a, 5.0), 1.0, 2.0)},
        {"load": lambda a, b, f, x, u: if_(gt(a, 0.5), 1.0, 0.0) * (a - 0.5)},
        {"load": lambda a, b, f, x, u: ufl.max_value(a - 0.5, 0.0) ** 2},
        {"load": lambda a, b, f, x, u: ufl.max_value(x[0] - a, 0.0)},
        {"quantity": lambda a, b, f, x, u: if_(gt(u, 0.3), u - 0.3, 0.0)},
        {"load": lambda a, b, f, x, u: if_(gt(x[0], 0.51), 1.0, 0.0)},
        {"load": lambda a, b, f, x, u: if_(gt(x[0], 0.51), 1.0, 0.0), "velocity": lambda x: np.stack([0 * x[0], x[1]])},
        {"load": lambda a, b, f, x, u: if_(gt(x[0], 0.9), 1.0, 0.0), "velocity": beside},
    ],
)
def test_conditions_whose_branches_agree_or_that_nothing_turns_are_not(change):
    check(*ingredients(**change))


@pytest.mark.parametrize(
    ("update", "message"),
    [
        (lambda q, u, a: q + if_(gt(u, a), u, 0.0), "update of internal variables jumps where parameter 'a'"),
        (lambda q, u, a: q + u * ufl.max_value(a, 0.5), "update of internal variables uses MaxValue of parameter 'a'"),
    ],
)
def test_updates_of_internal_variables_are_looked_at_as_well(update, message):
    form, u, parameters, responses = ingredients()
    q = fem.internal_variable(MESH, "q", quadrature_degree=4)
    with pytest.raises(ValueError, match=message):
        fem.Problem(
            form + q * ufl.TestFunction(u.function_space) * DX,
            u,
            bcs=[],
            parameters=parameters,
            responses=responses,
            history={q: update(q, u, parameters[0].constant)},
        )


@pytest.mark.parametrize("jump", [True, False])
def test_combine_may_branch_but_not_jump(jump):
    def combine(a, b):
        return if_(gt(a, b), 1.0 if jump else a - b, 0.0)

    response = fem.Response("r", (ufl.as_ufl(1.0) * ufl.dx(MESH), ufl.as_ufl(2.0) * ufl.dx(MESH)), combine)
    if not jump:
        Combination([response], MESH.ufl_domain())
        return
    with pytest.raises(ValueError, match="combine of response 'r' jumps"):
        Combination([response], MESH.ufl_domain())


@pytest.mark.slow
def test_the_derivative_by_the_place_of_a_ramp_is_right():
    """A bar of stiffness 1 up to a, beyond which the pull x − a of a wall begins: −u'' = ⟨x − a⟩, u'(1) = 0."""
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, 40, [0.0, 1.0])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    a, x = dolfinx.fem.Constant(mesh, 0.5), ufl.SpatialCoordinate(mesh)[0]
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 10})
    held = dolfinx.fem.locate_dofs_geometrical(u.function_space, lambda x: np.isclose(x[0], 0.0))
    problem = fem.Problem(
        0.5 * u.dx(0) ** 2 * dx - if_(gt(x, a), x - a, 0.0) * u * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, held, u.function_space)],
        parameters=[fem.Scalar("a", a, (0.2, 0.8))],
        responses=[fem.Response("end", u * ufl.ds(domain=mesh))],
    )
    response, slope = problem.evaluate([0.4125])
    assert response[0] == pytest.approx((1 - 0.4125) ** 2 / 2 - (1 - 0.4125) ** 3 / 6, rel=1e-5)  # ∫ x ⟨x − a⟩
    assert slope[0, 0] == pytest.approx(-(1 - 0.4125) + (1 - 0.4125) ** 2 / 2, rel=1e-3)
