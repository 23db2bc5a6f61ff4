"""Metals learned from tests of bars: what they give back and dissipate, and derivatives through their history."""

from dataclasses import replace

from mpi4py import MPI
import dolfinx
from dolfinx.fem import Constant
import numpy as np
import pytest
from scipy.optimize import brentq
import torch
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import LearnedPlasticity, taylor_test, train_plasticity
from sobofem.coupling.materials.bar import Bar, Slope
from sobofem.fem.materials import plasticity
from sobofem.surrogate.samples.scaling import Scaling

YOUNG, KINEMATIC, YIELD = 200e3, 4000.0, 250.0  # MPa
CYCLE = fem.LoadPath.cyclic([1.0, -0.8, 1.0], 4)
TIMES = np.arange(1.0, 13.0)
SHORT = fem.LoadPath.cyclic([1.0, -0.8, 1.0], 2)


def potential(name, width, seed):
    """A convex network of chance."""
    network = surrogate.Convex(surrogate.MLP(5, 1))
    module = network.build(1, 1, torch.Generator().manual_seed(seed))
    scaling = Scaling(np.zeros(1), np.array([width]), np.zeros(1), np.array([200.0 * width]))
    found = surrogate.Surrogate.from_module(module, {name: (0.0, width)}, [f"{name} energy"], scaling=scaling)
    return replace(found, network=network)


def law_of_chance(seed, *, viscous):
    rate = potential("viscous", 0.02, seed + 100) if viscous else None
    return LearnedPlasticity(YOUNG, KINEMATIC, YIELD, potential("stored", 0.05, seed), rate)


def wandering(count, points, seed):
    steps = np.random.default_rng(seed).uniform(-0.006, 0.006, (count, points))
    return np.cumsum(steps, axis=1)


def true_stresses(strains, times=None, *, drag=0.0):
    """Of a bar with Voce's and linear kinematic hardening, and an overstress, by a scalar return mapping."""
    durations = np.ones(len(strains)) if times is None else np.diff(times, prepend=0.0)
    plastic, p, found = 0.0, 0.0, []
    for strain, duration in zip(strains, durations, strict=True):
        trial = YOUNG * (strain - plastic) - KINEMATIC * plastic

        def excess(g, trial=trial, p=p, duration=duration):
            hardening = 120.0 * (1 - np.exp(-100.0 * (p + g))) + drag * np.arcsinh(g / duration / 2e-3)
            return abs(trial) - (YOUNG + KINEMATIC) * g - YIELD - hardening

        g = 0.0 if excess(0.0) <= 0.0 else brentq(excess, 0.0, abs(trial) / YOUNG, xtol=1e-18, rtol=1e-14)
        plastic, p = plastic + g * np.sign(trial), p + g
        found.append(YOUNG * (strain - plastic))
    return np.array(found)


def cycles(count, **options):
    """Samples of bars that are pulled to different strains, pushed back and pulled again, with slopes."""

    def at(pull):
        return true_stresses(pull * np.array(CYCLE.points), **options)

    pulls, h = np.linspace(0.003, 0.02, count), 1e-7
    slopes = np.array([(at(pull + h) - at(pull - h)) / (2 * h) for pull in pulls])[:, :, None]
    names = tuple(f"stress_{k}" for k in range(len(CYCLE.points)))
    return surrogate.Samples(pulls[:, None], np.array([at(pull) for pull in pulls]), slopes, ("pull",), names)


def error(law, paths, times=None, **options):
    """Largest error of the stress, as a part of the largest stress."""
    expected = np.array([true_stresses(path, times, **options) for path in paths])
    return np.abs(law.follow(paths, times).stress - expected).max() / np.abs(expected).max()


