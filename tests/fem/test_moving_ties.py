"""Rollers, rigid faces and periodic cells whose mesh moves: against problems on the moved mesh, and by Taylor."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
from test_ties import laminate
import ufl

from sobofem import fem
from sobofem.fem.materials.elasticity import strain, stress


def bent(x):
    """A floor that curves upwards, and a block on it that becomes deeper."""
    return np.concatenate([0 * x[:-1], [0.3 * x[0] ** 2 * (1 + x[-1])]])


def block(
    gdim,
    comm=MPI.COMM_SELF,
    *,
    moved=0.0,
    shape=True,
    stretch=False,
    rigid=True,
    degree=1,
    large=False,
    path=None,
    also=None,
    creep=False,
):
    """A block on a floor along which it slides, with a rigid end, pushed down and pulled: as loaded, or moved."""
    mesh = (
        dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (2.0, 1.0)], (5, 3))
        if gdim == 2
        else dolfinx.mesh.create_box(comm, [(0.0, 0.0, 0.0), (2.0, 1.0, 1.0)], (4, 2, 2))
    )
    end = dolfinx.mesh.locate_entities_boundary(mesh, gdim - 1, lambda x: np.isclose(x[0], 2.0))
    tags = dolfinx.mesh.meshtags(mesh, gdim - 1, np.sort(end), np.full(len(end), 1, dtype=np.int32))
    mesh.geometry.x[:, :gdim] += moved * bent(mesh.geometry.x[:, :gdim].T).T

    def on_floor(x):
        return np.isclose(x[gdim - 1], moved * 0.3 * x[0] ** 2)

    def in_end(x):
        height = (x[gdim - 1] - moved * 0.3 * x[0] ** 2) / (1 + moved * 0.3 * x[0] ** 2)
        return np.isclose(x[0], 2.0) & (height > (0.25 if rigid == "above" else -1.0))

    space = dolfinx.fem.functionspace(mesh, ("Lagrange", degree, (gdim,)))
    u, x = dolfinx.fem.Function(space, name="u"), ufl.SpatialCoordinate(mesh)
    young, push = dolfinx.fem.Constant(mesh, 10.0), dolfinx.fem.Constant(mesh, 1.0)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 4})
    ds = ufl.ds(mesh, subdomain_data=tags, metadata={"quadrature_degree": 4})(1)
    crept = fem.internal_variable(mesh, "crept", (gdim, gdim), quadrature_degree=4) if creep else 0 * strain(u)
    elastic = strain(u) - crept
    density = 0.5 * ufl.inner(stress(elastic, young, 0.3), elastic)
    if large:
        F = ufl.Identity(gdim) + ufl.grad(u)
        ln = ufl.ln(ufl.det(F))
        density = young * (0.5 * (ufl.inner(F, F) - gdim) - ln + ln**2)
    work = push * (x[gdim - 1] * u[0] - u[gdim - 1]) * ds - push * (1 + x[0]) * u[gdim - 1] * dx
    axes = np.eye(gdim)
    ties = [
        fem.Roller(on_floor),
        fem.Roller(lambda x: np.isclose(x[0], 0.0), axes[0]),
        *([fem.Roller(lambda x: np.isclose(x[1], 0.0), axes[1])] if gdim == 3 else []),
        *([fem.Rigid(in_end)] if rigid else []),
        *(also(u, dx) if also is not None else []),
    ]
    shapes = [fem.Shape("bent", bent, (-0.3, 0.5), 0.0)] if shape else []
    if stretch:
        shapes.append(fem.Shape("longer", lambda x: np.stack([x[0], 0 * x[0]]), (-0.3, 0.5), 0.0))
    return fem.Problem(
        density * dx - work,
        u,
        bcs=[],
        ties=ties,
        parameters=[fem.Scalar("young", young, (5.0, 20.0)), fem.Scalar("push", push, (0.0, 2.0)), *shapes],
        responses=[
            fem.Response("work", work),
            fem.Response("energy", density * dx),
            fem.Response("end", u[0] * ds),
            fem.Response("lift", u[gdim - 1] * ds),
        ],
        **({} if path is None else {"path": path}),
        **({"history": {crept: crept + 0.3 * elastic + 0.1 * ufl.tr(elastic) * crept}} if creep else {}),
    )


@pytest.mark.parametrize(
    ("gdim", "degree", "rigid"),
    [
        *((2, 1, False), (2, 1, True), (3, 1, "above")),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((2, 2, True), (3, 1, False))),
    ],
)
def test_ties_are_those_of_the_moved_mesh(gdim, degree, rigid):
    shaped = block(gdim, degree=degree, rigid=rigid)
    for moved in (0.35, -0.2):
        fresh = block(gdim, degree=degree, rigid=rigid, moved=moved, shape=False)
        y, jacobian = shaped.evaluate([8.0, 1.2, moved])
        expected, slopes = fresh.evaluate([8.0, 1.2])
        np.testing.assert_allclose(y, expected, rtol=1e-8)
        np.testing.assert_allclose(jacobian[:, :2], slopes, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("gdim", "large"), [(2, False), (2, True), (3, True)])
def test_derivatives_of_ties_that_move_pass_taylor(gdim, large):
    problem = block(gdim, large=large, rigid=True if gdim == 2 else "above")
    x, step = np.array([10.0, 0.3, 0.3]), np.array([1.0, 0.1, 0.2])
    y, jacobian = problem.evaluate(x, method="adjoint")
    for found, expected in [
        (problem.evaluate(x, method="tangent")[1], jacobian),
        (problem.jvp(x, step), jacobian @ step),
        (problem.vjp(x, [1.0, 2.0, 3.0, 4.0]), [1.0, 2.0, 3.0, 4.0] @ jacobian),
    ]:
        np.testing.assert_allclose(found, expected, rtol=1e-7, atol=1e-10)
    for way in (step, [0.0, 0.0, 0.2]):
        way = np.array(way)
        remainders = [
            np.abs(problem.evaluate(x + share * way, jacobian=False)[0] - y - share * jacobian @ way)
            for share in (0.2, 0.1, 0.05)
        ]
        rates = np.log2(np.array(remainders[:-1]) / np.array(remainders[1:]))
        assert np.all(rates > 1.95), rates
    ahead, behind = (problem.evaluate(x + s * np.array([0.0, 0.0, 1e-4]), jacobian=False)[0] for s in (1, -1))
    np.testing.assert_allclose((ahead - behind) / 2e-4, jacobian[:, 2], rtol=1e-6)


def test_derivatives_of_ties_that_move_go_through_a_history():
    path = fem.LoadPath([0.4, 1.0, 1.0, 0.5])
    problem, x = block(2, creep=True, path=path), np.array([10.0, 1.5, 0.3])
    fresh = block(2, creep=True, path=path, moved=0.3, shape=False)
    y, jacobian = problem.evaluate(x, method="tangent")
    expected, slopes = fresh.evaluate(x[:2])
    np.testing.assert_allclose(y, expected, rtol=1e-9)
    np.testing.assert_allclose(jacobian[:, :2], slopes, rtol=1e-8, atol=1e-10)
    np.testing.assert_allclose(problem.evaluate(x, method="adjoint")[1], jacobian, rtol=1e-8, atol=1e-10)
    ahead, behind = (problem.evaluate(x + s * np.array([0.0, 0.0, 1e-4]), jacobian=False)[0] for s in (1, -1))
    np.testing.assert_allclose((ahead - behind) / 2e-4, jacobian[:, 2], rtol=1e-6)
    assert np.abs(problem.evaluate(x)[0] - block(2).evaluate(x)[0]).max() > 0.01  # it remembers


def test_a_work_of_loads_is_the_gradient_of_the_energy_for_shapes_as_for_scalars():
    """Of a linear body, d(work) = 2 d(energy) holds whatever moves; responses come by separate forms."""
    y, jacobian = block(2).evaluate([10.0, 1.0, 0.3])
    np.testing.assert_allclose(y[0], 2 * y[1], rtol=1e-9)
    np.testing.assert_allclose(jacobian[0], 2 * jacobian[1], rtol=1e-8)


def test_what_has_no_derivatives_yet_is_refused():
    problem = block(2)
    with pytest.raises(NotImplementedError, match="change rollers or rigid faces"):
        problem.hvp([10.0, 1.0, 0.1], [1.0, 0.0, 0.0, 0.0], [[1.0, 0.0, 0.0]])
    with pytest.raises(NotImplementedError, match="shapes change ties"):
        _ = problem.parts
    with pytest.raises(ValueError, match="with means that vanish that has no derivatives"):
        block(2, rigid=False, also=lambda u, dx: [fem.ZeroMean(u[1] * dx)])


def test_a_shape_that_sets_ties_against_each_other_is_refused():
    """A rigid edge lies on a flat floor as a whole, and on one that the mesh's facets bend at single nodes."""
    with pytest.raises(ValueError, match="'bent': the shape makes 58 degrees of freedom follow others instead of 57"):
        block(3)


