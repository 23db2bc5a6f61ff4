"""Given functions on a layer and on the boundary, against functions on the whole mesh."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.fields import CellField

POINT = [1.2, 0.3, 0.5, 0.4, 0.6, 0.1]


def heated(*, parts=True, over=None, gradient=None, shape=True, comm=MPI.COMM_SELF, given=True):
    """Conduction in a plate that is thicker to the right, with a layer that conducts better and a flux above."""
    mesh = dolfinx.mesh.create_rectangle(comm, [(0.0, 0.0), (2.0, 1.0)], [6, 4])
    mesh.geometry.x[:, 1] *= 1 + 0.2 * mesh.geometry.x[:, 0]
    mesh.topology.create_connectivity(1, 2)
    cells = np.sort(dolfinx.mesh.locate_entities(mesh, 2, lambda x: x[0] > 1 - 1e-9))
    facets = dolfinx.mesh.locate_entities_boundary(mesh, 1, lambda x: np.isclose(x[1], 1 + 0.2 * x[0]))
    facets.sort()
    tags = [
        dolfinx.mesh.meshtags(mesh, d, part, np.full(len(part), 1, np.int32)) for d, part in ((2, cells), (1, facets))
    ]
    how = {"domain": mesh, "metadata": {"quadrature_degree": 4}}
    dx, ds = (ufl.Measure(kind, subdomain_data=tag, **how) for kind, tag in zip(("dx", "ds"), tags, strict=True))
    layer, of_layer, _, _ = dolfinx.mesh.create_submesh(mesh, 2, cells)
    edge, of_edge, _, _ = dolfinx.mesh.create_submesh(mesh, 1, facets)
    f = dolfinx.fem.Function(dolfinx.fem.functionspace(layer if parts else mesh, ("Lagrange", 1)), name="more")
    g = dolfinx.fem.Function(dolfinx.fem.functionspace(edge if parts else mesh, ("Lagrange", 2)), name="flux")
    bases = [[dolfinx.fem.Function(own.function_space) for _ in range(2)] for own in (f, g)]
    for function, values in zip(
        (*bases[0], *bases[1]), (0, 1, lambda x: x[0] ** 2, lambda x: 1 + 0 * x[0]), strict=True
    ):
        function.interpolate(values if callable(values) else lambda x, k=values: x[k])
    u, c = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    slope = ufl.inner(ufl.grad(u), ufl.grad(u))
    energy = 0.5 * c * slope * dx + 0.5 * f**2 * slope * dx(1) - g * u * ds(1)
    responses = [fem.Response("work", g * u * ds(1)), fem.Response("layer", f * u * slope * dx(1))]
    if over is not None:
        responses += [fem.Response("more", over(f, g, dx, ds))]
    if gradient is not None:
        responses += [fem.Response("gradient", gradient(f, g, dx, ds))]
    left = dolfinx.fem.locate_dofs_geometrical(u.function_space, lambda x: np.isclose(x[0], 0.0))
    bend = fem.Shape("bend", lambda x: np.stack([x[0] * x[1], x[0]]), (-0.2, 0.2), reference=0.0)
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, left, u.function_space)],
        parameters=[
            fem.Scalar("c", c, (0.5, 2.0)),
            fem.Field("f", f, bases[0], (-1.0, 1.0)),
            fem.Field("g", g, bases[1], (-1.0, 1.0)),
            *([bend] if shape else []),
        ],
        responses=responses,
        entity_maps=[of_layer, of_edge] if given else [],
    )


@pytest.mark.slow
def test_functions_on_parts_are_those_on_the_whole_with_first_and_second_derivatives():
    part, whole = heated(), heated(parts=False)
    for method in ("adjoint", "tangent"):
        for found, expected in zip(part.evaluate(POINT, method=method), whole.evaluate(POINT), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(*(p.hvp(POINT, np.ones(2), np.eye(6)) for p in (part, whole)), rtol=1e-8, atol=1e-10)
    value, plain, _ = part.recompute(POINT)
    np.testing.assert_allclose(value, plain, rtol=1e-12)
    assert part.digest == heated().digest != whole.digest


@pytest.mark.slow
def test_a_gradient_in_a_layer_is_that_of_the_whole():
    def squared(f, _, dx, ds):
        return ufl.inner(ufl.grad(f), ufl.grad(f)) * dx(1)

    found, expected = (
        heated(parts=parts, gradient=squared, shape=False).evaluate(POINT[:5]) for parts in (True, False)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-10)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"given": False}, "entity_maps if one mesh was made of the other"),
        (
            {"over": lambda f, g, dx, ds: f * dx},
            "more lives on a part of the mesh, and stands in an integral over more",
        ),
        ({"over": lambda f, g, dx, ds: g * ds}, "flux lives on a part of the mesh"),
        ({"over": lambda f, g, dx, ds: g * dx(1)}, "flux lives on a part of the mesh"),
        ({"gradient": lambda f, g, dx, ds: f.dx(0) * dx(1)}, "gradient of more on another mesh is not differentiated"),
        ({"gradient": lambda f, g, dx, ds: g.dx(0) * ds(1), "shape": False}, "gradient is none of the mesh"),
        ({"over": lambda f, g, dx, ds: _place(f) * f * dx(1)}, "coordinates, normals or sizes of another mesh"),
    ],
)
def test_what_would_be_wrong_is_refused(how, message):
    with pytest.raises(ValueError, match=message):
        heated(**how)


@pytest.mark.slow
def test_a_field_to_look_at_lives_on_the_mesh_of_the_unknown():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    part, of_part, _, _ = dolfinx.mesh.create_submesh(mesh, 2, np.arange(2, dtype=np.int32))
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1))), dolfinx.fem.Constant(mesh, 1.0)
    f = dolfinx.fem.Function(dolfinx.fem.functionspace(part, ("Lagrange", 1)), name="f")
    arguments = {"bcs": [], "parameters": [fem.Scalar("k", k, (0.5, 2.0))], "entity_maps": [of_part]}
    responses = [fem.Response("sum", u * ufl.dx)]
    for shown in (f, f + u):
        with pytest.raises(ValueError, match=r"field 'f' holds f, which lives on another mesh"):
            fem.Problem((u**2 - k * u) * ufl.dx, u, responses=responses, fields={"f": shown}, **arguments)
    problem = fem.Problem((u**2 - k * u) * ufl.dx, u, responses=responses, **arguments)
    with pytest.raises(
        ValueError, match=r"field 'f': f lives on a part of the mesh, and stands in an integral over more"
    ):
        CellField(problem, f, name="f")


def _place(function):
    return ufl.SpatialCoordinate(function.function_space.mesh)[0]


@pytest.mark.slow
def test_an_unknown_on_a_part_takes_functions_of_the_whole():
    """u = load on the part: the mean of (1 + x) / 2 over x from 0.5 to 1, and its derivative by a stretch."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 2)
    part, of_part, _, _ = dolfinx.mesh.create_submesh(
        mesh, 2, dolfinx.mesh.locate_entities(mesh, 2, lambda x: x[0] > 0.49)
    )
    load = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)), name="load")
    shape = load.copy()
    shape.interpolate(lambda x: 1 + x[0])
    u, dx = dolfinx.fem.Function(dolfinx.fem.functionspace(part, ("Lagrange", 1))), ufl.dx(part)
    problem = fem.Problem(
        (0.5 * u**2 - load * u) * dx,
        u,
        bcs=[],
        parameters=[fem.Field("load", load, [shape], (0.0, 1.0))],
        responses=[fem.average("mean", u, dx)],
        entity_maps=[of_part],
    )
    y, jacobian = problem.evaluate([0.5])
    np.testing.assert_allclose(y, 0.5 * 1.75, rtol=1e-12)
    np.testing.assert_allclose(jacobian, [[1.75]], rtol=1e-12)


def test_an_unknown_on_facets_takes_no_function_of_the_body():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    edge, of_edge, _, _ = dolfinx.mesh.create_submesh(mesh, 1, np.arange(2, dtype=np.int32))
    load = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)), name="load")
    u, k = dolfinx.fem.Function(dolfinx.fem.functionspace(edge, ("Lagrange", 1))), dolfinx.fem.Constant(edge, 1.0)
    with pytest.raises(ValueError, match="load lives on a mesh of which the unknown's consists of facets"):
        fem.Problem(
            (0.5 * u**2 - k * load * u) * ufl.dx(edge),
            u,
            bcs=[],
            parameters=[fem.Scalar("k", k, (0.5, 2.0))],
            responses=[fem.Response("sum", u * ufl.dx)],
            entity_maps=[of_edge],
        )


def test_entity_maps_are_what_dolfinx_makes():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 2)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
    with pytest.raises(TypeError, match=r"entity_maps holds a ndarray, expected the second thing"):
        fem.Problem(u**2 * ufl.dx, u, bcs=[], parameters=[], responses=[], entity_maps=[np.zeros(3)])
