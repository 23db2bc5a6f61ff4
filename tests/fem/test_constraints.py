"""Rollers and rigid faces against closed forms, alone, together and with boundary conditions."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.assembly.forms import with_quadrature_degrees
from sobofem.fem.materials.elasticity import strain, stress

ANGLE = 0.4
TURN = np.array([[np.cos(ANGLE), -np.sin(ANGLE)], [np.sin(ANGLE), np.cos(ANGLE)]])
YOUNG, POISSON = 100.0, 0.3


def inclined(comm=MPI.COMM_SELF, *, normals=(None, None), held="node", shapes=(), degree=1, cells=3, ties=None):
    """A block that is turned by an angle, on rollers below and at its left, pulled to its right: uniform strain."""
    mesh = dolfinx.mesh.create_unit_square(comm, cells, cells)
    mesh.geometry.x[:, :2] = mesh.geometry.x[:, :2] @ TURN.T
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    young, pull = dolfinx.fem.Constant(mesh, YOUNG), dolfinx.fem.Constant(mesh, 1.0)
    along = ufl.as_vector(TURN[:, 0])
    end = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(own(x)[0], 1.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(end), np.full(len(end), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    energy = 0.5 * ufl.inner(stress(strain(u), young, POISSON), strain(u)) * ufl.dx - pull * ufl.inner(along, u) * ds
    rollers = [fem.Roller(lambda x, k=k: np.isclose(own(x)[k], 0.0), n) for k, n in enumerate(normals)]
    corner = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.hypot(x[0], x[1]) < 1e-9)
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), corner, space)] if held == "corner" else [],
        ties=rollers if ties is None else ties,
        parameters=[fem.Scalar("young", young, (50.0, 200.0)), fem.Scalar("pull", pull, (0.0, 2.0)), *shapes],
        responses=[
            fem.Response("end", ufl.inner(along, u) * ds),
            fem.Response("work", 0.5 * ufl.inner(stress(strain(u), young, POISSON), strain(u)) * ufl.dx),
        ],
    )


def own(x):
    """Coordinates along the sides of the turned block."""
    return np.tensordot(TURN.T, x[:2], axes=1)


@pytest.mark.slow
@pytest.mark.parametrize("held", ["node", "corner"])
@pytest.mark.parametrize("normals", [(None, None), (-TURN[:, 0], 3 * TURN[:, 1])])
def test_a_block_on_inclined_rollers_has_uniform_stress(normals, held):
    problem = inclined(normals=normals, held=held, degree=2)
    modulus = YOUNG / (1 - POISSON**2)  # plane strain
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate([YOUNG, 1.0], method=method)
        np.testing.assert_allclose(y, [1 / modulus, 0.5 / modulus], rtol=1e-10)
        slopes = [[-1 / modulus / YOUNG, 1 / modulus], [-0.5 / modulus / YOUNG, 1 / modulus]]
        np.testing.assert_allclose(jacobian, slopes, rtol=1e-9)
    assert problem.negative_pivots == 0


@pytest.mark.slow
def test_second_derivatives_go_through_rollers():
    problem = inclined()
    modulus = YOUNG / (1 - POISSON**2)
    product = problem.hvp([YOUNG, 1.0], [1.0, 0.0], [[1.0, 0.0], [0.0, 1.0]])
    expected = np.array([[2 / modulus / YOUNG**2, -1 / modulus / YOUNG], [-1 / modulus / YOUNG, 0.0]])
    np.testing.assert_allclose(product, expected, rtol=1e-8, atol=1e-12)
    seeds, expected = np.array([[1.0, 2.0]]), problem.evaluate([YOUNG, 1.0])[1]
    np.testing.assert_allclose(problem.vjp([YOUNG, 1.0], seeds), seeds @ expected, rtol=1e-9)
    np.testing.assert_allclose(problem.jvp([YOUNG, 1.0], seeds), seeds @ expected.T, rtol=1e-9)


@pytest.mark.slow
def test_the_displacement_of_a_mixed_unknown_slides_and_its_pressure_is_left_alone():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    mesh.geometry.x[:, :2] = mesh.geometry.x[:, :2] @ TURN.T
    parts = (basix.ufl.element("Lagrange", "triangle", degree, shape=shape) for degree, shape in ((2, (2,)), (1, ())))
    state = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, basix.ufl.mixed_element(list(parts))))
    (u, p), pull = ufl.split(state), dolfinx.fem.Constant(mesh, 1.0)
    mu, bulk = YOUNG / 2 / (1 + POISSON), YOUNG * POISSON / (1 + POISSON) / (1 - 2 * POISSON)
    along = ufl.as_vector(TURN[:, 0])
    end = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(own(x)[0], 1.0))
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(end), np.full(len(end), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    energy = (mu * ufl.inner(strain(u), strain(u)) + p * ufl.div(u) - p**2 / 2 / bulk) * ufl.dx
    problem = fem.Problem(
        energy - pull * ufl.inner(along, u) * ds,
        state,
        bcs=[],
        ties=[fem.Roller(lambda x, k=k: np.isclose(own(x)[k], 0.0)) for k in (0, 1)],
        parameters=[fem.Scalar("pull", pull, (0.0, 2.0))],
        responses=[fem.Response("end", ufl.inner(along, u) * ds), fem.Response("pressure", p * ufl.dx)],
    )
    stretch = (1 - POISSON**2) / YOUNG
    y, jacobian = problem.evaluate([1.3])
    np.testing.assert_allclose(jacobian[:, 0], [stretch, bulk * stretch * (1 - POISSON / (1 - POISSON))], rtol=1e-9)
    np.testing.assert_allclose(y, 1.3 * jacobian[:, 0], rtol=1e-9)
    assert problem.negative_pivots == 0


def ring(*, cells=24, degree=2):
    """A quarter of a ring that shrinks onto a rigid core: slides along it, under pressure from outside."""
    mesh = dolfinx.mesh.create_rectangle(
        MPI.COMM_SELF, [(1.0, 0.0), (2.0, np.pi / 2)], [4, cells], dolfinx.mesh.CellType.quadrilateral
    )
    radius, angle = mesh.geometry.x[:, 0].copy(), mesh.geometry.x[:, 1].copy()
    mesh.geometry.x[:, 0], mesh.geometry.x[:, 1] = radius * np.cos(angle), radius * np.sin(angle)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (2,)))
    u, pressure = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    outside = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.hypot(x[0], x[1]) > 2.0 - 1e-6)
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(outside), np.full(len(outside), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    normal = ufl.FacetNormal(mesh)
    energy = 0.5 * ufl.inner(stress(strain(u), YOUNG, POISSON), strain(u)) * ufl.dx
    ties = [
        fem.Roller(lambda x: np.hypot(x[0], x[1]) < 1.0 + 1e-6),
        fem.Roller(lambda x: np.isclose(x[0], 0.0), (1.0, 0.0)),
        fem.Roller(lambda x: np.isclose(x[1], 0.0), (0.0, 1.0)),
    ]
    return fem.Problem(
        energy + pressure * ufl.inner(u, normal) * ds,
        u,
        bcs=[],
        ties=ties,
        parameters=[fem.Scalar("pressure", pressure, (0.0, 2.0))],
        responses=[fem.average("outside", -ufl.inner(u, normal), ds)],
    )


@pytest.mark.slow
def test_a_ring_slides_on_its_core_as_lame_has_it():
    """u = A r + B / r with u(1) = 0 and a radial stress of -p at 2: A + B = 0."""
    mu, lame = YOUNG / 2 / (1 + POISSON), YOUNG * POISSON / (1 + POISSON) / (1 - 2 * POISSON)
    A = -1 / (2 * (mu + lame) + 2 * mu / 4)
    expected = -(2 * A - A / 2)
    found = [ring(cells=cells).evaluate([1.0])[0][0] for cells in (6, 12)]
    errors = np.abs(np.array(found) - expected)
    assert errors[1] < 2e-2 * expected and errors[0] > 3 * errors[1]


LENGTH, DEPTH = 8.0, 1.0


def beam(comm=MPI.COMM_SELF, *, shapes=(), hinged=False, cells=(16, 4), rigid=True, also=(), large=False):
    """A cantilever of quadratic elements, whose end is rigid, with a force and a moment at a point beyond it."""
    corners = [(0.0, 0.0), (LENGTH, DEPTH)]
    mesh = dolfinx.mesh.create_rectangle(comm, corners, cells, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    force = dolfinx.fem.Constant(mesh, np.zeros(2))
    moment, young = dolfinx.fem.Constant(mesh, 0.0), dolfinx.fem.Constant(mesh, YOUNG)
    end = dolfinx.mesh.locate_entities_boundary(mesh, 1, at_end)
    tags = dolfinx.mesh.meshtags(mesh, 1, np.sort(end), np.full(len(end), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    face = fem.Rigid(at_end, centre=(LENGTH + 1.0, 0.25))
    translation, rotation = face.motion(u, ds)
    work = (ufl.inner(force, translation) + moment * rotation) * ds
    angle = fem.Response("angle", rotation * ds)
    energy = 0.5 * young * ufl.inner(strain(u), strain(u)) * ufl.dx  # Poisson's ratio 0
    clamped = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    middle = dolfinx.fem.locate_dofs_geometrical(space, lambda x: at_end(x) & np.isclose(x[1], DEPTH / 2))
    return fem.Problem(
        energy - work,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), clamped, space),
            *([dolfinx.fem.dirichletbc(np.zeros(2), middle, space)] if hinged else []),
        ],
        ties=[*([face] if rigid else []), *also],
        parameters=[
            fem.Scalar("force_x", force, (-1.0, 1.0), component=0),
            fem.Scalar("force_y", force, (-1.0, 1.0), component=1),
            fem.Scalar("moment", moment, (-1.0, 1.0)),
            fem.Scalar("young", young, (50.0, 200.0)),
            *shapes,
        ],
        responses=[
            fem.Response("x", translation[0] * ds),
            fem.Response("y", translation[1] * ds),
            angle,
        ],
    )


def at_end(x):
    return np.isclose(x[0], LENGTH)


def compliance():
    """Motion of the point (x, y, angle) by forces and a moment there (Timoshenko, with the face's shear: rigid end)."""
    area, inertia, shear = DEPTH, DEPTH**3 / 12, YOUNG / 2
    arm = np.array([1.0, 0.25 - DEPTH / 2])
    to_middle = np.array([[1, 0, 0], [0, 1, 0], [-arm[1], arm[0], 1]])  # forces at the point as those at the middle
    L = LENGTH
    at_middle = np.array(
        [
            [L / YOUNG / area, 0, 0],
            [0, L**3 / 3 / YOUNG / inertia + 1.2 * L / shear / area, L**2 / 2 / YOUNG / inertia],
            [0, L**2 / 2 / YOUNG / inertia, L / YOUNG / inertia],
        ]
    )
    return to_middle.T @ at_middle @ to_middle


@pytest.mark.slow
def test_a_rigid_face_has_the_compliance_of_a_beam_as_its_jacobian():
    problem, x = beam(), np.array([0.3, 0.2, -0.4, YOUNG])
    for method in ("adjoint", "tangent"):
        y, jacobian = problem.evaluate(x, method=method)
        C = jacobian[:, :3]
        np.testing.assert_allclose(y, C @ x[:3], rtol=1e-9)
        np.testing.assert_allclose(C, C.T, rtol=1e-8, atol=1e-10)  # Maxwell and Betti
        np.testing.assert_allclose(jacobian[:, 3], -y / YOUNG, rtol=1e-8)
        np.testing.assert_allclose(C, compliance(), rtol=5e-3, atol=1e-4)  # warping is restrained at both ends
    # pure bending and tension are in the quadratic elements
    np.testing.assert_allclose(jacobian[0, 0], compliance()[0, 0], rtol=2e-3)
    assert problem.negative_pivots == 0


def test_nodes_of_a_rigid_face_move_as_a_body():
    problem = beam()
    problem.evaluate([0.3, 0.2, -0.4, YOUNG], jacobian=False)
    points = problem.unknown.function_space.tabulate_dof_coordinates()
    values = problem.unknown.x.array.reshape(-1, 2)[at_end(points.T)]
    height = points[at_end(points.T), 1]
    fit = np.polynomial.polynomial.polyfit(height, values, 1)
    np.testing.assert_allclose(values, np.polynomial.polynomial.polyval(height, fit).T, atol=1e-13)
    assert abs(fit[1, 0]) > 1e-2 and abs(fit[1, 1]) < 1e-13  # turned, and not stretched


def test_a_rigid_face_may_be_hinged_at_one_of_its_nodes():
    """A propped cantilever with a moment at the prop: half of it arrives at the clamp, 4 E I / L of stiffness."""
    y, jacobian = beam(hinged=True).evaluate([0.0, 0.0, 1.0, YOUNG])
    turn = LENGTH / 4 / (YOUNG * DEPTH**3 / 12)
    np.testing.assert_allclose(jacobian[2, 2], turn, rtol=3e-2)  # of a slender beam, without shear
    np.testing.assert_allclose(y[1], y[2] * 1.0, rtol=1e-8)  # the point is 1 beyond the hinge


def test_without_the_tie_it_is_the_mean_motion():
    soft, stiff = (beam(rigid=rigid).evaluate([0.0, 0.1, 0.0, YOUNG])[0] for rigid in (False, True))
    np.testing.assert_allclose(soft, stiff, rtol=2e-2, atol=1e-4)
    assert soft[1] > stiff[1]


@pytest.mark.slow
@pytest.mark.parametrize("held", ["tied", "free"])
def test_a_rigid_brick_in_space_has_six_motions(held):
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 2, 2, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,)))
    u, bed = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 1.0)
    force, moment = (dolfinx.fem.Constant(mesh, np.zeros(3)) for _ in range(2))
    top = dolfinx.mesh.locate_entities_boundary(mesh, 2, lambda x: np.isclose(x[2], 1.0))
    tags = dolfinx.mesh.meshtags(mesh, 2, np.sort(top), np.full(len(top), 1, dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    whole = fem.Rigid(lambda x: np.full(x.shape[1], True), (0.5, 0.5, 0.5))
    translation, rotation = whole.motion(u, ds)
    energy = 0.5 * bed * ufl.inner(u, u) * ufl.dx(metadata={"quadrature_degree": 2})
    energy -= (ufl.inner(force, translation) + ufl.inner(moment, rotation)) * ds
    problem = fem.Problem(
        energy,
        u,
        bcs=[],
        ties=[whole] if held == "tied" else [],
        parameters=[
            *(fem.Scalar(f"f{k}", force, (-1, 1), component=k) for k in range(3)),
            *(fem.Scalar(f"m{k}", moment, (-1, 1), component=k) for k in range(3)),
            fem.Scalar("bed", bed, (0.5, 2.0)),
        ],
        responses=[
            *(fem.Response(f"u{k}", translation[k] * ds) for k in range(3)),
            *(fem.Response(f"r{k}", rotation[k] * ds) for k in range(3)),
        ],
    )
    x = np.array([0.1, -0.2, 0.3, 0.3, 0.2, -0.1, 1.0])
    y, jacobian = problem.evaluate(x)
    np.testing.assert_allclose(jacobian[:, :6] @ x[:6], y, rtol=1e-10)
    if held == "tied":  # on springs of one a volume: mass 1, inertia 1/6 about the middle
        np.testing.assert_allclose(y, [*x[:3], *(6 * x[3:6])], rtol=1e-9)


@pytest.mark.parametrize(
    ("ties", "error", "message"),
    [
        ([fem.Roller(lambda x: x[0] > 9.0)], ValueError, "marks no facet"),
        ([fem.Roller(lambda x: x[0] > 9.0, (1.0, 0.0))], ValueError, "marks no node"),
        ([fem.Roller(lambda x: own(x)[0] < 1e-9, lambda x: 0 * x)], ValueError, "vector of zeros"),
        ([fem.Roller(lambda x: own(x)[0] < 1e-9, (1.0, 0.0, 0.0))], ValueError, r"normal of tie 0 gives \(3, 4\)"),
        ([fem.Roller(lambda x: own(x).min(axis=0) < 1e-9)], ValueError, "meet at an edge or corner"),
        ([fem.Rigid(lambda x: np.hypot(x[0], x[1]) < 1e-9)], ValueError, "1 node rigid, which it is"),
        ([fem.Rigid(lambda x: x[0] > 9.0)], ValueError, "marks no node"),
        ([fem.Rigid(lambda x: True)], ValueError, "where of tie 0 has shape"),
        (["left"], TypeError, "expected fem.Periodic"),
    ],
)
def test_ties_that_make_no_sense_are_refused(ties, error, message):
    with pytest.raises(error, match=message):
        inclined(ties=ties)


def test_one_roller_leaves_a_body_free_to_slide_and_says_so():
    with pytest.raises(fem.NotConverged, match="translation"):
        inclined(ties=[fem.Roller(lambda x: np.isclose(own(x)[1], 0.0))]).evaluate([YOUNG, 1.0])


@pytest.mark.slow
def test_a_shape_that_would_change_the_motion_of_a_face_is_refused_and_others_are_exact():
    def stretched(profile):
        return fem.Shape("shape", lambda x: profile(x), (-0.1, 0.1), 0.0)

    longer = stretched(lambda x: TURN[:, :1] * own(x)[0])
    problem, modulus = inclined(shapes=[longer]), YOUNG / (1 - POISSON**2)
    y, jacobian = problem.evaluate([YOUNG, 1.0, 0.05])
    np.testing.assert_allclose(y, np.array([1.05, 0.525]) / modulus, rtol=1e-9)
    np.testing.assert_allclose(jacobian[:, 2], np.array([1.0, 0.5]) / modulus, rtol=1e-8)
    deeper = stretched(lambda x: np.stack([0 * x[0], x[1]]))
    with pytest.raises(ValueError, match="whose `motion` is that of the face as loaded"):
        beam(shapes=[deeper])
    moved = beam(shapes=[stretched(lambda x: np.stack([x[0] / LENGTH, 0 * x[0]]))], cells=(8, 2))
    x, step = np.array([0.3, 0.2, -0.4, YOUNG, 0.03]), np.array([0, 0, 0, 0, 1e-4])
    slope = (moved.evaluate(x + step)[0] - moved.evaluate(x - step)[0]) / 2e-4
    np.testing.assert_allclose(moved.evaluate(x)[1][:, 4], slope, rtol=1e-6)


@pytest.mark.slow
def test_the_digest_knows_where_a_face_slides_and_what_is_rigid():
    one, other = fem.Roller(lambda x: np.isclose(own(x)[0], 0.0)), fem.Roller(lambda x: np.isclose(own(x)[1], 0.0))
    inclined_normal = fem.Roller(lambda x: np.isclose(own(x)[0], 0.0), (1.0, 0.0))
    whole = fem.Rigid(lambda x: np.isclose(own(x)[0] * (1 - own(x)[0]), 0.0))
    halves = [fem.Rigid(lambda x, at=at: np.isclose(own(x)[0], at)) for at in (0.0, 1.0)]
    every = [[one], [other], [one, other], [inclined_normal], [whole], halves, []]
    assert len({inclined(ties=ties).digest for ties in every}) == len(every)
    assert inclined(ties=[other, one]).digest == inclined(ties=[one, other]).digest
    given = fem.Roller(lambda x: np.isclose(own(x)[0], 0.0), TURN[:, 0])
    assert inclined(ties=[given]).digest == inclined(ties=[one]).digest


@pytest.mark.parametrize("normal", [(0.0, 0.0), (np.nan, 1.0), "x", 1.0, [[1.0, 0.0]]])
def test_a_normal_that_is_none_is_refused_where_it_is_written(normal):
    with pytest.raises(ValueError, match="normal of a roller is"):
        fem.Roller(lambda x: x[0] < 1.0, normal)


def test_a_shape_that_moves_nodes_to_where_their_given_normals_are_others_is_refused():
    def around(x):
        return np.stack([np.cos(x[1]), np.sin(x[1])])

    up = fem.Shape("up", lambda x: TURN[:, 1:] * own(x)[1], (-0.1, 0.1), 0.0)
    tilted = [fem.Roller(lambda x: np.isclose(own(x)[0], 0.0), around)]
    with pytest.raises(ValueError, match="shape 'up' turns the normals of tie 0"):
        inclined(ties=tilted, shapes=[up])
    flat = [fem.Roller(lambda x: np.isclose(own(x)[0], 0.0), lambda x: np.tile(TURN[:, :1], x.shape[1]))]
    assert inclined(ties=flat, shapes=[up]).parameters[-1] == "up"


def test_the_digest_tells_one_rigid_frame_from_two_about_the_same_middle():
    def frame(least, most):
        def where(x):
            away = np.abs(own(x) - 0.5).max(axis=0)
            return (away > least) & (away < most)

        return fem.Rigid(where)

    one, two = [frame(0.2, 0.6)], [frame(0.2, 0.3), frame(0.4, 0.6)]
    assert inclined(ties=one, cells=4).digest != inclined(ties=two, cells=4).digest


@pytest.mark.slow
def test_the_motion_of_a_curved_face_that_moves_as_a_rigid_body_is_that_of_the_body():
    points = np.array([[0, 0], [1, 0], [0, 1], [0.6, 0.6], [0, 0.5], [0.5, 0]])
    element = basix.ufl.element("Lagrange", "triangle", 2, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, np.arange(6)[None], element, points)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,))))
    shift, turn, centre = np.array([0.3, -0.2]), 0.1, (0.2, 0.1)
    u.interpolate(lambda x: np.stack([shift[0] - turn * (x[1] - centre[1]), shift[1] + turn * (x[0] - centre[0])]))
    bow = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: x[0] + x[1] > 0.9)
    tags = dolfinx.mesh.meshtags(mesh, 1, bow, np.ones(len(bow), dtype=np.int32))
    ds = ufl.ds(mesh, subdomain_data=tags)(1)
    translation, rotation = fem.Rigid(lambda x: x[0] + x[1] > 0.9, centre).motion(u, ds)
    found = [
        dolfinx.fem.assemble_scalar(dolfinx.fem.form(with_quadrature_degrees(part * ds)))
        for part in (translation[0], translation[1], rotation)
    ]
    np.testing.assert_allclose(found, [*shift, turn], rtol=1e-12)
