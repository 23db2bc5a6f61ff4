from dataclasses import replace
from types import SimpleNamespace

from analytic import borehole_samples, five_samples, sample
import numpy as np
import pytest
import torch

from sobofem.surrogate.consistency import Finding, check_derivatives
from sobofem.surrogate.consistency.report import merged
from sobofem.surrogate.consistency.smoother import Smoother, covariance, smoothers


def mixed(x):
    """Two smooth responses in three inputs, all of which matter."""
    a, b, c = x
    return torch.stack([torch.exp(0.5 * a * b) + torch.sin(c) * a, 3.0 * a * c + b**2 + 0.5 * b])


def mixed_samples(N, *, seed):
    return sample(mixed, [[-1.0, 1.5], [-2.0, 1.0], [0.0, 2.0]], N, seed=seed)


def spoiled(data, change):
    """The samples with a changed Jacobian."""
    jacobian = data.jacobian.copy()
    change(jacobian)
    return replace(data, jacobian=jacobian)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "N", "seed"),
    [
        (borehole_samples, 20, 0),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in ((mixed_samples, 20, 0), (borehole_samples, 40, 1))),
        pytest.param(mixed_samples, 40, 1, marks=pytest.mark.slow),
    ],
)
def test_nothing_is_found_in_sound_derivatives(make, N, seed):
    report = check_derivatives(make(N, seed=seed))
    assert report.sound and report.checked == N and not report.unresolved
    assert str(report) == f"nothing was found against the derivatives of {N} samples"


@pytest.mark.slow
@pytest.mark.parametrize(
    "factor", [1e-3, *(pytest.param(k, marks=pytest.mark.slow) for k in (1e3, -1.0, np.pi / 180.0, 2.0))]
)
def test_a_column_in_another_unit_is_named_with_the_factor_that_corrects_it(factor):
    def change(jacobian):
        jacobian[:, :, 0] *= factor

    report = check_derivatives(spoiled(borehole_samples(20, seed=3), change))
    (finding,) = report.findings
    assert (finding.parameters, finding.rows, finding.kind) == (("radius",), None, "factor")
    assert finding.factor == pytest.approx(1.0 / factor, rel=0.05)
    told = f"they would if multiplied by {finding.factor:g}"
    assert str(report) == f"the derivatives of 'q0' by 'radius' don't fit the values: {told}"


@pytest.mark.slow
def test_two_columns_with_factors_of_their_own_are_both_found():
    def change(jacobian):
        jacobian[:, :, 0] *= 1e3
        jacobian[:, :, 2] *= np.pi / 180.0

    findings = check_derivatives(spoiled(mixed_samples(20, seed=0), change)).findings
    assert {(f.parameters, round(f.factor, 4)) for f in findings} == {(("p0",), 0.001), (("p2",), 57.3)}
    assert all(f.responses == ("q0", "q1") for f in findings)


@pytest.mark.slow
def test_a_whole_jacobian_of_the_wrong_sign_is_one_finding():
    findings = check_derivatives(spoiled(borehole_samples(20, seed=3), lambda J: J.__imul__(-1.0))).findings
    assert findings == (Finding(("q0",), (), None, "factor", -1.0),)


def test_one_response_of_several_is_named():
    def change(jacobian):
        jacobian[:, 1, 2] *= -1.0

    findings = check_derivatives(spoiled(mixed_samples(14, seed=0), change)).findings
    assert findings == (Finding(("q1",), ("p2",), None, "factor", -1.0),)


@pytest.mark.slow
def test_exchanged_columns_are_recognized_though_their_units_differ():
    def change(jacobian):
        jacobian[:, :, [0, 7]] = jacobian[:, :, [7, 0]]

    findings = check_derivatives(spoiled(borehole_samples(20, seed=3), change)).findings
    assert findings == (Finding(("q0",), ("radius", "conductivity"), None, "exchange"),)


def wave(x):
    return torch.sin(2.0 * x) + 0.3 * x


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        pytest.param(lambda J: J.__imul__(1.0), None, marks=pytest.mark.slow),
        (lambda J: J.__imul__(-1.0), Finding(("q0",), (), None, "factor", -1.0)),
        (lambda J: np.random.default_rng(0).shuffle(J), Finding(("q0",), ("p0",), None, "misfit")),
        pytest.param(
            lambda J: J.__setitem__(4, -J[4]), Finding(("q0",), (), (4,), "factor", -1.0), marks=pytest.mark.slow
        ),
    ],
)
def test_one_parameter_is_enough(change, finding):
    report = check_derivatives(spoiled(sample(wave, [[-1.0, 2.0]], 14, seed=2), change))
    assert report.findings == (() if finding is None else (finding,))


