"""Labels that contradict each other: they are named, and what is learned is no worse than without them."""

from dataclasses import replace
import warnings

from analytic import borehole_samples, five_samples, sample, value_error
import numpy as np
import pytest
from scipy.stats import qmc
import torch

from sobofem.surrogate import Kriging, Samples, Solved, check_derivatives, fit
from sobofem.surrogate.loss import Targets
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.selection.doubts import Doubts, find_doubts, torn_points
from sobofem.surrogate.selection.leave_one_out import LeaveOneOut
from sobofem.surrogate.selection.misleading import doubtful_slopes
from sobofem.surrogate.training.train import scaled_targets

BOUNDS = [[0.0, 1.0], [0.0, 1.0]]
PROCESS = (Kriging(starts=(-7.0,), iterations=40),)
ROW = 7


def bent(x):
    return (torch.sin(3.0 * x[0]) * x[1] + x[0] ** 2)[None]


def two(x):
    return torch.stack([torch.sin(3.0 * x[0]) * x[1] + x[0] ** 2, torch.exp(x[0] - x[1])])


@pytest.fixture(scope="module")
def clean():
    return sample(bent, BOUNDS, 30, seed=0)


@pytest.fixture(scope="module")
def few():
    """What is found among thirty samples in seconds, a fraction of one shows with fewer."""
    return sample(bent, BOUNDS, 16, seed=0)


@pytest.fixture(scope="module")
def unseen():
    return sample(bent, BOUNDS, 300, seed=1)


