"""Reduced bases against numpy's singular values, and field surrogates against finite differences."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import tracemalloc

from analytic import five_samples
import numpy as np
import pytest
import scipy.sparse
import torch

from sobofem.coupling.contract import Model, Products
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.surrogate import LBFGS, MLP, Adam, Fixed, InverseDirichlet, ValuesOnly, load, train
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.reduction import (
    FieldSamples,
    FieldSurrogate,
    Important,
    by_variance,
    reduced_basis,
)
from sobofem.surrogate.weighting import PowerMean

BOUNDS = np.array([[-1.0, 1.0], [0.0, 4.0], [10.0, 30.0]])
PARAMETERS = ("a", "b", "c")
PLACES = np.linspace(0.0, 1.0, 40)


def coefficients(x):
    """Three functions of three inputs of unlike widths, and their Jacobian."""
    a, b, c = x
    return np.array([a * b, 0.3 * np.sin(a) + 0.1 * b, 0.02 * c * a]), np.array(
        [[b, a, 0.0], [0.3 * np.cos(a), 0.1, 0.0], [0.02 * c, 0.0, 0.02 * a]]
    )


SHAPES = np.stack([np.sin(3 * PLACES), PLACES**2, np.exp(-PLACES)], axis=1)


def exact_samples(N, *, seed):
    """Fields in a space of three dimensions around a constant one."""
    x = np.random.default_rng(seed).uniform(*BOUNDS.T, size=(N, 3))
    c, dc = zip(*map(coefficients, x), strict=True)
    return FieldSamples(
        x, 7.0 + np.array(c) @ SHAPES.T, SHAPES @ np.array(dc), PARAMETERS, BOUNDS, "bulge", {"bulge": "mm", "c": "s"}
    )


def rough_samples(N, *, seed):
    """Fields whose singular values fall slowly: a bump that moves, widens and grows."""
    x = np.random.default_rng(seed).uniform(*BOUNDS.T, size=(N, 3))
    a, b, c = x.T[:, :, None]
    at, width, height = 0.5 + 0.3 * a, 0.1 + 0.05 * b, 1.0 + 0.05 * c
    bump = np.exp(-(((PLACES - at) / width) ** 2))
    by_at, by_width = 2 * (PLACES - at) / width**2, 2 * (PLACES - at) ** 2 / width**3
    slopes = np.stack([0.3 * by_at * height, 0.05 * by_width * height, 0.05 + 0 * bump], axis=2) * bump[:, :, None]
    return FieldSamples(x, height * bump, slopes, PARAMETERS, BOUNDS)


def bar_mass():
    """The mass matrix of a bar of uneven linear elements: symmetric, tridiagonal."""
    places = PLACES**1.5
    lengths = np.diff(places)
    main = (np.append(lengths, 0.0) + np.append(0.0, lengths)) / 3
    return scipy.sparse.diags_array([lengths / 6, main, lengths / 6], offsets=[-1, 0, 1]).tocsr()


MASSES = {
    "identity": (None, np.eye(40)),
    "weights": (0.5 + PLACES, np.diag(0.5 + PLACES)),
    "dense": (bar_mass().toarray(), bar_mass().toarray()),
    "sparse": (bar_mass(), bar_mass().toarray()),
    "function": (lambda columns: bar_mass() @ columns, bar_mass().toarray()),
}


def snapshot_matrix(data, derivatives):
    """What the basis is made of, written down another way: all columns at once."""
    N, scale = len(data.x), (BOUNDS[:, 1] - BOUNDS[:, 0]) / np.sqrt(12)
    values = (data.fields - data.fields.mean(axis=0)).T
    slopes = np.concatenate([slope * scale for slope in data.jacobian], axis=1)
    return np.concatenate([values, derivatives * slopes], axis=1) / np.sqrt(N)


@pytest.mark.parametrize("method", ["snapshots", "randomized"])
@pytest.mark.parametrize("mass", MASSES)
@pytest.mark.parametrize("derivatives", [0.0, 1.0, 0.4])
def test_modes_leave_as_little_as_eckart_and_young_allow(mass, method, derivatives):
    data = rough_samples(12, seed=1)
    given, W = MASSES[mass]
    basis = reduced_basis(data, rank=5, mass=given, derivatives=derivatives, method=method)
    L = np.linalg.cholesky(W)
    A = L.T @ snapshot_matrix(data, derivatives)
    U, values, _ = np.linalg.svd(A, full_matrices=False)
    assert np.allclose(basis.values, values[:5], rtol=1e-6)
    assert np.allclose(basis.modes.T @ W @ basis.modes, np.eye(5), atol=1e-12)
    left = A - L.T @ basis.modes @ (basis.modes.T @ L @ A)
    assert np.linalg.norm(left) == pytest.approx(np.linalg.norm(values[5:]), rel=1e-6)
    assert np.allclose(np.abs(U[:, 0] @ L.T @ basis.modes[:, 0]), 1.0, rtol=1e-8)


@pytest.mark.parametrize("method", ["snapshots", "randomized"])
def test_fields_in_a_small_space_are_recovered_to_round_off(method):
    data, unseen = exact_samples(8, seed=0), exact_samples(50, seed=1)
    basis = reduced_basis(data, tolerance=1e-6, mass=bar_mass(), method=method)
    assert basis.rank == 3
    assert np.allclose(basis.expand(basis.project(unseen.fields)), unseen.fields, rtol=1e-9)
    share = basis.truncation(unseen)
    assert share.values < 1e-8 and share.derivatives < 1e-8


def test_derivatives_find_what_few_fields_miss():
    """Three fields span two dimensions around their mean; with three derivatives each they tell the whole space."""
    data, unseen = exact_samples(3, seed=4), exact_samples(50, seed=5)
    without, enriched = (reduced_basis(data, tolerance=1e-6, derivatives=w) for w in (0.0, 1.0))
    assert (without.rank, enriched.rank) == (2, 3)
    assert without.truncation(unseen).derivatives > 1e-2
    assert enriched.truncation(unseen).values < 1e-8


@pytest.mark.parametrize("method", ["snapshots", "randomized"])
@pytest.mark.parametrize("tolerance", [0.3, 0.03, 0.003])
def test_the_tolerance_is_the_share_of_snapshots_that_is_left_out_and_no_rank_is_wasted(tolerance, method):
    data = rough_samples(16, seed=2)
    basis = reduced_basis(data, tolerance=tolerance, derivatives=0.4, method=method)
    values = np.linalg.svd(snapshot_matrix(data, 0.4), compute_uv=False)
    share = [np.linalg.norm(values[r:]) / np.linalg.norm(values) for r in range(len(values))]
    assert share[basis.rank] <= tolerance < share[basis.rank - 1]


def test_correlated_inputs_have_their_derivatives_taken_along_the_samples_deviations():
    """The modes are the singular vectors of fields, uncentered, and of slopes times deviations."""
    data = exact_samples(9, seed=4)
    found = reduced_basis(data, rank=2, centered=False, correlated=True, derivatives=2.0)
    deviations = (data.x - data.x.mean(axis=0)).T / 3.0
    snapshots = np.hstack([data.fields.T / 3.0, *(2.0 / 3.0 * slope @ deviations for slope in data.jacobian)])
    U, values, _ = np.linalg.svd(snapshots)
    assert np.allclose(found.values, values[:2]) and not found.mean.any()
    assert np.allclose(np.abs(np.sum(found.modes * U[:, :2], axis=0)), 1.0)
    assert reduced_basis(data, tolerance=1e-9, most=1).rank == 1


def test_truncation_is_measured_in_the_inner_product_apart_for_values_and_derivatives():
    data, unseen = rough_samples(12, seed=1), rough_samples(20, seed=9)
    W = bar_mass().toarray()
    basis = reduced_basis(data, rank=4, mass=bar_mass())
    P = np.eye(40) - basis.modes @ basis.modes.T @ W
    deviation = (unseen.fields - data.fields.mean(axis=0)).T
    slopes = snapshot_matrix(unseen, 1.0)[:, 20:]

    def size(columns):
        return np.sqrt(np.trace(columns.T @ W @ columns))

    found = basis.truncation(unseen)
    assert found.values == pytest.approx(size(P @ deviation) / size(deviation), rel=1e-9)
    assert found.derivatives == pytest.approx(size(P @ slopes) / size(slopes), rel=1e-9)
    assert basis.truncation(replace(unseen, jacobian=None)).derivatives is None


def test_the_residual_is_what_the_training_fields_hold_besides_value_by_value():
    data = rough_samples(12, seed=1)
    basis = reduced_basis(data, rank=4, mass=0.5 + PLACES)
    left = data.fields - basis.expand(basis.project(data.fields))
    assert np.allclose(basis.residual, np.sqrt((left**2).mean(axis=0)), rtol=1e-10)


def test_reduced_samples_are_coefficients_with_their_derivatives():
    data = exact_samples(8, seed=0)
    basis = reduced_basis(data, mass=0.5 + PLACES)
    reduced = basis.reduce(data)
    assert reduced.responses == ("bulge_mode_1", "bulge_mode_2", "bulge_mode_3")
    assert reduced.units == {"c": "s"}
    assert np.allclose(reduced.y @ basis.modes.T + basis.mean, data.fields)
    assert np.allclose(basis.modes @ reduced.jacobian, data.jacobian)


def test_jacobians_may_come_one_by_one_from_disk(tmp_path):
    data = rough_samples(6, seed=3)
    disk = np.lib.format.open_memmap(tmp_path / "slopes.npy", mode="w+", dtype=np.float64, shape=(6, 40, 3))
    disk[:] = data.jacobian
    for other in (disk, list(data.jacobian)):
        ours, theirs = (reduced_basis(d, rank=4, method="randomized") for d in (data, replace(data, jacobian=other)))
        assert np.array_equal(ours.modes, theirs.modes)
        assert np.array_equal(ours.reduce(data).jacobian, theirs.reduce(replace(data, jacobian=other)).jacobian)


def test_a_mode_whose_coefficient_is_the_same_in_all_samples_is_left_out():
    """A design that is symmetric in the one input tells nothing of its square, but the derivatives show its shape."""
    x = np.array([[-1.0], [1.0], [-1.0], [1.0]])
    a, b = np.eye(6)[:2]
    data = FieldSamples(x, x * a + x**2 * b, (a + 2 * x * b)[:, :, None], ("x",), np.array([[-1.0, 1.0]]))
    basis = reduced_basis(data)
    assert basis.rank == 1
    assert np.abs(basis.modes[:, 0]) == pytest.approx(a, abs=1e-12)
    assert basis.reduce(data).y.std(axis=0).min() > 0.5


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rank": 60}, r"60 modes are wanted, but 48 columns of 40 values have at most 40"),
        ({"rank": 0}, "rank is 0; expected a whole number"),
        ({"rank": 2.5}, "rank is 2.5"),
        ({"tolerance": 0.0}, "tolerance is 0"),
        ({"method": "magic"}, "method is 'magic', expected one of"),
        ({"derivatives": -1.0}, "derivatives are weighted by -1"),
        ({"mass": -np.ones(40)}, "mass is -1 at value 0; expected finite and positive"),
        ({"mass": np.ones(39)}, r"mass has shape \(39,\), expected \(40,\) or \(40, 40\)"),
        ({"mass": np.eye(39)}, r"mass has shape \(39, 39\), expected \(40, 40\)"),
        ({"mass": np.triu(np.ones((40, 40)))}, "mass is not symmetric"),
        ({"mass": -np.eye(40)}, "squared norm -.* expected a positive one"),
        ({"mass": lambda columns: columns[:5]}, r"has shape \(5, 1\), expected the same"),
        ({"mass": np.where(PLACES > 0.5, np.nan, 1.0)}, "mass is nan at value"),
    ],
)
def test_settings_and_masses_that_make_no_basis_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        reduced_basis(rough_samples(12, seed=1), **settings)


def test_more_modes_than_the_fields_span_are_refused():
    for method in ("snapshots", "randomized"):
        with pytest.raises(ValueError, match="5 modes are wanted, but the columns span only 3 dimensions"):
            reduced_basis(exact_samples(8, seed=0), rank=5, method=method)


def test_fields_that_are_all_the_same_have_no_basis():
    data = exact_samples(8, seed=0)
    with pytest.raises(ValueError, match="nothing varies"):
        reduced_basis(replace(data, fields=np.ones_like(data.fields), jacobian=None))
    with pytest.raises(ValueError, match="the same in all samples, up to round-off"):
        reduced_basis(replace(data, fields=0.1 + 1e-17 * data.fields + np.spacing(0.1) * (data.fields > 7.0)))


def test_responses_of_other_data_are_taken_for_a_field():
    data = five_samples(8, seed=0)
    field = FieldSamples.of(replace(data, units={"p1": "mm", "q0": "MPa"}, provenance={"seed": 0}), "five")
    assert np.array_equal(field.fields, data.y) and np.array_equal(list(field.slopes()), data.jacobian)
    assert (field.name, field.units, field.provenance) == ("five", {"p1": "mm"}, {"seed": 0})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: {"x": d.x[:, :2]}, r"x has shape \(6, 2\), expected \(N, 3\)"),
        (lambda d: {"fields": d.fields[:5]}, r"fields have shape \(5, 40\), expected \(6, M\)"),
        (lambda d: {"fields": np.where(d.fields == d.fields[2, 3], np.nan, d.fields)}, "fields hold NaN .* row 2"),
        (lambda d: {"jacobian": d.jacobian[:4]}, "there are 4 Jacobians for 6 samples"),
        (lambda d: {"name": "b"}, r"these repeat: \['b'\]"),
        (lambda d: {"bounds": d.bounds / 2}, "outside its bounds"),
    ],
)
def test_field_samples_that_do_not_fit_together_are_refused(change, message):
    data = rough_samples(6, seed=0)
    with pytest.raises(ValueError, match=message):
        replace(data, **change(data))


def test_jacobians_are_checked_as_they_are_read():
    data = rough_samples(6, seed=0)
    with pytest.raises(ValueError, match=r"jacobian of row 0 has shape \(3, 40\), expected \(40, 3\)"):
        reduced_basis(replace(data, jacobian=data.jacobian.swapaxes(1, 2)))
    bad = data.jacobian.copy()
    bad[3, 0, 0] = np.nan
    with pytest.raises(ValueError, match="jacobian holds NaN or infinity in row 3"):
        reduced_basis(replace(data, jacobian=bad))


def test_fields_of_another_size_are_refused():
    basis = reduced_basis(exact_samples(6, seed=0))
    with pytest.raises(ValueError, match=r"fields have shape \(4, 39\), expected \(N, 40\)"):
        basis.project(np.zeros((4, 39)))
    with pytest.raises(ValueError, match=r"coefficients have shape \(4, 2\), expected \(N, 3\)"):
        basis.expand(np.zeros((4, 2)))


@dataclass(frozen=True, eq=False)
class Truth:
    """The coefficients of `exact_samples` themselves in the place of a surrogate."""

    basis: object
    parameters = PARAMETERS
    bounds = BOUNDS

    @property
    def responses(self):
        return self.basis.coefficients

    def predict(self, x, *, jacobian=True, extrapolate=False):
        c, dc = zip(*map(coefficients, np.asarray(x)), strict=True)
        take = self.basis.dual.T @ SHAPES
        y = np.array(c) @ take.T + self.basis.dual.T @ (7.0 - self.basis.mean)
        return y, take @ np.array(dc) if jacobian else None

    def standard_deviation(self, x, *, extrapolate=False):
        return np.tile([0.1, 0.2, 0.4], (len(x), 1)), np.zeros((len(x), 3, 3))


@pytest.fixture(scope="module")
def truth():
    basis = reduced_basis(exact_samples(8, seed=0), mass=bar_mass())
    return FieldSurrogate(basis, Truth(basis))


def test_a_field_surrogate_is_a_model_with_products(truth):
    assert isinstance(truth, Model) and isinstance(truth, Products)
    x = exact_samples(2, seed=7).x[0]
    u, du = checked_evaluation(truth, x)
    c, dc = coefficients(x)
    assert np.allclose(u, 7.0 + SHAPES @ c) and np.allclose(du, SHAPES @ dc)
    assert truth.responses[:2] == ("bulge_1", "bulge_2")
    assert truth.units["bulge"] == "mm"
    assert truth.evaluate(x, jacobian=False)[1] is None
    assert truth.predict(x[None])[1] is None


def test_the_field_s_jacobian_and_its_products_agree_with_finite_differences(truth):
    x, rng = exact_samples(1, seed=8).x[0] * 0.9, np.random.default_rng(0)
    directions, weights = rng.uniform(-1, 1, (2, 3)) * np.ptp(BOUNDS, axis=1), rng.uniform(0.5, 1.5, (4, 40))
    step = 1e-5
    ahead, behind = (truth.predict(x + sign * step * directions, extrapolate=True)[0] for sign in (1, -1))
    by_difference = (ahead - behind) / (2 * step)
    assert np.allclose(truth.jvp(x, directions), by_difference, rtol=1e-7, atol=1e-8)
    assert np.allclose(truth.vjp(x, weights) @ directions.T, weights @ by_difference.T, rtol=1e-7)
    assert truth.jvp(x, directions[0]).shape == (40,) and truth.vjp(x, weights[0]).shape == (3,)
    for call, name in ((truth.jvp, "directions"), (truth.vjp, "weights")):
        with pytest.raises(ValueError, match=rf"{name} have shape \(2, 7\)"):
            call(x, np.zeros((2, 7)))


def test_standard_deviations_are_those_of_sampled_coefficients(truth):
    x, rng = exact_samples(1, seed=8).x, np.random.default_rng(0)
    drawn = truth.surrogate.predict(x)[0] + rng.standard_normal((40_000, 3)) * [0.1, 0.2, 0.4]
    assert np.allclose(truth.standard_deviation(x)[0], truth.basis.expand(drawn).std(axis=0), rtol=0.02)
    wide = FieldSurrogate(replace(truth.basis, residual=np.full(40, 3.0)), truth.surrogate)
    assert np.allclose(wide.standard_deviation(x) ** 2 - truth.standard_deviation(x) ** 2, 9.0)


@pytest.fixture(scope="module")
def trained():
    data = rough_samples(32, seed=0)
    basis = reduced_basis(data, rank=3, mass=0.5 + PLACES)
    reduced = basis.reduce(data)
    network, optimizers = MLP(16, 2), (Adam(50), LBFGS(100))
    return FieldSurrogate(basis, train(reduced, network=network, weighting=by_variance(reduced), optimizers=optimizers))


@pytest.mark.slow
def test_a_trained_field_surrogate_comes_near_what_its_modes_can_do(trained):
    unseen = rough_samples(200, seed=1)
    error = np.linalg.norm(trained.predict(unseen.x)[0] - unseen.fields) / np.linalg.norm(unseen.fields)
    best = trained.basis.expand(trained.basis.project(unseen.fields))
    assert error < 1.2 * np.linalg.norm(best - unseen.fields) / np.linalg.norm(unseen.fields)


def test_a_saved_field_surrogate_predicts_bit_for_bit_the_same(trained, tmp_path):
    trained.save(tmp_path / "field.safetensors")
    again = load(tmp_path / "field.safetensors")
    x = rough_samples(5, seed=1).x
    for ours, theirs in zip(trained.predict(x, jacobian=True), again.predict(x, jacobian=True), strict=True):
        assert np.array_equal(ours, theirs)
    assert (again.parameters, again.responses, again.units) == (trained.parameters, trained.responses, trained.units)
    assert np.array_equal(
        again.basis.reduce(rough_samples(5, seed=1)).y, trained.basis.project(rough_samples(5, seed=1).fields)
    )
    assert list(tmp_path.iterdir()) == [tmp_path / "field.safetensors"]
    with pytest.raises(ValueError, match="read from a file has no inner product"):
        again.basis.truncation(rough_samples(5, seed=1))


def test_load_reads_plain_surrogates_too_and_refuses_what_is_none(trained, tmp_path):
    path = tmp_path / "plain.safetensors"
    trained.surrogate.save(path)
    assert load(path).responses == trained.surrogate.responses
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nothing")
    trained.save(path)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load(path)


def test_a_surrogate_of_other_responses_or_without_uncertainty_is_refused(trained, truth):
    with pytest.raises(ValueError, match="expected the coefficients"):
        FieldSurrogate(truth.basis, trained.surrogate)
    with pytest.raises(TypeError, match=r"offers no standard deviation|has no uncertainty"):
        trained.standard_deviation(rough_samples(2, seed=0).x)


def scaled_targets(reduced):
    """Samples in the scales of training, as tensors."""
    scale = np.ptp(reduced.bounds, axis=1) / np.sqrt(12)
    y = (reduced.y - reduced.y.mean(axis=0)) / reduced.y.std(axis=0)
    slopes = reduced.jacobian * scale / reduced.y.std(axis=0)[:, None]
    return Targets(*map(torch.from_numpy, ((reduced.x - reduced.bounds.mean(axis=1)) / scale, y, slopes)))


def test_weights_by_variance_turn_losses_of_coefficients_into_those_of_the_field():
    """The weighted loss of a prediction is the mean square error of the field and its derivatives, in its own norm."""
    data, W = rough_samples(12, seed=1), bar_mass().toarray()
    basis = reduced_basis(data, rank=5, mass=bar_mass())
    reduced = basis.reduce(data)
    rng = np.random.default_rng(0)
    dy, ds = rng.standard_normal(reduced.y.shape), rng.standard_normal(reduced.jacobian.shape)
    scale, deviation = np.ptp(BOUNDS, axis=1) / np.sqrt(12), reduced.y.std(axis=0)
    losses = np.concatenate([(dy / deviation)[:, :, None] ** 2, (ds * scale / deviation[:, None]) ** 2], axis=2).mean(
        axis=0
    )
    weights = by_variance(reduced, Fixed(1.0, 1.0)).start(scaled_targets(reduced)).values.numpy()
    fields, slopes = dy @ basis.modes.T, basis.modes @ (ds * scale)
    norm = np.einsum("im,mk,ik->", fields, W, fields) + np.einsum("imj,mk,ikj->", slopes, W, slopes)
    assert (weights * losses).sum() * deviation.max() ** 2 == pytest.approx(norm / 12, rel=1e-9)


def test_importance_multiplies_the_weights_of_an_adaptive_weighting_at_every_update():
    reduced = reduced_basis(rough_samples(12, seed=1), rank=2).reduce(rough_samples(12, seed=1))
    plain, important = InverseDirichlet(interval=5), Important((1.0, 0.25), InverseDirichlet(interval=5))
    targets = scaled_targets(reduced)
    ours, theirs = important.start(targets), plain.start(targets)
    assert np.allclose(ours.values[1], 0.25 * theirs.values[1]) and np.array_equal(ours.values[0], theirs.values[0])
    history = train(reduced, weighting=important, optimizers=(Adam(10),)).history
    assert not np.array_equal(history.weights[0], history.weights[-1])
    assert important.interval == 5 and important.uses_jacobian
    assert not by_variance(replace(reduced, jacobian=None)).uses_jacobian
    assert by_variance(replace(reduced, jacobian=None)).base == ValuesOnly()


def test_importance_that_does_not_fit_is_refused():
    reduced = reduced_basis(rough_samples(12, seed=1), rank=2).reduce(rough_samples(12, seed=1))
    with pytest.raises(ValueError, match="expected a positive number for each response"):
        Important((1.0, 0.0))
    with pytest.raises(ValueError, match="one number of the losses its own way"):
        Important((1.0, 1.0), PowerMean())
    with pytest.raises(ValueError, match="importance has 3 entries, expected 2"):
        train(reduced, weighting=Important((1.0, 1.0, 1.0)), optimizers=(Adam(1),))


class Streamed(Sequence):
    """Jacobians that are made when they are read."""

    def __init__(self, size, N):
        self.shapes, self.N = np.sin(np.outer(np.arange(size), [1e-4, 3e-4, 7e-4])), N

    def __len__(self):
        return self.N

    def __getitem__(self, row):
        if row >= self.N:
            raise IndexError(row)
        return self.shapes @ np.random.default_rng(row).standard_normal((3, 20))


@pytest.mark.slow
def test_randomized_modes_need_the_memory_of_some_fields_however_many_snapshots_there_are():
    M, N = 20_000, 30
    slopes = Streamed(M, N)
    x = np.random.default_rng(0).uniform(-1, 1, (N, 20))
    fields = x[:, :3] @ slopes.shapes.T
    data = FieldSamples(x, fields, slopes, tuple(f"p{j}" for j in range(20)), np.tile([-1.0, 1.0], (20, 1)))
    tracemalloc.start()
    basis = reduced_basis(data, rank=3, method="randomized")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert basis.rank == 3 and basis.truncation(data).derivatives < 1e-8
    assert peak < 0.35 * 8 * M * N * 21
