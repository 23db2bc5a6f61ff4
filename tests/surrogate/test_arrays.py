"""Arrays as people have them, and settings of torch and NumPy as people have set them."""

from collections import namedtuple
from dataclasses import replace
from fractions import Fraction

from analytic import sample
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import xarray as xr

from sobofem.surrogate import (
    LBFGS,
    MLP,
    Adam,
    FieldSamples,
    OnlineSettings,
    OnlineTraining,
    Samples,
    Solved,
    ValuesOnly,
    fit,
    linear_subspace,
    load,
    train,
    train_ensemble,
)

SMALL = {"network": MLP(6, 1), "optimizers": (Adam(15), LBFGS(10))}
SWAPPED = ["load", "width", "angle"]


def wavy(x):
    a, b, c = x
    return torch.stack([torch.sin(2.0 * a) * b + c**2, torch.exp(a * b) - c])


@pytest.fixture(scope="module")
def data():
    return sample(wavy, [[0.0, 1.0], [-1.0, 2.0], [0.0, 0.5]], 16, seed=0, parameters=("width", "angle", "load"))


@pytest.fixture(scope="module")
def trained(data):
    return train(data, **SMALL)


class Polars:
    """What a data frame of another library offers: names of columns, and columns by name."""

    def __init__(self, columns):
        self._columns = columns

    @property
    def columns(self):
        return list(self._columns)

    def __getitem__(self, name):
        return self._columns[name]


def frames(x, names):
    """The points in tables of many kinds, their columns in another order than their names."""
    frame = pd.DataFrame(x, columns=names)[SWAPPED]
    return {
        "pandas": frame,
        "nullable": frame.convert_dtypes(),
        "mapping": {name: frame[name].tolist() for name in SWAPPED},
        "series in a list": [frame.iloc[k] for k in range(len(frame))],
        "mappings in a list": [dict(zip(names, row, strict=True)) for row in x],
        "other library": Polars({name: frame[name].to_numpy() for name in SWAPPED}),
        "pyarrow": pa.Table.from_pandas(frame, preserve_index=False),
        "structured": frame.to_records(index=False),
        "xarray": xr.DataArray(frame, dims=("point", "parameter"), coords={"parameter": SWAPPED}),
        "xarray, transposed": xr.DataArray(frame, dims=("point", "parameter"), coords={"parameter": SWAPPED}).T,
        "xarray, dataset": xr.Dataset({name: ("point", frame[name]) for name in SWAPPED}),
    }


@pytest.mark.parametrize("kind", frames(np.zeros((1, 3)), ["width", "angle", "load"]))
def test_columns_are_taken_by_name_whatever_their_order(trained, data, kind):
    table = frames(data.x, list(data.parameters))[kind]
    for ours, theirs in zip(trained.predict(table), trained.predict(data.x), strict=True):
        assert np.array_equal(ours, theirs)
    samples = Samples(table, data.y, data.jacobian, data.parameters, data.responses, data.bounds)
    assert np.array_equal(samples.x, data.x) and samples.x.dtype == np.float64


def test_labels_and_their_names_come_from_the_columns(data):
    x = pd.DataFrame(data.x, columns=data.parameters)
    y = pd.DataFrame(data.y, columns=data.responses)
    names = [f"d({q})/d({p})" for q in data.responses for p in data.parameters]
    slopes = pd.DataFrame(data.jacobian.reshape(16, -1), columns=names)
    samples = Samples(x, y, slopes[names[::-1]])
    assert (samples.parameters, samples.responses) == (data.parameters, data.responses)
    assert np.array_equal(samples.jacobian, data.jacobian)
    other = Samples(x, y[["q1", "q0"]], slopes, data.parameters, data.responses)
    assert np.array_equal(other.y, data.y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.rename(columns={"load": "force"}), r"x lacks 'load' and has besides 'force'; expected columns"),
        (lambda x: x.drop(columns="angle"), "x lacks 'angle'"),
        (lambda x: x.assign(color=1.0), "x has besides 'color'"),
        (lambda x: pd.concat([x, x["load"]], axis=1), "several columns of one name: 'load'"),
        (lambda x: x.assign(load="steel"), r"'load' of x holds text \('steel'\)"),
        (lambda x: x.assign(load=1j), "'load' of x is complex; expected real numbers"),
        (lambda x: x.assign(load=pd.Timestamp("2026-01-01")), "'load' of x holds dates"),
        (lambda x: x.assign(load=[None, *x["load"][1:]]), "x holds NaN or infinity in row 0"),
    ],
)
def test_tables_that_don_t_fit_are_refused_by_column(trained, data, change, message):
    table = change(pd.DataFrame(data.x, columns=data.parameters))
    with pytest.raises((TypeError, ValueError), match=message):
        trained.predict(table)


