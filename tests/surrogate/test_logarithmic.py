"""Surrogates of logarithms: power laws are linear there, and the way there and back is exact."""

import numpy as np
import pytest
from scipy.stats import qmc
import torch
from torch.func import jacrev, vmap

from sobofem import surrogate
from sobofem.surrogate.families import Kriging, Logarithmic, Solved
from sobofem.surrogate.families.logarithmic import LogarithmicModule, between, input_axes, output_axes
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.train import scaled_targets

pytestmark = pytest.mark.usefixtures("labels_believed")

PROCESS = Kriging(starts=(-7.0,), iterations=60)
BOUNDS = np.array([[0.5, 4.0], [-9.0, -2.0], [-1.0, 2.0]])  # positive, negative, both
NAMES = ("load", "depth", "angle")
RESPONSES = ("power", "negative", "both")


def truth(x):
    """A power law, a negative response, and one of both signs (N, 3), with Jacobian (N, 3, 3)."""
    a, b, c = x.T
    e = np.exp(0.3 * c)
    y = np.stack([a**2 * np.abs(b) ** -1.5 * e, -(a**-0.5) * np.abs(b), a * np.sin(c)], 1)
    zero = np.zeros_like(a)
    rows = [
        [2 * y[:, 0] / a, -1.5 * y[:, 0] / b, 0.3 * y[:, 0]],
        [-0.5 * y[:, 1] / a, y[:, 1] / b, zero],
        [np.sin(c), zero, a * np.cos(c)],
    ]
    return y, np.stack([np.stack(row, 1) for row in rows], 1)


def samples(count, seed=0, responses=3):
    x = np.random.default_rng(seed).uniform(*BOUNDS.T, (count, 3))
    y, jacobian = truth(x)
    return Samples(x, y[:, :responses], jacobian[:, :responses], NAMES, RESPONSES[:responses], BOUNDS)


def scaled(data):
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    return scaling, scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu")


class Straight(NetworkModule):
    """A linear map that says how far it is off."""

    def __init__(self, matrix, deviation=0.0, of_slopes=0.0):
        super().__init__()
        self.matrix, self.deviation, self.of_slopes = matrix, deviation, of_slopes

    def forward(self, x):
        return x @ self.matrix.T

    def disagreement(self, x):
        return x.new_full((len(x), 3), self.deviation), x.new_full((len(x), 3, 3), self.of_slopes)


def module(data, inner):
    scaling, targets = scaled(data)
    return LogarithmicModule.around(inner, input_axes(scaling, targets.x), output_axes(scaling, targets.y)), targets


def test_only_what_keeps_to_one_side_of_zero_is_taken_the_logarithm_of():
    found, _ = module(samples(20), Straight(torch.eye(3, dtype=torch.float64)))
    assert found.inputs.sign.tolist() == [1.0, -1.0, 0.0]
    assert found.outputs.sign.tolist() == [1.0, -1.0, 0.0]


def test_labels_are_those_of_a_function_of_logarithms():
    """Exponents are the slopes, but for the widths of the axes."""
    data = samples(30)
    scaling, targets = scaled(data)
    inputs, outputs = input_axes(scaling, targets.x), output_axes(scaling, targets.y)
    inside = between(inputs, outputs, targets)
    slope = inside.jacobian[:, 0, :2] * outputs.width[0] / inputs.width[:2]
    assert slope.numpy() == pytest.approx(np.tile([2.0, -1.5], (30, 1)), rel=1e-12)
    slope = inside.jacobian[:, 1, :2] * outputs.width[1] / inputs.width[:2]
    assert slope.numpy() == pytest.approx(np.tile([-0.5, 1.0], (30, 1)), rel=1e-12)
    assert float(inside.x[:, :2].abs().max()) <= np.sqrt(3.0)
    assert inside.y[:, :2].mean(0).numpy() == pytest.approx(np.zeros(2), abs=1e-12)
    assert inside.jacobian[:, 2, 2].numpy() == pytest.approx(targets.jacobian[:, 2, 2].numpy(), rel=1e-15)


