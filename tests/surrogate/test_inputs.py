"""Few coordinates for many inputs, against functions whose directions are known."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from sobofem.coupling.contract import Model, Products
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.surrogate import LBFGS, MLP, Samples, load, train
from sobofem.surrogate.reduction import (
    FieldSamples,
    FieldSurrogate,
    ProjectedSurrogate,
    active_subspace,
    linear_subspace,
    principal_inputs,
    reduced_basis,
)

N_INPUTS = 60
WIDTHS = np.geomspace(1e-3, 1e3, N_INPUTS)
BOUNDS = np.stack((-0.3 * WIDTHS, 0.7 * WIDTHS), axis=1)
NAMES = tuple(f"m{j}" for j in range(N_INPUTS))
SCALE = WIDTHS / np.sqrt(12)
ROWS = np.random.default_rng(42).standard_normal((2, N_INPUTS)) / np.sqrt(N_INPUTS)  # of W, in scaled inputs
MIDDLE = BOUNDS.mean(axis=1)


def ridge(x, rows=ROWS):
    """y = g(W ξ), two responses of two numbers that sixty inputs of very different units come to."""
    xi = (x - MIDDLE) / SCALE
    s, t = rows @ xi
    y = np.array([np.exp(0.3 * s) + 0.5 * t**2, 50.0 * np.sin(0.6 * s) + 20.0 * t])
    slopes = np.array([[0.3 * np.exp(0.3 * s), t], [30.0 * np.cos(0.6 * s), 20.0]])
    return y, slopes @ rows / SCALE


def ridge_samples(N, *, seed, noise=0.0):
    """Samples of it; with noise, plus a little of a third direction."""
    x = np.random.default_rng(seed).uniform(*BOUNDS.T, size=(N, N_INPUTS))
    y, jacobian = (np.array(part) for part in zip(*map(ridge, x), strict=True))
    if noise:
        xi = (x - MIDDLE) / SCALE
        y = y + noise * np.sin(3 * xi[:, :1])
        jacobian[:, :, 0] += noise * 3 * np.cos(3 * xi[:, :1]) / SCALE[0]
    return Samples(x, y, jacobian, NAMES, ("q0", "q1"), BOUNDS, {"q0": "mm", "m3": "s"})


def sine_of_angles(one, other):
    """Of the principal angles between the row spaces of two matrices."""
    A, B = (np.linalg.qr(rows.T)[0] for rows in (one, other))
    return np.linalg.svd(A - B @ (B.T @ A), compute_uv=False)


@pytest.mark.parametrize("method", ["snapshots", "randomized"])
@pytest.mark.parametrize("settings", [{"dimension": 2}, {"dimension": "gap"}, {"tolerance": 1e-4}])
def test_the_directions_of_a_ridge_function_are_found_exactly(method, settings):
    data = ridge_samples(12, seed=0)
    subspace = active_subspace(data, method=method, **settings)
    assert subspace.dimension == 2
    assert sine_of_angles(subspace.project * SCALE, ROWS).max() < 1e-7
    assert subspace.unresolved(ridge_samples(30, seed=1)).max() < 1e-6


def test_eigenvalues_are_those_of_the_mean_outer_product_of_scaled_gradients():
    data, importance = ridge_samples(40, seed=3, noise=0.2), np.array([1.0, 0.01])
    G = data.jacobian * SCALE
    C = np.einsum("m,imj,imk->jk", importance, G, G) / 40
    found = active_subspace(data, dimension=3, importance=importance)
    values, vectors = np.linalg.eigh(C)
    assert np.allclose(found.spectrum, values[::-1][:3], rtol=1e-8)
    assert sine_of_angles(found.project * SCALE, vectors[:, ::-1][:, :3].T).max() < 1e-6


def test_a_gap_behind_small_but_real_directions_is_seen():
    subspace = active_subspace(ridge_samples(40, seed=3, noise=0.02), dimension="gap")
    assert subspace.dimension in (2, 3)
    assert sine_of_angles(ROWS, subspace.project * SCALE).max() < 0.05


def test_one_response_may_have_a_subspace_of_its_own():
    x = np.random.default_rng(0).uniform(*BOUNDS.T, size=(10, N_INPUTS))
    one, other = ROWS / SCALE
    y = (x - MIDDLE) @ np.stack([one, other]).T
    jacobian = np.broadcast_to(np.stack([one, other]), (10, 2, N_INPUTS))
    data = Samples(x, y, jacobian, NAMES, ("q0", "q1"), BOUNDS)
    assert active_subspace(data, dimension="gap").dimension == 2
    own = active_subspace(data, dimension="gap", response="q1")
    assert own.dimension == 1 and sine_of_angles(own.project * SCALE, ROWS[1:]).max() < 1e-7


def test_project_inverts_lift_and_a_point_of_the_subspace_comes_back():
    subspace = active_subspace(ridge_samples(12, seed=0))
    z = np.random.default_rng(1).uniform(-1, 1, (5, 2))
    assert np.allclose(subspace.reduced(subspace.full(z)), z, atol=1e-12)


def test_reduced_samples_hold_slopes_along_the_coordinates():
    data = ridge_samples(12, seed=0)
    subspace = active_subspace(data)
    reduced = subspace.reduce(data)
    assert reduced.parameters == ("active_1", "active_2") and reduced.units == {"q0": "mm"}
    x, step = data.x[4], 1e-6
    for k, direction in enumerate(subspace.lift.T):
        difference = (ridge(x + step * direction)[0] - ridge(x - step * direction)[0]) / (2 * step)
        assert np.allclose(reduced.jacobian[4, :, k], difference, rtol=1e-6, atol=1e-8)


def test_bounds_of_coordinates_hold_all_samples_and_never_more_than_the_box_can():
    data = ridge_samples(200, seed=0)
    subspace = active_subspace(data)
    z, box = subspace.reduced(data.x), subspace.box(data.x)
    assert (z > box[:, 0]).all() and (z < box[:, 1]).all()
    assert (np.ptp(box, axis=1) < 1.2 * np.ptp(z, axis=0)).all()
    corners = MIDDLE + 0.5 * WIDTHS * np.sign(subspace.project)
    everything = subspace.box(np.concatenate([data.x, corners, 2 * MIDDLE - corners]))
    assert np.allclose(everything[:, 1], np.abs(subspace.project) @ WIDTHS / 2)


def test_the_unresolved_share_bounds_what_other_directions_do_to_a_response():
    """Linear in an inactive input: its share of the deviation is known, and Poincaré's constant is 12/π² of it."""
    data = ridge_samples(4000, seed=5)
    rows = np.linalg.qr(np.concatenate([ROWS, np.eye(N_INPUTS)[:1]]).T)[0].T
    other = rows[2]  # orthogonal to both active rows
    y = data.y + 0.5 * (((data.x - MIDDLE) / SCALE) @ other)[:, None]
    noisy = replace(data, y=y, jacobian=data.jacobian + 0.5 * other / SCALE)
    subspace = active_subspace(data, dimension=2)
    truth = 0.5 / noisy.y.std(axis=0)
    assert np.allclose(subspace.unresolved(noisy), np.sqrt(12) / np.pi * truth, rtol=1e-6)