def test_one_point_may_be_a_series_or_a_mapping(trained, data):
    point = pd.Series(data.x[0], index=data.parameters)[SWAPPED]
    for one in (point, dict(point), pd.DataFrame([point])):
        assert np.array_equal(trained.evaluate(one)[0], trained.evaluate(data.x[0])[0])
        assert np.array_equal(trained.predict(one)[0], trained.predict(data.x[:1])[0])
    with pytest.raises(ValueError, match="x lacks 'load' and has besides 'weight'"):
        trained.evaluate(point.rename({"load": "weight"}))


def test_rows_labelled_differently_are_not_put_beside_each_other(data):
    x = pd.DataFrame(data.x, columns=data.parameters)
    y = pd.DataFrame(data.y, columns=data.responses)
    shuffled = y.sample(frac=1.0, random_state=1)
    with pytest.raises(ValueError, match=r"the rows of y are labelled otherwise .* y\.loc\[x\.index\]"):
        Samples(x, shuffled)
    assert np.array_equal(Samples(x, shuffled.loc[x.index]).y, data.y)
    with pytest.raises(ValueError, match=r"the rows of y\['q1'\] are labelled otherwise"):
        Samples(x, {"q0": y["q0"], "q1": shuffled["q1"]})
    with pytest.raises(ValueError, match="row 1 of x has other names than row 0"):
        Samples([x.iloc[0], x.iloc[1][["load"]]], data.y, responses=data.responses)


@pytest.mark.parametrize(
    "convert",
    [
        np.float32,
        lambda a: a.astype(object),
        lambda a: [list(row) for row in torch.tensor(a, requires_grad=True)] if np.ndim(a) == 2 else a,
        np.asfortranarray,
        lambda a: np.ma.masked_invalid(a),
        lambda a: a.tolist(),
        lambda a: [torch.tensor(row) for row in a],
        torch.tensor,
        lambda a: torch.tensor(a, requires_grad=True),
        lambda a: torch.tensor(a, dtype=torch.float32),
        lambda a: [[Fraction(v) for v in row] for row in a.tolist()] if np.ndim(a) == 2 else a,
    ],
)
def test_arrays_of_any_kind_become_the_same_numbers(trained, data, convert):
    samples = Samples(convert(data.x), convert(data.y), data.jacobian, data.parameters, data.responses, data.bounds)
    assert samples.x.dtype == samples.y.dtype == np.float64
    assert np.allclose(samples.x, data.x, rtol=1e-6, atol=1e-7)
    assert np.allclose(trained.predict(convert(data.x))[0], trained.predict(data.x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("convert", [lambda a: a, list, lambda a: a.astype(object), lambda a: a.tolist()])
def test_masked_points_are_missing_ones_however_they_are_held(data, convert):
    masked = np.ma.masked_equal(data.x, data.x[3, 1])
    with pytest.raises(ValueError, match="x holds NaN or infinity in row 3"):
        Samples(convert(masked), data.y, None, data.parameters, data.responses)


def test_masked_derivatives_are_missing_ones(data):
    masked = np.ma.masked_greater(data.jacobian, 1.0)
    names = (data.parameters, data.responses, data.bounds)
    assert np.array_equal(np.isnan(Samples(data.x, data.y, masked, *names, missing=True).jacobian), masked.mask)
    with pytest.raises(ValueError, match="jacobian holds NaN"):
        Samples(data.x, data.y, masked, *names)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, 2.0, 3.0], [1.0]], "x is ragged"),
        ("0.5", "x holds text"),
        ([["0.5", "0.5", "0.5"]], r"x holds text \('0.5'\)"),
        (np.ones((2, 3)) * 1j, "x is complex"),
        (torch.ones(2, 3, dtype=torch.complex64), "x is complex"),
        (torch.ones(2, 3, device="meta"), "numbers can't be read"),
        (np.array([["2026-01-01"] * 3], dtype="M8[D]"), "x holds dates or times"),
        (object(), "no numbers"),
        ((value for value in (1.0, 2.0)), r"no numbers \(generator\)"),
        ([[1.0, None, 2.0]], "NaN or infinity in row 0"),
        ([[1.0, object(), 2.0]], "x holds a object .* in row 0"),
    ],
)
def test_what_holds_no_real_numbers_is_refused_in_words(trained, x, message):
    with pytest.raises((TypeError, ValueError), match=message):
        trained.predict(x)