def test_missing_slopes_stay_missing():
    data = samples(10)
    data.jacobian[3, 0, 1] = np.nan
    scaling, targets = scaled(data)
    inside = between(input_axes(scaling, targets.x), output_axes(scaling, targets.y), targets)
    assert inside.presence[3, 0, 1] == 0.0
    assert inside.jacobian[3, 0, 1] == 0.0
    assert bool(torch.isfinite(inside.jacobian).all())


def test_its_jacobian_is_that_of_automatic_differentiation():
    matrix = torch.tensor([[1.0, -0.4, 0.2], [0.3, 0.8, 0.0], [0.5, 0.1, 0.7]], dtype=torch.float64)
    found, targets = module(samples(20), Straight(matrix))
    y, slopes = found.value_and_jacobian(targets.x)
    assert torch.allclose(y, found(targets.x), rtol=1e-14)
    assert torch.allclose(slopes, vmap(jacrev(lambda row: found(row[None])[0]))(targets.x), rtol=1e-12)


def test_deviations_pass_through_the_exponential_to_first_order():
    s, of_slopes, draws = 0.01, 0.02, 40_000
    matrix = torch.tensor([[1.0, -0.4, 0.2], [0.3, 0.8, 0.0], [0.5, 0.1, 0.7]], dtype=torch.float64)
    found, targets = module(samples(5), Straight(matrix, s, of_slopes))
    x = targets.x[:1]
    u, by_input = found.inputs.into(x)
    generator = torch.Generator().manual_seed(0)
    normal = [torch.randn(draws, 3, *more, generator=generator, dtype=torch.float64) for more in ((), (3,))]
    y, by_output = found.outputs.out(u @ matrix.T + s * normal[0])
    slopes = by_output.unsqueeze(2) * (matrix + of_slopes * normal[1]) * by_input.unsqueeze(1)
    with torch.no_grad():
        value, slope = found.disagreement(x)
    assert value[0].numpy() == pytest.approx(y.std(0).numpy(), rel=0.03)
    assert slope[0].numpy() == pytest.approx(slopes.std(0).numpy(), rel=0.03)


@pytest.mark.slow
def test_a_power_law_is_learned_from_few_samples():
    data, unseen = samples(8, responses=2), samples(200, seed=1)
    errors = {}
    for family in (PROCESS, Logarithmic(PROCESS)):
        y, jacobian = surrogate.fit(data, families=[family]).predict(unseen.x)
        errors[family.name] = (
            np.abs(y - unseen.y[:, :2]).max(0) / unseen.y[:, :2].std(0),
            np.abs(jacobian - unseen.jacobian[:, :2]).max((0, 2)) / unseen.jacobian[:, :2].std((0, 2)),
        )
    plain, logarithms = errors.values()
    for kind in range(2):
        assert (logarithms[kind] < 1e-3 * plain[kind]).all(), errors


@pytest.mark.slow
def test_fit_takes_it_response_by_response():
    """Products to one family, a response of both signs to whatever suits it."""
    choice = surrogate.fit(samples(10), families=[PROCESS, Logarithmic(PROCESS)]).provenance["choice"]
    for response in ("power", "negative"):
        assert choice["weights"][response]["Gaussian process of logarithms"] > 0.9


def test_it_is_no_use_where_everything_changes_sign():
    x = np.random.default_rng(0).uniform(-1.0, 1.0, (12, 2))
    data = Samples(x, x[:, :1], np.tile([[[1.0, 0.0]]], (12, 1, 1)), ("a", "b"), ("y",), np.array([[-1.0, 1.0]] * 2))
    with pytest.raises(ValueError, match="no input and no response keeps to one side of zero"):
        surrogate.fit(data, families=[Logarithmic(Kriging())])


@pytest.mark.parametrize("high", [17.0, 492.0, 10_000.0])
@pytest.mark.parametrize("share", [0.0, 1e-9, 1e-3, 0.01])
def test_an_input_that_comes_near_zero_is_left_as_it_is(high, share):
    """Near its bound logarithms would spread without end, and no sample would tell."""
    bounds = np.array([[share * high, high]])
    x = bounds[:, 0] + np.ptp(bounds, axis=1) * (np.arange(16)[:, None] + 0.5) / 16
    scaling = Scaling.from_data(bounds, x, ("y",))
    targets = scaled_targets(scaling, x, x, None, device="cpu")
    assert input_axes(scaling, targets.x).sign.tolist() == [0.0]


