"""The notched specimen against elasticity, slip lines and finer meshes; its derivatives, and what is shown of it."""

from xml.etree import ElementTree

from mpi4py import MPI
import dolfinx
import numpy as np
from problems import interior_point
import pytest
import ufl

from sobofem import fem
from sobofem.coupling.models.taylor import RELIABLE, TINY, taylor_test
from sobofem.fem.library.notched_specimen import BAND, CENTRE, RADIUS, notched_specimen
from sobofem.fem.materials import plasticity
from sobofem.fem.materials.elasticity import strain, stress
from sobofem.fem.output import picture, write_path, write_vtk
from sobofem.meshes import notched_specimen as drawing
from sobofem.meshes.notched_specimen import write_specimen

MIDDLE = dict(
    young=200e3,
    poisson=0.3,
    yield_stress=300.0,
    saturation=150.0,
    rate=30.0,
    kinematic=3000.0,
    end_displacement=0.08,
    notch_radius=1.0,
)


def at(**changes):
    return list((MIDDLE | changes).values())


@pytest.fixture(scope="module")
def coarse_mesh(tmp_path_factory):
    return write_specimen(tmp_path_factory.mktemp("mesh") / "coarse.xdmf", size=3.0)


@pytest.fixture(scope="module")
def coarse(coarse_mesh):
    return notched_specimen(MPI.COMM_SELF, mesh=coarse_mesh, steps=4)


@pytest.fixture(scope="module")
def specimen():
    return notched_specimen(MPI.COMM_SELF)


@pytest.mark.slow
def test_the_problem_knows_the_dimensions_of_its_mesh(specimen):
    assert (CENTRE, RADIUS, BAND) == (drawing.CENTRE, drawing.RADIUS, drawing.BAND)
    assert specimen.parameters == tuple(MIDDLE)
    x = specimen.mesh.geometry.x
    assert np.max(x[np.isclose(x[:, 1], 0.0), 0]) == pytest.approx(CENTRE - RADIUS)


@pytest.mark.slow
def test_a_wider_slot_keeps_the_outline_and_a_round_root(coarse):
    def slotted(radius):
        """Places of the nodes, and how far they are from the middle of the slot."""
        next(coarse.walk(at(notch_radius=radius)))
        x = coarse.mesh.geometry.x[:, :2].copy()
        return x, np.hypot(np.minimum(x[:, 0] - CENTRE, 0.0), x[:, 1])

    on_slot = np.isclose(slotted(RADIUS)[1], RADIUS)
    x, from_slot = slotted(1.35)
    assert x.min(axis=0) == pytest.approx([0.0, 0.0], abs=1e-12)
    assert x.max(axis=0) == pytest.approx([drawing.HALF_WIDTH, drawing.HALF_LENGTH])
    assert from_slot.min() == pytest.approx(1.35)
    assert np.count_nonzero(on_slot) > 5 and from_slot[on_slot] == pytest.approx(1.35)


def supports(space, pull):
    """Symmetry, and the prescribed displacement of the end."""

    def dofs(component, axis, place):
        facets = dolfinx.mesh.locate_entities_boundary(space.mesh, 1, lambda x: np.isclose(x[axis], place))
        return dolfinx.fem.locate_dofs_topological(space.sub(component), 1, facets), space.sub(component)

    return [
        dolfinx.fem.dirichletbc(pull, *dofs(1, 1, drawing.HALF_LENGTH)),
        dolfinx.fem.dirichletbc(0.0, *dofs(0, 0, 0.0)),
        dolfinx.fem.dirichletbc(0.0, *dofs(1, 1, 0.0)),
    ]


def copied(mesh):
    """A mesh of its own, which stays as it was moved."""
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return dolfinx.mesh.create_submesh(mesh, mesh.topology.dim, cells)[0]


def by_place(unknown):
    """Values at nodes (nodes, 2), sorted by where these are."""
    order = np.lexsort(unknown.function_space.tabulate_dof_coordinates()[:, :2].round(9).T)
    return unknown.x.array.reshape(-1, 2)[order]