def test_one_parameter_and_one_response_need_no_second_dimension():
    x = np.linspace(0.0, 1.0, 9)
    samples = Samples(x, np.sin(x), np.cos(x), ("t",), ("q",))
    assert (samples.x.shape, samples.y.shape, samples.jacobian.shape) == ((9, 1), (9, 1), (9, 1, 1))
    model = train(samples, **SMALL)
    assert model.predict(x)[1].shape == (9, 1, 1)
    frame = pd.DataFrame({"t": x, "load": x}, index=[f"run {k}" for k in range(9)])
    assert np.array_equal(model.predict(frame["t"])[0], model.predict(x)[0])
    with pytest.raises(ValueError, match="x is a column named 'load'; expected 't'"):
        model.predict(frame["load"])


def test_bounds_may_be_left_out_or_given_by_name(trained, data):
    names = (data.parameters, data.responses)
    own = Samples(data.x, data.y, data.jacobian, *names)
    assert np.array_equal(own.bounds, np.stack((data.x.min(0), data.x.max(0)), 1))
    assert own.provenance["bounds"] == "the range of the samples"
    model = train(own, **SMALL)
    beyond = own.bounds[:, 1] + 0.1
    with pytest.raises(ValueError, match=r"outside its bounds .*predict\(x, extrapolate=True\) answers"):
        model.predict([beyond])
    assert np.isfinite(model.predict([beyond], extrapolate=True)[0]).all()
    by_name = dict(zip(data.parameters, data.bounds.tolist(), strict=True))
    table = pd.DataFrame(by_name, index=["low", "high"])[SWAPPED]
    for bounds in ({name: by_name[name] for name in SWAPPED}, table, table.T):
        assert np.array_equal(Samples(data.x, data.y, data.jacobian, *names, bounds).bounds, data.bounds)
    with pytest.raises(ValueError, match="bounds lacks 'load'"):
        Samples(data.x, data.y, data.jacobian, *names, {"width": (0, 1), "angle": (-1, 2)})


def test_a_point_on_the_bounds_in_single_precision_is_inside():
    bounds = np.array([[0.1, 0.3], [7.7e4, 9.13e4], [1e-7 / 3, 1e-7]])
    corners = np.stack(np.meshgrid(*bounds), -1).reshape(-1, 3)
    samples = Samples(corners.astype(np.float32), corners[:, 0], None, ("a", "b", "c"), ("q",), bounds)
    assert len(samples.x) == 8
    with pytest.raises(ValueError, match=r"'a' is 0\.3001"):
        Samples(corners + np.array([1e-4, 0.0, 0.0]), corners[:, 0], None, ("a", "b", "c"), ("q",), bounds)


