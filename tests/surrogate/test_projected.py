"""Families that learn along few directions of many inputs."""

from functools import cache

from contexts import labels_believed
import numpy as np
import pytest
import torch

from sobofem import surrogate
from sobofem.surrogate.families import Kriging, Logarithmic, Projected, Solved
from sobofem.surrogate.families.projected import _along, directions_of, suffice
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.train import targets_of

N, INPUTS = 32, 40
DIRECTIONS = np.linalg.qr(np.random.default_rng(0).normal(size=(INPUTS, 2)))[0].T


def ridge(x):
    """Two responses of two projections, and their Jacobians."""
    a, b = ((2.0 * x - 1.0) @ DIRECTIONS.T).T
    y = np.stack((np.sin(2.0 * a) + b, a * b), 1)
    by_a, by_b = np.stack((2.0 * np.cos(2.0 * a), b), 1), np.stack((np.ones_like(a), a), 1)
    return y, 2.0 * (by_a[:, :, None] * DIRECTIONS[0] + by_b[:, :, None] * DIRECTIONS[1])


@cache
def samples(count=N, seed=1):
    x = np.random.default_rng(seed).uniform(size=(count, INPUTS))
    names, box = [f"x{k}" for k in range(INPUTS)], np.tile([0.0, 1.0], (INPUTS, 1))
    return Samples(x, *ridge(x), names, ["u", "v"], box)


def scaled(data):
    return targets_of(Scaling.from_data(data.bounds, data.y, data.responses), data, device="cpu")


@pytest.fixture(scope="module")
def fitted():
    with labels_believed(), pytest.warns(UserWarning, match="32 points can't span 40 parameters"):
        return surrogate.fit(samples(), families=[Projected(Kriging(iterations=30)), Kriging(most=10**5)])


def test_directions_are_those_along_which_the_responses_change():
    V = directions_of(scaled(samples())).numpy()
    assert V.shape == (2, INPUTS)
    assert np.allclose(V @ V.T, np.eye(2)) and np.allclose(V.T @ V, DIRECTIONS.T @ DIRECTIONS)


@pytest.mark.slow
def test_few_samples_of_many_inputs_are_enough_where_few_directions_matter(fitted):
    unseen = samples(200, seed=2)
    y, jacobian = fitted.predict(unseen.x)
    assert np.abs(y - unseen.y).max() < 0.02 * unseen.y.std()
    assert np.sqrt(np.mean((jacobian - unseen.jacobian) ** 2) / np.mean(unseen.jacobian**2)) < 0.02
    values, slopes = fitted.standard_deviation(unseen.x)
    assert (np.abs(y - unseen.y) <= 2.0 * values).mean() > 0.9 and np.isfinite(slopes).all()


def test_what_sees_all_inputs_is_left_out_where_directions_of_half_the_samples_suffice_and_only_there(fitted):
    assert fitted.provenance["choice"]["dropped"] == {
        "Gaussian process": "responses change along a few directions of the inputs, which projections learn"
    }
    x = samples().x
    y = (x**2).sum(1, keepdims=True)  # changes along all of them
    every = Samples(x, y, 2.0 * x[:, None], samples().parameters, ["u"], samples().bounds)
    assert suffice(scaled(samples())) and not suffice(scaled(every))


def test_what_sees_all_inputs_stays_where_directions_lose_a_hundredth():
    """A product of powers in a small box is all but linear, and exactly so of logarithms."""
    x = np.random.default_rng(3).uniform(0.95, 1.05, (N, INPUTS))
    powers = np.linspace(-1.0, 1.0, INPUTS)
    y = np.exp(np.log(x) @ powers)[:, None]
    data = Samples(x, y, (y * powers / x)[:, None], samples().parameters, ["u"], np.tile([0.95, 1.05], (INPUTS, 1)))
    V, slopes = directions_of(scaled(data)), scaled(data).jacobian
    rest = slopes - slopes @ V.T @ V
    assert rest.norm() <= 1e-2 * slopes.norm() and not suffice(scaled(data))


def test_a_steep_response_hides_the_directions_of_no_other():
    data = samples()
    steep, along = 600.0 * np.cos(300.0 * data.x[:, 0]), np.eye(INPUTS)[0]
    y = np.column_stack((data.y[:, 0], 2.0 * np.sin(300.0 * data.x[:, 0])))
    jacobian = np.stack((data.jacobian[:, 0], steep[:, None] * along), 1)
    V = directions_of(scaled(Samples(data.x, y, jacobian, data.parameters, ["u", "v"], data.bounds))).numpy()
    assert V.shape == (3, INPUTS) and np.allclose(DIRECTIONS @ V.T @ V, DIRECTIONS)