def test_correlated_inputs_are_whitened_and_the_response_s_directions_found_within():
    rng = np.random.default_rng(0)
    mixing = rng.standard_normal((N_INPUTS, 5)) * WIDTHS[:, None] / 40
    xi = rng.standard_normal((400, 5)).clip(-3, 3)
    x = MIDDLE + xi @ mixing.T
    bounds = np.stack((x.min(axis=0), x.max(axis=0)), axis=1)
    white = principal_inputs(x, NAMES, bounds)
    assert white.dimension == 5
    assert np.allclose(np.cov(white.reduced(x).T, bias=True), np.eye(5), atol=1e-10)
    assert np.allclose(white.full(white.reduced(x)), x, rtol=1e-8, atol=1e-9 * WIDTHS.max())
    direction = rng.standard_normal(N_INPUTS) / WIDTHS
    y = np.tanh((x - MIDDLE) @ direction)[:, None]
    data = Samples(x, y, (1 - y**2)[:, :, None] * direction, NAMES, ("q",), bounds)
    within = active_subspace(white.reduce(data), dimension="gap", scale=np.ones(5))
    whole = white.then(within)
    assert whole.dimension == 1 and whole.parameters == NAMES
    assert np.abs(np.corrcoef(whole.reduced(x)[:, 0], (x - MIDDLE) @ direction)[0, 1]) == pytest.approx(1.0, abs=1e-9)
    assert np.allclose(whole.reduced(x), within.reduced(white.reduced(x)))
    assert np.allclose(whole.full([[0.3]]), white.full(within.full([[0.3]])))


def test_a_basis_of_the_user_s_is_taken_as_it_is():
    directions = np.random.default_rng(3).standard_normal((N_INPUTS, 4)) * WIDTHS[:, None]
    subspace = linear_subspace(directions, NAMES, BOUNDS, center=MIDDLE + 0.1 * WIDTHS)
    z = np.array([[0.1, -0.2, 0.3, 0.05]])
    assert np.allclose(subspace.full(z), MIDDLE + 0.1 * WIDTHS + directions @ z[0])
    assert np.allclose(subspace.reduced(subspace.full(z)), z)
    assert subspace.coordinates == ("coordinate_1", "coordinate_2", "coordinate_3", "coordinate_4")