def test_a_linear_response_is_sound():
    def plane(x):
        return (2.0 * x[0] - 3.0 * x[1] + 1.0)[None]

    assert check_derivatives(sample(plane, [[0.0, 2.0], [-1.0, 4.0]], 20, seed=0)).sound


def test_a_constant_column_can_be_an_exchanged_one():
    def bent(x):
        return (x[0] ** 2 + 2.0 * x[0] * x[2] + 3.0 * x[1])[None]

    def change(jacobian):
        jacobian[:, :, [0, 1]] = jacobian[:, :, [1, 0]]

    data = sample(bent, [[-1.0, 1.0], [0.0, 3.0], [0.0, 1.0]], 30, seed=0)
    assert check_derivatives(spoiled(data, change)).findings == (Finding(("q0",), ("p0", "p1"), None, "exchange"),)


@pytest.mark.slow
@pytest.mark.parametrize("fill", [0.0, None])
def test_a_column_that_no_factor_corrects_is_found_without_one(fill):
    def change(jacobian):
        shuffled = np.random.default_rng(0).permutation(jacobian[:, :, 1])
        jacobian[:, :, 1] = shuffled if fill is None else fill

    findings = check_derivatives(spoiled(mixed_samples(40, seed=0), change)).findings
    assert findings == (Finding(("q0", "q1"), ("p1",), None, "misfit"),)


@pytest.mark.slow
@pytest.mark.parametrize("labels", [300, 130])
def test_single_samples_are_found_in_one_group_and_in_several(monkeypatch, labels):
    """60 samples in three inputs make 240 labels, so one group or two."""
    monkeypatch.setattr("sobofem.surrogate.consistency.check.MAX_LABELS", labels)

    def change(jacobian):
        jacobian[[7, 30, 49]] *= -1.0
        jacobian[55, 0, 2] += 3.0

    findings = check_derivatives(spoiled(mixed_samples(60, seed=4), change)).findings
    assert set(findings) == {
        Finding(("q0", "q1"), (), (7, 30, 49), "factor", -1.0),
        Finding(("q0",), ("p2",), (55,), "misfit"),
    }


@pytest.mark.slow
def test_wrong_samples_do_not_vouch_for_each_other():
    """One sample in eight has its sign changed."""
    wrong = (2, 9, 17, 23, 31, 38)

    def change(jacobian):
        jacobian[list(wrong)] *= -1.0

    findings = check_derivatives(spoiled(borehole_samples(48, seed=5), change)).findings
    assert all(f.responses == ("q0",) for f in findings)
    assert sorted(row for f in findings for row in f.rows) == list(wrong)


@pytest.mark.slow
def test_single_samples_are_judged_under_a_wrong_column():
    def change(jacobian):
        jacobian[:, :, 0] *= 1e3
        jacobian[11] *= -1.0

    findings = check_derivatives(spoiled(borehole_samples(30, seed=3), change)).findings
    assert findings == (
        Finding(("q0",), ("radius",), None, "factor", 0.001),
        Finding(("q0",), (), (11,), "factor", -1.0),
    )


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.01, 0.05])
def test_levels_bound_the_noise_of_values_and_slopes(noise):
    data, rng = mixed_samples(60, seed=0), np.random.default_rng(1)
    assert max(max(level) for level in check_derivatives(data).levels.values()) < 0.01
    y = data.y + noise * data.y.std(axis=0) * rng.normal(size=data.y.shape)
    size = np.sqrt(np.square(data.jacobian).mean(axis=0))
    jacobian = data.jacobian + noise * size * rng.normal(size=data.jacobian.shape)
    report = check_derivatives(replace(data, y=y, jacobian=jacobian))
    assert report.sound
    assert set(report.levels) == {"q0", "q1"}
    for values, slopes in report.levels.values():
        assert 0.8 * noise < values < 3.0 * noise
        assert 0.8 * noise < slopes < 3.0 * noise


