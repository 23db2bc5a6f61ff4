"""Maps between nodal fields on one mesh: forces at nodes as they are, meshes as records, derivatives, refusals."""

import functools

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.coupling.contract import MapsFields, Model, Products, Sampled, describe
from sobofem.coupling.dataset.mesh import on_mesh_of
from sobofem.fem.fields import CellField, FieldMap, SolutionField, nodal_work
from sobofem.fem.fields.on_mesh import record
from sobofem.fem.library.l_shape import l_shape
from sobofem.fem.library.line_loaded_block import line_loaded_block
from sobofem.fem.library.loaded_beam import loaded_beam
from sobofem.fem.library.strip_with_hole import strip_with_hole

Cell = dolfinx.mesh.CellType


def distorted(cell, counts):
    """A mesh of a box with places inside that are moved by up to a third of a cell."""
    make = dolfinx.mesh.create_rectangle if len(counts) == 2 else dolfinx.mesh.create_box
    mesh = make(MPI.COMM_SELF, [np.zeros(len(counts)), np.arange(1.0, 1.0 + len(counts))], counts, cell)
    x = mesh.geometry.x
    inner = np.prod([(x[:, i] > 1e-9) & (x[:, i] < 1.0 + i - 1e-9) for i in range(len(counts))], axis=0)
    x[:, : len(counts)] += (
        0.3 / max(counts) * inner[:, None] * np.random.default_rng(0).uniform(-1, 1, (len(x), len(counts)))
    )
    return mesh


CELLS = [
    (Cell.triangle, (4, 3)),
    (Cell.quadrilateral, (3, 4)),
    (Cell.tetrahedron, (2, 3, 2)),
    (Cell.hexahedron, (2, 2, 3)),
]


@pytest.mark.parametrize(("cell", "counts"), CELLS)
def test_nodal_forces_enter_the_residual_as_they_are(cell, counts):
    mesh = distorted(cell, counts)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (len(counts),)))
    u, forces = dolfinx.fem.Function(space), dolfinx.fem.Function(space)
    forces.x.array[:] = np.random.default_rng(1).normal(size=len(forces.x.array))
    residual = ufl.derivative(nodal_work(forces, u), u, ufl.TestFunction(space))
    found = dolfinx.fem.assemble_vector(dolfinx.fem.form(residual)).array
    np.testing.assert_allclose(found, forces.x.array, rtol=1e-13)


def modulus_map(output=None, **changes):
    """From the modulus at the nodes of a square to its displacement under tension, or something else."""
    mesh = distorted(*CELLS[0])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", changes.get("degree", 1), (2,))), name="u")
    young = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)), name="young")
    young.x.array[:] = 1.0
    dx = ufl.dx(metadata={"quadrature_degree": 3})
    strain = ufl.sym(ufl.grad(u))
    density = 0.5 * young * (ufl.inner(strain, strain) + 0.5 * ufl.tr(strain) ** 2)
    held = dolfinx.fem.locate_dofs_geometrical(u.function_space, lambda x: np.isclose(x[0], 0.0))
    field = fem.Field("young", young, changes.get("basis") or fem.OwnValues(), (0.5, 2.0), unit="MPa")
    problem = fem.Problem(
        density * dx - 0.1 * u[0] * ufl.ds,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), held, u.function_space)],
        parameters=[field, *changes.get("more", lambda mesh: [])(u)],
        responses=[fem.Response("energy", density * dx)],
    )
    return FieldMap(field, SolutionField(problem) if output is None else CellField(problem, output(u), name="stress"))


def gradient(u):
    return ufl.grad(u)


@functools.cache
def made(build):
    return build(MPI.COMM_SELF)


@pytest.mark.parametrize(("cell", "counts"), CELLS)
def test_the_record_is_the_mesh_with_cells_as_vtk_has_them(cell, counts):
    mesh = record(distorted(cell, counts))[0]
    assert len(mesh.points) == np.prod(np.array(counts) + 1) and len(np.unique(mesh.cells)) == len(mesh.points)
    corners = mesh.points[mesh.cells]
    if len(counts) == 2:
        (x, y), (a, b) = np.moveaxis(corners, 2, 0), np.moveaxis(np.roll(corners, -1, axis=1), 2, 0)
        size = np.abs((x * b - a * y).sum(axis=1) / 2)  # of a polygon, whose corners follow one another
    elif mesh.cell == "tetra":
        size = np.abs(np.linalg.det(corners[:, 1:] - corners[:, :1])) / 6
    else:
        sides = ((0, 1, 2, 3), (4, 5, 6, 7), (0, 1, 5, 4), (1, 2, 6, 5), (2, 3, 7, 6), (3, 0, 4, 7))
        lengths = [np.linalg.norm(corners[:, s] - corners[:, np.roll(s, 1)], axis=2).max() for s in sides]
        assert max(lengths) < 2.0  # no diagonal
        return
    assert size.sum() == pytest.approx(np.prod(np.arange(1.0, 1.0 + len(counts)))) and size.min() > 0


