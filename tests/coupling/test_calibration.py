"""Parameters from measurements: closed forms, brute force, and what wrong input is told."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import scipy.optimize
from toys import Smooth, TooMuch

from sobofem.coupling import Marginal
from sobofem.coupling.calibration import (
    Fixed,
    Measurements,
    Task,
    certify,
    estimate,
    identifiability,
    laplace,
    synthetic,
)
from sobofem.coupling.calibration.task import Objective


@dataclass
class Linear:
    """Responses A x + b."""

    matrix: np.ndarray
    offset: np.ndarray
    bounds: np.ndarray
    parameters: tuple = field(init=False)
    responses: tuple = field(init=False)

    def __post_init__(self):
        m, n = self.matrix.shape
        self.parameters, self.responses = tuple("abcdef"[:n]), tuple(f"y{k}" for k in range(m))

    def evaluate(self, x, *, jacobian=True):
        return self.matrix @ x + self.offset, self.matrix.copy() if jacobian else None


@dataclass
class Hardening:
    """Voce's hardening: stress at given strains; the certification's trusted model, or nearly it with a bias."""

    bias: float = 0.0
    limit: float = np.inf
    parameters = ("start", "gain", "rate")
    bounds = np.array([[100.0, 300.0], [50.0, 250.0], [5.0, 60.0]])
    strains = np.array([0.002, 0.005, 0.01, 0.02, 0.04, 0.07, 0.11, 0.16])
    solves: int = 0

    @property
    def responses(self):
        return tuple(f"stress_{k}" for k in range(len(self.strains)))

    def evaluate(self, x, *, jacobian=True):
        self.solves += 1
        start, gain, rate = x
        if rate > self.limit:
            raise TooMuch(f"rate {rate:.1f} diverges", 0.5)
        decay = np.exp(-rate * self.strains)
        wave = self.bias * np.sin(rate / 10.0 + gain / 40.0)
        y = start + gain * (1.0 - decay) + wave * self.strains * 100.0
        slope = self.bias * np.cos(rate / 10.0 + gain / 40.0) * self.strains * 100.0
        dy = np.stack([np.ones_like(decay), 1.0 - decay + slope / 40.0, gain * self.strains * decay + slope / 10.0])
        return y, dy.T if jacobian else None


TRUTH = np.array([180.0, 140.0, 25.0])


def linear(m=6, n=3, seed=7):
    rng = np.random.default_rng(seed)
    return Linear(rng.normal(size=(m, n)), rng.normal(size=m), np.tile([-20.0, 30.0], (n, 1)))


def measured(model, x, sd, seed=0):
    return synthetic(model.evaluate(x, jacobian=False)[0], model.responses, sd, seed=seed)


def test_linear_model_with_normal_priors_has_the_posterior_of_the_closed_form():
    model = linear()
    data = measured(model, np.array([1.0, -2.0, 3.0]), np.linspace(0.3, 1.0, 6))
    mean, spread = np.array([0.5, -1.0, 2.0]), np.array([0.4, 1.3, 0.7])
    priors = {p: Marginal("normal", m, s) for p, m, s in zip(model.parameters, mean, spread, strict=True)}
    precision = model.matrix.T @ (model.matrix / data.standard_deviation[:, None] ** 2) + np.diag(spread**-2.0)
    closed = np.linalg.solve(
        precision, model.matrix.T @ ((data.values - model.offset) / data.standard_deviation**2) + mean / spread**2
    )
    found = estimate(model, Task(data, priors), starts=2)
    assert np.allclose(found.x, closed, atol=1e-7)
    assert np.allclose(laplace(found).covariance_of_parameters, np.linalg.inv(precision), rtol=1e-9)
    assert found.step < 1e-6


def test_a_covariance_of_the_measurements_gives_generalized_least_squares():
    model = linear(m=5, n=2)
    rng = np.random.default_rng(3)
    root = np.tril(rng.normal(size=(5, 5))) + 2.0 * np.eye(5)
    covariance = root @ root.T
    data = Measurements(model.responses, rng.normal(size=5), covariance=covariance)
    weight = np.linalg.inv(covariance)
    precision = model.matrix.T @ weight @ model.matrix
    closed = np.linalg.solve(precision, model.matrix.T @ weight @ (data.values - model.offset))
    found = estimate(model, Task(data), starts=1)
    assert np.allclose(found.x, closed, atol=1e-7)
    assert np.allclose(laplace(found).covariance_of_parameters, np.linalg.inv(precision), rtol=1e-8)


def test_unknown_noise_scales_the_covariance_as_linear_regression_does():
    """Textbook regression: s² = |r|² / (K - n), covariance s² (AᵀA)⁻¹."""
    model = linear(m=12, n=3)
    noise = 0.7 * np.random.default_rng(4).normal(size=12)
    data = Measurements(model.responses, model.evaluate(np.ones(3))[0] + noise)
    best, rest, *_ = np.linalg.lstsq(model.matrix, data.values - model.offset)
    found = estimate(model, Task(data, noise="unknown"), starts=1)
    assert np.allclose(found.x, best, atol=1e-7)
    assert found.noise == pytest.approx(np.sqrt(rest[0] / 9))
    closed = rest[0] / 9 * np.linalg.inv(model.matrix.T @ model.matrix)
    assert np.allclose(laplace(found).covariance_of_parameters, closed, rtol=1e-7)


def test_unknown_noise_with_a_prior_ends_where_the_gradient_of_its_posterior_vanishes():
    model = linear(m=5, n=2)
    data = measured(model, np.array([2.0, 1.0]), 2.0)
    task = Task(data, {"a": Marginal("normal", -1.0, 0.3)}, noise="unknown")
    found = estimate(model, task, starts=1)
    objective = Objective(model, task)

    def minus(u):
        return -objective.log_posterior(objective.at(u))[0]

    peak = scipy.optimize.minimize(minus, found.point.u + 0.01, method="Nelder-Mead", options={"xatol": 1e-9})
    assert np.allclose(found.point.u, peak.x, atol=1e-5)


@pytest.mark.parametrize("noise", ["known", "unknown"])
def test_gradient_of_the_posterior_is_that_of_central_differences(noise):
    model = Hardening()
    priors = {
        "start": Marginal("normal", 170.0, 20.0),
        "rate": Marginal("lognormal", 22.0, 0.4),
        "gain": Marginal("log"),
    }
    objective = Objective(model, Task(measured(model, TRUTH, 3.0), priors, noise))
    u, h = np.array([0.31, 0.62, 0.44]), 1e-6
    _, gradient = objective.log_posterior(objective.at(u))
    for k, e in enumerate(np.eye(3)):
        ends = [objective.log_posterior(objective.at(u + s * h * e))[0] for s in (1, -1)]
        assert (ends[0] - ends[1]) / (2 * h) == pytest.approx(gradient[k], rel=1e-5)


def test_many_starts_find_the_global_of_several_optima_and_tell_its_rival():
    @dataclass
    class Folded:
        parameters = ("a", "b")
        responses = ("square", "sum")
        bounds = np.array([[-2.0, 2.0], [-1.0, 1.0]])

        def evaluate(self, x, *, jacobian=True):
            return np.array([x[0] ** 2, x[1] + 0.01 * x[0]]), np.array([[2 * x[0], 0.0], [0.01, 1.0]])

    data = Measurements(("square", "sum"), [1.44, 0.5], [0.1, 0.1])
    found = estimate(Folded(), Task(data), starts=12, seed=3)
    assert {round(found.x[0], 6), *np.round(found.rivals[:, 0], 6)} == {1.2, -1.2}
    assert any("optima" in words for words in laplace(found).warnings)


@pytest.mark.slow
def test_95_percent_intervals_cover_the_truth_in_95_percent_of_repetitions():
    model, covered = Hardening(), np.zeros(3)
    for seed in range(200):
        low, high = laplace(estimate(model, Task(measured(model, TRUTH, 2.0, seed)), starts=1)).interval().T
        covered += (low <= TRUTH) & (high >= TRUTH)
    assert (np.abs(covered / 200 - 0.95) < 4 * np.sqrt(0.95 * 0.05 / 200)).all()


def test_singular_values_tell_the_shrinking_of_the_prior_in_the_closed_form():
    model = linear(m=4, n=3)
    spread = np.array([0.5, 2.0, 1.0])
    priors = {p: Marginal("normal", 0.0, s) for p, s in zip(model.parameters, spread, strict=True)}
    data = measured(model, np.zeros(3), 0.8)
    found = identifiability(estimate(model, Task(data, priors), starts=1))
    precision = model.matrix.T @ model.matrix / 0.64 + np.diag(spread**-2.0)
    closed = np.sqrt(np.diag(np.linalg.inv(precision))) / spread
    assert np.allclose(found.remaining_of_parameters, closed, rtol=1e-6)
    assert np.allclose(found.directions @ found.directions.T, np.eye(3))


def test_a_sum_alone_determines_the_sum_and_not_the_difference():
    model = Linear(np.array([[1.0, 1.0]]), np.zeros(1), np.array([[0.0, 1.0], [0.0, 1.0]]))
    found = identifiability(estimate(model, Task(Measurements(("y0",), [1.1], [0.01])), starts=1))
    assert found.determined == 1
    assert np.allclose(np.abs(found.directions), np.sqrt(0.5))
    assert found.directions[0].prod() > 0.0 > found.directions[1].prod()
    assert found.values[1] == pytest.approx(0.0, abs=1e-12)
    assert "determine 1 of 2 combinations" in found.verdict() and "a" in found.verdict()


def test_laplace_gives_an_undetermined_direction_the_uncertainty_of_the_prior():
    model = Linear(np.array([[1.0, 0.0]]), np.zeros(1), np.array([[0.0, 1.0], [2.0, 5.0]]))
    found = laplace(estimate(model, Task(Measurements(("y0",), [0.4], [0.01])), starts=1))
    assert found.standard_deviation == pytest.approx([0.01, 3.0 / np.sqrt(12.0)], rel=1e-6)
    assert any(words.startswith("b is hardly determined") for words in found.warnings)


def test_a_parameter_at_its_bound_is_told():
    model = Linear(np.eye(2), np.zeros(2), np.array([[0.0, 1.0], [0.0, 1.0]]))
    found = estimate(model, Task(Measurements(model.responses, [1.5, 0.5], [0.1, 0.1])), starts=3)
    assert found.at_bound == ("a",)
    assert found.x == pytest.approx([1.0, 0.5], abs=1e-9)
    assert found.step < 1e-4
    assert any("at its bound" in words for words in laplace(found).warnings)
    assert laplace(found).draw(50, seed=1).max() <= 1.0


def test_the_trusted_model_corrects_a_biased_surrogate_to_its_own_optimum():
    truth, surrogate = Hardening(), Hardening(bias=2.0)
    task = Task(measured(truth, TRUTH, 1.0, seed=5))
    own = estimate(truth, task, starts=1)
    first = estimate(surrogate, task, starts=8)
    sd = np.sqrt(np.diag(laplace(own).covariance))
    assert np.abs((first.point.u - own.point.u) / sd).max() > 3.0
    truth.solves = 0
    certificate = certify(first, surrogate, truth, within=1e-3)
    assert certificate.certified and truth.solves == certificate.solves <= 8
    assert np.abs((certificate.best.point.u - own.point.u) / sd).max() < 1e-3
    corrected, _ = certificate.corrected(surrogate).evaluate(certificate.best.x)
    assert np.allclose(corrected, certificate.best.point.y)


def test_a_right_surrogate_is_certified_by_one_solve():
    model = Hardening()
    first = estimate(model, Task(measured(model, TRUTH, 2.0)))
    certificate = certify(first, model, Hardening())
    assert certificate.certified and certificate.solves == 1


def test_certification_steps_back_where_the_trusted_model_has_no_answer():
    """The surrogate would go where the model fails; the region of trust shrinks and what was found is kept."""
    task = Task(measured(Hardening(), np.array([180.0, 140.0, 40.0]), 1.0))
    surrogate = Hardening(bias=-4.0)
    first = estimate(surrogate, task)
    limit = first.x[2] + 0.2 * (40.0 - first.x[2])
    assert first.x[2] < limit
    certificate = certify(first, surrogate, Hardening(limit=limit), solves=6)
    assert certificate.failures and not certificate.certified
    assert certificate.best.x[2] <= limit
    assert certificate.best.log_posterior >= certificate.path[0].log_posterior


def test_no_answer_at_the_first_point_is_an_error_that_tells_why():
    model = Hardening()
    first = estimate(model, Task(measured(model, TRUTH, 2.0)))
    with pytest.raises(ValueError, match=r"no answer at the surrogate's estimate .*diverges"):
        certify(first, model, Hardening(limit=6.0))


def test_fixed_inputs_leave_the_rows_and_columns_of_the_others():
    model, x = Smooth(), np.array([2e5, 1.2, 1.0])
    fixed = Fixed(model, {"t": 1.2})
    assert fixed.parameters == ("E", "p") and fixed.bounds.shape == (2, 2)
    (y, dy), (whole, slopes) = fixed.evaluate(x[[0, 2]]), model.evaluate(x)
    assert np.array_equal(y, whole) and np.array_equal(dy, slopes[:, [0, 2]])
    many, slopes_of_many = fixed.predict(np.stack([x[[0, 2]]] * 2))
    assert np.array_equal(many[1], whole) and np.array_equal(slopes_of_many[0], dy)
    assert fixed.digest != Fixed(model, {"t": 1.3}).digest
    with pytest.raises(ValueError, match="outside its bounds"):
        Fixed(model, {"t": 5.0})
    with pytest.raises(ValueError, match="no parameter q"):
        Fixed(model, {"q": 5.0})
    with pytest.raises(TypeError, match="no standard deviations"):
        fixed.standard_deviation(x[None, [0, 2]])


def test_measurements_survive_a_file(tmp_path):
    data = Measurements(("force", "force", "sway"), [1.0 / 3.0, 2.0, -1e-7], [0.1, 0.2, 1e-9], at=[0.0, 1.0, 2.0])
    data.write(tmp_path / "m.csv")
    read = Measurements.read(tmp_path / "m.csv")
    assert read.responses == data.responses
    for name in ("values", "deviations", "at"):
        assert np.array_equal(getattr(read, name), getattr(data, name))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("response,value\n", "no measurements below"),
        ("", "is empty; expected a line that names the columns"),
        ("name,value\na,1\n", "columns name, value; expected"),
        ("response,value,Value\na,1,2\n", "columns response, value, value; expected"),
        ("response,value,sd\na,1\n", "line 2: 2 cells, expected 3"),
        ("response,value\n\na,x\n", "line 3: 'x' is no number, as value must be"),
        ("response,value,sd\na,1,0\n", "deviation of a is 0; expected positive"),
        ("response,value,sd\na,nan,1\n", "NaN or infinity"),
    ],
)
def test_a_wrong_file_of_measurements_is_told_with_its_line(tmp_path, text, words):
    path = tmp_path / "m.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words):
        Measurements.read(path)


def test_wrong_tasks_are_refused_in_the_callers_words():
    model = Hardening()
    data = measured(model, TRUTH, 1.0)
    for wrong, words in (
        (lambda: Measurements((), []), "no measurements"),
        (lambda: Measurements(("a",), [1.0, 2.0]), r"values have shape \(2,\), expected \(1,\)"),
        (lambda: Measurements(("a",), [1.0], [1.0], np.eye(1)), "one of them"),
        (lambda: Measurements(("a", "b"), [1.0, 2.0], covariance=[[1.0, 2.0], [2.0, 1.0]]), "not positive definite"),
        (lambda: Measurements(("a", "b"), [1.0, 2.0], covariance=[[1.0, 0.5], [0.0, 1.0]]), "not symmetric"),
        (lambda: Task(Measurements(("a",), [1.0])), "no deviations"),
        (lambda: Task(data, noise="loud"), "'known' or 'unknown'"),
        (lambda: estimate(model, Task(data, {"speed": Marginal("log")})), "prior of speed, but the parameters are"),
        (lambda: estimate(model, Task(data, {"rate": Marginal("normal", 1e4, 1.0)})), "prior of 'rate'"),
        (lambda: estimate(model, Task(data, {"rate": Marginal("norm")})), "prior of 'rate': norm is no prior that a"),
        (lambda: estimate(model, Task(Measurements(("force",), [1.0], [1.0]))), "measured are force, but"),
        (lambda: estimate(model, Task(data), starts=0), "starts is 0"),
        (lambda: laplace(estimate(model, Task(data), starts=1)).interval(1.5), "level is 1.5"),
        (lambda: certify(estimate(model, Task(data), starts=1), model, Smooth()), "but the model has"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()


def test_exact_measurements_teach_no_unknown_noise():
    model = linear()
    data = Measurements(model.responses, model.evaluate(np.ones(3))[0])
    with pytest.raises(ValueError, match="meets every measurement exactly"):
        estimate(model, Task(data, noise="unknown"), starts=1)
