"""Training on labels that are incomplete, and on those of second order."""

from dataclasses import replace

from analytic import derivative_error, sample, value_error
import numpy as np
import pytest
import torch

from sobofem.surrogate import LBFGS, MLP, Adam, Descent, Fixed, Kriging, Samples, Solved, ValuesOnly, fit, train

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated:FutureWarning")

SHORT = (Adam(20), LBFGS(20))
NET = MLP(12, 2)


def anisotropic(x):
    """Steep across one direction, flat along others."""
    a, b, c, d = x
    return torch.stack(
        [torch.tanh(2.5 * a + 0.4 * b) + 0.2 * c * d, torch.sin(2.0 * a) * torch.cos(1.5 * b) + 0.1 * c**2]
    )


def samples(N, *, seed):
    return sample(anisotropic, [[-1.0, 1.0]] * 4, N, seed=seed)


def with_actions(data, *, seed, function=anisotropic):
    """The samples with actions of the Hessians on random directions."""
    v = np.random.default_rng(seed).standard_normal(data.x.shape) * np.ptp(data.bounds, axis=1)

    def action(x, direction):
        return torch.func.jvp(torch.func.jacrev(function), (x,), (direction,))[1]

    actions = torch.func.vmap(action)(torch.from_numpy(data.x), torch.from_numpy(v)).numpy()
    return replace(data, directions=v, hessian_actions=actions)


@pytest.fixture(scope="module")
def data():
    return samples(16, seed=0)


def test_a_jacobian_with_gaps_is_trained_on_and_is_another_than_the_whole(data):
    jacobian = data.jacobian.copy()
    jacobian[3] = np.nan
    jacobian[8, 1, 2] = np.nan
    missing = train(replace(data, jacobian=jacobian, missing=True), network=NET, optimizers=SHORT)
    full = train(data, network=NET, optimizers=SHORT)
    assert np.isfinite(missing.predict(data.x)[1]).all()
    assert not np.allclose(missing.predict(data.x)[1], full.predict(data.x)[1], rtol=1e-6)


def test_saying_that_labels_may_be_missing_changes_nothing_where_none_is(data):
    ours, theirs = (train(d, network=NET, optimizers=SHORT) for d in (data, replace(data, missing=True)))
    assert np.array_equal(ours.predict(data.x)[1], theirs.predict(data.x)[1])


def test_a_response_without_any_jacobian_is_learned_by_its_values(data):
    jacobian = data.jacobian.copy()
    jacobian[:, 1] = np.nan
    partly = train(replace(data, jacobian=jacobian, missing=True), network=NET, optimizers=SHORT)
    weights = partly.history.weights[-1]
    assert np.isfinite(weights).all() and np.isfinite(partly.history.train).all()
    assert np.isfinite(partly.predict(data.x)[0]).all()


@pytest.mark.slow
def test_half_the_jacobians_are_better_than_none_and_worse_than_all():
    errors = []
    unseen = samples(300, seed=9)
    for share in (0.0, 0.5, 1.0):
        data = samples(24, seed=1)
        jacobian = data.jacobian.copy()
        jacobian[int(share * 24) :] = np.nan
        some = replace(data, jacobian=jacobian, missing=True) if share else replace(data, jacobian=None)
        errors.append(derivative_error(train(some, network=NET, optimizers=(Adam(60), LBFGS(100))), unseen))
    assert errors[0] > 1.2 * errors[1] > 1.2**2 * errors[2]


def test_held_out_samples_may_miss_labels_too(data):
    jacobian = data.jacobian.copy()
    jacobian[::2] = np.nan
    history = train(
        replace(data, jacobian=jacobian, missing=True), network=NET, optimizers=SHORT, validation=0.25
    ).history
    assert np.isfinite(history.validation).all()


@pytest.mark.slow
def test_missing_labels_train_in_batches(data):
    jacobian = data.jacobian.copy()
    jacobian[2:] = np.nan
    history = train(
        replace(data, jacobian=jacobian, missing=True), network=MLP(8, 1), optimizers=(Adam(600, 0.02, batch=4),)
    ).history
    assert history.train[-1] < 0.3 * history.train[0]


def test_nan_by_accident_is_refused(data):
    bad = replace(data, missing=True, jacobian=np.where(np.arange(16)[:, None, None] == 5, np.nan, data.jacobian))
    with pytest.raises(ValueError, match=r"row 5.*say missing=True"):
        train(Samples.of(bad, missing=False))


