"""Posteriors by draws: closed forms and quadrature, on the surrogate and, made right, on the trusted model."""

from dataclasses import dataclass
import sys

import numpy as np
import pytest
import scipy.stats
from toys import TooMuch

from sobofem.coupling import Marginal
from sobofem.coupling.calibration import (
    Measurements,
    Task,
    accept,
    certify,
    delayed_acceptance,
    estimate,
    laplace,
    sample,
    weigh,
)
from sobofem.coupling.calibration.task import Objective


@dataclass
class Banana:
    """Rosenbrock's valley as residuals, in a box that cuts it; `bias` moves and bends it."""

    bias: float = 0.0
    limit: float = np.inf
    parameters = ("a", "b")
    responses = ("along", "across")
    bounds = np.array([[-1.0, 1.5], [-0.6, 1.2]])
    solves: int = 0

    def evaluate(self, x, *, jacobian=True):
        self.solves += 1
        a, b = x
        if a > self.limit:
            raise TooMuch("too far along", 0.9)
        y = np.array([a + self.bias * (0.3 + 0.2 * a), 3.0 * (b - (1.0 + self.bias) * a**2)])
        return y, np.array([[1.0 + 0.2 * self.bias, 0.0], [-6.0 * (1.0 + self.bias) * a, 3.0]]) if jacobian else None


def banana_task(**changes):
    return Task(Measurements(("along", "across"), [0.6, 0.4], [0.4, 0.5]), **changes)


def quadrature(model, task, count=120):
    """Mean, standard deviation and the 2.5 % and 97.5 % points of each parameter of the posterior, by brute force."""
    objective = Objective(model, task)
    middle = (np.arange(count) + 0.5) / count
    grid = np.stack(np.meshgrid(middle, middle, indexing="ij"), axis=-1).reshape(-1, 2)
    density = np.exp([objective.log_posterior(objective.at(u))[0] for u in grid])
    density /= density.sum()
    x = objective.coordinates.x(grid)
    mean = density @ x
    sd = np.sqrt(density @ (x - mean) ** 2)
    sums = [np.cumsum(density.reshape(count, count).sum(axis=1 - k)) for k in (0, 1)]
    axis = objective.coordinates.x(np.stack([middle, middle], axis=1))
    ends = np.array([np.interp([0.025, 0.975], total, axis[:, k]) for k, total in enumerate(sums)])
    return mean, sd, ends


@pytest.fixture(scope="module")
def drawn():
    """Draws on a surrogate with a bias, and the truth on the trusted model by quadrature."""
    surrogate = Banana(bias=0.3)
    posterior = sample(estimate(surrogate, banana_task()), draws=800, tune=200, seed=5)
    return surrogate, posterior, quadrature(Banana(), banana_task())


@pytest.fixture(scope="module")
def few():
    """Draws on that surrogate, few of them."""
    surrogate = Banana(bias=0.3)
    return surrogate, sample(estimate(surrogate, banana_task(), starts=1), draws=200, tune=100, chains=2, seed=5)


@pytest.mark.slow
def test_draws_from_a_banana_cut_by_its_box_are_those_of_quadrature():
    posterior = sample(estimate(Banana(), banana_task()), draws=800, tune=200, seed=2)
    mean, sd, ends = quadrature(Banana(), banana_task())
    error = sd / np.sqrt(posterior.effective)
    assert (np.abs(posterior.mean - mean) < 4.0 * error).all()
    assert np.allclose(posterior.standard_deviation, sd, rtol=0.1)
    assert np.allclose(posterior.interval(), ends, atol=0.25 * sd.max())
    assert (posterior.x >= Banana.bounds[:, 0]).all() and (posterior.x <= Banana.bounds[:, 1]).all()
    assert posterior.rhat.max() < 1.02


@pytest.mark.slow
def test_draws_under_a_normal_prior_are_those_of_quadrature():
    task = banana_task(priors={"a": Marginal("normal", 0.2, 0.3), "b": Marginal("uniform")})
    mean, sd, _ = quadrature(Banana(), task)
    posterior = sample(estimate(Banana(), task), draws=500, tune=200, seed=4)
    assert (np.abs(posterior.mean - mean) < 4.0 * sd / np.sqrt(posterior.effective)).all()


