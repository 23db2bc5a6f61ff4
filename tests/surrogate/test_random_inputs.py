"""Inputs that vary together, measured by their covariance, and responses by their size: against known functions."""

from dataclasses import dataclass

import numpy as np
import pytest

from sobofem.surrogate import LBFGS, MLP, FieldSamples, Samples, fit_field, load, train
from sobofem.surrogate.reduction import (
    ProjectedSurrogate,
    RelativeSurrogate,
    active_subspace,
    by_variance,
    linear_subspace,
    relative,
)
from sobofem.surrogate.selection import field

N_INPUTS = 12
PLACES = np.linspace(0.0, 1.0, N_INPUTS)
COVARIANCE = np.exp(-0.5 * ((PLACES[:, None] - PLACES) / 0.2) ** 2) + 0.01 * np.eye(N_INPUTS)
NAMES = tuple(f"m{j}" for j in range(N_INPUTS))
BOUNDS = np.tile((-8.0, 8.0), (N_INPUTS, 1))
ROWS = np.stack((0.2 * np.exp(-PLACES), 0.1 * np.sin(4 * PLACES)))


def samples(count, seed):
    """y = exp(a) (cos b, sin b) of two sums a, b over the inputs, which are draws of a smooth field."""
    x = np.random.default_rng(seed).standard_normal((count, N_INPUTS)) @ np.linalg.cholesky(COVARIANCE).T
    return Samples(x, *spiral(x), NAMES, ("p", "q"), BOUNDS)


def spiral(x):
    a, b = x @ ROWS.T[:, 0], x @ ROWS.T[:, 1]
    size, cos, sin = np.exp(a), np.cos(b), np.sin(b)
    y = np.stack((size * cos, size * sin), axis=1)
    across = np.stack((-size * sin, size * cos), axis=1)
    return y, y[:, :, None] * ROWS[0] + across[:, :, None] * ROWS[1]


@pytest.mark.parametrize("form", [COVARIANCE, lambda columns: COVARIANCE @ columns], ids=["matrix", "function"])
def test_directions_solve_the_eigenproblem_with_the_precision(form):
    data = samples(30, seed=0)
    found = active_subspace(data, dimension=2, importance=[1.0, 3.0], covariance=form)
    H = np.einsum("m,imj,imk->jk", [1.0, 3.0], data.jacobian, data.jacobian) / 30
    R = np.linalg.inv(COVARIANCE)
    np.testing.assert_allclose(H @ found.lift, R @ found.lift * found.spectrum, atol=1e-9)
    np.testing.assert_allclose(found.lift.T @ R @ found.lift, np.eye(2), atol=1e-9)
    np.testing.assert_allclose(found.project, found.lift.T @ R, atol=1e-7)
    assert np.cov(found.reduced(samples(4000, seed=1).x).T) == pytest.approx(np.eye(2), abs=0.08)
    assert found.unresolved(samples(50, seed=2)).max() < 1e-6


def test_what_a_single_coordinate_leaves_out_is_estimated_for_normal_inputs():
    """y = c s + c' s' with independent s, s' of variance one: the share of the second."""
    root, weights = np.linalg.cholesky(COVARIANCE), np.array([1.0, 0.25])
    rows = np.linalg.inv(root)[[3, 7]]
    x = np.random.default_rng(5).standard_normal((500, N_INPUTS)) @ root.T
    jacobian = np.tile(weights @ rows, (500, 1, 1))
    data = Samples(x, x @ rows.T @ weights[:, None], jacobian, NAMES, ("y",), BOUNDS)
    first = linear_subspace(root[:, [3]], NAMES, BOUNDS, project=rows[:1])
    whole = active_subspace(data, dimension=1, covariance=COVARIANCE)
    assert whole.unresolved(data)[0] < 1e-6
    assert np.linalg.norm(first.project @ whole.lift) == pytest.approx(1 / np.sqrt(1 + 0.25**2), rel=1e-6)