def test_units_of_the_data_and_lengths_of_directions_do_not_matter(data):
    ours = with_actions(data, seed=3)
    k, c, length = np.array([1e3, 1e-6, 1.0, 7.0]), np.array([1e6, 1e-3]), np.linspace(0.1, 50.0, 16)[:, None]
    theirs = replace(
        ours,
        x=ours.x * k,
        bounds=ours.bounds * k[:, None],
        y=ours.y * c,
        jacobian=ours.jacobian * c[:, None] / k,
        directions=ours.directions * k * length,
        hessian_actions=ours.hessian_actions * length[:, :, None] * c[:, None] / k,
    )
    first, second = (train(d, network=NET, optimizers=(Adam(20),)) for d in (ours, theirs))
    assert first.history.weights.shape == (4, 2, 9)
    assert np.allclose(first.predict(ours.x)[0] * c, second.predict(theirs.x)[0], rtol=1e-6)
    plain = train(data, network=NET, optimizers=(Adam(20),))
    assert not np.allclose(first.predict(ours.x)[0], plain.predict(ours.x)[0], rtol=1e-3)


def test_actions_are_not_looked_at_without_weight_on_derivatives(data):
    curved = with_actions(data, seed=3)
    ours, theirs = (train(d, network=NET, weighting=ValuesOnly(), optimizers=SHORT) for d in (curved, data))
    assert np.array_equal(ours.predict(data.x)[0], theirs.predict(data.x)[0])


@pytest.mark.slow
def test_missing_actions_leave_the_others(data):
    curved = with_actions(data, seed=3)
    actions, directions = curved.hessian_actions.copy(), curved.directions.copy()
    actions[4:], directions[4:] = np.nan, np.nan
    some = replace(curved, hessian_actions=actions, directions=directions, missing=True)
    fitted = train(some, network=NET, weighting=Fixed(1.0, 0.5), optimizers=(Adam(100), LBFGS(100)))
    assert np.isfinite(fitted.history.train).all()
    assert fitted.history.train[-1] < 0.1 * fitted.history.train[0]


@pytest.mark.slow
def test_a_quadratic_is_recovered_from_very_few_samples_with_actions():
    def quadratic(x):
        return (x[0] ** 2 + 0.5 * x[0] * x[1] - 3.0 * x[1])[None]

    bounds = [[-1.0, 2.0], [0.0, 5.0]]
    data = with_actions(sample(quadratic, bounds, 8, seed=0), seed=1, function=quadratic)
    surrogate = train(data, network=MLP(8, 2), optimizers=(LBFGS(300),), decay=1e-7)
    unseen = sample(quadratic, bounds, 200, seed=1)
    assert value_error(surrogate, unseen) < 0.01
    assert derivative_error(surrogate, unseen) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize(("designs", "width"), [(2, 12), pytest.param(5, 32, marks=pytest.mark.bench)])
def test_actions_cut_the_errors_at_few_samples(designs, width):
    """Over some designs, a median of less than two thirds, and never worse."""
    unseen, ratios = samples(300, seed=99), []
    for seed in range(designs):
        data = samples(12, seed=seed)
        first, second = (
            train(d, network=MLP(width, 2), optimizers=(Adam(100), LBFGS(200)), seed=seed)
            for d in (data, with_actions(data, seed=seed + 50))
        )
        ratios.append([error(second, unseen) / error(first, unseen) for error in (value_error, derivative_error)])
    assert (np.median(ratios, axis=0) < 2.0 / 3.0).all()
    assert (np.max(ratios, axis=0) < 1.1).all()


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_fit_learns_from_actions_by_descent():
    """From the same samples, with the same settings: the actions alone make the difference."""
    few, unseen = samples(10, seed=2), samples(300, seed=99)
    families = (Descent(network=MLP(24, 2), members=2, iterations=250),)
    plain, curved = (fit(d, families=families) for d in (few, with_actions(few, seed=7)))
    assert value_error(curved, unseen) < 0.8 * value_error(plain, unseen)
    assert derivative_error(curved, unseen) < 0.8 * derivative_error(plain, unseen)
    assert np.isfinite(curved.standard_deviation(unseen.x)[1]).all()


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_fit_says_so_if_no_family_learns_from_actions(data):
    families = (Solved(units=8, members=1, iterations=60),)
    curved = with_actions(data, seed=3)
    with pytest.warns(
        UserWarning, match=r"hessian_actions are not learned .* \(shallow network\); surrogate\.train and"
    ):
        ignorant = fit(curved, families=families)
    assert np.array_equal(ignorant.predict(data.x)[0], fit(data, families=families).predict(data.x)[0])


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_fit_learns_around_missing_actions(data):
    curved = with_actions(data, seed=3)
    actions, directions = curved.hessian_actions.copy(), curved.directions.copy()
    actions[4:], directions[4:] = np.nan, np.nan
    some = replace(curved, hessian_actions=actions, directions=directions, missing=True)
    brief = Descent(network=MLP(12, 2), members=1, iterations=60)
    assert value_error(fit(some, families=(brief, Kriging(iterations=20))), samples(300, seed=9)) < 0.5
