"""What goes wrong in a solve raises, says why, and leaves the problem usable; a caller's mistake names its fix."""

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import block, interior_point
import pytest
import ufl

import fem
from fem.materials.elasticity import strain, stress


def bar(*, supported=True, response=None, parameters=None):
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 3, 3)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space)
    young = dolfinx.fem.Constant(mesh, 1.0)
    load = dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh)
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    return fem.Problem(
        0.5 * ufl.inner(stress(strain(u), young, 0.3), strain(u)) * dx - load * u[0] * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), clamped, space)] if supported else [],
        parameters=parameters(mesh, young, load) if parameters else [fem.Scalar("young", young, (-1.0, 2.0))],
        responses=[response(u, dx) if response else fem.Response("mean", u[0] * dx)],
    )


def test_a_body_that_can_move_freely_is_reported_as_such():
    with pytest.raises(fem.NotConverged, match="rigid motion") as caught:
        bar(supported=False).evaluate([1.0])
    assert caught.value.reason
    assert caught.value.load_factor == 0.0


def test_a_stiffness_of_zero_raises_and_the_next_sample_is_sound():
    problem = bar()
    sound = problem.evaluate([1.5])[0]
    with pytest.raises(fem.NotConverged):
        problem.evaluate([0.0])
    assert np.array_equal(problem.evaluate([1.5])[0], sound)


def test_a_response_without_a_real_value_raises():
    problem = bar(response=lambda u, dx: fem.Response("root", u[0] * dx, lambda mean: ufl.sqrt(mean)))
    problem.evaluate([1.0])
    with pytest.raises(fem.NotConverged, match=r"complex|finite|value"):
        problem.evaluate([-0.5])


def test_a_response_that_is_nan_is_named():
    problem = bar(response=lambda u, dx: fem.Response("bad", ufl.ln(u[0] - 100.0) * dx))
    with pytest.raises(fem.NotConverged, match="bad"):
        problem.evaluate([1.0])


def test_a_mesh_turned_inside_out_raises_and_the_next_sample_is_sound():
    def parameters(mesh, young, load):
        del mesh, load
        return [fem.Scalar("young", young, (1.0, 2.0)), fem.Shape("squeeze", lambda x: -x, (0.0, 1.5), reference=0.0)]

    problem = bar(parameters=parameters)
    sound = problem.evaluate([1.5, 0.5])[0]
    with pytest.raises(fem.NotConverged, match="inside out"):
        problem.evaluate([1.5, 1.0])
    assert np.array_equal(problem.evaluate([1.5, 0.5])[0], sound)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.zeros(3), r"shape \(3,\), expected \(8,\)"),
        (np.full(8, np.nan), "'drag' is nan"),
        ([9.0, 0.1, 0, 0, 0, 0, 0, 0], r"'drag' is 9, outside its bounds \[1, 5\]"),
    ],
)
def test_a_wrong_point_is_refused_in_the_callers_words(x, message):
    with pytest.raises(ValueError, match=message):
        block(cells=2).evaluate(x)


def test_an_unknown_method_is_refused():
    problem = block(cells=2)
    with pytest.raises(ValueError, match="adjoint"):
        problem.evaluate(interior_point(problem, 1), method="magic")


def test_a_parameter_that_enters_nowhere_is_refused():
    def parameters(mesh, young, load):
        del load
        return [fem.Scalar("young", young, (1, 2)), fem.Scalar("lost", dolfinx.fem.Constant(mesh, 1.0), (0, 1))]

    with pytest.raises(ValueError, match=r"\['lost'\] enter neither"):
        bar(parameters=parameters)


@pytest.mark.parametrize(
    ("names", "bounds", "message"),
    [(("a", "a"), (0.5, 1.0), "repeat"), (("a", "b"), (1.0, 0.5), "lower before upper")],
)
def test_repeated_names_and_reversed_bounds_are_refused(names, bounds, message):
    def parameters(mesh, young, load):
        del mesh
        return [fem.Scalar(names[0], young, bounds), fem.Scalar(names[1], load, bounds)]

    with pytest.raises(ValueError, match=message):
        bar(parameters=parameters)


def test_a_component_that_does_not_fit_its_constant_is_refused():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    with pytest.raises(ValueError, match="one index per axis"):
        fem.Scalar("load", dolfinx.fem.Constant(mesh, (1.0, 2.0)), (0, 1))


def test_several_integrals_need_a_rule_to_combine_them():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    area = 1.0 * ufl.dx(mesh)
    with pytest.raises(ValueError, match="combine"):
        fem.Response("two", (area, area))


def test_a_high_estimated_quadrature_degree_asks_for_an_explicit_one():
    def root(u, dx):
        return fem.Response("root", ufl.inner(u, u) ** 6 * dx)

    with pytest.raises(ValueError, match="quadrature_degree"):
        bar(response=root)


def test_a_missing_mesh_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.xdmf"):
        fem.read_mesh(tmp_path / "nothing.xdmf", MPI.COMM_SELF)
