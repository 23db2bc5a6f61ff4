"""What predictors predict: exact where it can be, and agreeing with the model where the search stands."""

import numpy as np
from optimize_cases import beam
import pytest
from scipy.optimize import approx_fprime, nnls

from sobofem.coupling.optimize import Task, minimize
from sobofem.coupling.optimize.balance import balance
from sobofem.coupling.optimize.predictors.base import Known, Predictor, corrected
from sobofem.coupling.optimize.predictors.gaussian_process import Evidence, Expanded, GaussianProcess
from sobofem.coupling.optimize.predictors.logarithms import Logarithms
from sobofem.coupling.optimize.predictors.quasi_newton import DampedBFGS, SymmetricRankOne
from sobofem.coupling.optimize.scaled_task import ScaledTask

ROOT = np.random.default_rng(0).normal(size=(3, 3))
HESSIAN = ROOT @ ROOT.T + np.eye(3)


def quadratic(z):
    return 0.5 * z @ HESSIAN @ z - z.sum(), HESSIAN @ z - 1.0


def wavy(z):
    return np.sin(2 * z[0] + z[1]) + z[2] ** 3, np.array([2.0, 1.0, 0.0]) * np.cos(2 * z[0] + z[1]) + [
        0,
        0,
        3 * z[2] ** 2,
    ]


def known(function, count, *, seed=1, weight=1.0, close=1.0):
    z = 0.5 + close * (np.random.default_rng(seed).uniform(size=(count, 3)) - 0.5)
    pairs = [function(point) for point in z]
    y = np.array([[value] for value, _ in pairs])
    slopes = np.array([[slope] for _, slope in pairs])
    return Known(z, y - y[0], slopes, 0, 0.2, np.array([weight]), z, np.arange(3), y[0])


def test_the_gradient_of_the_evidence_is_that_of_differences():
    samples = known(wavy, 6)
    evidence = Evidence(samples.z - 0.5, samples.y[:, 0], samples.slopes[:, 0])
    theta = evidence.start + np.array([0.2, -0.3, 0.1])
    found = [(evidence(theta + h)[0] - evidence(theta - h)[0]) / 2e-3 for h in 1e-3 * np.eye(3)]
    assert evidence(theta)[1] == pytest.approx(found, rel=1e-4, abs=1e-3)


def test_a_process_interpolates_values_and_slopes():
    samples = known(wavy, 8)
    predict = GaussianProcess().learn(samples)
    for z, y, slopes in zip(samples.z, samples.y, samples.slopes, strict=True):
        value, slope = predict(z)
        assert value == pytest.approx(y, abs=1e-4)
        assert slope == pytest.approx(slopes, abs=1e-3)


def test_a_process_learns_which_inputs_matter_and_foretells_between_samples():
    predict, z = GaussianProcess().learn(known(wavy, 14)), np.array([0.45, 0.55, 0.4])
    origin = known(wavy, 14).z[0]
    assert predict(z)[0] == pytest.approx([wavy(z)[0] - wavy(origin)[0]], abs=5e-3)


def test_slopes_of_a_process_are_those_of_its_values():
    predict, z = GaussianProcess().learn(known(wavy, 5)), np.array([0.3, 0.6, 0.7])
    assert predict(z)[1][0] == pytest.approx(approx_fprime(z, lambda z: predict(z)[0][0], 1e-6), abs=1e-5)


@pytest.mark.parametrize(
    "predictor", [GaussianProcess(), DampedBFGS(), SymmetricRankOne(), Expanded(GaussianProcess())]
)
def test_corrected_predictors_agree_with_the_center_to_first_order(predictor):
    samples = known(wavy, 4)
    value, slopes = corrected(predictor.learn(samples), samples)(samples.here)
    assert value == pytest.approx(samples.y[0], abs=1e-14)
    assert slopes == pytest.approx(samples.slopes[0], abs=1e-12)


def test_secants_of_a_quadratic_are_exact_after_as_many_steps_as_inputs():
    samples, z = known(quadratic, 4), np.array([0.9, 0.1, 0.4])
    value, slope = SymmetricRankOne().learn(samples)(z)
    truth = quadratic(z)
    assert value == pytest.approx([truth[0] - quadratic(samples.here)[0]], rel=1e-9)
    assert slope[0] == pytest.approx(truth[1], rel=1e-9)


@pytest.mark.parametrize("weight", [1.0, -1.0])
def test_positive_expansions_are_convex_where_the_objective_is_not(weight):
    samples = known(wavy, 7, weight=weight)
    predict = DampedBFGS().learn(samples)
    hessian = np.array([predict(samples.here + e)[1][0] - predict(samples.here)[1][0] for e in np.eye(3)])
    assert np.linalg.eigvalsh(weight * hessian).min() > 0.0


def test_an_expansion_knows_curvature_that_a_process_on_near_samples_has_no_digits_for():
    samples = known(wavy, 5, close=1e-4)
    z = samples.here + 1e-4
    truth = wavy(z)[1] - wavy(samples.here)[1]
    found = Expanded(GaussianProcess()).learn(samples)(z)[1][0] - samples.slopes[0, 0]
    assert found == pytest.approx(truth, rel=1e-2, abs=1e-6)