def test_rows_of_the_user_s_take_the_coordinates_and_must_invert_the_directions():
    values, vectors = np.linalg.eigh(COVARIANCE)
    lift, rows = vectors[:, -3:] * np.sqrt(values[-3:]), (vectors[:, -3:] / np.sqrt(values[-3:])).T
    given = linear_subspace(lift, NAMES, BOUNDS, project=rows)
    x = samples(5, seed=3).x
    np.testing.assert_allclose(given.reduced(x), x @ rows.T)
    with pytest.raises(ValueError, match="project times lift is not the identity"):
        linear_subspace(lift, NAMES, BOUNDS, project=2 * rows)
    with pytest.raises(ValueError, match="scale and covariance are given"):
        active_subspace(samples(9, seed=0), scale=np.ones(N_INPUTS), covariance=COVARIANCE)


def test_sizes_and_directions_have_the_derivatives_of_the_responses():
    data = samples(6, seed=4)
    found, step = relative(data), 1e-6
    assert found.responses == ("log_size", "p", "q")
    np.testing.assert_allclose(np.exp(found.y[:, :1]) * found.y[:, 1:], data.y, rtol=1e-13)
    for j in range(0, N_INPUTS, 3):
        move = step * np.eye(N_INPUTS)[j]
        ahead, behind = (
            relative(Samples(data.x, data.y + sign * data.jacobian @ move, None, NAMES, ("p", "q"), BOUNDS)).y
            for sign in (1, -1)
        )
        np.testing.assert_allclose(found.jacobian[:, :, j], (ahead - behind) / (2 * step), rtol=1e-6, atol=1e-8)
    nothing = Samples(data.x, data.y * np.arange(6)[:, None], None, NAMES, ("p", "q"), BOUNDS)
    with pytest.raises(ValueError, match="not all of them zero"):
        relative(nothing)


class Exact:
    """Size and direction themselves in the place of a surrogate."""

    parameters, bounds, responses = NAMES, BOUNDS, ("log_size", "p", "q")

    def predict(self, x, *, jacobian=True, extrapolate=False):
        found = relative(Samples(x, *spiral(x), NAMES, ("p", "q"), BOUNDS))
        return found.y, found.jacobian

    def standard_deviation(self, x, *, extrapolate=False):
        return np.tile([1e-3, 2e-3, 3e-3], (len(x), 1)), np.full((len(x), 3, N_INPUTS), 1e-3)

    def save(self, path):
        raise NotImplementedError


def test_responses_come_back_from_size_and_direction_with_derivatives_and_deviations():
    data, model = samples(8, seed=6), RelativeSurrogate(Exact())
    y, jacobian = model.predict(data.x)
    np.testing.assert_allclose(y, data.y, rtol=1e-12)
    np.testing.assert_allclose(jacobian, data.jacobian, atol=1e-12)
    rng, (found, _) = np.random.default_rng(0), Exact().predict(data.x)
    noisy = found + np.array([1e-3, 2e-3, 3e-3]) * rng.standard_normal((20_000, 8, 3))
    spread = (np.exp(noisy[..., :1]) * noisy[..., 1:]).std(axis=0)
    np.testing.assert_allclose(model.standard_deviation(data.x)[0], spread, rtol=0.03)
    with pytest.raises(ValueError, match="expected 'log_size': train it on relative"):
        RelativeSurrogate(model)


@pytest.mark.slow
def test_an_exponential_of_few_directions_is_learned_by_its_size_and_read_back(tmp_path):
    data, unseen = samples(30, seed=7), samples(40, seed=8)
    subspace = active_subspace(data, dimension=2, covariance=COVARIANCE)
    sized = relative(subspace.reduce(data))
    network = train(sized, network=MLP(12, 2), weighting=by_variance(sized), optimizers=(LBFGS(300),))
    model = ProjectedSurrogate(subspace, RelativeSurrogate(network))
    y, jacobian = model.predict(unseen.x, extrapolate=True)
    errors = np.linalg.norm(y - unseen.y, axis=1) / np.linalg.norm(unseen.y, axis=1)
    assert np.median(errors) < 0.02
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors").predict(unseen.x, extrapolate=True)
    assert np.array_equal(again[0], y) and np.array_equal(again[1], jacobian)


def field_samples(count, seed):
    """Fields of 40 values, whose two coefficients are those of `samples`."""
    data, places = samples(count, seed), np.linspace(0.0, np.pi, 40)
    shapes = np.stack((np.sin(places), np.cos(3 * places)))
    return FieldSamples(data.x, data.y @ shapes, shapes.T @ data.jacobian, NAMES, BOUNDS, "u", {"u": "mm"})


