from dataclasses import replace
from types import SimpleNamespace

from matplotlib import image
import numpy as np
import pages
import pytest

from sobofem.coupling.report import errors, history_figure, parity_figure, write_report
from sobofem.surrogate import LBFGS, Adam, InverseDirichlet, Kriging, Samples, fit, train

BOUNDS = np.array([[0.0, 2.0], [10.0, 50.0]])
UNITS = {"load": "N", "deflection": "mm", "width": "mm"}


def samples(N, *, seed=0, **changes):
    """Deflection = 500 load² / width + 3 width, mass = 5 width: the mass has two flat derivatives."""
    load, width = x = np.random.default_rng(seed).uniform(*BOUNDS.T, size=(N, 2)).T
    zero = np.zeros(N)
    y = np.stack([500 * load**2 / width + 3 * width, 5 * width], axis=1)
    jacobian = np.stack(
        [np.stack([1000 * load / width, 3 - 500 * load**2 / width**2], axis=1), np.stack([zero, zero + 5], axis=1)],
        axis=1,
    )
    return Samples(x.T, y, jacobian, ("load", "width"), ("deflection", "mass"), BOUNDS, UNITS, **changes)


class Shifted:
    """Predicts the truth plus given errors."""

    parameters, responses = ("load", "width"), ("deflection", "mass")

    def __init__(self, data, dy, djacobian):
        self.y, self.jacobian = data.y + dy, data.jacobian + np.asarray(djacobian)

    def predict(self, x, *, jacobian=True):
        return self.y, self.jacobian if jacobian else None


@pytest.fixture(scope="module")
def trained():
    return train(samples(12, seed=1), optimizers=(Adam(20), LBFGS(30)), validation=0.2)


def test_errors_are_relative_to_the_standard_deviation():
    data = samples(200)
    table = errors(Shifted(data, [0.5, -2.0], [[0.1, 0.2], [0.3, 0.4]]), data)
    assert table.values == pytest.approx([0.5 / data.y[:, 0].std(), 2.0 / data.y[:, 1].std()])
    assert table.derivatives[0] == pytest.approx(np.array([0.1, 0.2]) / data.jacobian[:, 0].std(axis=0))
    assert table.value == pytest.approx(table.values.mean())
    assert table.samples == 200


def test_derivatives_that_hardly_vary_are_relative_to_a_tenth_of_their_responses_slope():
    data = samples(200)
    table = errors(Shifted(data, 0.0, [[0.0, 0.0], [0.3, 0.4]]), data)
    assert table.flat.tolist() == [[False, False], [True, True]]
    # ranges 2 and 40; the slopes of the mass over them are 0 and 200, root mean square 200/√2
    slope = 0.1 * 200.0 / np.sqrt(2.0)
    assert table.derivatives[1] == pytest.approx([0.3 * 2 / slope, 0.4 * 40 / slope])
    assert "*" in table.rows()[2][2] and "hardly varies" in table.markdown()


def test_without_jacobians_only_values_are_judged(trained):
    data = replace(samples(30), jacobian=None)
    table = errors(trained, data)
    assert table.derivatives is None and np.isnan(table.derivative)
    assert table.rows()[0] == ["response", "value"]
    with pytest.raises(ValueError, match="holds no Jacobians"):
        parity_figure(trained, data, derivatives=True)


def test_data_of_another_problem_is_refused(trained):
    with pytest.raises(ValueError, match=r"has responses \('deflection', 'mass'\), but the data has"):
        errors(trained, replace(samples(5), responses=("force", "mass")))


def test_too_little_data_is_refused(trained):
    data = samples(4)
    parts = {name: getattr(data, name) for name in ("parameters", "responses", "bounds")}
    one = SimpleNamespace(x=data.x[:1], y=data.y[:1], jacobian=None, **parts)
    with pytest.raises(ValueError, match="1 samples"):
        errors(trained, one)


def test_errors_of_a_constant_response_are_relative_to_its_size(trained):
    data = samples(6)
    mass = trained.predict(data.x)[0][:, 1]
    table = errors(trained, replace(data, y=np.column_stack((data.y[:, 0], np.full(6, 4.0))), jacobian=None))
    assert np.isclose(table.values[1], np.sqrt(np.mean((mass - 4.0) ** 2)) / 4.0)


def test_axes_carry_units(trained):
    values, slopes = (parity_figure(trained, samples(20), derivatives=kind) for kind in (False, True))
    assert [ax.get_xlabel() for ax in values.axes] == ["true [mm]", "true"]
    assert slopes.axes[0].get_ylabel() == "predicted slope × range [mm]"
    assert {text.get_text() for text in slopes.axes[0].get_legend().get_texts()} == {"load", "width"}


def test_history_shows_weights_only_where_they_change(trained):
    assert len(history_figure(trained).axes) == 1
    adaptive = train(samples(12), weighting=InverseDirichlet(), optimizers=(Adam(20),))
    assert len(history_figure(adaptive).axes) == 2


@pytest.mark.slow
def test_report_writes_pictures_and_tables(trained, tmp_path):
    written = write_report(trained, samples(40), tmp_path / "report")
    names = {path.name for path in written}
    assert names == {
        "report.html",
        "errors.json",
        "errors.md",
        "errors.csv",
        "values.png",
        "derivatives.png",
        "history.png",
    }
    assert {path.name for path in (tmp_path / "report").iterdir()} == names
    for path in written:
        if path.suffix == ".png":
            assert image.imread(path)[..., :3].std() > 0.02
    page = pages.check(tmp_path / "report" / "report.html", tmp_path / "report" / "errors.json")
    assert "deflection" in page.text and "d/d width" in page.text and "Origin" in page.text
    assert "| deflection |" in (tmp_path / "report" / "errors.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_a_surrogate_that_was_solved_at_once_has_no_course():
    solved = fit(samples(8, seed=1), families=(Kriging(starts=(-7.0,), iterations=10),))
    assert "solved at once" in history_figure(solved).axes[0].texts[0].get_text()