def test_a_stretch_turns_the_normals_of_a_floor_that_another_shape_has_bent():
    """Alone it leaves a flat floor alone; its derivative is to know the bend."""
    problem = block(2, rigid=False, stretch=True)
    x = np.array([10.0, 1.0, 0.3, 0.1])
    _, jacobian = problem.evaluate(x)
    for k in (2, 3):
        ahead, behind = (problem.evaluate(x + s * 1e-4 * np.eye(4)[k], jacobian=False)[0] for s in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-4, jacobian[:, k], rtol=1e-6)
    np.testing.assert_allclose(problem.evaluate(x, method="tangent")[1], jacobian, rtol=1e-8)
    np.testing.assert_allclose(problem.jvp(x, x), jacobian @ x, rtol=1e-8)


def test_a_shape_at_which_ties_break_says_nothing_of_the_next_one():
    """A rigid piece of a curved floor lies on it as a whole where the shape makes that flat, and nowhere else."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(0.0, 0.0), (2.0, 1.0)], (4, 2))
    mesh.geometry.x[:, 1] -= 0.09 * mesh.geometry.x[:, 0] ** 2

    def on_floor(x):
        return np.isclose(x[1], -0.09 * x[0] ** 2)

    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    push, dx = dolfinx.fem.Constant(mesh, 1.0), ufl.dx(mesh)
    problem = fem.Problem(
        0.5 * ufl.inner(stress(strain(u), 10.0, 0.3), strain(u)) * dx - push * (u[0] + u[1]) * dx,
        u,
        bcs=[],
        ties=[
            fem.Roller(on_floor),
            fem.Roller(lambda x: np.isclose(x[0], 0.0), (1.0, 0.0)),
            fem.Rigid(lambda x: on_floor(x) & (x[0] > 0.9)),
        ],
        parameters=[
            fem.Scalar("push", push, (0.0, 2.0)),
            fem.Shape("curved", lambda x: np.stack([0 * x[0], 0.3 * x[0] ** 2]), (-0.3, 0.5), -0.3),
        ],
        responses=[fem.Response("lift", u[1] * dx)],
    )
    before, _ = problem.evaluate([1.0, 0.2])
    for _ in range(2):
        with pytest.raises(fem.NotConverged, match="makes 10 degrees of freedom follow others instead of 11"):
            problem.evaluate([1.0, 0.0])
    after, _ = problem.evaluate([1.0, 0.2])
    np.testing.assert_array_equal(after, before)


def cell(*profiles):
    """A laminate whose mesh moves."""
    return laminate(shapes=[fem.Shape(f"s{k}", v, (-0.1, 0.1), 0.0) for k, v in enumerate(profiles)])


def test_a_periodic_cell_may_change_as_long_as_faces_and_images_move_alike():
    def bulged(x):
        return np.stack([np.sin(2 * np.pi * x[1]) / 10, 0 * x[0]])

    def stretched(x):
        return np.stack([x[0], 0 * x[0]])

    problem, x = cell(bulged, stretched), np.array([0.02, 0.01, 0.03, 1.0, 10.0, 0.05, 0.04])
    _, jacobian = problem.evaluate(x)
    for k in (5, 6):
        step = 1e-5 * np.eye(7)[k]
        ahead, behind = (problem.evaluate(x + s * step, jacobian=False)[0] for s in (1, -1))
        np.testing.assert_allclose((ahead - behind) / 2e-5, jacobian[:, k], rtol=1e-6, atol=1e-8)
    assert len(problem.hvp(x, np.ones(4), np.eye(7)[5])) == 7


def test_a_face_that_moves_otherwise_than_its_image_is_refused():
    with pytest.raises(ValueError, match="shape 's0' moves points on the face of tie 0 otherwise than their images"):
        cell(lambda x: np.stack([x[0] * x[1], 0 * x[0]]))