@dataclass(frozen=True, eq=False)
class Known:
    """`ridge` in the coordinates of a subspace: a surrogate without error."""

    subspace: object
    responses = ("q0", "q1")

    @property
    def parameters(self):
        return self.subspace.coordinates

    @property
    def bounds(self):
        return np.tile([-3.0, 3.0], (2, 1))

    def predict(self, z, *, jacobian=True, extrapolate=False):
        y, dy = (np.array(part) for part in zip(*map(ridge, self.subspace.full(z)), strict=True))
        return y, dy @ self.subspace.lift if jacobian else None

    def standard_deviation(self, z, *, extrapolate=False):
        return np.full((len(z), 2), 0.1), np.full((len(z), 2, 2), 0.2)


@pytest.fixture(scope="module")
def known():
    subspace = active_subspace(ridge_samples(12, seed=0), dimension=2)
    return ProjectedSurrogate(subspace, Known(subspace))


def test_a_projected_surrogate_is_a_model_of_all_inputs(known):
    assert isinstance(known, Model) and isinstance(known, Products)
    x = ridge_samples(4, seed=9).x[1]
    y, dy = checked_evaluation(known, x)
    truth, slopes = ridge(x)
    assert np.allclose(y, truth, rtol=1e-6)
    assert np.allclose(dy * SCALE, slopes * SCALE, rtol=1e-5, atol=1e-6)
    assert known.evaluate(x, jacobian=False)[1] is None
    directions, weights = np.random.default_rng(0).standard_normal((3, N_INPUTS)) * WIDTHS, np.array([[1.0, 0.2]])
    assert np.allclose(known.jvp(x, directions), directions @ dy.T) and known.jvp(x, directions[0]).shape == (2,)
    assert np.allclose(known.vjp(x, weights), weights @ dy) and known.vjp(x, weights[0]).shape == (N_INPUTS,)


def test_it_answers_in_corners_and_tells_how_far_these_lie_beyond_the_samples(known):
    corner = MIDDLE + 0.5 * WIDTHS * np.sign(known.subspace.project[0])
    z = known.subspace.reduced(corner[None])[0]
    assert z[0] > 3.0 and np.isfinite(known.evaluate(corner)[1]).all()
    assert known.beyond(corner[None])[0] == pytest.approx(max((np.abs(z) - 3.0).max() / 6.0, 0.0))
    assert known.beyond(MIDDLE[None])[0] == 0.0
    with pytest.raises(ValueError, match=r"'m7' is .* outside its bounds"):
        known.evaluate(np.where(np.arange(N_INPUTS) == 7, 5 * WIDTHS, MIDDLE))


def test_uncertainty_follows_the_chain_rule(known):
    x = ridge_samples(4, seed=9).x
    values, slopes = known.standard_deviation(x)
    assert np.allclose(values, 0.1)
    assert np.allclose(slopes[2, 1], 0.2 * np.linalg.norm(known.subspace.project, axis=0))


@pytest.mark.slow
def test_a_trained_and_saved_projected_surrogate_knows_the_ridge_function(tmp_path):
    data, unseen = ridge_samples(128, seed=0), ridge_samples(200, seed=1)
    subspace = active_subspace(data)
    reduced = subspace.reduce(data)
    model = ProjectedSurrogate(subspace, train(reduced, network=MLP(24, 1), optimizers=(LBFGS(240),)))
    y, dy = model.predict(unseen.x)
    assert (np.sqrt(((y - unseen.y) ** 2).mean(axis=0)) < 0.05 * unseen.y.std(axis=0)).all()
    assert np.linalg.norm((dy - unseen.jacobian) * SCALE) < 0.15 * np.linalg.norm(unseen.jacobian * SCALE)
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert np.array_equal(again.predict(unseen.x)[1], dy)
    assert again.parameters == NAMES and again.units == {"q0": "mm"}
    assert np.array_equal(again.bounds, BOUNDS)


def many_inputs_and_a_field(N, *, seed):
    """A field of 300 values in one space of three dimensions that sixty inputs change by two numbers."""
    shapes = np.stack([np.sin(np.linspace(0, 3, 300)), np.linspace(0, 1, 300) ** 2], axis=1)
    data = ridge_samples(N, seed=seed)
    return FieldSamples(data.x, 2.0 + data.y @ shapes.T, shapes @ data.jacobian, NAMES, BOUNDS)