@pytest.mark.slow
def test_draws_of_a_product_under_logarithmic_priors_are_those_of_quadrature():
    @dataclass
    class Product:
        parameters = ("a", "b")
        responses = ("product",)
        bounds = np.array([[0.5, 4.0], [1.0, 8.0]])

        def evaluate(self, x, *, jacobian=True):
            return np.array([x[0] * x[1]]), np.array([[x[1], x[0]]])

    task = Task(Measurements(("product",), [6.0], [1.0]), {"a": Marginal("log"), "b": Marginal("lognormal", 3.0, 0.5)})
    mean, sd, _ = quadrature(Product(), task)
    posterior = sample(estimate(Product(), task), draws=500, tune=200, seed=4)
    assert (np.abs(posterior.mean - mean) < 4.0 * sd / np.sqrt(posterior.effective)).all()


@pytest.mark.slow
def test_unknown_noise_gives_students_distribution():
    """The mean of K normal values of unknown variance: Student's t with K - 1 degrees of freedom."""

    class Constant:
        parameters, responses, bounds = ("level",), ("reading",), np.array([[-50.0, 60.0]])

        def evaluate(self, x, *, jacobian=True):
            return np.asarray(x, dtype=float).copy(), np.eye(1)

    values = np.random.default_rng(1).normal(3.0, 2.0, size=6)
    task = Task(Measurements(("reading",) * 6, values), noise="unknown")
    posterior = sample(estimate(Constant(), task), draws=800, tune=200, seed=3)
    closed = scipy.stats.t(5, loc=values.mean(), scale=values.std(ddof=1) / np.sqrt(6))
    thinned = posterior.spaced(1000)[:, 0]
    assert scipy.stats.kstest(thinned, closed.cdf).pvalue > 1e-3
    assert scipy.stats.kstest(thinned, scipy.stats.norm(closed.mean(), 1.3 * closed.std()).cdf).pvalue < 1e-3