@pytest.mark.parametrize("viscous", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_no_path_gives_back_more_than_was_put_in_whatever_the_weights_are(seed, viscous):
    law, paths = law_of_chance(seed, viscous=viscous), wandering(20, 30, seed)
    found = law.follow(paths, np.cumsum(np.random.default_rng(seed).uniform(0.01, 2.0, 30)))
    assert (found.dissipated >= 0.0).all() and found.dissipated.max() > 0.1
    put_in = found.stress * np.diff(paths, axis=1, prepend=0.0)
    stored = np.diff(found.energy, axis=1, prepend=0.0)
    # a step of finite size loses more than it dissipates, as potentials are convex
    assert (put_in - stored - found.dissipated >= -1e-10).all()


def test_within_yield_a_bar_is_elastic_and_dissipates_nothing():
    law, strains = law_of_chance(0, viscous=True), 0.99 * YIELD / YOUNG * np.array([CYCLE.points])
    found = law.follow(strains, TIMES)
    assert (found.dissipated == 0.0).all() and (found.plastic == 0.0).all()
    assert found.stress == pytest.approx(YOUNG * strains, rel=1e-12)
    hard, far = replace(law, yield_stress=1e9), wandering(3, 12, 0)
    assert hard.follow(far, TIMES).stress == pytest.approx(YOUNG * far, rel=1e-12)


@pytest.mark.parametrize("viscous", [False, True])
def test_strained_to_the_point_of_yielding_no_bar_dissipates_less_than_nothing(viscous):
    random = np.random.default_rng(0)
    around = 1e-16 * random.integers(-8, 8, (400, 6)) * random.choice([1.0, 10.0, 1000.0], (400, 6))
    paths = YIELD / YOUNG * (1.0 + around) * random.choice([-1.0, 1.0], (400, 1))
    for seed in range(5):
        law = law_of_chance(seed, viscous=viscous)
        followed = law.follow(paths, np.arange(1.0, 7.0) if viscous else None)
        assert (followed.dissipated >= 0.0).all() and (np.diff(followed.accumulated, axis=1, prepend=0.0) >= 0.0).all()


def test_a_bar_without_hardening_follows_the_closed_form():
    flat = potential("stored", 0.05, 0)
    with torch.no_grad():
        for weights in flat.module.parameters():
            weights.zero_()
    law = LearnedPlasticity(YOUNG, KINEMATIC, YIELD, flat)
    tangent = YOUNG * KINEMATIC / (YOUNG + KINEMATIC)
    at_yield = YIELD / YOUNG
    stress = law.follow([[0.01, 0.01 - 1.9 * at_yield, 0.01, 0.02]]).stress[0]
    first = YIELD + tangent * (0.01 - at_yield)
    assert stress == pytest.approx([first, first - 1.9 * YIELD, first, YIELD + tangent * (0.02 - at_yield)], rel=1e-12)


@pytest.mark.parametrize("viscous", [False, True])
def test_slopes_and_gradients_pass_through_the_history(viscous):
    law = law_of_chance(1, viscous=viscous)
    models = [model for model in (law.stored, law.viscous) if model]
    weights = [weight for model in models for weight in model.module.parameters()]
    constants = torch.tensor([YOUNG, KINEMATIC, YIELD], dtype=torch.float64)
    paths, directions = (torch.from_numpy(wandering(4, 10, seed)) for seed in (0, 1))
    durations = torch.linspace(0.3, 1.0, 10, dtype=torch.float64)

    def follow(paths, directions=None):
        slopes = [Slope(model.module, model.scaling.x_scale[0], model.scaling.y_scale[0]) for model in models]
        return Bar(*constants, slopes[0], slopes[1] if viscous else None).follow(paths, durations, directions)

    def total():
        found = follow(paths, directions[:, :, None])
        return (found.stress**2).sum() + (found.slopes**2).sum()

    slopes, h = follow(paths, directions[:, :, None]).slopes[:, :, 0].detach(), 1e-6
    ahead, back = (follow(paths + sign * h * directions).stress.detach() for sign in (1, -1))
    assert ((ahead - back) / (2 * h)).numpy() == pytest.approx(slopes.numpy(), rel=1e-6, abs=1e-2)

    gradients = torch.autograd.grad(total(), weights, allow_unused=True, materialize_grads=True)
    changes = [torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(0)) for w in weights]
    along = sum(float((g * c).sum()) for g, c in zip(gradients, changes, strict=True))
    values = []
    for step in (1e-5, -2e-5):
        with torch.no_grad():
            for weight, change in zip(weights, changes, strict=True):
                weight.add_(step * change)
        values.append(float(total().detach()))
    assert (values[0] - values[1]) / 2e-5 == pytest.approx(along, rel=1e-6)


@pytest.mark.slow
def test_hardening_is_learned_of_cycles_and_holds_on_other_paths():
    law = train_plasticity(cycles(5), np.array(CYCLE.points)[:, None], network=surrogate.MLP(6, 1), iterations=60)
    assert error(law, np.clip(wandering(4, 20, 3), -0.02, 0.02)) < 1e-3
    assert law.young == pytest.approx(YOUNG, rel=1e-4) and law.yield_stress == pytest.approx(YIELD, rel=1e-3)
    assert law.kinematic == pytest.approx(KINEMATIC, rel=1e-3)


@pytest.mark.slow
def test_hardening_and_viscosity_are_learned_together():
    data, network = cycles(5, times=TIMES, drag=20.0), surrogate.MLP(6, 1)
    law = train_plasticity(data, np.array(CYCLE.points)[:, None], times=TIMES, network=network, iterations=25)
    paths = np.clip(wandering(4, 12, 3), -0.02, 0.02)
    assert error(law, paths, 2 * TIMES, drag=20.0) < 2e-3


