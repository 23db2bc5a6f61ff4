"""Frames and arches that turn far before they snap, against published limit loads."""

from mpi4py import MPI
import basix.ufl
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem


def slender(points, cells, *, young, depth, hinges, clamped=None, loaded, push, increment):
    """The limit load of quadratic cells of Green's strain, without Poisson's ratio, under a dead load at a vertex."""
    element = basix.ufl.element("Lagrange", "quadrilateral", 1, shape=(2,))
    mesh = dolfinx.mesh.create_mesh(MPI.COMM_SELF, np.array(cells), element, np.array(points))
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u, modulus = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, young)
    t = dolfinx.fem.Constant(mesh, 0.0)
    F = ufl.Identity(2) + ufl.grad(u)
    green = 0.5 * (F.T * F - ufl.Identity(2))
    energy = 0.5 * depth * modulus * ufl.inner(green, green) * ufl.dx(metadata={"quadrature_degree": 4})
    vertex = dolfinx.mesh.locate_entities(mesh, 0, lambda x: np.hypot(x[0] - loaded[0], x[1] - loaded[1]) < 1e-6)
    tags = dolfinx.mesh.meshtags(mesh, 0, vertex, np.full(1, 7, dtype=np.int32))
    down = -u[1] * ufl.Measure("dP", domain=mesh, subdomain_data=tags)(7)
    held = [
        *(lambda x, at=at: np.hypot(x[0] - at[0], x[1] - at[1]) < 1e-6 for at in hinges),
        *([clamped] if clamped is not None else []),
    ]
    path = fem.LimitLoad(factor=t, increment=increment)
    return fem.Problem(
        energy - push * t * down,
        u,
        bcs=[
            dolfinx.fem.dirichletbc(np.zeros(2), dolfinx.fem.locate_dofs_geometrical(space, where), space)
            for where in held
        ],
        parameters=[fem.Scalar("young", modulus, (0.5 * young, 2.0 * young))],
        responses=[path.load_factor("limit"), fem.Response("down", down)],
        path=path,
    )


def grid(first, second, place, there=lambda i, j: True):
    """Points and cells of a grid of parameters, where there are any."""
    numbers, points, cells = {}, [], []

    def number(i, j):
        if (i, j) not in numbers:
            numbers[i, j] = len(points)
            points.append(place(first[i], second[j]))
        return numbers[i, j]

    for i in range(len(first) - 1):
        for j in range(len(second) - 1):
            if there(i, j):
                cells.append([number(i, j), number(i + 1, j), number(i, j + 1), number(i + 1, j + 1)])
    return points, cells


@pytest.mark.slow  # 4 s: some thirty steps of arc length
def test_lees_frame_snaps_at_the_published_load():
    """18.55 E I / L² (Lee, Manuel & Rossow 1968, *Large deflections and stability of elastic frames*)."""
    xs = [-1.0, 0.0, 1.0, *np.linspace(1.0, 24.0, 6)[1:], *np.linspace(24.0, 120.0, 17)[1:]]
    ys = [*np.linspace(0.0, 119.0, 21), 120.0, 121.0]
    points, cells = grid(xs, ys, lambda x, y: (x, y), lambda i, j: i < 2 or j >= len(ys) - 3)
    frame = slender(
        points,
        cells,
        young=720.0,
        depth=3.0,
        hinges=[(0.0, 0.0), (120.0, 120.0)],
        loaded=(24.0, 120.0),
        push=720.0 * 2.0 / 120.0**2,
        increment=2.0,
    )
    y, jacobian = frame.evaluate([720.0])
    np.testing.assert_allclose(y[0], 18.55, rtol=2e-2)
    np.testing.assert_allclose(jacobian[:, 0], [y[0] / 720.0, 0.0], rtol=1e-5, atol=1e-6)
    assert frame.negative_pivots == 0


@pytest.mark.slow  # 4 s: some forty steps of arc length
def test_a_deep_arch_with_a_clamp_and_a_hinge_snaps_at_the_published_load():
    """8.97 E I / R² for 215° (DaDeppo & Schmidt 1975, *Instability of clamped-hinged circular arches*)."""
    radius, half = 100.0, np.deg2rad(215.0 / 2)
    angles = np.linspace(-half, half, 81)
    points, cells = grid(
        angles,
        radius + np.array([-1.0, 0.0, 1.0]),
        lambda angle, r: (r * np.sin(angle), r * np.cos(angle)),
    )
    inertia, young = 2.0**3 / 12, 1e3
    ends = [(radius * np.sin(s * half), radius * np.cos(half)) for s in (-1, 1)]

    def at_clamp(x):
        return np.abs(np.arctan2(x[0], x[1]) - half) < 1e-6

    arch = slender(
        points,
        cells,
        young=young,
        depth=1.0,
        hinges=ends[:1],
        clamped=at_clamp,
        loaded=(0.0, radius),
        push=young * inertia / radius**2,
        increment=1.0,
    )
    y, jacobian = arch.evaluate([young])
    np.testing.assert_allclose(y[0], 8.97, rtol=2e-2)
    np.testing.assert_allclose(jacobian[:, 0], [y[0] / young, 0.0], rtol=1e-5, atol=1e-6)
    assert arch.negative_pivots == 0
