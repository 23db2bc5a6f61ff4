"""Numbers with names are taken by these wherever numbers are taken; what a mask hides is not."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from sobofem.coupling import generate, taylor_test
from sobofem.coupling.calibration.measurements import Measurements
from sobofem.coupling.contract import checked_bounds
from sobofem.coupling.dataset.field_data import FieldData
from sobofem.coupling.dataset.mesh import Mesh
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.coupling.optimize import Task, minimize

TRIANGLE = Mesh(np.array([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]]), np.array([[0, 1, 2]]), "triangle")


class Bilinear:
    """Two responses of two parameters, returned as `form` has it."""

    parameters, responses, bounds, digest = ("a", "b"), ("p", "q"), np.array([[0.0, 1.0], [0.0, 2.0]]), "bilinear"

    def __init__(self, form=lambda y, jacobian: (y, jacobian)):
        self.form, self.asked = form, []

    def evaluate(self, x, *, jacobian=True):
        a, b = x
        self.asked.append([a, b])
        return self.form(np.array([a * b, a + 3.0 * b]), np.array([[b, a], [1.0, 3.0]]))


class Backward(NamedTuple):
    """Two responses by name."""

    q: float
    p: float


def backward(jacobian, index=("q", "p"), columns=("b", "a")):
    return pd.DataFrame(jacobian[::-1, ::-1], index=index, columns=columns)


@pytest.mark.parametrize(
    "form",
    [
        lambda y, jacobian: ({"q": y[1], "p": y[0]}, backward(jacobian)),
        lambda y, jacobian: (pd.Series(y[::-1], ["q", "p"]), backward(jacobian)),
        lambda y, jacobian: (pd.Series(y), pd.DataFrame(jacobian)),
        lambda y, jacobian: (pd.Series(y, ["p", "q"]), pd.DataFrame(jacobian, columns=["a", "b"])),
        lambda y, jacobian: (Backward(*y[::-1]), {name: row for name, row in backward(jacobian).iterrows()}),
        lambda y, jacobian: (y, [pd.Series(row[::-1], ["b", "a"]) for row in jacobian]),
        lambda y, jacobian: (y, {"q": {"b": 3.0, "a": 1.0}, "p": dict(zip("ab", jacobian[0], strict=True))}),
        lambda y, jacobian: (
            xr.DataArray(y[::-1], dims="r", coords={"r": ["q", "p"]}),
            xr.DataArray(jacobian[:, ::-1], dims=("r", "x"), coords={"x": ["b", "a"]}),
        ),
    ],
)
def test_what_a_model_returns_by_name_is_put_into_order(form):
    for found, right in zip(
        checked_evaluation(Bilinear(form), [0.4, 0.9]), Bilinear().evaluate([0.4, 0.9]), strict=True
    ):
        np.testing.assert_array_equal(found, right)


@pytest.mark.parametrize(
    ("form", "words"),
    [
        (lambda y, jacobian: (pd.Series(y, ["u", "q"]), jacobian), "entries are named u, q; expected p, q"),
        (lambda y, jacobian: ({"p": 1.0}, jacobian), "entries are named p; expected p, q"),
        (lambda y, jacobian: (y, [{"a": 1.0, "c": 2.0}] * 2), "entries are named a, c; expected a, b"),
        (lambda y, jacobian: (y, backward(jacobian, columns=("b", "c"))), "entries are named b, c; expected a, b"),
        (lambda y, jacobian: (y, backward(jacobian, index=("p", "p"))), "entries are named p, p; expected p, q"),
    ],
)
def test_other_names_than_the_models_are_refused(form, words):
    with pytest.raises(ValueError, match=words):
        checked_evaluation(Bilinear(form), [0.4, 0.9])


def test_points_are_taken_by_name(tmp_path):
    points = np.array([[0.2, 1.7], [0.5, 0.1]])
    frame = pd.DataFrame(points, columns=["a", "b"])[["b", "a"]]
    np.testing.assert_array_equal(generate(Bilinear(), frame, tmp_path / "a.h5").x, points)
    rows = [row for _, row in frame.iterrows()]
    np.testing.assert_array_equal(generate(Bilinear(), rows, tmp_path / "rows.h5").x, points)
    point = pd.Series({"b": 1.7, "a": 0.2})
    assert taylor_test(Bilinear(), point=point).point.tolist() == [0.2, 1.7]
    model = Bilinear()
    minimize(model, Task("p"), start=point, solves=1)
    assert model.asked[0] == [0.2, 1.7]


def test_measurements_are_taken_by_name():
    found = Measurements(("p", "q"), pd.Series({"q": 2.0, "p": 1.0}), {"q": 0.2, "p": 0.1})
    assert (found.values.tolist(), found.deviations.tolist()) == ([1.0, 2.0], [0.1, 0.2])
    repeated = Measurements(("p", "p"), pd.Series([1.0, 2.0], ["p", "p"]))
    assert repeated.values.tolist() == [1.0, 2.0]


HIDDEN = np.ma.array([[0.5, 999.0], [0.1, 0.2]], mask=[[False, True], [False, False]])


@pytest.mark.parametrize(
    ("take", "words"),
    [
        (lambda: generate(Bilinear(), HIDDEN, "a.h5"), "NaN or infinity in rows"),
        (lambda: generate(Bilinear(), HIDDEN.data + 1j, "a.h5"), "x is complex"),
        (lambda: generate(Bilinear(), np.array([["2024", "2025"]], "M8[Y]"), "a.h5"), "x holds dates or times"),
        (lambda: Measurements(("p", "q"), HIDDEN[0]), "NaN or infinity; leave out what was not measured"),
        (lambda: Measurements(("p",), [1.0 + 1j]), "values is complex"),
        (lambda: checked_bounds(HIDDEN, ("a", "b")), "bounds are masked or complex"),
        (lambda: Mesh(HIDDEN, TRIANGLE.cells, "triangle"), "all of them finite"),
        (lambda: Mesh(TRIANGLE.points, np.array([[0.0, 1.5, 2.0]]), "triangle"), "other numbers than those of nodes"),
        (
            lambda: FieldData(TRIANGLE, np.ma.masked_less(np.ones((2, 3, 1)), 2.0), np.ones((2, 3, 1))),
            "inputs have masked",
        ),
    ],
)
def test_what_is_hidden_or_no_real_number_is_refused(tmp_path, monkeypatch, take, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((TypeError, ValueError), match=words):
        take()