def test_names_are_names():
    x = np.linspace(0.0, 1.0, 9)
    with pytest.raises(TypeError, match="parameters is the text 'load'"):
        Samples(x, x, None, "load", ("q",))
    with pytest.raises(TypeError, match="responses holds 3"):
        Samples(x, x, None, ("t",), (3,))
    assert Samples(x, x, None, np.array(["t"]), pd.Index(["q"])).parameters == ("t",)


def test_fields_subspaces_and_streams_take_columns_by_name(data):
    table = pd.DataFrame(data.x, columns=data.parameters)[SWAPPED]
    assert np.array_equal(FieldSamples(table, data.y, None, data.parameters, data.bounds).x, data.x)
    subspace = linear_subspace(np.eye(3)[:, :2], data.parameters, data.bounds)
    assert np.array_equal(subspace.reduced(table), subspace.reduced(data.x))
    training = OnlineTraining(data.parameters, data.responses, data.bounds, settings=OnlineSettings(watermark=4))
    training.add(range(16), table, data.y, torch.tensor(data.jacobian))
    assert np.array_equal(training.reservoir.held()["x"].numpy(), data.x)


Setting = namedtuple("Setting", "name enter leave")


def settings():
    """Global states of torch and NumPy that callers may be in."""
    before = np.geterr()

    def single():
        torch.set_default_dtype(torch.float32)

    return (
        Setting("no_grad", torch.no_grad().__enter__, lambda: torch.set_grad_enabled(True)),
        Setting("half", lambda: torch.set_default_dtype(torch.float16), lambda: torch.set_default_dtype(torch.float32)),
        Setting(
            "double", lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)
        ),
        Setting("meta device", lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        Setting("raise", lambda: np.seterr(all="raise"), lambda: np.seterr(**before)),
        Setting(
            "deterministic",
            lambda: torch.use_deterministic_algorithms(True),
            lambda: torch.use_deterministic_algorithms(False),
        ),
    )


def everything(data, path):
    """A little of all that trains, predicts, saves and loads."""
    data = replace(data, y=data.y[:, :1], jacobian=None, responses=("q0",))
    network = fit(data, families=(Solved(units=4, members=1, iterations=3),))
    single = train(data, **SMALL)
    ensemble = train_ensemble(data, members=2, calibration=2, **SMALL)
    training = OnlineTraining(
        data.parameters,
        data.responses,
        data.bounds,
        settings=OnlineSettings(network=MLP(6, 1), weighting=ValuesOnly(), watermark=4),
    )
    training.add(range(16), data.x, data.y)
    training.step()
    single.save(path)
    parts = (network, single, ensemble, training.finish(SMALL["optimizers"]), load(path))
    return [array for model in parts for array in model.predict(data.x)]


@pytest.mark.slow
def test_the_callers_global_settings_matter_to_nothing_and_stay(data, tmp_path):
    expected = everything(data, tmp_path / "model")
    for setting in settings():
        try:
            setting.enter()
            found = everything(data, tmp_path / "model")
        finally:
            setting.leave()
        for ours, theirs in zip(found, expected, strict=True):
            assert np.allclose(ours, theirs, rtol=1e-9, atol=1e-9), setting.name
    with torch.inference_mode():
        found = everything(data, tmp_path / "model")
        assert torch.is_inference_mode_enabled()
    assert all(np.allclose(a, b, rtol=1e-9, atol=1e-9) for a, b in zip(found, expected, strict=True))


@pytest.mark.slow
def test_the_callers_random_numbers_are_not_touched(data, tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002  (what callers do)
    ours = torch.rand(3), np.random.random(3)  # noqa: NPY002
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    everything(data, tmp_path / "model")
    assert torch.equal(torch.rand(3), ours[0])
    assert np.array_equal(np.random.random(3), ours[1])  # noqa: NPY002
