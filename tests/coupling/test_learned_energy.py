"""Surrogates as stored energies: what an exact network gives is what the closed form gives, and physics holds."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import torch
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import taylor_test
from sobofem.coupling.materials import LearnedEnergy
from sobofem.fem.assembly.families import Functionals
from sobofem.fem.assembly.forms import Member, expand
from sobofem.fem.materials.hyperelasticity import (
    deformation_gradient,
    first_piola_kirchhoff,
    invariants,
    isochoric_invariants,
    neo_hooke,
)
from sobofem.fem.output import picture
from sobofem.fem.solving.external_function import expansions_in, refresh
from sobofem.surrogate.model.derivatives import digest

LAMBDA = 2.1
RULE = {"quadrature_degree": 2}
PLANE = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
CELLS = {2: dolfinx.mesh.CellType.quadrilateral, 3: dolfinx.mesh.CellType.hexahedron}


class NeoHooke(torch.nn.Module):
    """The energy itself, of I1, J and mu."""

    def forward(self, x):
        first, J, mu = x.T
        log = torch.log(J)
        return (mu / 2 * (first - 3) - mu * log + LAMBDA / 2 * log**2)[:, None]


def first_and_last(F):
    first, _, J = invariants(F)
    return first, J


def green(F):
    E = 0.5 * (F.T * F - ufl.Identity(3))
    return E[0, 0], E[1, 1], E[0, 1]


MEASURES = {
    "invariants": (invariants, {"I1": (2.0, 6.0), "I2": (2.0, 6.0), "J": (0.5, 2.0)}),
    "isochoric": (lambda F: (*isochoric_invariants(F), ufl.det(F)), {"I1": (3, 6), "I2": (3, 6), "J": (0.5, 2.0)}),
    "strain": (green, {"E11": (-0.4, 0.6), "E22": (-0.4, 0.6), "E12": (-0.4, 0.4)}),
}

KINDS = pytest.mark.parametrize(
    "kind", ["isochoric", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("invariants", "strain"))]
)


def exact():
    return surrogate.Surrogate.from_module(
        NeoHooke(), {"I1": (2.0, 6.0), "J": (0.5, 2.0), "mu": (0.5, 2.0)}, ("energy",)
    )


def random(ranges, seed=0):
    """A network that was never trained: any law of its measures, and of a temperature."""
    n = len(ranges) + 1
    module = surrogate.MLP(12, 2).build(n, 1, torch.Generator().manual_seed(seed))
    return surrogate.Surrogate.from_module(module, {**ranges, "T": (0.0, 1.0)}, ("energy",))


def block(law_on, dimension, *, comm=MPI.COMM_SELF, counts=(3, 2, 2), **options):
    """A block held at one end and loaded at the other: a parameter of the law, a pull, a load."""
    sides = [[0.0] * dimension, [1.0, 0.7, 0.6][:dimension]]
    create = dolfinx.mesh.create_rectangle if dimension == 2 else dolfinx.mesh.create_box
    mesh = create(comm, sides, counts[:dimension], CELLS[dimension])
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (dimension,)))
    u = dolfinx.fem.Function(space)
    m, pull, load = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 0.1, 0.0))
    law, dx, F = law_on(mesh), ufl.dx(mesh, metadata=RULE), deformation_gradient(u)
    held = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0))
    part = space.sub(0)
    facets = dolfinx.mesh.locate_entities_boundary(mesh, dimension - 1, lambda x: np.isclose(x[0], 1.0))
    pulled = dolfinx.fem.locate_dofs_topological(part, dimension - 1, facets)
    return fem.Problem(
        (law(F, m) - load * u[1]) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(dimension), held, space), dolfinx.fem.dirichletbc(pull, pulled, part)],
        parameters=[
            fem.Scalar("m", m, (0.5, 2.0)),
            fem.Scalar("pull", pull, (-0.1, 0.4)),
            fem.Scalar("load", load, (-0.3, 0.3)),
        ],
        responses=[
            fem.Response("energy", law(F, m) * dx),
            fem.Response("stress", first_piola_kirchhoff(lambda F: law(F, m), F)[0, 0] * dx),
        ],
        **options,
    )


def learned(model, measures, **options):
    return lambda mesh: LearnedEnergy(model, mesh, measures, quadrature_degree=2, **options)


@pytest.mark.slow
@pytest.mark.parametrize("dimension", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_a_network_that_is_the_closed_form_gives_its_values_derivatives_and_newton_steps(dimension):
    x = [1.3, 0.2, 0.1]
    network = block(learned(exact(), first_and_last), dimension)
    closed = block(lambda mesh: lambda F, mu: neo_hooke(F, mu, LAMBDA), dimension)
    for one, other in zip(network.evaluate(x), closed.evaluate(x), strict=True):
        assert one == pytest.approx(other, rel=1e-10, abs=1e-11)
    assert len(network._equilibrium.residuals) == len(closed._equilibrium.residuals)
    if dimension == 2:
        expected = closed.hvp(x, [0.3, 1.0], np.eye(3))
        assert network.hvp(x, [0.3, 1.0], np.eye(3)) == pytest.approx(expected, rel=1e-9, abs=1e-10)


def energy_and_stress(law_on, gradient, T):
    """Of a law in plane strain at a deformation gradient (2, 2), by one element."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1, dolfinx.mesh.CellType.quadrilateral)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    u.interpolate(lambda x: (np.asarray(gradient) - np.eye(2)) @ x[:2])
    law, F = law_on(mesh), deformation_gradient(u)
    T = dolfinx.fem.Constant(mesh, T)
    P = first_piola_kirchhoff(lambda F: law(F, T), F)
    dx = ufl.dx(mesh, metadata=RULE)
    forms = [law(F, T) * dx, *(P[i, j] * dx for i in range(2) for j in range(2)), P[2, 2] * dx]
    expansions = expansions_in(forms)
    for expansion in expansions:
        expansion.prepare()
    refresh(expansions, 2)
    energy, *stress = Functionals([Member(form) for form in map(expand, forms)], mesh).assemble()
    return energy, np.array(stress)