def elastic(mesh, x):
    """The elastic specimen at its full end displacement, on a mesh that was moved already."""
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, x[6])
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    fem.Problem(
        0.5 * ufl.inner(stress(strain(u), x[0], x[1]), strain(u)) * dx,
        u,
        bcs=supports(space, pull),
        parameters=[fem.Scalar("pull", pull, (0.0, 1.0))],
        responses=[fem.Response("energy", ufl.inner(u, u) * dx)],
    ).evaluate([x[6]], jacobian=False)
    return by_place(u)


@pytest.mark.slow
def test_the_first_small_step_is_elastic(coarse_mesh):
    problem = notched_specimen(MPI.COMM_SELF, mesh=coarse_mesh, steps=12)
    x = interior_point(problem, 1)
    step = next(problem.walk(x))
    expected = step.factor * elastic(copied(problem.mesh), x)
    assert np.abs(by_place(problem.unknown) - expected).max() < 1e-9 * np.abs(expected).max()
    assert picture(problem, "equivalent_plastic_strain").values.max() == 0.0


def ideal_forces(mesh, steps=8):
    """Force over the path of a perfectly plastic specimen of yield stress 300 MPa, on a mesh that was moved already."""
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, pull = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.1)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    before = plasticity.memory(mesh, quadrature_degree=2)
    after = plasticity.return_mapping(
        plasticity.strain(u), before, young=200e3, poisson=0.3, hardening=plasticity.linear_hardening(300.0, 0.1)
    )
    bcs = supports(space, pull)
    extension = dolfinx.fem.Function(space)
    extension.x.array[bcs[0].dof_indices()[0]] = 1.0
    force = 2.0 * ufl.inner(after.stress, plasticity.strain(extension)) * dx
    problem = fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=bcs,
        parameters=[fem.Scalar("pull", pull, (0.0, 1.0))],
        responses=[fem.Response(f"force_{k}", force, at=k) for k in range(steps)],
        path=fem.LoadPath.monotonic(steps),
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(growth=1.0),
    )
    return problem.evaluate([0.1], jacobian=False)[0]


@pytest.mark.slow
@pytest.mark.parametrize("radius", [0.75, 1.35])
def test_without_hardening_the_force_stays_at_the_limit_load_of_two_deep_notches(specimen, radius):
    """Per 2 k on the ligament 1 + ln((w + c) / 2 c), from 1 without notch up to Prandtl's 1 + π/2 (Ewing and Hill)."""
    next(specimen.walk(at(notch_radius=radius)))
    ligament = CENTRE - radius
    forces = ideal_forces(copied(specimen.mesh))
    constraint = 1 + np.log((drawing.HALF_WIDTH + ligament) / (2 * ligament))
    assert forces[-1] == pytest.approx(forces[-2], rel=2e-3)
    assert forces[-1] == pytest.approx(2 * 300.0 / np.sqrt(3) * 2 * ligament * constraint, rel=0.01)


@pytest.mark.slow
def test_a_finer_mesh_changes_little(specimen, tmp_path):
    finer = notched_specimen(MPI.COMM_SELF, mesh=write_specimen(tmp_path / "finer.xdmf", size=0.6))
    x = interior_point(specimen, 2)
    response, _ = specimen.evaluate(x, jacobian=False)
    better, _ = finer.evaluate(x, jacobian=False)
    assert response[[0, 1, 3]] == pytest.approx(better[[0, 1, 3]], rel=1e-3)  # too stiff a mesh would lock
    assert response[[2, 4]] == pytest.approx(better[[2, 4]], rel=0.01)
    assert (response[:2] > better[:2]).all()


@pytest.mark.slow
def test_no_cutback_is_needed_in_the_whole_box(coarse):
    low, high = coarse.bounds.T
    for part in np.random.default_rng(3).integers(0, 2, (10, len(low))):
        assert all(step.point is not None for step in coarse.walk(low + part * (high - low)))


