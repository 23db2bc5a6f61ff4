"""Ties, means that vanish, modes, limit loads and histories together: second methods, closed forms, Taylor."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem
from sobofem.fem.library import shallow_arch
from sobofem.fem.materials import plasticity
from sobofem.fem.materials.elasticity import strain, stress

SIZE = 4.0


def passes_taylor(problem, x, step, *, rate=1.9, small=1e-13):
    """Checks the Jacobian by both methods, and gives it with the responses."""
    y, jacobian = problem.evaluate(x, method="adjoint")
    np.testing.assert_allclose(problem.evaluate(x, method="tangent")[1], jacobian, rtol=1e-7, atol=1e-10)
    rest = [
        np.abs(problem.evaluate(x + share * step, jacobian=False)[0] - y - share * jacobian @ step)
        for share in (0.2, 0.1, 0.05)
    ]
    assert np.all(
        (np.log2(np.divide(rest[:-1], np.maximum(rest[1:], small))) > rate) | (np.array(rest[1:]) <= small)
    ), rest
    return y, jacobian


def floating(*, hold="mean", linear=False, modes=lambda *_: []):
    """A block with a rigid end under loads in balance, held by its mean motion, or by pins that take no force."""
    mesh = dolfinx.mesh.create_rectangle(MPI.COMM_SELF, [(0.0, 0.0), (SIZE, 1.0)], (8, 2))
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2, (2,)))
    u = dolfinx.fem.Function(space, name="u")
    young, pull = dolfinx.fem.Constant(mesh, 10.0), dolfinx.fem.Constant(mesh, 0.5)
    dx, ds = (measure(metadata={"quadrature_degree": 4}) for measure in (ufl.dx, ufl.ds))
    F = ufl.Identity(2) + ufl.grad(u)
    E = strain(u) if linear else 0.5 * (F.T * F - ufl.Identity(2))
    energy = 0.5 * ufl.inner(stress(E, young, 0.3), E) * dx
    traction = ufl.dot(pull * ufl.as_matrix([[1.0, 0.2], [0.2, -0.1]]), ufl.FacetNormal(mesh))
    bcs = []
    for k, at in ((0, 0.0), (1, 0.0), (1, SIZE)) if hold == "pins" else ():
        part, _ = space.sub(k).collapse()
        dofs = dolfinx.fem.locate_dofs_geometrical(
            (space.sub(k), part), lambda p, at=at: np.hypot(p[0] - at, p[1]) < 1e-9
        )
        bcs.append(dolfinx.fem.dirichletbc(dolfinx.fem.Function(part), dofs, space.sub(k)))
    ties = [fem.Rigid(lambda p: np.isclose(p[0], SIZE))]
    v, w = ufl.TestFunction(space), ufl.TrialFunction(space)
    return fem.Problem(
        energy - ufl.inner(traction, u) * ds,
        u,
        bcs=bcs,
        ties=[*ties, fem.ZeroMean.motion(u, dx)] if hold == "mean" else ties,
        parameters=[fem.Scalar("young", young, (5.0, 20.0)), fem.Scalar("pull", pull, (-5.0, 5.0))],
        responses=[
            fem.Response("energy", energy),
            *modes(ufl.derivative(ufl.derivative(energy, u, v), u, w), ufl.inner(v, w) * dx, ties),
        ],
    )


@pytest.mark.slow
def test_a_rigid_face_of_a_body_that_floats_takes_what_it_takes_on_pins():
    x = [10.0, 0.5]
    free, pinned = (floating(hold=hold, linear=True).evaluate(x) for hold in ("mean", "pins"))
    np.testing.assert_allclose(free[0], pinned[0], rtol=1e-10)
    np.testing.assert_allclose(free[1], pinned[1], rtol=1e-9)


@pytest.mark.slow
def test_frequencies_about_the_loaded_state_of_a_body_that_floats_pass_taylor():
    def modes(stiffness, mass, ties):
        found = fem.Vibration(stiffness, mass, ties=ties, count=5)
        return [found.frequency(f"mode {k}", k) for k in (3, 4)]  # beyond three rigid motions

    passes_taylor(floating(modes=modes), np.array([10.0, 0.5]), np.array([1.0, 0.2]))


@pytest.mark.slow
def test_buckling_of_a_body_that_floats_says_what_to_hold():
    def modes(stiffness, mass, ties):
        return [fem.Buckling(stiffness, mass, ties=ties, count=1).load_factor("critical", 0)]

    with pytest.raises(fem.NotConverged, match="If a body floats, hold its rigid motions"):
        floating(modes=modes, linear=True).evaluate([10.0, -0.5])


@pytest.mark.slow
@pytest.mark.parametrize("skew", [0.0, 0.35])
def test_frequencies_of_a_periodic_cell_are_those_of_waves_that_fit(skew):
    """ω² = k (2π)² for the four waves of one length along x and y, whether faces match or not."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 6, 6)
    loaded = mesh.geometry.x.copy()
    for k in (0, 1):
        mesh.geometry.x[:, k] += skew * loaded[:, 1 - k] * np.sin(2 * np.pi * loaded[:, k]) / (2 * np.pi)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 2))
    T, k, q = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 2.0), dolfinx.fem.Constant(mesh, 1.0)
    v, w, dx = ufl.TestFunction(space), ufl.TrialFunction(space), ufl.dx(metadata={"quadrature_degree": 6})
    ties = [
        fem.Periodic(lambda p, i=i: np.isclose(p[i], 1.0), lambda p, i=i: p - np.eye(2)[:, i : i + 1]) for i in (0, 1)
    ]
    waves = fem.Vibration(k * ufl.inner(ufl.grad(v), ufl.grad(w)) * dx, v * w * dx, ties=ties, count=6)
    source = q * ufl.cos(2 * np.pi * ufl.SpatialCoordinate(mesh)[0])
    problem = fem.Problem(
        (0.5 * k * ufl.inner(ufl.grad(T), ufl.grad(T)) - source * T) * dx,
        T,
        bcs=[],
        ties=[*ties, fem.ZeroMean(T * dx)],
        parameters=[fem.Scalar("k", k, (1.0, 4.0)), fem.Scalar("q", q, (0.0, 2.0))],
        responses=[fem.Response("work", source * T * dx), waves.squared("ω²", (1, 2, 3, 4))],
    )
    y, jacobian = problem.evaluate([2.0, 1.0])
    np.testing.assert_allclose(y, [1 / (4 * np.pi**2) / 4, 2.0 * 4 * np.pi**2], rtol=3e-3)
    np.testing.assert_allclose(jacobian, [[-y[0] / 2, 2 * y[0]], [y[1] / 2, 0.0]], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_a_mean_that_vanishes_by_symmetry_changes_no_limit_load(monkeypatch):
    x, step = np.array([70e3, 2.0, 0.05, 0.05]), np.array([1e3, 0.05, 0.02, 0.02])

    def arch(*, mean, at):
        def with_mean(form, u, *, ties, **rest):
            means = [fem.ZeroMean(u[0] * ufl.dx(u.function_space.mesh, metadata={"quadrature_degree": 4}))]
            return fem.Problem(form, u, ties=[*ties, *means] if mean else ties, **rest)

        with monkeypatch.context() as patch:
            patch.setattr(shallow_arch, "Problem", with_mean)
            return shallow_arch.shallow_arch(MPI.COMM_SELF, cells=(12, 1)).evaluate(at)

    symmetric = np.array([70e3, 2.0, 0.05, 0.0])
    (y, jacobian), (expected, slopes) = (arch(mean=mean, at=symmetric) for mean in (True, False))
    np.testing.assert_allclose(y, expected, rtol=1e-8)
    np.testing.assert_allclose(jacobian, slopes, rtol=1e-6, atol=1e-8)
    (base, jacobian), rest = arch(mean=True, at=x), []
    for share in (0.2, 0.1):
        rest.append(np.abs(arch(mean=True, at=x + share * step)[0] - base - share * jacobian @ step)[:3])
    assert np.all(np.log2(np.divide(*rest)) > 1.8), rest


def plastic_cell(*, pin, skew=0.0):
    """A periodic cell with a soft spot that yields under a mean strain, there and half back."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 4, 4)
    loaded = mesh.geometry.x.copy()
    for k in (0, 1):
        mesh.geometry.x[:, k] += skew * loaded[:, 1 - k] * np.sin(2 * np.pi * loaded[:, k]) / (2 * np.pi)
    space, t = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))), dolfinx.fem.Constant(mesh, 0.0)
    u, mean, limit = dolfinx.fem.Function(space), dolfinx.fem.Constant(mesh, 0.01), dolfinx.fem.Constant(mesh, 250.0)
    x, before = ufl.SpatialCoordinate(mesh), plasticity.memory(mesh, quadrature_degree=2)
    limit_here = limit * (1 - 0.3 * ufl.sin(np.pi * x[0]) * ufl.sin(np.pi * x[1]))
    applied = u + t * mean * ufl.as_vector((x[0] + 0.5 * x[1], 0.5 * x[0]))
    after = plasticity.return_mapping(
        plasticity.strain(applied),
        before,
        young=200e3,
        poisson=0.3,
        hardening=plasticity.linear_hardening(limit_here, 5000.0),
    )
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    held = dolfinx.fem.locate_dofs_geometrical(space, lambda p: np.hypot(p[0], p[1]) < 1e-9)
    ties = [
        fem.Periodic(lambda p, i=i: np.isclose(p[i], 1.0), lambda p, i=i: p - np.eye(2)[:, i : i + 1]) for i in (0, 1)
    ]
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), held, space)] if pin else [],
        ties=ties if pin else [*ties, fem.ZeroMean(u[0] * dx, u[1] * dx)],
        parameters=[fem.Scalar("mean", mean, (0.005, 0.02)), fem.Scalar("limit", limit, (200.0, 300.0))],
        responses=[fem.Response("xx", after.stress[0, 0] * dx), fem.Response("xy", after.stress[0, 1] * dx)],
        path=fem.LoadPath([0.5, 1.0, 0.5], factor=t),
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(rtol=1e-11, growth=1.0),
    )


@pytest.mark.slow
def test_a_plastic_cell_has_the_same_history_on_a_pin_and_by_its_mean():
    x = [0.011, 240.0]
    pinned, mean = (plastic_cell(pin=pin).evaluate(x) for pin in (True, False))
    np.testing.assert_allclose(mean[0], pinned[0], rtol=1e-8)
    np.testing.assert_allclose(mean[1], pinned[1], rtol=1e-6)


@pytest.mark.slow
def test_a_plastic_cell_whose_faces_do_not_match_passes_taylor():
    passes_taylor(plastic_cell(pin=False, skew=0.35), np.array([0.011, 240.0]), np.array([1e-5, 0.2]), rate=1.8)