@pytest.mark.slow
def test_samples_that_are_too_far_apart_are_not_judged():
    def rough(x):
        return torch.stack([torch.sin(15.0 * x[0]) * torch.cos(12.0 * x[1] + x[2]), x.sum() ** 2])

    def change(jacobian):
        jacobian[5] *= -1.0

    report = check_derivatives(spoiled(sample(rough, [[-1.0, 1.0]] * 3, 40, seed=0), change))
    assert report.unresolved == ("q0",)
    assert report.findings == (Finding(("q1",), (), (5,), "factor", -1.0),)
    assert "single samples of 'q0' can't be judged: they are too far apart" in str(report)


@pytest.mark.slow
def test_samples_that_miss_a_label_are_passed_over():
    data = mixed_samples(40, seed=0)

    def change(jacobian):
        jacobian[3], jacobian[8, 1, 2] = np.nan, np.nan
        jacobian[20] *= -1.0

    jacobian = data.jacobian.copy()
    change(jacobian)
    report = check_derivatives(replace(data, jacobian=jacobian, missing=True))
    assert report.checked == 38
    assert report.findings == (Finding(("q0", "q1"), (), (20,), "factor", -1.0),)


@pytest.mark.slow
def test_units_of_the_data_do_not_matter():
    def change(jacobian):
        jacobian[:, :, 1] *= 1e-3
        jacobian[12] *= -1.0

    data = spoiled(mixed_samples(24, seed=0), change)
    k, c = np.array([1e3, 1e-6, 7.0]), np.array([1e6, 1e-3])
    other = replace(
        data, x=data.x * k, bounds=data.bounds * k[:, None], y=data.y * c, jacobian=data.jacobian * c[:, None] / k
    )
    assert check_derivatives(other) == check_derivatives(data)


@pytest.mark.slow
def test_a_constant_response_hinders_no_other_and_has_derivatives_of_zero():
    data = mixed_samples(12, seed=0)
    flat, sloped = replace(data, y=data.y * [1.0, 0.0] + [0.0, 3.0]), replace(data, y=0.0 * data.y)
    jacobian = data.jacobian * [[[1.0], [0.0]]]
    assert check_derivatives(replace(flat, jacobian=jacobian)).sound
    assert check_derivatives(flat).findings == (Finding(("q1",), (), None, "misfit"),)
    assert check_derivatives(replace(flat, jacobian=-jacobian)).findings == (
        Finding(("q0",), (), None, "factor", -1.0),
    )
    assert check_derivatives(sloped).findings == (Finding(("q0", "q1"), (), None, "misfit"),)
    assert check_derivatives(replace(sloped, jacobian=0.0 * jacobian)).sound


def test_derivatives_that_are_all_zero_do_not_fit_values_that_differ():
    data = mixed_samples(12, seed=0)
    (finding,) = check_derivatives(replace(data, jacobian=data.jacobian * [[[0.0], [1.0]]])).findings
    assert finding == Finding(("q0",), (), None, "misfit")


@pytest.mark.slow
def test_what_can_not_be_compared_is_refused():
    data = mixed_samples(12, seed=0)
    with pytest.raises(ValueError, match="holds no Jacobians"):
        check_derivatives(replace(data, jacobian=None))
    few = SimpleNamespace(**{name: getattr(data, name) for name in ("parameters", "responses", "bounds")})
    few.x, few.y, few.jacobian = data.x[:9], data.y[:9], data.jacobian[:9]
    with pytest.raises(ValueError, match="9 samples have all labels; expected at least 10"):
        check_derivatives(few)


def test_findings_that_agree_are_merged():
    def single(response, row, factor):
        return Finding((response,), (), (row,), "factor", factor)

    found = [
        single("q", 5, -1.0),
        single("q", 2, -1.0),
        single("r", 5, -1.0),
        single("r", 2, -1.0),
        single("q", 9, 2.0),
    ]
    found.append(Finding(("q",), ("E",), None, "factor", 1000.0))
    assert merged(found) == (
        Finding(("q",), ("E",), None, "factor", 1000.0),
        Finding(("q", "r"), (), (2, 5), "factor", -1.0),
        Finding(("q",), (), (9,), "factor", 2.0),
    )


