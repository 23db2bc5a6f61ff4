"""Constraints hold everywhere, far from all data too, and in physical units."""

from itertools import permutations

from analytic import sample
import numpy as np
import pytest
import torch
from torch import nn

from sobofem.surrogate import LBFGS, MLP, Adam, train
from sobofem.surrogate.networks import Bounded, Convex, Monotone, Positive, Residual, Separate, Siren, Symmetric
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.networks.bounded import group
from sobofem.surrogate.samples.scaling import Scaling

SCALING = Scaling(np.array([3.0, -1.0, 0.5]), np.array([2.0, 0.1, 7.0]), np.array([40.0, -3.0]), np.array([8.0, 0.02]))


def built(network, *, n=3, m=2, scaling=SCALING, size=1.0):
    """A module in scaled units whose parameters are anything, not small."""
    generator = torch.Generator().manual_seed(4)
    module = network.build(n, m, generator)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn(parameter.shape, dtype=torch.float64, generator=generator), alpha=size)
    if scaling is not None:
        module.set_scaling(scaling)
    return module.requires_grad_(False)


def points(N, n, *, size=1.0, seed=6):
    return size * torch.randn(N, n, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def physical(module, x, scaling=SCALING):
    """Responses and Jacobian in physical units at physical inputs."""
    y, jacobian = value_and_jacobian(module, torch.from_numpy(scaling.scale_x(np.asarray(x))))
    return scaling.unscale_y(y.numpy()), scaling.unscale_jacobian(jacobian.numpy())


@pytest.mark.parametrize("size", [0.1, 1.0, 100.0])
@pytest.mark.parametrize("inner", [MLP(9, 2), Siren(9, 2), Residual(9, 2)], ids=["softplus", "sine", "residual"])
@pytest.mark.parametrize(
    ("low", "high"),
    [((30.0, -3.5), (60.0, -2.99)), (-4.0, 100.0), ((None, -3.5), (41.0, None)), ((0.0, None), None)],
)
def test_bounded_responses_keep_their_physical_limits_far_from_data(inner, low, high, size):
    y, _ = physical(built(Bounded(inner, low, high)), points(500, 3, size=size).numpy())
    for k in range(2):
        lower, upper = (limit[k] if isinstance(limit, tuple) else limit for limit in (low, high))
        slack = 1e-12 * np.abs(y).max()
        assert lower is None or (y[:, k] >= lower - slack).all()
        assert upper is None or (y[:, k] <= upper + slack).all()


def test_positive_responses_are_positive():
    scaling = Scaling(np.zeros(3), np.ones(3), np.array([1e-3, 5e4]), np.array([1e-3, 1e4]))
    y, _ = physical(built(Positive(MLP(9, 2)), scaling=scaling), points(500, 3, size=3.0).numpy(), scaling)
    assert (y >= -1e-15 * scaling.y_scale).all()
    assert (y.min(axis=0) < 0.2 * scaling.y_scale).all()


@pytest.mark.parametrize(("low", "high"), [((20.0, None), None), (None, (47.0, 0.0)), ((20.0, -9.0), (47.0, -2.9))])
def test_bounds_bend_nothing_to_first_order_at_the_mean_of_the_data(low, high):
    class Ramp(nn.Module):
        def forward(self, x):
            return x

    module = Bounded(MLP(), low, high).build(2, 2, torch.Generator())
    module.inner = Ramp()
    module.set_scaling(SCALING)
    y, jacobian = value_and_jacobian(module, torch.zeros(1, 2, dtype=torch.float64))
    torch.testing.assert_close(y, torch.zeros_like(y), rtol=0.0, atol=1e-13)
    torch.testing.assert_close(jacobian[0], torch.eye(2, dtype=torch.float64), rtol=1e-12, atol=1e-13)


def test_limits_far_away_change_nothing():
    near, bounded = built(MLP(7, 2)), built(Bounded(MLP(7, 2), low=-1e9, high=1e9))
    x = points(20, 3)
    for free, bent in zip(value_and_jacobian(near, x), value_and_jacobian(bounded, x), strict=True):
        torch.testing.assert_close(bent, free, rtol=1e-5, atol=1e-6)


def test_a_bounded_network_gives_nothing_before_it_knows_its_scaling():
    module = built(Bounded(MLP(7, 2), low=(-4.0, None)), scaling=None)
    assert module(points(5, 3)).isnan().all()


def test_limits_are_scaled_once_however_often_they_are_told():
    module = built(Bounded(MLP(7, 2), low=-4.0, high=50.0))
    first = module(points(5, 3))
    module.set_scaling(SCALING)
    torch.testing.assert_close(module(points(5, 3)), first, rtol=0.0, atol=0.0)


def test_limits_travel_with_a_change_of_scale():
    """As online training does it: scales of the first samples, then those of more."""
    module, x = built(Bounded(MLP(7, 2), low=(None, -3.3), high=(44.0, None))), points(100, 3, size=5.0)
    after = Scaling(SCALING.x_center, SCALING.x_scale, np.array([41.0, -2.0]), np.array([5.0, 0.4]))
    before = SCALING.unscale_y(module(x).numpy())
    factor = SCALING.y_scale / after.y_scale
    shift = (SCALING.y_center - after.y_center) / after.y_scale
    module.rescale(torch.from_numpy(factor), torch.from_numpy(shift))
    assert np.allclose(after.unscale_y(module(x).numpy()), before, rtol=1e-12)


def test_limits_that_the_data_do_not_keep_are_refused():
    module = Bounded(MLP(), low=-4.0, high=39.0).build(3, 2, torch.Generator())
    with pytest.raises(ValueError, match=r"response 0 has mean 40 in the data, outside its limits \[-4, 39\]"):
        module.set_scaling(SCALING)


def test_limits_that_leave_no_room_or_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"low is 1.0 and high \(2.0, 0.5\); expected finite limits, low before high"):
        Bounded(low=1.0, high=(2.0, 0.5))
    with pytest.raises(ValueError, match="expected as many limits in both"):
        Bounded(low=(1.0, 2.0), high=(2.0, 3.0, 4.0))
    with pytest.raises(ValueError, match="low has 3 limits for 2 responses"):
        Bounded(low=(1.0, None, 2.0)).build(3, 2, torch.Generator())


