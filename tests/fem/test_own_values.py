"""Fields whose coefficients are their own values: densities, loads at nodes; filtered, shared, in parts of a body."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.coupling import taylor_test
from sobofem.fem.parameters import smoothing
from sobofem.fem.parameters.places import places_in_order

CELLS = 12


def field(space=("DG", 0), cells=CELLS, length=1.0):
    mesh = dolfinx.mesh.create_interval(MPI.COMM_SELF, cells, [0.0, length])
    return dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, space))


def bar(modulus, basis, bounds=(0.5, 2.0)):
    """A bar of cells in series under a force of one at its end."""
    mesh = modulus.function_space.mesh
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    end = dolfinx.mesh.locate_entities_boundary(mesh, 0, lambda x: np.isclose(x[0], 1.0))
    ds = ufl.Measure("ds", mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 0, end, np.ones(1, dtype=np.int32)))
    held = dolfinx.fem.dirichletbc(
        0.0, dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0)), space
    )
    return fem.Problem(
        0.5 * modulus * u.dx(0) ** 2 * ufl.dx - u * ds(1),
        u,
        bcs=[held],
        parameters=[fem.Field("E", modulus, basis, bounds)],
        responses=[fem.Response("sag", u * ds(1)), fem.Response("mean", modulus * ufl.dx(mesh))],
    )


def values(problem, modulus, x):
    problem.evaluate(x, jacobian=False)
    return modulus.x.array.copy()


@pytest.mark.slow
def test_each_cell_of_a_bar_in_series_gives_way_by_its_own_modulus():
    problem = bar(field(), fem.OwnValues())
    assert problem.parameters == tuple(f"E_{k}" for k in range(1, CELLS + 1))
    E = np.linspace(0.6, 1.9, CELLS)
    y, jacobian = problem.evaluate(E)
    h = 1.0 / CELLS
    assert y == pytest.approx([(h / E).sum(), E.mean()], rel=1e-12)
    np.testing.assert_allclose(jacobian, [-h / E**2, np.full(CELLS, h)], rtol=1e-11)
    np.testing.assert_allclose(problem.vjp(E, [2.0, 1.0]), 2.0 * jacobian[0] + jacobian[1], rtol=1e-12)
    v = np.cos(np.arange(CELLS))
    np.testing.assert_allclose(problem.jvp(E, v), jacobian @ v, rtol=1e-11)
    np.testing.assert_allclose(problem.hvp(E, [1.0, 0.0], v), 2.0 * h / E**3 * v, rtol=1e-10)


def test_a_density_filter_averages_with_cones_over_volumes():
    modulus = field()
    problem, h = bar(modulus, fem.DensityFilter(radius=2.5 / CELLS)), 1.0 / CELLS
    x = np.random.default_rng(0).uniform(0.6, 1.9, CELLS)
    middles = (np.arange(CELLS) + 0.5) * h
    weights = np.maximum(2.5 * h - abs(middles[:, None] - middles), 0.0)
    np.testing.assert_allclose(values(problem, modulus, x), weights @ x / weights.sum(axis=1), rtol=1e-12)
    np.testing.assert_allclose(values(problem, modulus, np.full(CELLS, 1.3)), 1.3, rtol=1e-14)


@pytest.mark.slow
def test_a_helmholtz_filter_damps_waves_as_its_equation_does():
    radius, errors = 0.5, []
    for cells in (16, 32):
        modulus = field(("Lagrange", 1), cells)
        problem = bar(modulus, fem.HelmholtzFilter(radius=radius), bounds=(0.1, 2.0))
        wave = np.cos(2 * np.pi * np.linspace(0.0, 1.0, cells + 1))
        found = values(problem, modulus, 1.0 + 0.5 * wave)
        damped = 0.5 / (1.0 + radius**2 / 12 * (2 * np.pi) ** 2)
        x = modulus.function_space.tabulate_dof_coordinates()[:, 0]
        errors.append(abs(found - 1.0 - damped * np.cos(2 * np.pi * x)).max())
    assert np.log2(errors[0] / errors[1]) == pytest.approx(2.0, abs=0.1)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("basis", "space"),
    [
        (fem.OwnValues(), ("DG", 0)),
        (fem.DensityFilter(radius=0.3), ("DG", 0)),
        (fem.DensityFilter(radius=0.3), ("Lagrange", 1)),
        (fem.HelmholtzFilter(radius=0.3), ("Lagrange", 2)),
        (fem.DensityFilter(radius=0.3, where=lambda x: x[0] > 0.4, share=lambda x: abs(x - 0.7)), ("DG", 0)),
    ],
)
def test_derivatives_by_filtered_values_are_exact(basis, space):
    modulus = field(space)
    modulus.x.array[:] = 0.8
    problem = bar(modulus, basis, bounds=(0.2, 1.0))
    assert taylor_test(problem, seed=1).passed
    x = np.linspace(0.3, 0.9, len(problem.parameters))
    v, weights, h = np.cos(3 * x), np.array([1.0, 0.5]), 1e-5
    ahead, behind = (problem.vjp(x + step * v, weights) for step in (h, -h))
    np.testing.assert_allclose(problem.hvp(x, weights, v), (ahead - behind) / (2 * h), rtol=1e-6, atol=1e-8)


def test_values_share_coefficients_and_others_stay_as_they_are():
    modulus = field()
    modulus.x.array[:] = 0.25
    problem = bar(modulus, fem.OwnValues(where=lambda x: x[0] > 1 / 3, share=lambda x: abs(x - 2 / 3)))
    assert len(problem.parameters) == 4
    found = values(problem, modulus, [0.5, 0.6, 0.7, 0.8])
    np.testing.assert_allclose(found, 0.25 + np.array([0, 0, 0, 0, 0.8, 0.7, 0.6, 0.5, 0.5, 0.6, 0.7, 0.8]) * 1.0)


def test_what_stays_as_it_is_enters_the_averages_of_its_neighbours():
    modulus = field()
    stiff = modulus.function_space.tabulate_dof_coordinates()[:, 0] < 0.5
    modulus.x.array[stiff] = 2.0
    problem = bar(modulus, fem.DensityFilter(radius=0.2, where=lambda x: x[0] > 0.5))
    found = values(problem, modulus, np.full(6, 1.0))
    assert found[stiff] == pytest.approx(2.0) and found[~stiff][-1] == pytest.approx(1.0)
    assert 1.0 < found[~stiff][0] < 2.0


@pytest.mark.slow
def test_forces_at_all_nodes_of_an_edge_give_the_displacements_under_them():
    """Of the work of loads t on their own displacements the derivative is twice the displacement, weighted."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, t = dolfinx.fem.Function(space), dolfinx.fem.Function(space)
    strain = ufl.sym(ufl.grad(u))
    top = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[1], 1.0))
    ds = ufl.Measure("ds", mesh, subdomain_data=dolfinx.mesh.meshtags(mesh, 1, top, np.ones(len(top), dtype=np.int32)))
    dofs = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[1], 0.0))
    work = ufl.inner(t, u) * ds(1)
    problem = fem.Problem(
        ufl.inner(strain, strain) * ufl.dx - work,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), dofs, space)],
        parameters=[fem.Field("t", t, fem.OwnValues(where=lambda x: np.isclose(x[1], 1.0)), (-1.0, 1.0), unit="MPa")],
        responses=[fem.Response("work", work)],
    )
    assert len(problem.parameters) == 10 and problem.units["t_10"] == "MPa"
    x = np.linspace(-0.9, 0.8, 10)
    y, jacobian = problem.evaluate(x)
    test = ufl.TestFunction(space)
    weighted = dolfinx.fem.assemble_vector(dolfinx.fem.form(2 * ufl.inner(u, test) * ds(1))).array.reshape(-1, 2)
    nodes = space.tabulate_dof_coordinates()
    order = [k for k in np.argsort(nodes[:, 0]) if np.isclose(nodes[k, 1], 1.0)]
    np.testing.assert_allclose(jacobian[0], weighted[order].ravel(), rtol=1e-9)
    assert jacobian[0] @ x == pytest.approx(2 * y[0], rel=1e-10)