@pytest.mark.slow
@KINDS
def test_energy_and_stress_vanish_without_strain_whatever_was_learned(kind):
    measures, ranges = MEASURES[kind]
    law = learned(random(ranges), measures)
    for T in (0.2, 0.9):
        energy, stress = energy_and_stress(law, np.eye(2), T)
        assert energy == pytest.approx(0.0, abs=1e-14)
        assert stress == pytest.approx(0.0, abs=1e-13)
    _, raw = energy_and_stress(learned(random(ranges), measures, stress_free=False), np.eye(2), 0.2)
    assert np.abs(raw).max() > 1e-3


@pytest.mark.slow
@KINDS
def test_a_rotation_changes_no_energy_and_turns_the_stress(kind):
    measures, ranges = MEASURES[kind]
    law, F = learned(random(ranges), measures), np.array([[1.1, 0.3], [-0.1, 0.9]])
    c, s = np.cos(0.7), np.sin(0.7)
    Q = np.array([[c, -s], [s, c]])
    energy, stress = energy_and_stress(law, F, 0.4)
    turned_energy, turned = energy_and_stress(law, Q @ F, 0.4)
    assert turned_energy == pytest.approx(energy, rel=1e-12)
    assert turned[:4].reshape(2, 2) == pytest.approx(Q @ stress[:4].reshape(2, 2), rel=1e-10, abs=1e-12)
    assert turned[4] == pytest.approx(stress[4], rel=1e-10)


POLYCONVEX = {
    "invariants": MEASURES["invariants"],
    "isochoric": (
        lambda F: ((B := isochoric_invariants(F))[0], B[1] ** 1.5, ufl.det(F)),
        {"I1": (3, 6), "I2": (5, 15), "J": (0.5, 2.0)},
    ),
}


def curvatures(network, measures, ranges, count=60):
    """Second differences of an untrained energy along rank-one lines through random deformations, as parts of it."""
    n = len(ranges) + 1
    module = network.build(n, 1, torch.Generator().manual_seed(2))
    with torch.no_grad():
        for weight in module.parameters():
            weight += 0.3 * torch.randn(weight.shape, dtype=weight.dtype, generator=torch.Generator().manual_seed(3))
    model = surrogate.Surrogate.from_module(module, {**ranges, "T": (0.0, 1.0)}, ("energy",))
    mesh = dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, CELLS[3])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (3,))))
    law = LearnedEnergy(model, mesh, measures, quadrature_degree=2)
    form = law(deformation_gradient(u), 0.3) * ufl.dx(mesh, metadata=RULE)
    expansions, energy = expansions_in([form]), Functionals([Member(expand(form))], mesh)
    for expansion in expansions:
        expansion.prepare()
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        start = rng.uniform(-0.4, 0.4, (3, 3))
        step, values = 0.1 * np.outer(rng.normal(size=3), rng.normal(size=3)), []
        for t in (-1.0, 0.0, 1.0):
            u.interpolate(lambda x, t=t, start=start, step=step: (start + t * step) @ x)
            refresh(expansions, 2)
            values.append(energy.assemble()[0])
        found.append((values[0] - 2 * values[1] + values[2]) / np.abs(values).max())
    return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize("kind", POLYCONVEX)