@pytest.mark.parametrize("limit", [float("nan"), (None, float("nan")), (float("inf"), 0.0), "zero", ("zero", None)])
@pytest.mark.parametrize("side", ["low", "high"])
def test_what_is_no_limit_is_refused(side, limit):
    with pytest.raises(ValueError, match=r"expected finite limits, low before high, or None"):
        Bounded(**{side: limit})


@pytest.mark.parametrize("size", [0.3, 3.0, 300.0])
@pytest.mark.parametrize("inner", [MLP(9, 1), MLP(9, 3), MLP(8, 2, "tanh")], ids=["shallow", "deep", "tanh"])
@pytest.mark.parametrize("wrap", [lambda k: k, lambda k: Bounded(k, low=-4.0, high=90.0), Separate])
def test_monotone_responses_never_turn(wrap, inner, size):
    module = built(wrap(Monotone(inner, increasing=(2,), decreasing=(0,))))
    x = points(300, 3, size=size)
    _, jacobian = physical(module, x.numpy())
    assert (jacobian[:, :, 2] >= 0.0).all()
    assert (jacobian[:, :, 0] <= 0.0).all()
    ahead = x + torch.rand(300, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * torch.tensor(
        [0.0, 0.0, 5.0], dtype=torch.float64
    )
    assert (module(ahead) - module(x) >= -1e-12 * module(x).abs().max()).all()


@pytest.mark.slow
def test_a_monotone_network_stays_so_on_data_that_turn_and_turns_where_it_may():
    def turning(x):
        return x[:1] + 0.5 * torch.sin(5.0 * x[:1]) + torch.sin(3.0 * x[1:])

    data = sample(turning, [[-1.0, 1.0]] * 2, 40, seed=0)
    x = np.random.default_rng(0).uniform(-1.0, 1.0, size=(300, 2))
    free, held = (
        train(data, network=network, optimizers=(Adam(60), LBFGS(150)), decay=1e-6).predict(x)[1][:, 0]
        for network in (MLP(24, 2), Monotone(MLP(24, 2), increasing=(0,)))
    )
    assert free[:, 0].min() < -0.5
    assert held[:, 0].min() >= 0.0
    assert held[:, 1].min() < -1.0 and held[:, 1].max() > 1.0


def test_monotone_networks_refuse_what_they_cannot_hold():
    with pytest.raises(TypeError, match=r"Monotone got a Siren; expected an MLP"):
        Monotone(Siren(), increasing=(0,))
    with pytest.raises(ValueError, match="the activation 'sine' is not monotone"):
        Monotone(MLP(activation="sine"), increasing=(0,))
    for chosen in ({}, {"increasing": (0,), "decreasing": (0,)}, {"increasing": (-1,)}):
        with pytest.raises(ValueError, match="expected at least one input, counted from 0, and none twice"):
            Monotone(**chosen)
    with pytest.raises(ValueError, match="expected inputs from 0 to 2"):
        Monotone(increasing=(3,)).build(3, 1, torch.Generator())


@pytest.mark.parametrize("size", [0.3, 3.0, 30.0])
@pytest.mark.parametrize("depth", [1, 3])
def test_convex_responses_have_no_negative_curvature_but_in_free_inputs(size, depth):
    x = points(300, 3, size=size)
    for network in (Convex(MLP(8, depth), increasing=(0,)), Convex(MLP(8, depth), increasing=(0,), free=(2,))):
        _, jacobian, hessian = built(network).derivatives(x, 2)
        convex = hessian if not network.free else hessian[:, :, :2, :2]
        assert (torch.linalg.eigvalsh(convex) >= -1e-12 * (1.0 + hessian.abs().max())).all()
        assert (jacobian[:, :, 0] >= 0.0).all()
        assert jacobian[:, :, 1].min() < 0.0
        assert not network.free or hessian[:, :, 2, 2].min() < 0.0


def test_convex_networks_refuse_what_they_cannot_hold():
    with pytest.raises(ValueError, match="expected an MLP with the activation 'softplus'"):
        Convex(MLP(activation="tanh"))
    with pytest.raises(ValueError, match="counted from 0, none twice"):
        Convex(increasing=(0,), free=(0,))
    for chosen in ({"free": (0, 1, 2)}, {"increasing": (3,)}):
        with pytest.raises(ValueError, match="of which not all are free"):
            Convex(**chosen).build(3, 1, torch.Generator())


@pytest.mark.parametrize("size", [0.3, 30.0])
def test_symmetric_responses_do_not_change_where_physical_inputs_change_places(size):
    """The bounds of the three inputs differ, so that exchanges in scaled units would be wrong."""
    module = built(Symmetric(MLP(9, 2), swaps=((0, 1), (1, 2))))
    x = points(50, 3, size=size).numpy()
    y, jacobian = physical(module, x)
    for order in permutations(range(3)):
        again, changed = physical(module, x[:, order])
        assert np.allclose(again, y, rtol=1e-12, atol=1e-12 * np.abs(y).max())
        assert np.allclose(changed, jacobian[:, :, order], rtol=1e-10, atol=1e-12 * np.abs(jacobian).max())


def test_without_a_scaling_inputs_change_places_as_they_are():
    module, x = built(Symmetric(MLP(9, 2), swaps=((0, 2),)), n=4, scaling=None), points(20, 4)
    torch.testing.assert_close(module(x[:, [2, 1, 0, 3]]), module(x), rtol=1e-13, atol=1e-14)
    assert not torch.allclose(module(x[:, [0, 2, 1, 3]]), module(x))


def test_pairs_of_inputs_can_change_places_together_only():
    network = Symmetric(MLP(9, 2), permutations=((2, 3, 0, 1),))
    module, x = built(network, n=4, scaling=None), points(20, 4)
    torch.testing.assert_close(module(x[:, [2, 3, 0, 1]]), module(x), rtol=1e-13, atol=1e-14)
    assert not torch.allclose(module(x[:, [2, 1, 0, 3]]), module(x))


@pytest.mark.parametrize(
    ("generators", "size"),
    [([(1, 0, 2)], 2), ([(1, 0, 2), (0, 2, 1)], 6), ([(1, 2, 3, 0)], 4), ([(1, 2, 3, 0), (3, 2, 1, 0)], 8)],
)
def test_swaps_generate_their_group(generators, size):
    members = set(group(generators))
    assert len(members) == size
    assert {tuple(a[k] for k in b) for a in members for b in members} == members


def test_symmetric_networks_refuse_what_is_no_exchange():
    for chosen, message in (
        ({}, "neither swaps nor permutations"),
        ({"swaps": ((1, 1),)}, r"swaps hold \(1, 1\); expected pairs of different inputs"),
        ({"permutations": ((0, 2),)}, r"permutations hold \(0, 2\); expected an order of 0 to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Symmetric(**chosen)
    with pytest.raises(ValueError, match=r"\(0, 3\) exchanges none of 3 inputs; expected inputs from 0 to 2"):
        Symmetric(swaps=((0, 3),)).build(3, 1, torch.Generator())
    with pytest.raises(ValueError, match="more than 720 orders"):
        Symmetric(swaps=tuple((k, k + 1) for k in range(6))).build(7, 1, torch.Generator())