def learned(data, families=PROCESS):
    """The surrogate, and what was said."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        surrogate = fit(data, families=families)
    return surrogate, " | ".join(str(warning.message) for warning in said)


def spoilt(data, *, value=None, slopes=None, rows=(ROW,)):
    """The samples with values and slopes of some rows put through functions."""
    y, jacobian, rows = data.y.copy(), data.jacobian.copy(), list(rows)
    if value is not None:
        y[rows] = value(y[rows], data.y)
    if slopes is not None:
        jacobian[rows] = slopes(jacobian[rows])
    return replace(data, y=y, jacobian=jacobian)


def without(data, row=ROW):
    rows = np.arange(len(data.x)) != row
    return replace(data, x=data.x[rows], y=data.y[rows], jacobian=data.jacobian[rows])


SPOILERS = {
    "a million times too large": {"value": lambda y, _: 1e6 * y},
    "diverged in values and slopes": {"value": lambda y, _: 1e6 * y, "slopes": lambda J: 1e6 * J},
    "a sentinel": {"value": lambda y, _: -999.0},
    "no float32": {"value": lambda y, _: 1e30},
    "almost infinite": {"value": lambda y, _: 1e299},
    "ten deviations off": {"value": lambda y, every: y + 10.0 * every.std()},
    "slopes of the wrong sign": {"slopes": lambda J: -J},
    "slopes ten times too large": {"slopes": lambda J: 10.0 * J},
    "slopes without meaning": {"slopes": lambda J: 1e9 + 0.0 * J},
}
ALIKE = ("a million times too large", "a sentinel", "no float32", "slopes without meaning")
"""Those that others are found like."""


@pytest.mark.slow
@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.bench] * (kind in ALIKE)) for kind in SPOILERS])
def test_one_spoilt_sample_of_thirty_is_found_and_no_other(clean, kind):
    change = SPOILERS[kind]
    doubts = find_doubts(spoilt(clean, **change))
    assert np.flatnonzero(doubts.values).tolist() == ([ROW] if "value" in change else [])
    assert np.flatnonzero(doubts.slopes.any(axis=(1, 2))).tolist() == ([ROW] if "slopes" in change else [])


@pytest.mark.parametrize(
    "kind", ["a sentinel", *(pytest.param(kind, marks=pytest.mark.slow) for kind in list(SPOILERS)[:5:4])]
)
def test_a_spoilt_value_is_found_without_slopes(few, kind):
    doubts = find_doubts(replace(spoilt(few, **SPOILERS[kind]), jacobian=None))
    assert np.flatnonzero(doubts.values).tolist() == [ROW]


@pytest.mark.slow
def test_a_spoilt_sample_is_named_and_does_no_harm(few, unseen):
    surrogate, said = learned(spoilt(few, **SPOILERS["diverged in values and slopes"]))
    alone, _ = learned(without(few))
    assert value_error(surrogate, unseen) < max(1.1 * value_error(alone, unseen), 1e-4)
    assert surrogate.provenance["doubts"] == {"values": {"q0": [ROW]}, "slopes": {"q0": [ROW]}}
    assert f"the value of 'q0' in row {ROW} contradicts the other samples" in said


@pytest.mark.slow
def test_a_true_peak_that_one_sample_shows_is_named_as_one_that_may_be_right(clean):
    _, said = learned(spoilt(clean, **SPOILERS["ten deviations off"]))  # nobody can tell the one from the other
    assert (
        "in row 7 contradicts the other samples; not learned from. If they are right, they show what no other" in said
    )
    assert "compute samples near them, and they will be believed" in said


@pytest.mark.slow
@pytest.mark.parametrize("offset", [0.02, 0.7])
def test_a_narrow_peak_beside_a_sample_is_believed(clean, offset):
    """It turns the slopes there, if ever so little, as no error of a value does; and those of a sample beside it."""
    row = np.linalg.norm(clean.jacobian[:, 0], axis=1).argmax()
    width, height = 0.05, 0.3 * clean.y.std()
    gap = clean.x - clean.x[row] - offset * width
    peak = height * np.exp(-(gap**2).sum(1, keepdims=True) / (2.0 * width**2))
    jacobian = clean.jacobian - (peak * gap)[:, None] / width**2
    assert not find_doubts(replace(clean, y=clean.y + peak, jacobian=jacobian)).any


@pytest.mark.slow
@pytest.mark.parametrize("size", [1e-150, pytest.param(1e150, marks=pytest.mark.bench), 1e299])
def test_doubts_do_not_depend_on_the_unit(clean, size):
    data = spoilt(clean, slopes=lambda J: -J)
    scaled = find_doubts(replace(data, y=size * data.y / 3.0, jacobian=size * data.jacobian / 3.0))
    assert np.flatnonzero(scaled.slopes.any(axis=(1, 2))).tolist() == [ROW]


def test_slopes_out_of_all_proportion_are_refused_by_name(clean):
    with pytest.raises(
        ValueError, match=r"the slopes of 'q0' by 'p\d' would change it by up to .* look at their units"
    ):
        fit(replace(clean, jacobian=1e250 * clean.jacobian), families=PROCESS)


@pytest.mark.slow
def test_the_other_response_keeps_the_sample_whose_value_is_spoilt():
    data = sample(two, BOUNDS, 24, seed=0)
    y = data.y.copy()
    y[ROW, 0], y[11, 1] = 1e9, -50.0
    doubts = find_doubts(replace(data, y=y))
    assert np.argwhere(doubts.values).tolist() == [[ROW, 0], [11, 1]]
    assert not doubts.slopes.any()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.0, pytest.param(10.0, marks=pytest.mark.slow)])
def test_a_sample_whose_slope_by_one_input_alone_is_wrong_is_found(factor):
    """Among slopes by others, and with a noise by that input that a process makes up for it."""

    def tilted(x):
        return bent(x) + 0.5 * x[2]

    clean = sample(tilted, [[0.0, 1.0]] * 3, 24, seed=0)
    row = int(np.abs(clean.jacobian[:, 0, 0]).argmax())
    doubts = find_doubts(spoilt(clean, slopes=lambda J: J * [factor, 1.0, 1.0], rows=(row,)))
    assert np.flatnonzero(doubts.slopes.any(axis=(1, 2))).tolist() == [row] and not doubts.values.any()


@pytest.mark.slow
def test_several_spoilt_samples_do_not_vouch_for_each_other(clean):
    rows = (3, 9, 20)
    assert np.flatnonzero(
        find_doubts(spoilt(clean, slopes=lambda J: -J, rows=rows)).slopes.any(axis=(1, 2))
    ).tolist() == [*rows]
    far = find_doubts(spoilt(clean, value=lambda y, _: 1e4 + 0.0 * y, rows=rows))
    assert np.flatnonzero(far.values).tolist() == [*rows]


@pytest.mark.slow
def test_samples_at_one_place_that_disagree_are_told_apart(clean):
    twice = replace(
        clean,
        x=np.concatenate((clean.x, clean.x[[4]])),
        y=np.concatenate((clean.y, clean.y[[4]] + 3.0)),
        jacobian=np.concatenate((clean.jacobian, clean.jacobian[[4]])),
    )
    assert np.flatnonzero(find_doubts(twice).values).tolist() == [30]


def test_values_at_one_place_that_differ_and_are_both_believed_are_named(clean):
    twice = replace(
        clean,
        x=np.concatenate((clean.x, clean.x[[4, 5]])),
        y=np.concatenate((clean.y, clean.y[[4]] + 0.2 * clean.y.std(), clean.y[[5]])),
        jacobian=np.concatenate((clean.jacobian, clean.jacobian[[4, 5]])),
    )
    nothing = Doubts(np.zeros((32, 1), dtype=bool), np.zeros((32, 1, 2), dtype=bool), np.zeros((1, 2), dtype=bool))
    (torn,) = torn_points(twice, nothing)
    assert "differ at one and the same point, in 2 rows (4, 30)" in torn
    doubted = replace(nothing, values=np.arange(32)[:, None] == 30)
    assert torn_points(twice, doubted) == []


@pytest.mark.slow
@pytest.mark.parametrize("height", [0.5])
def test_exact_slopes_on_both_sides_of_a_jump_are_given_up(height):
    def jump(x):
        return (height * (x[0] > 0.5) + torch.sin(3.0 * x[1]))[None]

    known, unseen = sample(jump, BOUNDS, 40, seed=0), sample(jump, BOUNDS, 300, seed=1)
    surrogate, said = learned(known)
    values_only, _ = learned(replace(known, jacobian=None))
    assert value_error(surrogate, unseen) < 1.1 * value_error(values_only, unseen)
    assert "slopes of 'q0'" in said and "contradict its values: it jumps" in said
    assert "slopes of all samples" in surrogate.provenance["doubts"]


def test_slopes_are_not_given_up_on_the_word_of_a_few_samples():
    data = sample(*hard("ishigami"), 8, seed=0)
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    assert not doubtful_slopes(scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu")).any()


@pytest.mark.slow
def test_slopes_that_are_zero_by_mistake_are_given_up():
    """They hold the length scale at infinity, from where no process finds back once they are gone."""

    def tilted(x):
        return bent(x) + 0.5 * x[2]

    known, unseen = sample(tilted, [[0.0, 1.0]] * 3, 40, seed=0), sample(tilted, [[0.0, 1.0]] * 3, 300, seed=1)
    surrogate, said = learned(replace(known, jacobian=known.jacobian * [1.0, 1.0, 0.0]))
    assert value_error(surrogate, unseen) < 1e-3
    assert "the slopes of 'q0' by 'p2' contradict its values" in said


@pytest.mark.slow
@pytest.mark.parametrize("used", [[True, False], [False, True], [True, True]])
def test_slopes_that_are_zero_are_doubted_if_their_input_matters(few, used):
    jacobian = np.concatenate((few.jacobian * used, 0.0 * few.jacobian[..., :1]), 2)
    x = np.concatenate((few.x, np.random.default_rng(0).random((16, 1))), 1)
    scaling = Scaling.from_data(np.array([[0.0, 1.0]] * 3), few.y, few.responses)
    doubtful = doubtful_slopes(scaled_targets(scaling, x, few.y, jacobian, device="cpu"))
    assert doubtful.tolist() == [[*(not matters for matters in used), False]]


@pytest.mark.slow
@pytest.mark.parametrize("change", [lambda J: -J, lambda J: J * np.array([-1.0, 1.0])])
def test_slopes_that_are_wrong_in_all_samples_do_no_harm(clean, unseen, change):
    surrogate, said = learned(replace(clean, jacobian=change(clean.jacobian)))
    values_only, _ = learned(replace(clean, jacobian=None))
    assert value_error(surrogate, unseen) < max(1.1 * value_error(values_only, unseen), 2e-3)
    assert "contradict its values" in said


@pytest.mark.slow
@pytest.mark.parametrize(
    "signs", [[-1.0, 1.0], *(pytest.param(signs, marks=pytest.mark.slow) for signs in ([-1.0, -1.0], [1.0, -1.0]))]
)
def test_values_refute_slopes_of_the_wrong_sign(few, signs):
    """Whatever processes that learn from both make of them, and without a family being trained."""
    doubts = find_doubts(replace(few, jacobian=few.jacobian * signs))
    assert doubts.rest.tolist() == [[sign < 0.0 for sign in signs]]
    assert not doubts.values.any()
    assert (doubts.slopes == doubts.rest).all()


def hard(name):
    return {
        # In the middle: two of sixteen samples beyond a front can't be distinguished from two solves that failed.
        "front": (lambda x: torch.tanh(20.0 * (x[0] + 0.5 * x[1] - 0.75))[None], BOUNDS),
        "waves": (lambda x: torch.sin(20.0 * x[0])[None], BOUNDS[:1]),
        "steep": (lambda x: torch.exp(10.0 * x[0] + 2.0 * x[1])[None], BOUNDS),
        "ishigami": (
            lambda x: (torch.sin(x[0]) + 7.0 * torch.sin(x[1]) ** 2 + 0.1 * x[2] ** 4 * torch.sin(x[0]))[None],
            [[-np.pi, np.pi]] * 3,
        ),
    }[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["front", "waves", "steep", "ishigami"])
@pytest.mark.parametrize("N", [16, 40])
def test_hard_functions_have_no_suspects(name, N):
    data = sample(*hard(name), N, seed=3)
    assert not find_doubts(data).any
    assert not find_doubts(replace(data, jacobian=None)).values.any()


@pytest.mark.slow
@pytest.mark.parametrize(("N", "seed"), [(16, 0), (32, 1)])
def test_the_few_samples_beyond_a_steep_front_are_believed(N, seed):
    random = np.random.default_rng(seed).random((N, 2))
    x = qmc.LatinHypercube(2, rng=seed).random(N) if seed else random
    level = np.tanh(30.0 * (x @ [1.0, 0.3] - 0.6))
    slopes = (30.0 * (1.0 - level**2))[:, None] * [1.0, 0.3]
    data = Samples(x, level[:, None], slopes[:, None], ("a", "b"), ("q",), [[0.0, 1.0]] * 2)
    assert not find_doubts(data).any


@pytest.mark.slow
def test_sound_samples_are_believed():
    for data in (borehole_samples(24, seed=0), five_samples(20, seed=0)):
        assert not find_doubts(data).any
        scaling = Scaling.from_data(data.bounds, data.y, data.responses)
        assert not doubtful_slopes(scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu")).any()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (SPOILERS["a million times too large"], "the values of 'q0' in row 7 don't fit the other samples"),
        (SPOILERS["diverged in values and slopes"], "fit the other samples: they would if multiplied by 1e-06"),
        (
            {"value": lambda y, _: 1.5 * y, "slopes": lambda J: 1.5 * J},
            "values and derivatives of 'q0' in row 7 don't fit the other samples: they would if multiplied by 0.67",
        ),
        (
            {"value": lambda y, _: -y, "slopes": lambda J: -J},
            "values and derivatives of 'q0' in row 7 don't fit the other samples: they would if multiplied by -1",
        ),
    ],
)
def test_the_check_of_derivatives_names_the_sample_whose_value_is_spoilt(clean, change, sentence):
    report = check_derivatives(spoilt(clean, **change))
    assert sentence in str(report)
    assert {row for finding in report.findings for row in finding.rows or ()} == {ROW}


@pytest.mark.slow
def test_doubted_labels_do_not_matter_to_any_family():
    """Whatever they are, what is learned is the same."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(12, 2, generator=generator, dtype=torch.float64)
    y, jacobian = torch.stack((x[:, 0] ** 2, x.sum(1)), 1), torch.ones(12, 2, 2, dtype=torch.float64)
    jacobian[:, 0] = torch.stack((2.0 * x[:, 0], 0.0 * x[:, 0]), 1)
    doubts = Doubts(np.zeros((12, 2), dtype=bool), np.zeros((12, 2, 2), dtype=bool), np.zeros((2, 2), dtype=bool))
    doubts.values[3, 0] = doubts.slopes[5, 1, 0] = True
    other = Targets(x, y.clone(), jacobian.clone())
    other.y[3, 0], other.jacobian[5, 1, 0] = 77.0, -55.0
    for family in (Solved(units=8, members=1, iterations=5), PROCESS[0]):
        ours, theirs = (
            family.learn(doubts.applied(targets), seed=0, progress=lambda *_: None).module(x)
            for targets in (Targets(x, y, jacobian), other)
        )
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("gap", [None, (2, 0), (2, 1)])
def test_leaving_a_sample_out_is_what_a_process_without_it_predicts(gap):
    """By the covariance of all others, with labels that are not believed among them."""
    generator = torch.Generator().manual_seed(1)
    x, z = (torch.randn(6, k, generator=generator, dtype=torch.float64) for k in (2, 3))
    theta = torch.tensor([0.2, -0.1, -3.0, -2.0, -4.0], dtype=torch.float64)
    there = torch.ones(6, 3, dtype=torch.bool)
    believed = there.clone()
    if gap is not None:
        believed[gap] = False
    process = LeaveOneOut(theta, x, z[:, 0], z[:, 1:], there)
    errors = process.predict(believed).errors
    lengths = torch.cat((theta.new_ones(1), torch.exp(theta[:2])))
    for i in range(6):
        rest = believed.clone()
        rest[i] = False
        rows, own = torch.nonzero(rest.flatten()).flatten(), torch.arange(3 * i, 3 * i + 3)
        labels = (z * lengths).flatten()
        predicted = process._K[own][:, rows] @ torch.linalg.solve(process._K[rows][:, rows], labels[rows])
        assert torch.allclose(errors[i], z[i] - predicted / lengths, atol=1e-8)