@pytest.mark.slow
def test_fields_of_many_inputs_are_trained_on_in_reduced_coordinates_alone(tmp_path):
    data, unseen = many_inputs_and_a_field(32, seed=0), many_inputs_and_a_field(100, seed=1)
    basis = reduced_basis(data)
    coefficients = basis.reduce(data)
    subspace = active_subspace(coefficients, importance=np.ones(basis.rank))
    reduced = subspace.reduce(coefficients)
    assert reduced.jacobian.shape == (32, 2, 2)
    trained = train(reduced, network=MLP(24, 1), optimizers=(LBFGS(120),))
    model = FieldSurrogate(basis, ProjectedSurrogate(subspace, trained))
    assert isinstance(model, Model)
    u = model.predict(unseen.x)[0]
    assert np.linalg.norm(u - unseen.fields) < 0.06 * np.linalg.norm(unseen.fields - unseen.fields.mean(axis=0))
    x, direction = unseen.x[0], 1e-5 * WIDTHS * np.random.default_rng(0).uniform(-1, 1, N_INPUTS)
    difference = (
        model.evaluate(x + direction, jacobian=False)[0] - model.evaluate(x - direction, jacobian=False)[0]
    ) / 2
    assert np.allclose(model.jvp(x, direction), difference, rtol=1e-6, atol=1e-9 * np.abs(difference).max())
    model.save(tmp_path / "both.safetensors")
    again = load(tmp_path / "both.safetensors")
    assert np.array_equal(again.predict(unseen.x)[0], u)
    assert again.surrogate.subspace.dimension == 2


def test_the_order_of_the_two_reductions_does_not_matter():
    data = many_inputs_and_a_field(12, seed=0)
    basis = reduced_basis(data)
    subspace = active_subspace(basis.reduce(data), importance=np.ones(basis.rank))
    one, other = subspace.reduce(basis.reduce(data)), basis.reduce(subspace.reduce(data))
    assert np.allclose(one.jacobian, other.jacobian) and np.allclose(one.y, other.y)
    assert np.array_equal(one.bounds, other.bounds) and one.responses == other.responses


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dimension": 61}, "61 modes are wanted"),
        ({"dimension": 5}, "5 modes are wanted, but the columns span only 2 dimensions"),
        ({"tolerance": 1.5}, "tolerance is 1.5"),
        ({"response": "q7"}, "there is no response 'q7'; the samples have q0, q1"),
        ({"importance": [1.0]}, r"importance has shape \(1,\), expected \(2,\)"),
        ({"importance": [1.0, -1.0]}, "none negative"),
        ({"importance": [0.0, 0.0]}, "nothing varies"),
    ],
)
def test_settings_that_make_no_subspace_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        active_subspace(ridge_samples(12, seed=0), **settings)


def test_what_does_not_fit_is_refused_in_words(known):
    data = ridge_samples(12, seed=0)
    bare = replace(data, jacobian=None)
    with pytest.raises(ValueError, match="made of gradients, but the samples lack some"):
        active_subspace(bare)
    with pytest.raises(ValueError, match="hold no Jacobians"):
        known.subspace.unresolved(bare)
    with pytest.raises(ValueError, match="samples have 'n0' where the subspace has 'm0'"):
        known.subspace.reduce(replace(data, parameters=("n0", *NAMES[1:])))
    with pytest.raises(TypeError, match=r"expected Samples or FieldSamples, such as Samples.of\(data\)"):
        known.subspace.reduce([1.0])
    with pytest.raises(ValueError, match="the surrogate has parameters"):
        ProjectedSurrogate(linear_subspace(np.eye(N_INPUTS)[:, :2], NAMES, BOUNDS), known.surrogate)
    with pytest.raises(ValueError, match="directions depend on each other"):
        linear_subspace(np.ones((N_INPUTS, 2)), NAMES, BOUNDS)
    with pytest.raises(ValueError, match=r"directions have shape \(3, 2\), expected \(60, k\)"):
        linear_subspace(np.ones((3, 2)), NAMES, BOUNDS)
    with pytest.raises(ValueError, match="input 'm2' doesn't vary"):
        principal_inputs(np.where(np.arange(N_INPUTS) == 2, 0.0, data.x), NAMES, BOUNDS)
    with pytest.raises(ValueError, match="the inner subspace is one of"):
        known.subspace.then(known.subspace)
    with pytest.raises(ValueError, match="not the identity"):
        replace(known.subspace, lift=2 * known.subspace.lift)
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected \(60,\)"):
        known.evaluate(np.zeros(3))