def test_slopes_are_the_derivatives_and_survive_a_file(fitted, tmp_path):
    x = torch.rand(3, INPUTS, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    _, slopes = fitted.module.value_and_jacobian(x)
    own = torch.autograd.functional.jacobian(lambda z: fitted.module(z).sum(0), x).transpose(0, 1)
    assert torch.allclose(slopes, own)
    fitted.save(tmp_path / "s.safetensors")
    again = surrogate.load(tmp_path / "s.safetensors")
    for found, wanted in zip(again.predict(samples().x), fitted.predict(samples().x), strict=True):
        assert np.array_equal(found, wanted)


@pytest.mark.slow
def test_projections_are_among_the_families_from_20_inputs_on():
    projections = {"shallow network of projections", "Gaussian process of projections"}
    with pytest.warns(UserWarning, match="32 points can't span 40 parameters|was learned"):  # in no time
        model = surrogate.fit(samples(), budget=1e-6)
    assert projections <= set(model.provenance["budget"]["missed"]) | set(model.provenance["choice"]["shares"])


@pytest.mark.bench
@pytest.mark.slow
def test_with_no_settings_they_learn_it():
    with pytest.warns(UserWarning, match="32 points can't span 40 parameters"):
        model = surrogate.fit(samples())  # doubts and all
    shares = model.provenance["choice"]["shares"]
    assert set(shares) <= {"shallow network of projections", "Gaussian process of projections"}
    unseen = samples(200, seed=2)
    assert np.abs(model.predict(unseen.x)[0] - unseen.y).max() < 0.02 * unseen.y.std()


def with_gaps(share, seed=4):
    """Samples of whose slopes this share is missing."""
    data = samples()
    holes = np.where(np.random.default_rng(seed).random(data.jacobian.shape) < share, np.nan, data.jacobian)
    return Samples(data.x, data.y, holes, data.parameters, ["u", "v"], data.bounds, missing=True)


@pytest.mark.parametrize("share", [1e-3, 0.3, 0.7])
def test_slopes_with_gaps_show_the_same_directions(share):
    gaps = scaled(with_gaps(share))
    V = directions_of(gaps).numpy()
    assert V.shape == (2, INPUTS) and np.allclose(V @ V.T, np.eye(2))
    assert np.abs(V.T @ V - DIRECTIONS.T @ DIRECTIONS).max() < 1e-3
    assert not Projected(Kriging()).reason_to_skip(gaps) and suffice(scaled(with_gaps(1e-3)))


def test_slopes_along_the_directions_are_those_without_gaps_or_missing():
    """Where what is there shows them; a sample with one slope tells nothing of two directions."""
    data = with_gaps(0.3)
    data.jacobian[5, 0, 1:] = np.nan
    V = torch.from_numpy(DIRECTIONS)
    found, full = _along(V, scaled(data)), _along(V, scaled(samples()))
    there = found.presence[..., 0] > 0.0
    assert not there[5, 0] and int((~there).sum()) == 1
    assert torch.allclose(found.jacobian[there], full.jacobian[there])
    assert torch.equal(found.jacobian[5, 0], torch.zeros(2, dtype=torch.float64))


def test_few_samples_with_gaps_are_learned_as_well():
    family = Projected(Kriging(starts=(-13.0,), iterations=20))
    learned = family.learn(scaled(with_gaps(0.3)), seed=0, progress=lambda found: None)
    known, unseen = samples(), samples(200, seed=2)
    unseen = targets_of(Scaling.from_data(known.bounds, known.y, known.responses), unseen, device="cpu")
    with torch.no_grad():
        assert float((learned.module(unseen.x) - unseen.y).abs().max()) < 0.02


def test_projections_are_refused_where_there_are_few_inputs_or_no_slopes():
    data = samples()
    few = Samples(data.x[:, :19], data.y, data.jacobian[..., :19], data.parameters[:19], ["u", "v"])
    assert Projected(Solved()).reason_to_skip(scaled(few)) == "19 inputs, fewer than 20"
    nothing = Samples(data.x, data.y, None, data.parameters, ["u", "v"])
    assert "there are none" in Projected(Solved()).reason_to_skip(scaled(nothing))
    with pytest.raises(TypeError, match="given physical units"):
        Projected(Logarithmic(Kriging()))