def test_an_input_whose_samples_are_drawn_by_its_logarithm_is_taken_the_logarithm_of():
    bounds = np.array([[1e-3, 1e3]])
    x = np.exp(np.linspace(*np.log(bounds[0]), 16))[:, None]
    scaling = Scaling.from_data(bounds, x, ("y",))
    assert input_axes(scaling, scaled_targets(scaling, x, x, None, device="cpu").x).sign.tolist() == [1.0]


@pytest.mark.slow
def test_at_a_bound_of_zero_nothing_goes_astray():
    """A response with an offset: a product only where the load is large."""
    names, bounds = ("load", "stiffness"), np.array([[0.0, 10_000.0], [1.0, 3.0]])
    x = bounds[:, 0] + np.ptp(bounds, axis=1) * qmc.Sobol(2, seed=1).random(16)
    y = ((2000.0 + x[:, 0]) / x[:, 1])[:, None]
    jacobian = np.stack([1 / x[:, 1], -y[:, 0] / x[:, 1]], 1)[:, None]
    fitted = surrogate.fit(Samples(x, y, jacobian, names, ("y",), bounds), families=[PROCESS, Logarithmic(PROCESS)])
    edge = np.stack([np.zeros(9), np.linspace(1.0, 3.0, 9)], 1)
    assert fitted.predict(edge)[0][:, 0] == pytest.approx(2000.0 / edge[:, 1], rel=0.05)


def test_logarithms_of_logarithms_are_refused():
    with pytest.raises(TypeError, match="can't learn inside another family"):
        Logarithmic(Logarithmic(Kriging()))


def test_without_a_scaling_it_says_what_is_missing():
    _, targets = scaled(samples(8))
    with pytest.raises(ValueError, match="does not know where zero is"):
        Logarithmic(Kriging()).reason_to_skip(targets)


@pytest.mark.slow
def test_near_zero_and_beyond_it_stays_finite():
    fitted = surrogate.fit(samples(8, responses=2), families=[Logarithmic(Solved(units=8, members=1, iterations=20))])
    far = np.array([[0.0, 1.0, 0.0], [-5.0, 0.0, 3.0]])
    y, jacobian = fitted.predict(far, extrapolate=True)
    assert np.isfinite(y).all() and np.isfinite(jacobian).all()


@pytest.fixture(scope="module")
def mixed():
    parts = Kriging(starts=(-7.0,), iterations=20), Solved(units=8, members=1, iterations=10)
    return surrogate.fit(samples(8, responses=1), families=[Logarithmic(part) for part in parts])


@pytest.mark.slow
def test_it_is_saved_and_loaded(mixed, tmp_path):
    mixed.save(tmp_path / "model.safetensors")
    again = surrogate.load(tmp_path / "model.safetensors")
    x = samples(5, seed=2).x
    for mine, theirs in zip(mixed.predict(x), again.predict(x), strict=True):
        assert (mine == theirs).all()


@pytest.mark.slow
@pytest.mark.parametrize(("ending", "precision"), [(".onnx", "float32"), (".pt2", "float64")])
def test_it_is_exported(tmp_path, ending, precision):
    """Which runs the program, and compares. Products with Hessians are traced longest, so for one of them."""
    process = Kriging(starts=(-7.0,), iterations=10)
    alone = surrogate.fit(samples(8, responses=1), families=[Logarithmic(process)])
    surrogate.export_model(alone, tmp_path / f"model{ending}", precision=precision, hessian=ending == ".pt2")


def test_hessian_products_are_left_out():
    _, targets = scaled(samples(8))
    with_actions = Targets(targets.x, targets.y, targets.jacobian, targets.x, targets.jacobian)
    scaling, _ = scaled(samples(8))
    assert between(input_axes(scaling, targets.x), output_axes(scaling, targets.y), with_actions).actions is None