BOX = np.array([[1.0, 4.0], [-9.0, -2.0], [-1.0, 1.0]])  # positive, negative, both
BOXED = ScaledTask(Task("q"), ("a", "b", "c"), ("q",), BOX)


def power(z):
    """A power law in a positive and a negative input, exponential in one of both signs."""
    a, b, c = BOX[:, 0] + np.diff(BOX)[:, 0] * z
    q = -2.0 * a**2 * abs(b) ** -1.5 * np.exp(0.3 * c)
    return q, q * np.array([2.0 / a, -1.5 / b, 0.3]) * np.diff(BOX)[:, 0]


def test_a_product_of_powers_is_predicted_all_over_the_box_by_logarithms_of_few_samples():
    samples, z = known(power, 3), np.array([0.95, 0.9, 0.1])
    truth, slopes = power(z)
    errors = []
    for predictor in (GaussianProcess(), Logarithms(GaussianProcess(), BOXED)):
        value, slope = predictor.learn(samples)(z)
        errors.append([abs(value[0] - truth + power(samples.here)[0]), np.abs(slope[0] - slopes).max()])
    plain, logarithms = np.array(errors) / abs(truth)
    assert (logarithms < 1e-2).all()
    assert (logarithms < 0.05 * plain).all()


@pytest.mark.parametrize("function", [power, wavy])
def test_slopes_of_logarithms_are_those_of_values_and_agree_with_the_center(function):
    """Where the response changes sign, of the inputs alone."""
    samples, z = known(function, 5), np.array([0.3, 0.6, 0.7])
    predict = corrected(Logarithms(GaussianProcess(), BOXED).learn(samples), samples)
    assert predict(z)[1][0] == pytest.approx(approx_fprime(z, lambda z: predict(z)[0][0], 1e-7), abs=1e-4)
    value, slopes = predict(samples.here)
    assert value == pytest.approx(samples.y[0], abs=1e-14)
    assert slopes == pytest.approx(samples.slopes[0], abs=1e-12)


def test_logarithms_of_nothing_guide_nobody():
    frame = ScaledTask(Task("q"), ("a", "b", "c"), ("q",), np.array([[-1.0, 1.0]] * 3))
    with pytest.raises(ArithmeticError, match="one side of zero"):
        Logarithms(GaussianProcess(), frame).learn(known(lambda z: (z[0] - 0.5, np.array([1.0, 0.0, 0.0])), 6))


NO, NONE = np.zeros(0, dtype=bool), np.zeros((0, 2))


def test_multipliers_balance_the_gradient_at_an_optimum():
    """Least a + 2 b in the unit square with a + b ≥ 1: in the corner (1, 0), where two of three constraints balance."""
    rows = np.array([[1.0, 1.0]])
    found = balance(np.array([1.0, 0.0]), np.array([1.0, 2.0]), np.zeros(1), rows, np.array([False]))
    assert found.residual == pytest.approx(0.0, abs=1e-12)
    assert 1.0 - 1e-9 <= found.multipliers[0] <= 2.0 + 1e-9


