"""Points that span too little of the box, responses of which nothing was learned, and intervals that cover."""

from dataclasses import replace
import warnings

from analytic import five_samples, sample, two_of_five
import numpy as np
import pytest
from scipy.stats import qmc
import torch

from sobofem.surrogate import Adam, Kriging, fit, load, train
from sobofem.surrogate.selection.reach import narrow_points

PROCESS = (Kriging(starts=(-7.0,), iterations=40),)
BOX = [[0.0, 1.0], [0.0, 2.0]]


def curved(x):
    return (torch.sin(3.0 * x[0]) + x[1] ** 2)[None]


def at(points, function=curved, bounds=BOX):
    """Samples of a function at these points (N, n)."""
    every = sample(function, bounds, 4, seed=0)
    t = torch.from_numpy(points)
    y, jacobian = (torch.func.vmap(f)(t).numpy() for f in (function, torch.func.jacrev(function)))
    return replace(every, x=points, y=y, jacobian=jacobian)


def learned(data):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        surrogate = fit(data, families=PROCESS)
    return surrogate, " | ".join(str(warning.message) for warning in said)


def coverage(surrogate, unseen):
    off = np.abs(surrogate.predict(unseen.x)[0] - unseen.y)
    return (off <= 1.96 * surrogate.standard_deviation(unseen.x)[0]).mean()


def line(rng):
    s = rng.uniform(0.0, 1.0, 20)
    return np.stack((s, 2.0 * s), 1)


def cluster(rng):
    return np.array([0.3, 0.8]) + rng.uniform(-0.05, 0.05, (20, 2))


def clusters(rng):
    return np.concatenate((rng.uniform(0.0, 0.1, (12, 2)), [1.0, 2.0] - rng.uniform(0.0, 0.1, (12, 2))))


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
@pytest.mark.parametrize("slopes", [True, False])
@pytest.mark.parametrize(
    ("design", "words"),
    [
        (line, "they lie near a line or plane, where parameters vary together: 'p0' and 'p1'"),
        (cluster, "'p0' covers 9"),
        (clusters, "the points span too little of the box"),
    ],
)
def test_points_that_leave_out_the_box_are_named_and_intervals_cover_all_the_same(design, words, slopes, tmp_path):
    data = at(design(np.random.default_rng(0)))
    surrogate, said = learned(data if slopes else replace(data, jacobian=None))
    assert words in said
    assert coverage(surrogate, sample(curved, BOX, 300, seed=5)) > 0.9
    surrogate.save(tmp_path / "a.safetensors")
    again = load(tmp_path / "a.safetensors").standard_deviation(data.x)[0]
    assert np.array_equal(again, surrogate.standard_deviation(data.x)[0])


@pytest.mark.slow
def test_fewer_points_than_parameters_are_named():
    assert "5 points can't span 6 parameters" in learned(five_samples(5, seed=0))[1]


@pytest.mark.parametrize(("N", "n"), [(8, 2), (16, 6), (40, 3), (200, 10)])
def test_points_that_fill_the_box_are_not_named(N, n):
    for seed in range(5):
        x = (2.0 * qmc.Sobol(n, rng=seed).random(256)[:N] - 1.0) * np.sqrt(3.0)
        assert not narrow_points(torch.from_numpy(x), tuple(f"p{j}" for j in range(n)))


@pytest.mark.slow
def test_a_response_of_which_nothing_was_learned_is_named():
    rng = np.random.default_rng(0)
    data = sample(lambda x: torch.stack([x[0] * x[1], x[0]]), BOX, 24, seed=0)
    y, jacobian = data.y.copy(), data.jacobian.copy()
    y[:, 1], jacobian[:, 1] = rng.normal(size=24), rng.normal(size=(24, 2))
    surrogate, said = learned(replace(data, y=y, jacobian=jacobian))
    assert "nothing of 'q1' was learned" in said and "of 'q0' was learned" not in said
    errors = surrogate.provenance["held_out"]
    assert errors["q0"]["values"] < 0.1 and errors["q1"]["values"] > 0.8


def test_training_with_held_out_samples_knows_their_errors():
    """They are those of its predictions there: most of what is hardly trained predicts little but the mean."""
    data = five_samples(24, seed=0)
    surrogate = train(data, optimizers=(Adam(1),), validation=0.25)
    errors = surrogate.provenance["held_out"]
    assert set(errors) == set(data.responses)
    for kind in ("values", "slopes"):
        assert 0.3 < np.median([error[kind] for error in errors.values()]) < 3.0
    assert "held_out" not in train(data, optimizers=(Adam(1),)).provenance


@pytest.mark.slow
@pytest.mark.parametrize(("N", "designs"), [(12, 1), *(pytest.param(N, 3, marks=pytest.mark.bench) for N in (8, 16))])
def test_intervals_of_few_samples_cover_in_the_mean_over_designs(N, designs):
    """Smooth functions, with and without slopes, in random designs."""
    found = []
    for seed in range(designs):
        for slopes in (True, False):
            data = two_of_five(N, seed=seed)
            surrogate, _ = learned(data if slopes else replace(data, jacobian=None))
            found.append(coverage(surrogate, two_of_five(300, seed=99)))
    assert np.mean(found) > 0.9
