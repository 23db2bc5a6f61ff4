import json

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm, poisson
from uncertainty_cases import Fragile, Function, Imperfect, cover, linear, standard

from sobofem.coupling.uncertainty import Limit, NoDesignPoint, failure_probability, form, inputs, propagate
from sobofem.coupling.uncertainty.rare_events import subset_cloud
from sobofem.coupling.uncertainty.sign_errors import _counted

SLOPES = np.array([3.0, -2.0, 1.0])
LENGTH = np.linalg.norm(SLOPES)


def plane(beta=3.0):
    """Fails beyond LENGTH · beta: an index of exactly beta."""
    model = linear(SLOPES)
    return model, inputs(model, standard(model)), Limit("y", float(LENGTH * beta))


def parabola(curvature=0.4):
    """y = x1 - curvature / 2 · x0²: the limit bends away from the origin."""
    return Function(
        lambda x: (x[:, 1] - 0.5 * curvature * x[:, 0] ** 2)[:, None],
        lambda x: np.stack([-curvature * x[:, 0], np.ones(len(x))], axis=1)[:, None],
        [[-9.0, 9.0]] * 2,
        ("x0", "x1"),
    )


def parabola_truth(limit, curvature=0.4):
    return quad(lambda u: norm.pdf(u) * norm.sf(limit + 0.5 * curvature * u**2), -8.0, 8.0)[0]


def covers(found, truth):
    return found.interval[0] <= truth <= found.interval[1]


@pytest.mark.parametrize("beta", [-1.0, 0.5, 3.0, 5.5])
def test_a_plane_has_its_distance_as_index(beta):
    model, given, limit = plane(beta)
    found = form(model, given, limit)
    assert found.beta == pytest.approx(beta, abs=1e-6)
    assert found.u == pytest.approx(beta * SLOPES / LENGTH, abs=1e-5)
    assert found.importance == pytest.approx(SLOPES**2 / LENGTH**2)
    assert found.probability == pytest.approx(norm.cdf(-beta), rel=1e-4)


def test_strength_and_load_that_are_lognormal():
    """Both logarithms are normal, so that the index is known."""
    model = Function(
        lambda x: (x[:, 0] - x[:, 1])[:, None],
        lambda x: np.broadcast_to([1.0, -1.0], (len(x), 1, 2)).copy(),
        [[0.01, 1000.0]] * 2,
        ("strength", "load"),
        ("reserve",),
    )
    given = inputs(model, {"strength": "lognormal:20,0.1", "load": "lognormal:10,0.15"})
    beta = np.log(2.0) / np.hypot(0.1, 0.15)
    found = form(model, given, "reserve < 0")
    assert found.beta == pytest.approx(beta, abs=1e-6)
    assert found.values == pytest.approx(
        np.exp(np.log([20.0, 10.0]) + beta * np.array([-0.01, 0.0225]) / np.hypot(0.1, 0.15))
    )
    assert failure_probability(model, given, "reserve < 0").value == pytest.approx(norm.cdf(-beta), rel=0.04)


@pytest.mark.parametrize("method", ["importance", "subset"])
@pytest.mark.parametrize("beta", [1.0, 3.5])
def test_the_probability_of_a_plane(method, beta):
    model, given, limit = plane(beta)
    found = failure_probability(model, given, limit, method=method)
    assert found.value == pytest.approx(norm.cdf(-beta), rel=0.02 if method == "importance" else 0.2)
    assert covers(found, norm.cdf(-beta)) and found.surrogate == 0.0
    assert found.beta == pytest.approx(beta, abs=0.06)


def test_a_curved_limit_is_sampled_where_the_first_order_errs():
    model = parabola()
    given, truth = inputs(model, standard(model)), parabola_truth(3.0)
    found = failure_probability(model, given, "y > 3")
    assert found.points[0].probability > 1.4 * truth
    assert found.value == pytest.approx(truth, rel=0.03) and covers(found, truth)