@pytest.mark.slow
def test_digests_know_filters_and_their_reach():
    def digest(basis):
        return bar(field(("Lagrange", 1)), basis).digest

    kinds = [
        fem.OwnValues(),
        fem.DensityFilter(radius=0.3),
        fem.DensityFilter(radius=0.2),
        fem.HelmholtzFilter(radius=0.3),
    ]
    digests = [digest(kind) for kind in kinds]
    assert len(set(digests)) == 4 and digests[1] == digest(fem.DensityFilter(radius=0.3))


@pytest.mark.parametrize(
    ("space", "make", "message"),
    [
        (("DG", 1), fem.OwnValues, "several values in one place"),
        (("DG", 0), lambda: fem.HelmholtzFilter(radius=0.1), "needs a continuous field"),
        (("Lagrange", 2), lambda: fem.DensityFilter(radius=-1.0), "radius of a filter is -1"),
        (("DG", 0), lambda: fem.HelmholtzFilter(radius="wide"), "radius of a filter is 'wide'; expected a length"),
        (("DG", 0), lambda: fem.OwnValues(where=lambda x: x[0] > 7.0), "marks no place"),
        (("DG", 0), lambda: fem.OwnValues(where=lambda x: x[0]), "a truth value each"),
        (("DG", 0), lambda: fem.OwnValues(share=lambda x: x[0]), r"expected finite points \(3, 12\)"),
    ],
)
def test_what_can_not_be_own_values_is_refused(space, make, message):
    with pytest.raises(ValueError, match=message):
        bar(field(space), make())