def body(law, dim, *, viscous):
    """A unit square or cube on planes of symmetry, pulled and pushed along x, with free sides."""
    kind = dolfinx.mesh.CellType
    mesh = (
        dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1, kind.quadrilateral)
        if dim == 2
        else dolfinx.mesh.create_unit_cube(MPI.COMM_SELF, 1, 1, 1, kind.hexahedron)
    )
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (dim,)))
    u, pull, poisson, duration = dolfinx.fem.Function(space), *(Constant(mesh, value) for value in (0.01, 0.3, 0.0))

    def on(axis, place):
        facets = dolfinx.mesh.locate_entities_boundary(mesh, dim - 1, lambda x: np.isclose(x[axis], place))
        return dolfinx.fem.locate_dofs_topological(space.sub(axis), dim - 1, facets)

    before = plasticity.memory(mesh, quadrature_degree=2)
    after = law(plasticity.strain(u), before, poisson=poisson, step=duration)
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 2})
    points = SHORT.points
    path = fem.LoadPath(points, times=TIMES[:6], step=duration) if viscous else SHORT
    return fem.Problem(
        ufl.inner(after.stress, plasticity.strain(ufl.TestFunction(space))) * dx,
        u,
        bcs=[dolfinx.fem.dirichletbc(0.0, on(i, 0.0), space.sub(i)) for i in range(dim)]
        + [dolfinx.fem.dirichletbc(pull, on(0, 1.0), space.sub(0))],
        parameters=[fem.Scalar("pull", pull, (0.005, 0.02)), fem.Scalar("poisson", poisson, (0.2, 0.4))],
        responses=[fem.Response(f"stress_{k}", after.stress[0, 0] * dx, at=k) for k in range(len(points))]
        + [fem.Response("work", after.work * dx, at="sum")],
        path=path,
        history=plasticity.history(before, after),
        local=[before.multiplier],
        newton=fem.Newton(rtol=1e-12, growth=1.0),
    )


@pytest.mark.slow
def test_a_body_under_uniaxial_stress_is_the_bar():
    law = law_of_chance(2, viscous=True)
    y, jacobian = body(law, 3, viscous=True).evaluate([0.012, 0.3])
    strains, h = np.array([SHORT.points]), 1e-6
    stress, ahead, back = (law.follow((0.012 + s * h) * strains, TIMES[:6]).stress[0] for s in (0, 1, -1))
    assert y[:-1] == pytest.approx(stress, rel=1e-8)
    assert jacobian[:-1, 0] == pytest.approx((ahead - back) / (2 * h), rel=1e-5, abs=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("viscous", [False, True])
def test_derivatives_through_unloading_pass_the_taylor_test(viscous):
    problem = body(law_of_chance(3, viscous=viscous), 2, viscous=viscous)
    rates = [row.rate for row in taylor_test(problem, point=[0.012, 0.3], directions=1).rows]
    assert min(rate for rate in rates if np.isfinite(rate)) >= 1.95
    assert 0.0 <= problem.share_outside <= 1.0
    assert problem.digest != body(law_of_chance(4, viscous=viscous), 2, viscous=viscous).digest


@pytest.mark.parametrize("viscous", [False, True])
def test_a_saved_law_is_the_same(tmp_path, viscous):
    law = law_of_chance(0, viscous=viscous)
    law.save(tmp_path / "law.safetensors")
    found, paths = LearnedPlasticity.load(tmp_path / "law.safetensors"), wandering(2, 12, 0)
    for one, other in zip(found.follow(paths, TIMES), law.follow(paths, TIMES), strict=True):
        assert np.array_equal(one, other)


def test_what_can_not_be_learned_or_followed_is_refused():
    law, data = law_of_chance(0, viscous=True), cycles(4)
    along = np.array(CYCLE.points)[:, None]
    with pytest.raises(ValueError, match=r"times are \[\], expected 12 that increase"):
        law.follow(wandering(2, 12, 0))
    with pytest.raises(ValueError, match=r"strains have shape \(1, 12\), expected \(12, 1\)"):
        train_plasticity(data, along.T)
    with pytest.raises(ValueError, match=r"times are .* expected 12"):
        train_plasticity(data, along, times=-TIMES)
    with pytest.raises(ValueError, match="expected a first point of the path"):
        train_plasticity(data, np.vstack([[0.0], along[1:]]))
    with pytest.raises(ValueError, match="yield_stress is -1"):
        replace(law, yield_stress=-1.0)
    with pytest.raises(ValueError, match=r"a potential is a MLP, expected a surrogate.Convex"):
        replace(law, viscous=replace(law.stored, network=surrogate.MLP()))
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    u = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,))))
    before = plasticity.memory(mesh, quadrature_degree=2)
    with pytest.raises(ValueError, match=r"the law has a viscosity; give step=Constant"):
        law(plasticity.strain(u), before, poisson=0.3)