@pytest.mark.parametrize("method", ["importance", "subset"])
def test_either_of_two_limits(method):
    model = linear([1.0, 0.0])
    two = Function(
        lambda x: x.copy(), lambda x: np.tile(np.eye(2), (len(x), 1, 1)), model.bounds, model.parameters, ("a", "b")
    )
    found = failure_probability(
        two, inputs(two, standard(two)), ["a > 2.5", Limit("b", -3.0, above=False)], method=method
    )
    truth = 1.0 - norm.cdf(2.5) * norm.cdf(3.0)
    assert found.value == pytest.approx(truth, rel=0.03 if method == "importance" else 0.25) and covers(found, truth)


def test_two_design_points_of_one_limit_are_both_sampled():
    """|x0| > 3: twice the probability of one side."""
    model = Function(lambda x: x[:, :1] ** 2, lambda x: 2.0 * x[:, None] * [1.0, 0.0], [[-9.0, 9.0]] * 2, "ab")
    found = failure_probability(model, inputs(model, standard(model)), "y > 9")
    assert len(found.points[0].others) == 1
    assert found.value == pytest.approx(2 * norm.cdf(-3.0), rel=0.03)


def ridges(*distances):
    """Fails beyond planes at these distances along x0, x1 and −x0: as many points of the limit are locally nearest."""
    normals = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])[: len(distances)]

    def shares(x):
        powers = np.exp(8.0 * (x @ normals.T - distances))
        return powers, powers / powers.sum(axis=1, keepdims=True)

    return Function(
        lambda x: np.log(shares(x)[0].sum(axis=1, keepdims=True)) / 8.0,
        lambda x: (shares(x)[1] @ normals)[:, None],
        [[-9.0, 9.0]] * 2,
        ("x0", "x1"),
    )


@pytest.mark.parametrize(("believed", "true"), [((2.7, 3.0), (3.4, 3.0)), ((2.7, 2.8, 3.0), (3.4, 3.5, 3.1))])
@pytest.mark.parametrize("side", [1.0, -1.0])
def test_the_nearest_of_several_design_points_is_that_of_the_model(believed, true, side):
    """The surrogate's own nearest one lies farther away by the model than another; also where the medians fail."""
    surrogate, model = ridges(*believed), ridges(*true)
    found = form(surrogate, inputs(surrogate, standard(surrogate)), "y > 0" if side > 0 else "y < 0", model=model)
    assert found.confirmed and found.beta == pytest.approx(side * min(true), abs=0.02)


def test_solves_lead_to_the_design_point_of_the_model_itself():
    model, given, limit = plane()
    surrogate = Imperfect(model, 2.0, np.array([0.4, 0.3, -0.5]), 0.3)
    alone = form(surrogate, given, limit)
    found = form(surrogate, given, limit, model=model)
    assert abs(alone.beta - 3.0) > 0.1 and not alone.confirmed
    assert abs(alone.beta - 3.0) < 1.96 * alone.error
    assert found.confirmed and 2 <= found.solves <= 5
    assert found.beta == pytest.approx(3.0, abs=1e-6) and found.u == pytest.approx(3.0 * SLOPES / LENGTH, abs=0.06)


def test_a_design_point_that_a_correction_moves_far_away_is_found_again():
    """By searches from elsewhere: those from the last point and from the medians end in troughs of the waves."""
    model, surrogate = parabola(), Imperfect(parabola(), 0.15, np.array([0.21, -3.26]), 4.49)
    found = form(surrogate, inputs(surrogate, standard(surrogate)), "y > 2.5", model=model)
    assert found.confirmed and found.beta == pytest.approx(2.5, abs=1e-3)


def test_too_few_solves_are_not_called_a_confirmation():
    model, given, limit = plane()
    surrogate = Imperfect(model, 2.0, np.array([0.4, 0.3, -0.5]), 0.3)
    found = form(surrogate, given, limit, model=model, solves=1)
    assert not found.confirmed and found.solves == 1 and found.error > 0.01