@pytest.mark.slow
def test_a_field_map_is_a_model_with_products_that_says_where_its_fields_are():
    found = made(l_shape)
    assert isinstance(found, Model) and isinstance(found, Products)
    assert isinstance(found, MapsFields) and isinstance(found, Sampled)
    assert not isinstance(modulus_map(), Sampled)
    describe(found)
    on = on_mesh_of(found)
    on.check(len(found.parameters), len(found.responses))
    assert on.input_names == ("force_x", "force_y") and on.output_names == ("displacement_x", "displacement_y")
    np.testing.assert_allclose(found.places, [[x, 2.0] for x in (4.8, 5.2, 5.6, 6.0)], rtol=1e-12)
    np.testing.assert_array_equal(on.mesh.points[on.inputs[::2] // 2], found.places)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("build", "nodes", "cells", "loaded"),
    [(l_shape, 80, 57, 4), (strip_with_hole, 99, 145, 12), (line_loaded_block, 256, 217, 32)],
)
def test_literature_examples_have_their_meshes_and_exact_derivatives(build, nodes, cells, loaded):
    found = made(build)
    mesh = found.on_mesh.mesh
    assert (len(mesh.points), len(mesh.cells), len(found.places)) == (nodes, cells, loaded)
    x = found.sample(6, 5)[3]
    V, W = found.sample(4, 6)[:2], np.random.default_rng(7).normal(size=(2, len(found.responses)))
    y, _ = found.evaluate(x, jacobian=False)
    jvp, vjp = found.jvp(x, V), found.vjp(x, W)
    assert found.negative_pivots == 0
    np.testing.assert_allclose(vjp @ V.T, W @ jvp.T, rtol=1e-9, atol=1e-9 * np.abs(vjp @ V.T).max())
    step = 1e-4
    ahead, behind = (found.evaluate(x + sign * step * V[0], jacobian=False)[0] for sign in (1, -1))
    assert np.abs((ahead - behind) / (2 * step) - jvp[0]).max() < 1e-6 * np.abs(jvp[0]).max()
    steps = build(MPI.COMM_SELF, steps=3)
    assert np.abs(steps.evaluate(x, jacobian=False)[0] - y).max() < 1e-9 * np.abs(y).max()


def test_largest_displacements_are_those_of_the_literature():
    """Of the published test sample of largest displacement."""
    for build, expected in ((l_shape, 2.692), (strip_with_hole, 1.398), (line_loaded_block, 0.3486)):
        found = made(build)
        samples = found.sample(200, 1)
        strongest = samples[np.argsort(np.abs(samples).sum(axis=1))[-4:]]
        largest = max(
            np.linalg.norm(found.evaluate(x, jacobian=False)[0].reshape(-1, 2), axis=1).max() for x in strongest
        )
        assert 0.75 * expected < largest < 1.1 * expected


def test_loads_are_drawn_alike_however_many_and_at_every_place():
    for build in (l_shape, strip_with_hole, line_loaded_block):
        found = made(build)
        many = found.sample(100, 4)
        np.testing.assert_array_equal(many[:7], found.sample(7, 4))
        assert np.abs(many).max() <= found.bounds[0, 1] and not np.array_equal(many, found.sample(100, 5))
        assert len(np.unique(many.reshape(100, -1, 2).any(axis=2), axis=0)) == {64: 25}.get(
            many.shape[1], many.shape[1] // 2
        )
    load = made(line_loaded_block).sample(1, 0).reshape(-1, 2)
    generator = np.random.Generator(np.random.PCG64(0))  # of the model, which the shift of tests' seeds leaves alone
    drawn = generator.uniform(-1.0, 1.0, (1, 2)) * (24.0, 8.0)
    np.testing.assert_allclose(load.sum(axis=0), drawn[0] * 9 / 31, rtol=1e-12)  # on three edges of length 3/31
    assert (load != 0).any(axis=1).sum() == 4


@pytest.mark.slow
def test_a_beam_in_space_bends_under_a_force_at_any_node_of_its_face():
    found = loaded_beam(MPI.COMM_SELF, cells=(4, 1, 1))
    assert len(found.places) == 8 and found.on_mesh.mesh.cell == "hexahedron"
    x = np.zeros((8, 3))
    x[-1] = (0.0, 0.0, -0.2)
    y, _ = found.evaluate(x.ravel(), jacobian=False)
    sunk = found.on_mesh.mesh.points[np.argmin(y.reshape(-1, 3)[:, 2])]
    np.testing.assert_allclose(sunk, found.places[-1])


@pytest.mark.slow
def test_means_over_cells_are_averaged_at_nodes_with_their_derivatives():
    stress = modulus_map(output=gradient)
    cells = stress._output
    x, rng = np.linspace(0.6, 1.8, 20), np.random.default_rng(3)
    y, jacobian = stress.evaluate(x)
    on = stress.on_mesh
    assert on.output_names == ("stress_1", "stress_2", "stress_3", "stress_4")
    means, node = cells.evaluate(x, jacobian=False)[0].reshape(-1, 4), 7
    around = np.flatnonzero((on.mesh.cells == node).any(axis=1))
    expected = np.average(means[around], axis=0, weights=cells.mass[::4][around])
    np.testing.assert_allclose(y.reshape(-1, 4)[node], expected, rtol=1e-12)
    v, w = rng.normal(size=(2, 20)), rng.normal(size=(3, len(y)))
    scale = np.abs(jacobian).max()
    np.testing.assert_allclose(stress.jvp(x, v), v @ jacobian.T, atol=1e-11 * scale)
    np.testing.assert_allclose(stress.vjp(x, w), w @ jacobian, atol=1e-10 * scale)


@pytest.mark.slow
def test_what_is_no_map_between_nodal_fields_is_refused_with_the_remedy():
    with pytest.raises(ValueError, match="take degree 1"):
        modulus_map(degree=2)
    with pytest.raises(ValueError, match="leave out `share`"):
        modulus_map(basis=fem.OwnValues(share=lambda x: x * [[1.0], [0.0], [0.0]]))
    with pytest.raises(ValueError, match="fix the others"):
        modulus_map(more=lambda u: [fem.Shape("width", lambda x: x, (0.0, 0.1), reference=0.0)])
    mesh = distorted(*CELLS[0])
    cellwise = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    with pytest.raises(ValueError, match="no function of first degree"):
        nodal_work(cellwise, cellwise)