@pytest.fixture
def short(monkeypatch):
    """Trainings of a few steps, where what is learned does not matter."""
    monkeypatch.setattr(field, "QUICK", (LBFGS(5),))
    monkeypatch.setattr(field, "LONG", (LBFGS(5),))


@pytest.mark.slow
def test_a_field_is_learned_in_one_call_which_says_what_it_chose_and_why(tmp_path):
    data, unseen = field_samples(24, 9), field_samples(40, 10)
    model = fit_field(data, covariance=COVARIANCE)
    u, slopes = model.predict(unseen.x, jacobian=True, extrapolate=True)
    errors = np.linalg.norm(u - unseen.fields, axis=1) / np.linalg.norm(unseen.fields, axis=1)
    assert np.median(errors) < 0.02
    off = np.linalg.norm(slopes - unseen.jacobian, axis=(1, 2)) / np.linalg.norm(unseen.jacobian, axis=(1, 2))
    assert np.median(off) < 0.05
    choice = model.provenance["choice"]
    assert "size and direction of 2 coordinates" in choice["taken"]
    assert choice["because"] == "what the coordinates don't see is less than half of the error"
    assert len(choice["tried"]) == 2
    model.save(tmp_path / "u.safetensors")
    again = load(tmp_path / "u.safetensors")
    assert np.array_equal(again.predict(unseen.x, extrapolate=True)[0], u)
    assert again.provenance["choice"] == choice


def test_units_of_few_inputs_make_no_difference_to_what_is_chosen():
    rng, units = np.random.default_rng(4), np.array([2.0**-10, 2.0**17])
    x, A = rng.uniform(-1.0, 1.0, (12, 2)), rng.standard_normal((30, 2))
    y, slopes = np.sin(x @ A.T), np.cos(x @ A.T)[:, :, None] * A
    names, box = ("thickness", "modulus"), np.tile((-1.0, 1.0), (2, 1))
    one = fit_field(FieldSamples(x, y, slopes, names, box, "u"))
    other = fit_field(FieldSamples(x * units, y, slopes / units, names, box * units[:, None], "u"))
    assert other.provenance["choice"] == one.provenance["choice"]
    assert other.predict(x[:3] * units)[0] == pytest.approx(one.predict(x[:3])[0], abs=1e-9)


@pytest.mark.slow
def test_fields_without_derivatives_are_learned_from_all_inputs_and_those_that_vanish_as_they_are(short):
    data = field_samples(20, 11)
    plain = FieldSamples(data.x, data.fields, None, NAMES, BOUNDS, "u")
    assert "all inputs" in fit_field(plain).provenance["choice"]["taken"]
    vanishing = FieldSamples(data.x, data.fields * (np.arange(20) > 0)[:, None], None, NAMES, BOUNDS, "u")
    tried = fit_field(vanishing).provenance["choice"]["tried"]
    assert len(tried) == 1 and tried[0].startswith("coefficients of all inputs")


def test_coordinates_are_doubled_only_while_what_they_do_not_see_counts(monkeypatch):
    """Of 34 inputs that matter alike 16 coordinates leave out more than half of what a training errs, 32 less."""
    rng, n = np.random.default_rng(3), 34
    x, A = rng.standard_normal((20, n)), rng.standard_normal((50, n)) / np.sqrt(n)
    names = (tuple(f"{stem}{j}" for j in range(count)) for stem, count in (("m", n), ("c", 50)))
    data = Samples(x, x @ A.T, np.tile(A, (20, 1, 1)), *names)
    monkeypatch.setattr(field, "_trained", lambda samples, subspace, **_: Linear(A, 8.0 / subspace.dimension))
    search = field._Search(field._split(data, 0), np.eye(n), 0, None)
    best, why = search.best()
    assert [trial.coordinates for trial in search.trials] == [16, 16, 32]
    assert [trial.values for trial in search.trials] == pytest.approx([0.5, 0.5, 0.25])
    assert search.trials[0].unseen > 0.25 and best.unseen <= 0.125
    assert best.coordinates == 32 and "less than half" in why


@dataclass
class Linear:
    """What errs by a known share."""

    matrix: np.ndarray
    share: float

    def predict(self, x, *, extrapolate):
        return (1 + self.share) * x @ self.matrix.T, np.tile((1 + self.share) * self.matrix, (len(x), 1, 1))