def test_a_convex_network_of_invariants_is_elliptic_everywhere_and_a_perceptron_is_not(kind):
    convex = surrogate.Convex(surrogate.MLP(8, 2), increasing=(0, 1), free=(3,))
    assert curvatures(convex, *POLYCONVEX[kind]).min() > -1e-12
    assert curvatures(surrogate.MLP(8, 2), *POLYCONVEX[kind]).min() < -1e-3


@pytest.mark.slow
def test_derivatives_of_a_network_that_was_never_trained_pass_a_taylor_test():
    measures, ranges = MEASURES["strain"]
    problem = block(lambda mesh: stabilized(LearnedEnergy(random(ranges), mesh, measures, quadrature_degree=2)), 2)
    report = taylor_test(problem, directions=1)
    assert report.passed, str(report)
    assert min(row.rate for row in report.rows if np.isfinite(row.rate)) >= 1.95


def stabilized(law):
    """A law of a random network that is stable, and of everything that it depends on."""
    return lambda F, m: neo_hooke(F, 1.0, LAMBDA) + 0.05 * law(F, 0.3 + 0.2 * m)


@pytest.mark.slow
def test_states_outside_of_what_was_learned_are_counted_or_refused():
    narrow = surrogate.Surrogate.from_module(
        NeoHooke(), {"I1": (2.0, 3.35), "J": (0.5, 2.0), "mu": (0.5, 2.0)}, ("energy",)
    )
    laws = []

    def law(mesh, **options):
        laws.append(LearnedEnergy(narrow, mesh, first_and_last, quadrature_degree=2, **options))
        return laws[-1]

    problem = block(law, 2)
    with pytest.raises(ValueError, match="was not evaluated yet; solve a problem"):
        laws[0].share_outside()
    problem.evaluate([1.0, 0.05, 0.0], jacobian=False)
    assert laws[0].share_outside() == 0.0
    problem.evaluate([1.0, 0.3, 0.0], jacobian=False)
    assert 0.5 < laws[0].share_outside() <= 1.0
    refusing = block(lambda mesh: law(mesh, outside="refuse"), 2)
    refusing.evaluate([1.0, 0.05, 0.0], jacobian=False)
    with pytest.raises(fem.NotConverged, match=r"of 6 cells of a rank are outside .*, most in 'I1'"):
        refusing.evaluate([1.0, 0.3, 0.0], jacobian=False)


class Doubtful(surrogate.NetworkModule):
    """An energy that knows its standard deviation: what it is wrong by is J times the first input."""

    def forward(self, x):
        return x[:, :1] + 2.0 * x[:, 1:2] ** 2

    def standard_deviation(self, x):
        return x[:, :1] * x[:, 1:2], torch.zeros(len(x), 1, x.shape[1])


