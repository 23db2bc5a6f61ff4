"""Samples that fall into cases: found where there are some, and learned each by itself, with all derivatives."""

import numpy as np
import pytest

from sobofem.surrogate import FieldSamples, Samples, fit_field, load
from sobofem.surrogate.reduction import process
from sobofem.surrogate.reduction.cases import CasesSurrogate, cases_of

PLACES, NODES = 5, 12
RNG = np.random.Generator(np.random.PCG64(4))
SHAPES = RNG.standard_normal((NODES, 2 * PLACES))
NAMES = tuple(f"{axis}{k}" for k in range(PLACES) for axis in "xy")
BOUNDS = np.tile((-1.0, 1.0), (2 * PLACES, 1))


def single_loads(count, seed):
    """Components uniform at one place, each place in its turn."""
    rng = np.random.Generator(np.random.PCG64(seed))
    x = np.zeros((count, PLACES, 2))
    x[np.arange(count), np.arange(count) % PLACES] = rng.uniform(-1.0, 1.0, (count, 2))
    return x.reshape(count, -1)


def stiffening(x):
    """A field that grows less than its loads do, (N, 12), and its Jacobians (N, 12, 10)."""
    s = x @ SHAPES.T / 3.0
    return np.arcsinh(s), SHAPES / 3.0 / np.sqrt(1.0 + s**2)[:, :, None]


def fields(count, seed):
    x = single_loads(count, seed)
    return FieldSamples(x, *stiffening(x), NAMES, BOUNDS, "u")


def test_cases_are_the_places_of_loads():
    cases = cases_of(single_loads(40, 0))
    assert sorted(tuple(rows % PLACES) for rows in cases) == [(k,) * 8 for k in range(PLACES)]


def test_a_sample_without_loads_belongs_to_each_case():
    x = np.vstack((single_loads(20, 0), np.zeros((2, 2 * PLACES)), single_loads(20, 1)))
    loaded = [rows[rows != 20] for rows in cases_of(x)]
    assert [len(rows) for rows in cases_of(x)] == [9] * PLACES == [1 + len(rows) for rows in loaded]
    assert all(len(np.unique(x[rows] != 0.0, axis=0)) == 1 for rows in loaded)
    assert cases_of(np.zeros((12, 3))) == []


@pytest.mark.parametrize(
    "x",
    [
        RNG.uniform(-1.0, 1.0, (40, 3)),
        np.stack(np.meshgrid(*3 * [np.linspace(0.0, 1.0, 4)]), axis=-1).reshape(-1, 3),
        np.vstack((single_loads(40, 0), single_loads(40, 1) * np.tile((1.0, 0.0), PLACES))),
        single_loads(2 * PLACES, 0),
        np.where(RNG.uniform(size=(60, 8)) < 0.5, 0.0, 1.0),
    ],
    ids=["everywhere", "grid", "within another", "too few", "at random"],
)
def test_other_samples_do_not_fall_into_cases(x):
    assert cases_of(x) == []


@pytest.mark.slow
def test_fields_of_loads_here_or_there_are_learned_with_derivatives_by_loads_anywhere(tmp_path):
    model, unseen = fit_field(fields(100, 1)), single_loads(60, 2)
    y, slopes = model.predict(unseen, jacobian=True)
    true, true_slopes = stiffening(unseen)
    assert np.linalg.norm(y - true) < 2e-3 * np.linalg.norm(true)
    at_rest = unseen[:, None, :] == 0.0
    for part in (at_rest, ~at_rest):
        off, size = (np.linalg.norm(np.where(part, each, 0.0)) for each in (slopes - true_slopes, true_slopes))
        assert off < 0.03 * size
    assert "5 cases" in model.surrogate.provenance["choice"]["because"]
    model.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors").predict(unseen, jacobian=True)
    assert np.array_equal(again[0], y) and np.array_equal(again[1], slopes)


def test_loads_that_no_sample_had_together_are_refused_by_name():
    model = fit_field(fields(40, 1))
    assert np.abs(model.predict(np.zeros((1, 2 * PLACES)))[0]).max() < 0.01
    with pytest.raises(ValueError, match=r"in point 1 x0, y3 are not zero together, .* none of the 5 cases"):
        model.predict(np.stack((np.eye(10)[0], np.eye(10)[0] + np.eye(10)[7])))


def test_of_inputs_at_rest_only_slopes_are_learned_and_as_if_by_one_large_matrix():
    x = single_loads(6 * PLACES, 3)[::PLACES]  # all at the first place
    y, slopes = stiffening(x)
    w, noise = np.linspace(0.3, 0.8, 2 * PLACES), 1e-2
    labels = np.concatenate((y[:, None], slopes.transpose(0, 2, 1)), axis=1)
    size = labels.shape[0] * labels.shape[1]
    own = np.tile(np.concatenate(([noise**2], (5 * noise * w) ** 2)), len(x))
    matrix = process._covariance(x, x, w).reshape(size, size) + np.diag(own)
    whole = np.linalg.solve(matrix, labels.reshape(size, -1))
    assert np.abs(process.solved(x, w, noise, labels) - whole).max() < 1e-9 * np.abs(whole).max()
    assert process.rows_of(x) == 3 * len(x) < size


def test_cases_without_a_surrogate_each_are_refused():
    data = fields(4 * PLACES, 1)
    names = tuple(f"u{k}" for k in range(NODES))
    rows = cases_of(data.x)[0]
    one = process.fit_process(Samples(data.x[rows], data.fields[rows], data.jacobian[rows], NAMES, names, BOUNDS))
    with pytest.raises(ValueError, match="not one each"):
        CasesSurrogate(np.eye(10, dtype=bool)[:3], (one,))