@pytest.mark.slow
@pytest.mark.parametrize(
    ("claim", "method", "solves", "intervals"),
    [
        (1.0, "importance", 32, 10),
        (1.0, "subset", 32, 10),
        pytest.param(1.0, "importance", 32, 40, marks=pytest.mark.bench),
        pytest.param(0.2, "importance", 32, 40, marks=pytest.mark.bench),
        pytest.param(5.0, "importance", 32, 40, marks=pytest.mark.bench),
        pytest.param(1.0, "subset", 32, 40, marks=pytest.mark.bench),
        pytest.param(0.2, "importance", 16, 40, marks=pytest.mark.bench),
        pytest.param(1.0, "importance", 16, 40, marks=pytest.mark.bench),
    ],
)
def test_error_bars_of_a_corrected_probability_cover(claim, method, solves, intervals):
    """Whatever the surrogate claims of its own error."""
    model, truth, hits, widths, alone = parabola(), parabola_truth(2.5), [], [], []
    for seed in range(intervals):
        rng = np.random.default_rng(seed)
        surrogate = Imperfect(model, 0.15, 2.0 * rng.normal(size=2), rng.uniform(0.0, 6.0), claim)
        given = inputs(surrogate, standard(surrogate))
        found = failure_probability(
            surrogate, given, "y > 2.5", samples=2**11, seed=seed, model=model, solves=solves, method=method
        )
        hits.append(covers(found, truth))
        widths.append(found.error / truth)
        alone.append(failure_probability(surrogate, given, "y > 2.5", samples=2**11, seed=seed).surrogate / truth)
        assert found.solves <= solves
    assert cover(hits), np.mean(hits)
    if claim == 1.0:
        assert np.median(widths) < (0.6 if solves == 32 else 1.0) * np.median(alone)


@pytest.mark.slow
def test_error_bars_cover_where_sixteen_solves_find_hardly_a_contradiction():
    """The surrogate claims a fifth of its error; the intervals hold the truth all the same, and are half of it wide."""
    model, truth, hits, widths = parabola(), parabola_truth(2.5), [], []
    for seed in range(24):
        rng = np.random.default_rng(seed + 7)
        surrogate = Imperfect(model, 0.15, 2.0 * rng.normal(size=2), rng.uniform(0.0, 6.0), claim=0.2)
        given = inputs(surrogate, standard(surrogate))
        found = failure_probability(surrogate, given, "y > 2.5", samples=1024, seed=seed, model=model, solves=16)
        hits.append(covers(found, truth))
        widths.append(np.diff(found.interval)[0] / truth)
    assert cover(hits), np.mean(hits)
    assert np.median(widths) < 1.0


def test_the_interval_of_equal_masses_is_the_exact_one_of_poisson():
    """Without a count it ends at -ln 0.025 masses; with one, the chances of as many or fewer are 2.5 % at its ends."""
    assert _counted(np.zeros(0), 0.01, 1.0) == pytest.approx((0.0, 0.0, -0.01 * np.log(0.025)))
    low, total, high = _counted(np.full(3, 0.01), 0.01, 1.0)
    assert total == pytest.approx(0.03)
    assert poisson.sf(2, low / 0.01) == pytest.approx(0.025) and poisson.cdf(3, high / 0.01) == pytest.approx(0.025)
    assert _counted(np.full(3, 0.01), 0.01, 0.04)[2] == 0.04  # there is no more


def test_the_interval_of_unequal_masses_covers_a_sum_of_rare_events():
    """Three kinds of events of different mass, each counted by Poisson's distribution."""
    rng, masses = np.random.default_rng(0), np.array([0.2, 1.0, 3.0])
    rates = np.array([4.0, 0.8, 0.3])
    drawn = [np.repeat(masses, counts) for counts in rng.poisson(rates, (1500, 3))]
    bounds = np.array([_counted(found, float(masses @ (rates * masses) / (rates @ masses)), 1e9) for found in drawn])
    truth = rates @ masses
    assert np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 2])) > 0.93
    assert np.median(bounds[:, 2] - bounds[:, 0]) < 4.0 * 1.96 * np.sqrt(rates @ masses**2)