@pytest.mark.slow
def test_doubt_is_a_field_at_the_points_that_files_show():
    narrow = {"I1": (2.0, 3.3), "J": (0.9, 1.1)}
    model = surrogate.Surrogate.from_module(Doubtful(), narrow, ("energy",))
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 2, 1, CELLS[2])
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    load, dx = dolfinx.fem.Constant(mesh, 0.3), ufl.dx(mesh, metadata=RULE)
    law, F = LearnedEnergy(model, mesh, first_and_last, quadrature_degree=2), deformation_gradient(u)
    stretch = 0.3 * ufl.SpatialCoordinate(mesh)[0]
    problem = fem.Problem(
        (law(F) + 50.0 * (u[0] - load * stretch) ** 2 + 50.0 * u[1] ** 2) * dx,
        u,
        bcs=[],
        parameters=[fem.Scalar("load", load, (0.0, 4.0))],
        responses=[fem.Response("mean", u[0] * dx)],
        fields={"distance": law.distance(F), "deviation": law.standard_deviation(F)},
    )
    problem.evaluate([3.0])
    first, J = law._function.arguments().T
    found = {e.function.name: e.coefficients[0].x.array[e.nodes] for e in problem._equilibrium.points.expansions}
    expected = np.hypot(np.maximum(first - 3.3, 0) / 1.3, np.maximum(J - 1.1, 0) / 0.2)
    assert expected.max() > 0.1
    assert found["distance from what is known"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
    assert found["standard deviation"] == pytest.approx(first * J, rel=1e-9)
    shown = picture(problem, "distance")
    assert shown.values.max() == pytest.approx(expected.max(), rel=0.5)
    with pytest.raises(ValueError, match="make a field of what is only looked at"):
        fem.Problem(
            law.distance(F) * dx + ufl.inner(u, u) * dx - load * u[0] * dx,
            u,
            bcs=[],
            parameters=[fem.Scalar("load", load, (0.0, 4.0))],
            responses=[fem.Response("mean", u[0] * dx)],
        )
    plain = LearnedEnergy(exact(), mesh, first_and_last, quadrature_degree=2)
    with pytest.raises(TypeError, match="offers no standard deviation"):
        plain.standard_deviation(F, 1.0)


@pytest.mark.slow
def test_a_weight_is_part_of_the_digest():
    measures, ranges = MEASURES["invariants"]
    model = random(ranges)
    first = block(learned(model, measures), 2).digest
    assert block(learned(random(ranges), measures), 2).digest == first
    law = learned(model, measures)
    with torch.no_grad():
        model.module.weights[0][0, 0] += 1e-12
    assert block(law, 2).digest != first


class Power(torch.nn.Module):
    """A power of the sum of what a function makes of the inputs; nothing of it is a weight."""

    def __init__(self, power, function=torch.sin, buffer=1.0):
        super().__init__()
        self.power, self.function = power, function
        self.register_buffer("factor", torch.tensor(buffer), persistent=False)

    def forward(self, x):
        return self.function(x).sum(1, keepdim=True) ** self.power[0] * self.factor


def test_so_is_whatever_else_decides_what_a_module_gives():
    def of(*arguments, **options):
        return digest(surrogate.Surrogate.from_module(Power(*arguments, **options), {"a": (0.0, 1.0)}, ("y",)))

    makes = (lambda v: (v,), lambda v: [v], lambda v: {0: v}, lambda v: np.array([v]), lambda v: torch.tensor([v]))
    for make in makes:
        assert of(make(2.0)) == of(make(2.0)) != of(make(3.0))
    assert of([2.0], buffer=2.0) != of([2.0]) != of([2.0], torch.cos)
    networks = (surrogate.MLP(6, 2, activation=name) for name in ("tanh", "softplus", "sine"))
    modules = [network.build(1, 1, torch.Generator().manual_seed(0)) for network in networks]
    found = {digest(surrogate.Surrogate.from_module(module, {"a": (0.0, 1.0)}, ("y",))) for module in modules}
    assert len(found) == 3


def test_what_does_not_fit_together_is_said():
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    law = LearnedEnergy(exact(), mesh, first_and_last, quadrature_degree=2)
    F = deformation_gradient(dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))))
    with pytest.raises(ValueError, match=r"has parameters \('mu',\) behind its measures, but 0 are given"):
        law(F)
    with pytest.raises(ValueError, match="response is 'stress', expected one of"):
        LearnedEnergy(exact(), mesh, first_and_last, quadrature_degree=2, response="stress")
    with pytest.raises(TypeError, match="expected a Surrogate"):
        LearnedEnergy(NeoHooke(), mesh, first_and_last, quadrature_degree=2)
    with pytest.raises(ValueError, match=r"F has shape \(2, 2\), expected \(3, 3\)"):
        law(ufl.Identity(2), 1.0)
    with pytest.raises(ValueError, match="outside is 'refused'"):
        LearnedEnergy(exact(), mesh, first_and_last, quadrature_degree=2, outside="refused")


def norm_of_strain(F):
    E = 0.5 * (F.T * F - ufl.Identity(3))
    return ufl.sqrt(ufl.inner(E, E)), ufl.det(F)


@pytest.mark.parametrize(
    ("measures", "error", "message"),
    [
        (norm_of_strain, ValueError, "measure 0 has no derivative at F = I"),
        (ufl.det, TypeError, "expected a tuple of scalars"),
        (lambda F: (ufl.det(F), F), TypeError, "expected a tuple of scalars"),
        (lambda F: (ufl.det(F), ufl.SpatialCoordinate(PLANE)[0] * ufl.tr(F)), ValueError, "measure 1 depends on x"),
        (lambda F: (dolfinx.fem.Constant(PLANE, 2.0) * ufl.tr(F),), ValueError, "measure 0 depends on c"),
    ],
)
def test_measures_are_smooth_functions_of_the_deformation_gradient_alone(measures, error, message):
    with pytest.raises(error, match=message):
        LearnedEnergy(exact(), PLANE, measures, quadrature_degree=2)
