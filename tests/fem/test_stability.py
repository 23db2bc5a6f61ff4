"""Equilibria that are no minimum of the energy are counted, and refused where that is wanted."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem

RISE = 0.2


def truss(*, residual=False, path=(0.25, 0.5, 0.75, 1.0), guess=0.0, newton=fem.Newton()):  # noqa: B008  (frozen)
    """A flat truss of two bars, of Green's strain, by symmetry one of them: its apex moves down by w.

    The axial force follows from the ends, so that the energy is ½ (w² / 2 − RISE w)² − load w: a limit load at
    w = RISE (1 − 1/√3), and unstable equilibria up to RISE (1 + 1/√3).
    """
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 1)
    space = dolfinx.fem.functionspace(mesh, ("DG", 0))
    w = dolfinx.fem.Function(space, name="w")
    w.x.array[:] = guess
    load, t, k = dolfinx.fem.Constant(mesh, 0.0), dolfinx.fem.Constant(mesh, 0.0), dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 1})
    form = (0.5 * k * (0.5 * w**2 - RISE * w) ** 2 - t * load * w) * dx
    return fem.Problem(
        ufl.derivative(form, w, ufl.TestFunction(space)) if residual else form,
        w,
        bcs=[],
        parameters=[fem.Scalar("load", load, (-1.0, 1.0)), fem.Scalar("k", k, (0.5, 2.0))],
        responses=[fem.Response("w", w * dx)],
        path=fem.LoadPath(path, factor=t),
        newton=newton,
    )


LIMIT = RISE**3 / (3 * np.sqrt(3))


@pytest.mark.slow
def test_below_the_limit_load_all_equilibria_are_minima():
    problem = truss()
    (w,), _ = problem.evaluate([0.9 * LIMIT, 1.0])
    assert w < RISE * (1 - 1 / np.sqrt(3))
    assert problem.stability == fem.Stability(0, None, 0, 0) and not problem.stability.lost


def test_an_equilibrium_on_the_unstable_branch_is_counted_and_a_step_over_it_is_noticed():
    load = 0.5 * LIMIT
    middle = np.sort(np.roots([0.5, -1.5 * RISE, RISE**2, -load]).real)[1]
    problem = truss(path=(1.0,), guess=middle + 1e-6)
    (w,), _ = problem.evaluate([load, 1.0])
    assert w == pytest.approx(middle, rel=1e-9)
    assert (problem.negative_pivots, problem.stability.load_factor) == (1, 1.0)
    snapping = truss(path=np.linspace(0.1, 1.0, 10))
    (w,), _ = snapping.evaluate([1.2 * LIMIT, 1.0])
    assert w > 2 * RISE and snapping.negative_pivots == 0
    assert snapping.stability.crossings >= 1


def test_an_unstable_equilibrium_can_be_refused():
    load = 0.5 * LIMIT
    accepting, refusing = (truss(path=(1.0,), guess=RISE, newton=fem.Newton(unstable=u)) for u in ("accept", "refuse"))
    accepting.evaluate([load, 1.0])
    assert accepting.negative_pivots == 1
    with pytest.raises(fem.NotConverged, match="unstable"):
        refusing.evaluate([load, 1.0])
    with pytest.raises(ValueError, match="'accept' or 'refuse'"):
        fem.Newton(unstable="never")


def column(**newton):
    """A column that shortens linearly, whose bending is free of loads: straight equilibria beyond the critical load."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 16)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    load, t = dolfinx.fem.Constant(mesh, 0.0), dolfinx.fem.Constant(mesh, 0.0)
    dx, ds = ufl.dx(mesh, metadata={"quadrature_degree": 4}), ufl.ds(mesh)
    axial = u[0].dx(0) + 0.5 * u[1].dx(0) ** 2
    ends = [
        dolfinx.fem.dirichletbc(np.zeros(2), dolfinx.fem.locate_dofs_geometrical(space, lambda x: x[0] < 1e-9), space)
    ]
    spring = 0.5 * u[1].dx(0) ** 2  # a string on rotational springs: it buckles where the force exceeds one
    return fem.Problem(
        (0.5 * 10.0 * axial**2 + spring) * dx + t * load * u[0] * ds,
        u,
        bcs=ends,
        parameters=[fem.Scalar("load", load, (0.0, 4.0))],
        responses=[fem.Response("short", u[0] * ds)],
        path=fem.LoadPath.monotonic(4, factor=t),
        newton=fem.Newton(**newton),
    )


@pytest.mark.slow
def test_the_tangent_at_the_solution_counts_where_one_step_reaches_it():
    problem = column()
    problem.evaluate([0.9])
    assert problem.negative_pivots == 0
    problem.evaluate([1.6])  # passes one between the second and the third of four points
    assert (problem.negative_pivots, problem.stability.load_factor) == (16, 0.75)
    assert problem.stability.lost and problem.stability.at_rest == 0 and not problem.indefinite_at_rest


def test_refusal_names_the_part_of_the_path_that_was_stable():
    with pytest.raises(fem.NotConverged, match="unstable") as caught:
        column(unstable="refuse").evaluate([1.6])
    assert caught.value.reason == "unstable"
    assert caught.value.load_factor == pytest.approx(1 / 1.6, abs=1 / 64)


def helmholtz(wave_number, *, linear=True, **newton):
    """u'' + k² u + load = 0 with u = 0 at the ends: a negative pivot for each n π below k."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 64)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    u = dolfinx.fem.Function(space, name="u")
    load, square = dolfinx.fem.Constant(mesh, 0.0), dolfinx.fem.Constant(mesh, wave_number**2)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 8})
    quartic = 0.0 if linear else 1e-3 * u**4
    ends = dolfinx.fem.locate_dofs_geometrical(space, lambda x: (x[0] < 1e-9) | (x[0] > 1 - 1e-9))
    return fem.Problem(
        (0.5 * u.dx(0) ** 2 - 0.5 * square * u**2 + quartic - load * u) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, ends, space)],
        parameters=[fem.Scalar("load", load, (0.5, 1.5))],
        responses=[fem.Response("u", u * dx)],
        newton=fem.Newton(**newton),
    )


@pytest.mark.slow
@pytest.mark.parametrize("linear", [True, False])
def test_what_is_indefinite_by_nature_has_lost_no_stability(linear):
    for modes in range(3):
        problem = helmholtz((modes + 0.5) * np.pi, linear=linear)
        problem.evaluate([1.0])
        assert problem.negative_pivots == problem.stability.at_rest == modes
        assert not problem.stability.lost and problem.indefinite_at_rest == bool(modes)


def test_what_never_was_stable_is_not_refused_as_if_smaller_loads_would_do():
    with pytest.raises(fem.NotConverged, match=r"2 negative pivots at rest already.*Helmholtz") as caught:
        helmholtz(2.5 * np.pi, unstable="refuse").evaluate([1.0])
    assert caught.value.reason == "indefinite at rest" and "smaller loads" not in str(caught.value)


def test_unsymmetric_solvers_make_no_claim():
    problem = truss(residual=True)
    problem.evaluate([0.5 * LIMIT, 1.0])
    assert problem.negative_pivots is None


def test_unstable_equilibria_can_not_be_refused_by_a_solver_that_does_not_count():
    with pytest.raises(ValueError, match=r"a solver that counts negative pivots.*fem\.SYMMETRIC"):
        truss(residual=True, newton=fem.Newton(unstable="refuse"))