def test_a_surrogate_that_claims_to_be_exact_is_corrected_all_the_same():
    model = parabola()
    surrogate = linear([0.0, 1.0])
    found = failure_probability(surrogate, inputs(model, standard(model)), "y > 2.5", model=model, solves=64)
    assert found.by_surrogate == pytest.approx(norm.sf(2.5), rel=0.05)
    assert covers(found, parabola_truth(2.5)) and found.disagreements > 0


def test_weights_of_subset_simulation_cover_the_whole_space():
    cloud = subset_cloud(lambda u: 3.0 - u[:, 0], 2, 2**13, seed=1)
    assert cloud.weight.sum() == pytest.approx(1.0, abs=0.01)
    assert cloud.weight @ cloud.u[:, 0] ** 2 == pytest.approx(1.0, abs=0.1)


def test_solves_without_an_answer_are_named():
    fragile = Fragile(lambda x: x[:, :1], lambda x: np.ones((len(x), 1, 1)), [[-9.0, 9.0]], ("x0",))
    fragile.most = 2.6
    surrogate = Imperfect(linear([1.0]), 0.2, np.array([2.0]))
    given = inputs(surrogate, standard(surrogate))
    found = failure_probability(surrogate, given, "y > 2.5", model=fragile, method="subset")
    assert found.failures[0].startswith("buckled") and found.solves + len(found.failures) == 32
    fragile.most = -9.0
    with pytest.raises(ArithmeticError, match="buckled"):
        form(surrogate, given, "y > 2.5", model=fragile)


def test_a_solve_without_an_answer_on_the_way_to_the_design_point_counts_and_ends_the_walk():
    fragile = Fragile(lambda x: x[:, :1], lambda x: np.ones((len(x), 1, 1)), [[-9.0, 9.0]], ("x0",))
    fragile.most = 2.3
    surrogate = linear([1.0], offset=0.5)  # its design point is at 2, the model's own at 2.5
    given = inputs(surrogate, standard(surrogate))
    found = form(surrogate, given, "y > 2.5", model=fragile)
    assert not found.confirmed and len(found.path) == 1 and found.solves == 2
    assert len(found.failures) == 1 and found.failures[0].startswith("buckled at 2.")
    whole = failure_probability(surrogate, given, "y > 2.5", model=fragile, solves=16)
    assert whole.failures[0] == found.failures[0] and whole.solves + len(whole.failures) == 16


def test_a_limit_out_of_reach_has_no_design_point_and_says_why():
    model, given, _ = plane()
    for limit, certain, index in (("y > 90", "impossible", "+inf"), ("y > -90", "certain", "-inf")):
        with pytest.raises(NoDesignPoint, match=rf"failure is {certain} .* index is \{index}") as raised:
            form(model, given, limit)
        assert raised.value.certainty.probability == float(certain == "certain")
        # the closest response within eight standard deviations, by the slopes' length
        closest = 8.0 * LENGTH if certain == "impossible" else -8.0 * LENGTH
        assert f"y = {closest:.4g}"[:7] in str(raised.value)


@pytest.mark.parametrize("method", ["importance", "subset"])
@pytest.mark.parametrize("check", [False, True])
@pytest.mark.parametrize(("limit", "truth"), [("y > 90", 0.0), ("y < 90", 1.0), ("y > -90", 1.0), ("y < -90", 0.0)])
def test_certain_and_impossible_failure_have_probabilities_of_one_and_zero(method, check, limit, truth):
    model, given, _ = plane()
    found = failure_probability(
        model, given, limit, method=method, samples=1024, model=linear(SLOPES) if check else None, solves=32
    )
    assert found.value == truth and found.beta == (np.inf if truth == 0.0 else -np.inf)
    assert found.interval[0] <= truth <= found.interval[1] and found.disagreements == 0
    assert len(found.certain) == 1 and found.certain[0].startswith(limit)
    json.dumps(found.record())


def test_solves_that_contradict_a_certain_failure_correct_it():
    """The surrogate is off by so much that it never fails; the model fails with probability Φ(-0.5)."""
    model, given, _ = plane()
    surrogate = linear(SLOPES, offset=-60.0)
    found = failure_probability(surrogate, given, f"y > {0.5 * LENGTH}", samples=4096, model=model, solves=200)
    assert found.by_surrogate == 0.0 and found.disagreements > 0
    assert covers(found, norm.cdf(-0.5))