@pytest.fixture(scope="module")
def interpolated():
    """Scaled points, labels (N, p) and an interpolant, with its covariance of labels of one size."""
    rng = np.random.default_rng(0)
    x, z = rng.uniform(-1.7, 1.7, size=(7, 2)), rng.normal(size=(7, 3))
    C = covariance(x, 1.3).reshape(21, 21) + 1e-3 * np.eye(21)
    return x, z, Smoother(1.3, np.linalg.inv(C).reshape(7, 3, 7, 3)), C


def predicted(C, z, length, out):
    """Kriging of the labels `out` by all others, as text books have it."""
    sized = (z * np.array([1.0, length, length])).reshape(-1)
    rest = np.setdiff1d(np.arange(z.size), out)
    answer = C[np.ix_(out, rest)] @ np.linalg.solve(C[np.ix_(rest, rest)], sized[rest])
    return answer / np.tile([1.0, length, length], len(z))[out]


def test_covariance_is_the_derivative_of_the_kernel(interpolated):
    x, length, step = interpolated[0], 1.3, 1e-4

    def kernel(a, b):
        return np.exp(-0.5 * np.square(a - b).sum() / length**2)

    C = covariance(x, length)
    e = step * np.eye(2)
    a, b = x[1], x[4]
    for k in range(2):
        slope = (kernel(a + e[k], b) - kernel(a - e[k], b)) / (2 * step)
        assert C[1, 1 + k, 4, 0] / length == pytest.approx(slope, rel=1e-6)
        assert C[4, 0, 1, 1 + k] == C[1, 1 + k, 4, 0]
        for l in range(2):
            corners = kernel(a + e[k], b + e[l]) - kernel(a + e[k], b - e[l])
            corners += kernel(a - e[k], b - e[l]) - kernel(a - e[k], b + e[l])
            assert C[1, 1 + k, 4, 1 + l] / length**2 == pytest.approx(corners / (4 * step**2), rel=1e-5, abs=1e-7)


def test_leaving_out_is_what_an_interpolant_without_these_labels_predicts(interpolated):
    _, z, smoother, C = interpolated
    whole, slopes = smoother.without_sample(z[:, :, None])[:, :, 0], smoother.without_slopes(z)
    for i in range(7):
        out = 3 * i + np.arange(3)
        assert np.allclose(z[i] - whole[i], predicted(C, z, 1.3, out))
        assert np.allclose(z[i, 1:] - slopes[i], predicted(C, z, 1.3, out[1:]))


def test_labels_can_be_unknown(interpolated):
    _, z, smoother, C = interpolated
    gaps = np.zeros_like(z, dtype=bool)
    gaps[2, 1:], gaps[5, 2] = True, True
    out, known = np.flatnonzero(gaps), np.where(gaps, 0.0, z)
    filled = smoother.filled(np.where(gaps, np.nan, z), gaps)
    assert np.allclose(filled[gaps], predicted(C, z, 1.3, out))
    assert np.array_equal(filled[~gaps], z[~gaps])
    errors = smoother.without(gaps).without_sample(known[:, :, None])[:, :, 0]
    assert np.array_equal(errors[gaps], np.zeros(3))
    for i in range(7):
        own = 3 * i + np.arange(3)
        also = np.union1d(out, own)
        expected = predicted(C, z, 1.3, also)[np.isin(also, own)]
        seen = ~gaps[i]
        assert np.allclose(z[i, seen] - errors[i, seen], expected[seen])


def test_potentials_of_the_slopes_add_up_to_the_values():
    x = np.random.default_rng(1).uniform(-1.7, 1.7, size=(30, 2))
    a, b = x.T
    y = 0.5 * a * b + a**2 - 0.3 * b
    z = np.column_stack((y, 0.5 * b + 2.0 * a, 0.5 * a - 0.3))
    finest = min(smoothers(x), key=lambda s: np.abs(s.without_sample(z[:, :, None])).max())
    difference = finest.potentials(z).sum(axis=1) - y
    assert np.ptp(difference) < 1e-3 * np.ptp(y)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("N", "seed"),
    [(24, 0), *(pytest.param(*case, marks=pytest.mark.bench) for case in ((30, 0), (30, 1), (30, 2), (48, 0)))],
)
def test_false_alarms_are_rare_on_many_functions(N, seed):
    """Five responses in six inputs, some sharp and some without all inputs, in several designs."""
    report = check_derivatives(five_samples(N, seed=seed))
    assert report.sound, str(report)