def test_multipliers_leave_as_little_as_those_of_the_whole_least_squares_problem():
    """The bounds' multipliers are eliminated; here each has a column of its own."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        n, c = rng.integers(1, 12), rng.integers(1, 5)
        z, corner = rng.uniform(size=n), rng.uniform(size=n)
        z[corner < 0.2], z[corner > 0.8] = 0.0, 1.0
        slope, rows = rng.normal(size=n), rng.normal(size=(c, n)) * 10.0 ** rng.uniform(-3, 3, (c, 1))
        margins, equal = rng.normal(size=c) * (rng.uniform(size=c) < 0.6), rng.uniform(size=c) < 0.3
        near = np.minimum(z, 1.0 - z)
        columns = np.vstack([rows, np.diag(np.where(z <= 0.5, 1.0, -1.0)), -rows[equal]])
        system = np.vstack([columns.T, np.diag(np.concatenate([margins, near, margins[equal]]))])
        _, least = nnls(system, np.append(slope, np.zeros(len(columns))))
        assert balance(z, slope, margins, rows, equal).residual == pytest.approx(least, rel=1e-6, abs=1e-8)


def test_the_residual_is_the_slope_that_nothing_balances():
    slope = np.array([0.3, -0.4])
    inside = balance(np.array([0.5, 0.5]), slope, np.zeros(0), NONE, NO).residual
    assert 0.4 * 0.5 < inside <= 0.5
    assert balance(np.array([0.0, 1.0]), slope, np.zeros(0), NONE, NO).residual == 0.0


def test_a_limit_balances_as_much_as_it_is_near_on_either_side():
    slope, z, row = np.array([1.0, 0.0]), np.array([0.5, 0.5]), np.array([[1.0, 0.0]])
    for margin in (1e-9, -1e-9):
        assert balance(z, slope, np.array([margin]), row, np.array([False])).residual == pytest.approx(1e-9)
    for margin in (0.5, -0.5):
        assert balance(z, slope, np.array([margin]), row, np.array([False])).residual > 0.1


def test_an_equation_balances_both_ways_and_an_inequality_one():
    z, row = np.array([0.5, 0.5]), np.array([[1.0, 0.0]])
    for sign in (1.0, -1.0):
        found = balance(z, sign * np.array([1.0, 0.0]), np.zeros(1), row, np.array([True]))
        assert found.residual == pytest.approx(0.0, abs=1e-12)
        assert found.multipliers == pytest.approx([sign])
    assert balance(z, np.array([-1.0, 0.0]), np.zeros(1), row, np.array([False])).residual > 0.1


class Unsure:
    """A beam that has no answer, or a bad one, but near its start."""

    def __init__(self, answer):
        self._beam, self._answer = beam(bias=1.1), answer
        self.parameters, self.responses, self.bounds = self._beam.parameters, self._beam.responses, self._beam.bounds
        self.asked = 0

    def evaluate(self, x, *, jacobian=True):
        self.asked += 1
        if np.abs(x - self.bounds.mean(axis=1)).max() > 1e-3:
            return self._answer(*self._beam.evaluate(x))
        return self._beam.evaluate(x)


class Collapsed(RuntimeError):
    """No ArithmeticError, but known for a failed solve by its attributes."""

    reason, load_factor = "collapsed", 0.2


def _raise(error):
    raise error


@pytest.mark.slow
@pytest.mark.parametrize(
    "answer",
    [
        lambda y, jacobian: _raise(FloatingPointError("overflow")),
        pytest.param(lambda y, jacobian: _raise(Collapsed()), marks=pytest.mark.slow),
        pytest.param(lambda y, jacobian: (y * np.nan, jacobian), marks=pytest.mark.slow),
        lambda y, jacobian: (y, np.full_like(jacobian, np.inf)),
    ],
    ids=["raises", "fails as a solve", "NaN", "infinite slopes"],
)
def test_a_predictor_that_fails_while_it_predicts_leaves_the_search_to_the_next(answer):
    unsure = Unsure(answer)
    task = Task("weight", at_most={"stress": 1.0, "slenderness": 4.0}, fixed={"idle": 0.5})
    solution = minimize(beam(), task, surrogate=unsure)
    assert unsure.asked > 1
    assert solution.certified
    assert solution.objective == pytest.approx(4 * 16 ** (-2 / 3), rel=1e-6)
    assert {step.predictor for step in solution.path} & {"surrogate"} == set()


LIGHTEST = Task("weight", {"stress": 1.0}, fixed={"height": 1.5})


@pytest.mark.slow
def test_a_surrogate_with_a_bug_is_left_out_and_said_so_once():
    surrogate = Unsure(lambda y, jacobian: {}[y.size])
    with pytest.warns(RuntimeWarning, match="predictor 'surrogate' failed, and is left out: KeyError") as said:
        solution = minimize(beam(), LIGHTEST, surrogate=surrogate)
    assert len(said) == 1 and solution.certified


class Linear(Predictor):
    """Predicts no change at all; what is left after its correction at the center is linear."""

    def learn(self, known):
        return lambda z: (np.zeros(known.y.shape[1]), np.zeros(known.slopes.shape[1:]))


class Broken(Linear):
    def learn(self, known):
        predict = super().learn(known)
        return lambda z: predict(z) if np.array_equal(z, known.here) else {}["no such key"]


@pytest.mark.slow
def test_an_own_predictor_takes_part_under_the_name_of_its_class():
    solution = minimize(beam(), LIGHTEST, predictors=[Linear()])
    assert solution.certified and "Linear" in {step.predictor for step in solution.path}


@pytest.mark.slow
def test_an_own_predictor_that_raises_while_it_predicts_is_left_out_and_said_so_once():
    with pytest.warns(RuntimeWarning, match="predictor 'Broken' failed, and is left out: .*no such key") as said:
        solution = minimize(beam(), LIGHTEST, predictors=[Broken()])
    assert len(said) == 1 and solution.certified
    assert "Broken" not in {step.predictor for step in solution.path}


@pytest.mark.slow
def test_predictions_of_another_shape_are_named():
    class Short(Linear):
        def learn(self, known):
            return lambda z: (np.zeros(1), np.zeros((1, 1)))

    with pytest.warns(RuntimeWarning, match=r"'Short' failed.* shapes \(1,\) and \(1, 1\), expected \(2,\) and"):
        assert minimize(beam(), LIGHTEST, predictors=[Short()]).certified


@pytest.mark.parametrize(
    ("predictors", "error", "message"),
    [
        ([Linear(), Linear()], ValueError, "several predictors are called Linear"),
        ([Linear], TypeError, "is no predictor; derive it from `Predictor`"),
    ],
)
def test_what_is_no_predictor_of_its_own_is_refused(predictors, error, message):
    with pytest.raises(error, match=message):
        minimize(beam(), LIGHTEST, predictors=predictors)