def test_of_several_limits_one_that_is_certain_decides_and_one_that_is_impossible_does_not_matter():
    model, given, limit = plane(2.0)
    alone = failure_probability(model, given, limit, samples=4096)
    both = failure_probability(model, given, [limit, "y < -90"], samples=4096)
    assert both.value == pytest.approx(alone.value, rel=1e-9) and len(both.certain) == 1
    assert failure_probability(model, given, [limit, "y < 90"], samples=4096).value == 1.0


def test_failure_in_a_corner_of_a_flat_response_is_found():
    """The response is zero up to x0 = 2 and grows with the cube beyond: no gradient leads there from the medians."""
    model = Function(
        lambda x: (np.maximum(x[:, 0] - 2.0, 0.0) ** 3)[:, None],
        lambda x: np.stack([3 * np.maximum(x[:, 0] - 2.0, 0.0) ** 2, np.zeros(len(x))], axis=1)[:, None],
        [[-9.0, 9.0]] * 2,
        ("x0", "x1"),
    )
    given = inputs(model, standard(model))
    assert form(model, given, "y > 1").beta == pytest.approx(3.0, abs=1e-3)
    assert covers(failure_probability(model, given, "y > 1"), norm.cdf(-3.0))


def test_a_constant_response_fails_always_or_never_and_at_its_limit_it_is_refused():
    model = linear([0.0, 0.0, 0.0], offset=192.53)
    given = inputs(model, standard(model))
    for method in ("importance", "subset"):
        assert failure_probability(model, given, "y > 200", method=method).value == 0.0
        assert failure_probability(model, given, "y > 100", method=method).value == 1.0
        with pytest.raises(ArithmeticError, match="does not vary and equals the limit"):
            failure_probability(model, given, "y > 192.53", method=method)


def test_failure_too_rare_for_subset_simulation_is_refused_with_its_size():
    model, given, limit = plane(7.6)
    with pytest.raises(ArithmeticError, match="less probable than 1e-12"):
        failure_probability(model, given, limit, method="subset", samples=1024)


def test_a_surrogate_that_is_nan_somewhere_is_refused_and_not_counted_as_safe():
    good = linear(SLOPES)
    model = Function(
        lambda x: np.where(x[:, :1] > 1.0, np.nan, good.values(x)), good.slopes, good.bounds, good.parameters
    )
    given = inputs(model, standard(model))
    for attempt in (lambda: failure_probability(model, given, "y > 3"), lambda: propagate(model, given)):
        with pytest.raises(ArithmeticError, match=r"y is NaN or infinite, or its slopes are, at .* such as x0 = "):
            attempt()


@pytest.mark.parametrize(
    ("limits", "options", "message"),
    [
        ("y = 3", {}, "write when it has failed, such as 'stress > 235'"),
        ("y > three", {}, "is no limit"),
        ("z > 3", {}, "there is no response 'z'; there are y"),
        (Limit("y", float("nan")), {}, "expected a finite number"),
        ([], {}, "there are no limits"),
        ("y > 3", {"method": "magic"}, "there are importance and subset"),
        ("y > 3", {"samples": 100}, "samples is 100, expected at least 1024"),
        (
            "y > 3",
            {"model": linear(SLOPES), "solves": 10},
            "solves is 10, expected at least 13: 5 may go to design points",
        ),
        ("y > 3", {"model": linear([1.0, 2.0])}, "the surrogate has parameters"),
    ],
)
def test_what_makes_no_sense_is_refused(limits, options, message):
    model, given, _ = plane()
    with pytest.raises(ValueError, match=message):
        failure_probability(model, given, limits, **options)


def test_limits_are_read_as_they_are_written():
    assert Limit.parse(" mean stress>2.5e2 ") == Limit("mean stress", 250.0)
    assert str(Limit.parse("reserve < -0.5")) == "reserve < -0.5"
    assert not Limit.parse("reserve < 0").above