@pytest.mark.slow
def test_the_same_seed_gives_the_same_draws_and_another_seed_others():
    found = estimate(Banana(), banana_task(), starts=1)
    first, again, other = (sample(found, draws=50, tune=50, chains=2, seed=s).x for s in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.slow
def test_solves_at_draws_make_a_biased_surrogates_posterior_the_models(drawn):
    surrogate, posterior, (mean, sd, _) = drawn
    model = Banana()
    accepted = accept(posterior, surrogate, model, solves=2900)
    assert model.solves == accepted.solves == 2900
    wrong, _, _ = quadrature(Banana(bias=0.3), banana_task())
    error = 1.0 / np.sqrt(accepted.effective)  # of a mean, in standard deviations
    assert (np.abs(wrong - mean) / sd).max() > 6.0 * error
    assert (np.abs(posterior.mean - wrong) / sd).max() < 4.0 / np.sqrt(posterior.effective.min())
    assert (np.abs(accepted.mean - mean) / sd).max() < 4.0 * error
    chain = accepted.x[accepted.chain]
    assert (np.abs(chain.mean(axis=0) - mean) / sd).max() < 4.0 * error
    assert np.allclose(accepted.standard_deviation, sd, rtol=0.15)
    assert 0.3 < accepted.accepted < 1.0 and accepted.effective < 2900


@pytest.mark.slow
def test_a_right_surrogate_is_accepted_whole(drawn):
    surrogate, posterior, _ = drawn
    accepted = accept(posterior, surrogate, Banana(bias=0.3), solves=20)
    assert accepted.accepted == 1.0
    assert accepted.effective == pytest.approx(20.0)
    assert np.array_equal(accepted.chain, np.arange(20))
    assert "is the model's" in accepted.verdict()


@pytest.mark.slow
@pytest.mark.parametrize("subchain", [1, 8])
def test_delayed_acceptance_draws_from_the_models_posterior_whatever_the_surrogate(subchain):
    found = estimate(Banana(bias=-0.4), banana_task())
    accepted = delayed_acceptance(found, Banana(), solves=5000 if subchain == 1 else 2000, subchain=subchain, seed=3)
    mean, sd, _ = quadrature(Banana(), banana_task())
    wrong, _, _ = quadrature(Banana(bias=-0.4), banana_task())
    assert (np.abs(wrong - mean) / sd).max() > 0.5
    assert (np.abs(accepted.mean - mean) / sd).max() < 0.15
    assert np.allclose(accepted.standard_deviation, sd, rtol=0.12)


def test_where_the_surrogate_is_the_model_every_candidate_of_its_chains_is_accepted():
    accepted = delayed_acceptance(estimate(Banana(), banana_task()), Banana(), solves=12, subchain=2, seed=3)
    assert accepted.accepted == 1.0


@pytest.mark.slow
def test_draws_on_the_corrected_surrogate_are_accepted_more_often():
    surrogate, model = Banana(bias=0.3), Banana()
    found = estimate(surrogate, banana_task())
    certificate = certify(found, surrogate, model)
    corrected = certificate.corrected(surrogate)
    shares = [
        accept(sample(estimate(m, banana_task()), draws=150, tune=150, seed=1), m, model, solves=200).effective
        for m in (surrogate, corrected)
    ]
    assert shares[1] > shares[0] + 15


@pytest.mark.slow
def test_errors_of_the_surrogate_widen_its_posterior_and_the_models_is_got_back(drawn):
    surrogate, _, (mean, sd, _) = drawn
    blurred = banana_task().with_added_noise(np.array([0.3, 0.2]))
    posterior = sample(estimate(surrogate, blurred), draws=500, tune=200, seed=6)
    assert (
        laplace(estimate(surrogate, blurred)).standard_deviation[0]
        > 1.02 * laplace(estimate(surrogate, banana_task())).standard_deviation[0]
    )
    accepted = accept(posterior, surrogate, Banana(), solves=1800, task=banana_task())
    assert (np.abs(accepted.mean - mean) / sd).max() < 0.15


@pytest.mark.slow
def test_parameters_without_an_answer_have_no_likelihood(few):
    surrogate, posterior = few
    accepted = accept(posterior, surrogate, Banana(limit=0.5), solves=200)
    assert accepted.failures == int((accepted.x[:, 0] > 0.5).sum()) > 0
    assert (accepted.x[accepted.chain, 0] <= 0.5).all()
    assert accepted.interval()[0, 1] <= 0.5
    with pytest.raises(ArithmeticError, match="no answer at any of 20 draws"):
        accept(posterior, surrogate, Banana(limit=-2.0), solves=20)


def test_solves_in_a_dataset_go_on_where_they_were(few, tmp_path):
    surrogate, posterior = few
    model, again = Banana(limit=0.5), Banana(limit=0.9)
    first = accept(posterior, surrogate, model, solves=30, path=tmp_path / "solves.h5")
    second = accept(posterior, surrogate, again, solves=30, path=tmp_path / "solves.h5")
    assert model.solves >= 30 and again.solves == 0
    assert first.failures > 0
    assert np.array_equal(first.weights, second.weights)
    direct = accept(posterior, surrogate, Banana(limit=0.5), solves=30)
    assert np.array_equal(first.weights, direct.weights)
    known = weigh(posterior, surrogate, direct.x, direct.y)
    assert np.array_equal(known.weights, direct.weights)


def test_an_error_of_the_model_comes_out_of_the_sampler():
    class Breaks(Banana):
        broken = False

        def evaluate(self, x, *, jacobian=True):
            if self.broken and self.solves > 100:
                raise ZeroDivisionError("a bug of the model")
            return super().evaluate(x, jacobian=jacobian)

    model = Breaks()
    found = estimate(model, banana_task(), starts=1)
    model.broken = True
    with pytest.raises(ZeroDivisionError, match="a bug of the model"):
        sample(found, draws=50, tune=50, chains=2)
    with pytest.raises(ZeroDivisionError, match="a bug of the model"):
        model.solves = 1000
        sample(found, draws=50, tune=50, chains=2)


def test_chains_that_are_too_short_say_so():
    posterior = sample(estimate(Banana(), banana_task()), draws=20, tune=20, chains=2, seed=1)
    assert any("effective draws" in words for words in posterior.warnings)
    with pytest.raises(ValueError, match="chains 1"):
        sample(estimate(Banana(), banana_task()), chains=1)
    with pytest.raises(ValueError, match="draws were asked for"):
        posterior.spaced(1000)


def test_without_the_sampler_its_name_is_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "nutpie", None)
    with pytest.raises(ModuleNotFoundError, match="nutpie"):
        sample(estimate(Banana(), banana_task(), starts=1))