@pytest.mark.slow
def test_both_methods_agree_on_the_specimen(coarse):
    x = interior_point(coarse, 4)
    _, adjoint = coarse.evaluate(x, method="adjoint")
    _, tangent = coarse.evaluate(x, method="tangent")
    width = np.diff(coarse.bounds, axis=1)[:, 0]
    scale = np.abs(tangent * width).max(axis=1, keepdims=True)
    assert (np.abs((adjoint - tangent) * width) < 1e-9 * scale).all()


@pytest.mark.slow
def test_remainders_fall_with_the_square_of_steps_so_small_that_no_point_begins_to_yield(specimen):
    x = interior_point(specimen, 5)
    response, jacobian = specimen.evaluate(x)
    direction = np.diff(specimen.bounds, axis=1)[:, 0] * np.random.default_rng(5).uniform(-1.0, 1.0, len(x))

    def remainders(steps):
        ahead = np.array([specimen.evaluate(x + h * direction, jacobian=False)[0] for h in steps])
        return np.abs(ahead - response - steps[:, None] * (jacobian @ direction))

    noise = remainders(TINY).max(axis=0)
    found = remainders(np.array([2e-4, 1e-4, 5e-5, 2.5e-5]))
    clear = (found[1:] > RELIABLE * noise).sum(axis=0)
    assert (clear > 0).all()  # some rate of every response stands out of the noise
    rates = np.log2(found[:-1] / found[1:])[clear - 1, np.arange(len(clear))]  # at the smallest steps
    assert rates == pytest.approx(2.0, abs=0.1)


@pytest.mark.slow
def test_derivatives_of_the_specimen_pass_taylor(coarse):
    report = taylor_test(coarse, point=interior_point(coarse, 6), directions=2)
    assert report.passed, report


@pytest.mark.slow
def test_pictures_show_what_is_known_at_quadrature_points(specimen):
    specimen.evaluate(at(), jacobian=False)
    shown = {name: picture(specimen, name) for name in specimen.fields}
    plastic, size = shown["equivalent_plastic_strain"], shown["von_mises"]
    place = plastic.points[np.argmax(plastic.values)]
    assert np.hypot(place[0] - (CENTRE - RADIUS), place[1]) < 0.3  # at the notch root
    assert plastic.values.min() >= 0.0
    assert 0.03 < plastic.values.max() < 0.08
    strength = 300.0 + 150.0 * (1 - np.exp(-30.0 * plastic.values.max()))
    assert strength < size.values.max() < strength + 3000.0 * plastic.values.max()
    assert 1.2 < np.quantile(shown["triaxiality"].values, 0.99) < 3.0


def data_sets(path):
    return ElementTree.parse(path).getroot().findall(".//DataSet")


def names(folder):
    arrays = ElementTree.parse(next(folder.glob("*_p0_*.vtu"))).getroot().findall(".//PointData/DataArray")
    return {array.get("Name") for array in arrays}


@pytest.mark.slow
def test_paraview_gets_the_last_state_or_chosen_points_of_the_path(coarse, tmp_path):
    coarse.evaluate(at(), jacobian=False)
    last = write_vtk(coarse, tmp_path / "last" / "specimen.pvd")
    assert names(last.parent) >= {"displacement", *coarse.fields}
    series = write_path(coarse, at(), tmp_path / "series" / "specimen", points=[3, -1])
    assert [float(part.get("timestep")) for part in data_sets(series)] == [3.0, 11.0]
    assert names(series.parent) >= {"displacement", "plastic_strain_0", "plastic_strain_2", *coarse.fields}
    assert len(data_sets(write_path(coarse, at(), tmp_path / "all" / "specimen"))) == 12
    with pytest.raises(ValueError, match="no point 12 in a load path of 12 points"):
        write_path(coarse, at(), tmp_path / "none", points=[12])