def test_own_values_prescribe_no_boundary_values():
    edge = field(("Lagrange", 1))
    u, space = edge.copy(), edge.function_space
    with pytest.raises(ValueError, match="'edge' of own values prescribes boundary values"):
        fem.Problem(
            (u.dx(0) ** 2 + u**2) * ufl.dx,
            u,
            bcs=[dolfinx.fem.dirichletbc(edge, np.array([0], dtype=np.int32))],
            parameters=[fem.Field("edge", edge, fem.OwnValues(), (0.0, 1.0))],
            responses=[fem.Response("mean", u * ufl.dx(space.mesh))],
        )


@pytest.mark.parametrize("kind", [fem.DensityFilter, fem.HelmholtzFilter])
@pytest.mark.parametrize("radius", [1e-9, 1e3, 1e9])
def test_a_filter_that_reaches_nowhere_or_everywhere_keeps_values_or_takes_their_mean(kind, radius):
    modulus = field(("Lagrange", 1))
    basis = kind(radius=radius).apply(modulus).basis
    x = np.random.default_rng(0).uniform(0.6, 1.9, CELLS + 1)
    found = basis @ x
    if radius < 1.0:
        x = x[np.argsort(np.argsort(modulus.function_space.tabulate_dof_coordinates()[:, 0]))]
        np.testing.assert_allclose(found, x, rtol=1e-12)
    else:
        weights = np.full(CELLS + 1, 1.0)
        weights[[0, -1]] = 0.5
        np.testing.assert_allclose(found, weights @ x / CELLS, rtol=1e-3 if radius < 1e4 else 1e-9)
    y = np.cos(np.arange(CELLS + 1))
    np.testing.assert_allclose(y @ found, (basis.T @ y) @ x if radius > 1.0 else y @ found, rtol=1e-9)


def test_a_density_filter_for_which_there_is_no_memory_is_refused(monkeypatch):
    monkeypatch.setattr(smoothing, "PAIRS", 100)
    with pytest.raises(ValueError, match=r"averages 1.4e\+02 pairs of places.*smaller radius"):
        bar(field(), fem.DensityFilter(radius=9.0))


def test_places_that_differ_by_round_off_are_one_however_far_away_the_mesh_is():
    rng = np.random.default_rng(0)
    points = np.stack([rng.uniform(0.1, 1.0, 20000), np.zeros(20000)], axis=1)
    for far, size in ((0.0, 1.0), (1e4, 1e-3), (1e7, 1.0)):
        here = far + size * points
        _, numbers = places_in_order(MPI.COMM_SELF, np.concatenate([here, np.nextafter(here, np.inf)]))
        np.testing.assert_array_equal(numbers[:20000], numbers[20000:])
