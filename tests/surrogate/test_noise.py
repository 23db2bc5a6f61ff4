"""Noise of unknown size in the labels: what is estimated of it, and what that is worth."""

from dataclasses import replace

from analytic import sample
import numpy as np
import pytest
import torch

from sobofem.surrogate import LBFGS, MLP, Adam, Kriging, PerChannel, Solved, fit, load, train
from sobofem.surrogate.samples.scaling import Scaling, noise_record
from sobofem.surrogate.weighting import Guarded, LearnedLikelihood, ProfiledLikelihood, Until

BOUNDS = [[0.0, 1.0], [10.0, 14.0], [-2.0, 0.0]]
OF_VALUES, OF_SLOPES = 0.05, 0.1
EACH = ProfiledLikelihood(groups="inputs")


SHORT = (Adam(100), LBFGS(400))


def hill(x):
    a, b, c = (x - torch.tensor([0.5, 12.0, -1.0])) / torch.tensor([0.5, 2.0, 1.0])
    return torch.stack([30.0 * (torch.sin(a + b) + 0.8 * c + 0.3 * b * c)])


@pytest.fixture(scope="module")
def clean():
    return sample(hill, BOUNDS, 48, seed=0)


@pytest.fixture(scope="module")
def truth(clean):
    """Standard deviations of the noise of values (m,) and of slopes (m, n), each a share of its channel's size."""
    return OF_VALUES * clean.y.std(axis=0), OF_SLOPES * np.sqrt((clean.jacobian**2).mean(axis=0))


@pytest.fixture(scope="module")
def noisy(clean, truth):
    rng = np.random.default_rng(1)
    y, jacobian = (
        part + size * rng.standard_normal(part.shape)
        for part, size in zip((clean.y, clean.jacobian), truth, strict=True)
    )
    return replace(clean, y=y, jacobian=jacobian)


def estimated(surrogate):
    noise = surrogate.provenance["noise"]
    slopes = [[noise["slopes"][q][p] for p in surrogate.parameters] for q in surrogate.responses]
    return np.array([noise["values"][q] for q in surrogate.responses]), np.array(slopes)


def within(found, truth, factor):
    """Whether all are as large as the truth but for a factor."""
    ratios = np.concatenate([(part / wanted).ravel() for part, wanted in zip(found, truth, strict=True)])
    return ratios.max() < factor and ratios.min() > 1.0 / factor


@pytest.fixture(scope="module")
def stopped(noisy):
    return train(noisy, network=MLP(24, 2), weighting=EACH, validation=0.2, optimizers=SHORT)


@pytest.mark.slow
def test_a_likelihood_with_held_out_samples_knows_the_noise_but_for_a_factor_of_one_and_a_half(stopped, truth):
    assert within(estimated(stopped), truth, 1.5)


@pytest.mark.slow
def test_a_gaussian_process_knows_the_noise_but_for_a_factor_of_one_and_a_half(noisy, truth):
    surrogate = fit(noisy, families=(Kriging(starts=(-7.0,)),))
    assert within(estimated(surrogate), truth, 1.5)


def test_a_network_that_was_not_stopped_claims_no_noise(noisy):
    """It fits some of the noise, and what is left of it tells too little."""
    fitted = train(noisy, network=MLP(4, 1), weighting=EACH, optimizers=(Adam(5),))
    assert "noise" not in fitted.provenance


@pytest.mark.parametrize("weighting", [EACH, LearnedLikelihood(), Until(EACH, 3), Guarded(EACH)])
def test_every_likelihood_has_the_residuals_of_what_was_trained(noisy, weighting):
    """Whatever its own weights have come to: the noise levels that make the labels likeliest, the network given."""
    surrogate = train(noisy, network=MLP(6, 1), weighting=weighting, optimizers=(Adam(20),), validation=0.25)
    values, slopes = estimated(surrogate)
    of_values, of_slopes = (
        np.sqrt(np.mean(np.square(found - wanted), axis=0))
        for found, wanted in zip(surrogate.predict(noisy.x), (noisy.y, noisy.jacobian), strict=True)
    )
    assert np.allclose(values, of_values, rtol=1e-9)
    if "inputs" in repr(weighting):
        assert np.allclose(slopes, of_slopes, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_other_weightings_and_families_claim_no_noise(noisy):
    plain = train(noisy, network=MLP(4, 1), weighting=PerChannel(), optimizers=(Adam(5),), validation=0.25)
    assert "noise" not in plain.provenance
    assert "noise" not in fit(noisy, families=(Solved(units=8, members=1, iterations=10),)).provenance


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_noise_is_read_back_in_physical_units(noisy, tmp_path):
    surrogate = fit(noisy, families=(Kriging(starts=(-7.0,), iterations=10),))
    surrogate.save(tmp_path / "a.safetensors")
    assert load(tmp_path / "a.safetensors").provenance["noise"] == surrogate.provenance["noise"]
    scaling = Scaling(np.zeros(2), np.array([10.0, 0.1]), np.zeros(1), np.array([3.0]))
    record = noise_record(np.array([[2.0, 1.0, np.nan]]), scaling, ("a", "b"), ("q",))
    assert record == {"values": {"q": 6.0}, "slopes": {"q": {"a": pytest.approx(0.3), "b": None}}}


@pytest.mark.usefixtures("labels_believed")
def test_slopes_without_labels_have_no_noise(noisy):
    jacobian = noisy.jacobian.copy()
    jacobian[:, :, 1] = np.nan
    lacking = replace(noisy, jacobian=jacobian, missing=True)
    brief = Kriging(starts=(-7.0,), iterations=5)
    for surrogate in (
        fit(lacking, families=(brief,)),
        train(lacking, network=MLP(4, 1), weighting=EACH, optimizers=(Adam(5),), validation=0.25),
    ):
        values, slopes = estimated(surrogate)
        assert np.isfinite(values).all() and np.isfinite(slopes[:, [0, 2]].astype(float)).all()
        assert (slopes[:, 1] == None).all()  # noqa: E711
