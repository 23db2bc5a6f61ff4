"""Samples of other programs become datasets: what is unambiguous is understood, the rest refused with the way out."""

import csv
import functools
import os
from pathlib import Path
import re

import numpy as np
import pandas
import pytest
from typer.testing import CliRunner

from sobofem import surrogate
from sobofem.coupling import Dataset, merge
from sobofem.coupling.cli import app
from sobofem.coupling.report import errors
from sobofem.surrogate import LBFGS, MLP, Kriging, check_derivatives, fit, train

RNG = np.random.default_rng(0)
N = 24
E, T = RNG.uniform(190e3, 220e3, N), RNG.uniform(1.0, 3.0, N)
MASS, STRESS = 7.85 * T, E / T**2
SLOPES = np.stack([np.stack([0 * T, 7.85 + 0 * T], 1), np.stack([T**-2, -2 * E / T**3], 1)], 1)
TABLE = {
    "E": E,
    "t": T,
    "mass": MASS,
    "stress": STRESS,
    "dmass/dE": SLOPES[:, 0, 0],
    "dmass/dt": SLOPES[:, 0, 1],
    "dstress/dE": SLOPES[:, 1, 0],
    "dstress/dt": SLOPES[:, 1, 1],
}


@pytest.fixture
def brief(monkeypatch):
    """Training by command takes few iterations."""
    monkeypatch.setattr(surrogate, "train", functools.partial(train, optimizers=(LBFGS(10),)))


def write(path, table=TABLE, changes=()):
    """A CSV file, of which some cells (line, column) have another text."""
    rows = [list(table), *[[repr(float(v)) for v in row] for row in zip(*table.values(), strict=True)]]
    for line, column, text in changes:
        rows[line - 1][list(table).index(column)] = text
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


def same(data):
    np.testing.assert_array_equal(data.x, np.stack([E, T], 1))
    np.testing.assert_array_equal(data.y, np.stack([MASS, STRESS], 1))
    np.testing.assert_array_equal(data.jacobian, SLOPES)
    assert (data.parameters, data.responses) == (("E", "t"), ("mass", "stress"))
    return True


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words):
    return str(run(*words).exception)


FORMS = {
    "d(y)/d(x)": "d({y})/d({x})",
    "dy/dx": "d{y}/d{x}",
    "dy_dx": "d{y}_d{x}",
    "d_y/d_x": "d_{y}/d_{x}",
    "d_y_d_x": "d_{y}_d_{x}",
    "∂y/∂x": "∂{y}/∂{x}",
    "spaces": "d {y} / d {x}",
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_derivatives_are_known_by_the_names_of_what_they_are_of_and_by(tmp_path, form):
    names = {f"d{y}/d{x}": form.format(y=y, x=x) for y in ("mass", "stress") for x in ("E", "t")}
    assert same(Dataset.from_file(write(tmp_path / "a.csv", {names.get(k, k): v for k, v in TABLE.items()})))


def test_columns_come_in_any_order_from_every_kind_of_file(tmp_path):
    turned = dict(reversed(TABLE.items()))
    pandas.DataFrame(turned).to_parquet(tmp_path / "a.parquet")
    np.savez(tmp_path / "columns.npz", **{name.replace("/", "_"): column for name, column in turned.items()})
    np.savez(tmp_path / "arrays.npz", x=np.stack([E, T], 1), y=np.stack([MASS, STRESS], 1), dy_dx=SLOPES)
    known = {"parameters": ("E", "t"), "responses": ("mass", "stress")}
    for file in (write(tmp_path / "a.csv", turned), tmp_path / "a.parquet", tmp_path / "columns.npz"):
        assert same(Dataset.from_file(file, **known))
    assert same(Dataset.from_file(tmp_path / "arrays.npz", **known))
    assert Dataset.from_file(tmp_path / "arrays.npz").parameters == ("x0", "x1")
    assert same(Dataset.from_frame(pandas.DataFrame(turned), **known))
    Dataset.from_file(tmp_path / "a.csv", **known).to_numpy(tmp_path / "again.npz")
    assert same(Dataset.from_file(tmp_path / "again.npz"))


def test_a_folder_is_read_file_by_file_one_sample_or_one_array_each(tmp_path):
    for name in ("tables", "samples", "arrays"):
        (tmp_path / name).mkdir()
    for k, rows in enumerate((slice(0, 10), slice(10, N))):
        write(tmp_path / "tables" / f"{k}.csv", {name: column[rows] for name, column in TABLE.items()})
    for k in range(N):
        np.savez(tmp_path / "samples" / f"{k:03}.npz", x=[E[k], T[k]], y=[MASS[k], STRESS[k]], jacobian=SLOPES[k])
    for name, array in (("x", np.stack([E, T], 1)), ("y", np.stack([MASS, STRESS], 1)), ("dy_dx", SLOPES)):
        np.save(tmp_path / "arrays" / f"{name}.npy", array)
    for name in ("tables", "samples", "arrays"):
        assert same(Dataset.from_file(tmp_path / name, parameters=["E", "t"], responses=["mass", "stress"])), name
    write(tmp_path / "tables" / "2.csv", {name.replace("stress", "strain"): column for name, column in TABLE.items()})
    with pytest.raises(ValueError, match=r"2\.csv lacks dstress/dE.* has besides dstrain/dE"):
        Dataset.from_file(tmp_path / "tables")


def test_patterns_units_and_the_other_kind_are_understood(tmp_path):
    table = {"x1 [mm]": E, "x2": T, "force [N]": STRESS, "grad_force_x1": SLOPES[:, 1, 0], "id": np.arange(N)}
    asked = {"parameters": ["x*"], "responses": ["force"], "derivatives": "grad_{response}_{parameter}"}
    data = Dataset.from_file(write(tmp_path / "a.csv", table), **asked)
    assert data.units == {"x1": "mm", "force": "N"} and data.missing
    np.testing.assert_array_equal(data.jacobian[:, 0, 0], SLOPES[:, 1, 0])
    assert np.isnan(data.jacobian[:, 0, 1]).all()
    assert Dataset.from_file(tmp_path / "a.csv", responses=["force", "grad*", "id"]).parameters == ("x1", "x2")


def test_bounds_are_given_or_those_of_the_samples_with_a_margin_on_their_side_of_zero(tmp_path):
    thin = TABLE | {"t": np.linspace(0.01, 3.0, N)}
    data = Dataset.from_file(write(tmp_path / "a.csv", thin), bounds={"E": (1e5, 3e5)}, margin=0.1)
    np.testing.assert_allclose(data.bounds, [[1e5, 3e5], [0.01, 3.0 + 0.1 * 2.99]])


GAPS = [(4, "stress", ""), (5, "dstress/dE", "NaN"), (5, "dstress/dt", "n/a")]
GAPS += [(7, name, "") for name in list(TABLE)[2:]]


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_what_is_missing_passes_through_file_training_report_and_check(tmp_path):
    out = tmp_path / "a.h5"
    said = run("import", write(tmp_path / "a.csv", changes=GAPS), "--out", out)
    assert said.exit_code == 0 and "23 samples of 24 rows" in said.output and "planned points without" in said.output
    assert re.search(r"stress +response +[\d. …e+]+ +4.35 %", said.output)
    data = Dataset.open(out)
    assert data.missing and np.argwhere(np.isnan(data.y)).tolist() == [[2, 1]] and 5 not in data.rows
    assert np.argwhere(np.isnan(data.jacobian)).tolist() == [[2, 1, 0], [2, 1, 1], [3, 1, 0], [3, 1, 1]][2:]
    assert "stress: values 4.35 %, by E 4.35 %, by t 4.35 %" in data.summary()
    full = Dataset.from_frame(pandas.DataFrame(TABLE))
    for model in (
        fit(data, families=(Kriging(starts=(-7.0,), iterations=15),)),
        train(data, network=MLP(6, 1), optimizers=(LBFGS(80),), validation=0.2),
    ):
        assert errors(model, full).value < 0.05 and errors(model, data).value < 0.05
    assert check_derivatives(data).sound
    whole = merge([data, full.select(np.arange(4))])
    assert not np.isnan(whole.y).any() and not np.isnan(whole.jacobian).any()


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ([(6, "stress", "12 MPa")], (), r"a\.csv, line 6: '12 MPa' is no number.*write the number alone"),
        ([(6, "E", "")], (), r"line 6: E is missing; fill it in, or remove the row"),
        ([(6, "mass", "1e999")], (), r"line 6: mass is NaN or infinity"),
        ((), ("--parameters", "E,T"), r"no column 'T', as parameters say; did you mean 't'\?"),
        ((), ("--parameters", "E,t", "--responses", "t"), "t is named as parameter and as response"),
        ((), ("--bounds", "E=2e5,3e5"), r"E = 1\S+ lies outside of its bounds \[200000, 300000\]; widen them"),
        ((), ("--bounds", "q=0,1"), "bounds are given of q; the parameters are E, t"),
        ((), ("--derivatives", "grad_{response}"), "expected a pattern with both names"),
        ((), ("--derivatives", "{0}{response}{parameter}"), "no column is called like"),
        ((), ("--parameters", "E,E"), "expected a sequence of names, each once"),
        ((), ("--bounds", "E=3e5,1e5"), r"bounds of 'E' are \[300000, 100000\]; expected lower before upper"),
        ((), ("--parameters", "E"), "t can't be among the responses, as the derivatives say"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_with_file_line_and_remedy(tmp_path, changes, options, message):
    said = refused("import", write(tmp_path / "a.csv", changes=changes), "--out", tmp_path / "a.h5", *options)
    assert re.search(message, said) and "\n" not in said
    assert not (tmp_path / "a.h5").exists()


def test_imports_of_other_bounds_are_merged_by_importing_them_together():
    table = pandas.DataFrame(TABLE)
    with pytest.raises(ValueError, match=r"bounds of E was .*; import their files together, or with the same --bounds"):
        merge([Dataset.from_frame(table[:10]), Dataset.from_frame(table[10:])])
    box = {"E": (180e3, 230e3), "t": (1.0, 3.0)}
    assert len(merge([Dataset.from_frame(part, bounds=box) for part in (table[:10], table[10:])])) == N


def test_patterns_of_names_take_no_derivatives_along():
    table = pandas.DataFrame({"E": E, "dmax": MASS, "ddmax_dE": SLOPES[:, 0, 0]})
    for derivatives in ("", "d{response}_d{parameter}"):
        data = Dataset.from_frame(table, responses=("d*",), parameters=("*E",), derivatives=derivatives)
        assert (data.parameters, data.responses) == (("E",), ("dmax",))
        np.testing.assert_array_equal(data.jacobian[:, 0, 0], SLOPES[:, 0, 0])
    by_name = Dataset.from_frame(table, parameters=("E",), responses=("dmax", "ddmax_dE"))
    assert by_name.responses == ("dmax", "ddmax_dE") and by_name.jacobian is None


def test_a_derivative_by_what_is_no_column_is_not_taken_for_a_response():
    table = pandas.DataFrame({"E": E, "t": T, "stress": STRESS, "dstress_dT": SLOPES[:, 1, 1]})
    for named in ({"parameters": ("E", "t")}, {"responses": ("stress",)}, {}):
        with pytest.raises(ValueError, match="'dstress_dT' is called like a derivative, but 'stress' or 'T' is no"):
            Dataset.from_frame(table, **named)


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (pandas.concat([pandas.DataFrame(TABLE)] * 2, axis=1), {}, "names a column twice: E, dmass/dE"),
        (pandas.DataFrame(TABLE).iloc[:0], {}, "holds no rows"),
        (pandas.DataFrame(TABLE), {"parameters": "Et"}, "expected a sequence of names"),
        (pandas.DataFrame(TABLE), {"bounds": np.ones((2, 2))}, "expected a range by name"),
        (pandas.DataFrame(TABLE), {"bounds": {"E": 3}}, "expected two numbers"),
    ],
)
def test_frames_and_options_that_say_nothing_clear_are_refused(frame, options, message):
    with pytest.raises(ValueError, match=message):
        Dataset.from_frame(frame, **options)


def test_columns_that_could_be_either_are_asked_for(tmp_path):
    write(tmp_path / "a.csv", TABLE | {"id": np.arange(N)})
    assert "can't tell whether id is a parameter or response" in refused("import", tmp_path / "a.csv", "--out", "b.h5")
    write(tmp_path / "b.csv", {name: TABLE[name] for name in ("E", "t", "stress")})
    assert "can't tell whether E, t, stress are parameters or responses" in refused(
        "import", tmp_path / "b.csv", "--out", "b.h5"
    )
    write(tmp_path / "c.csv", {name.replace("/dt", "/dT"): column for name, column in TABLE.items()})
    assert "'dmass/dT' is called like a derivative, but 'mass' or 'T' is no column" in refused(
        "import", tmp_path / "c.csv", "--out", "b.h5"
    )
    write(tmp_path / "d.csv", TABLE | {"E": 0 * E + 2e5})
    assert "'E' is 200000 in all rows; leave it out" in refused("import", tmp_path / "d.csv", "--out", "b.h5")


def test_repeated_rows_are_left_out_and_contradictions_refused_unless_they_are_measurements(tmp_path):
    twice = {name: np.append(column, column[2]) for name, column in TABLE.items()}
    said = run("import", write(tmp_path / "a.csv", twice), "--out", tmp_path / "a.h5")
    assert "line 26: repeats another row" in said.output and same(Dataset.open(tmp_path / "a.h5"))
    twice["mass"] = np.append(MASS, 8.0)
    words = ("import", write(tmp_path / "b.csv", twice), "--out", tmp_path / "b.h5")
    assert re.search(
        r"b\.csv, line 26: the point of .*b\.csv, line 4 again, with mass = 8 in place of", refused(*words)
    )
    assert run(*words, "--keep-repeats").exit_code == 0 and len(Dataset.open(tmp_path / "b.h5")) == N + 1


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(pipe := tmp_path / "a.csv")
    for path in (pipe, tmp_path):
        assert "a.csv is no file but a folder, a pipe or a device" in refused("import", path, "--out", "b.h5")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((4, 2)), "y": np.zeros((3, 1))}, r"x of shape \(4, 2\) and y of shape \(3, 1\)"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 3)), "j": np.zeros((4, 2, 3))}, "turn it by np.swapaxes"),
        ({"a": np.zeros(4), "b": np.zeros(5)}, r"arrays of shapes a \(4,\), b \(5,\)"),
        ({"x": np.array([["a", "b"]] * 4), "y": np.zeros((4, 1))}, "column 'x0' holds text"),
        ({"x": np.zeros((4, 2)), "y": np.zeros((4, 1)), "z": np.zeros(4)}, "holds z beside x and y"),
        ({"x": np.zeros((4, 2)), "X": np.ones((4, 2)), "y": np.zeros((4, 1))}, "x and X, which mean the same"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_shape(tmp_path, arrays, message):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        Dataset.from_file(tmp_path / "a.npz")


@pytest.mark.slow
@pytest.mark.usefixtures("brief")
def test_a_table_trains_and_judges_without_being_imported(tmp_path):
    write(tmp_path / "a.csv")
    out = tmp_path / "a.safetensors"
    words = ("--parameters", "E,t", "--responses", "stress", "--descent", "--width", 4, "--depth", 1, "--out", out)
    assert run("train", tmp_path / "a.csv", *words).exit_code == 0
    said = run("report", out, tmp_path / "a.csv", "--out", tmp_path / "report")
    assert said.exit_code == 0 and "trained on these very samples" in said.output
    assert "| stress |" in (tmp_path / "report" / "errors.md").read_text()
    Dataset.from_file(tmp_path / "a.csv").save(tmp_path / "a.h5")
    assert "leave out --parameters" in refused("train", tmp_path / "a.h5", *words)
    assert "`sobofem import" in refused("info", tmp_path / "a.csv")


def test_missing_packages_and_files_are_named(tmp_path, monkeypatch):
    assert "there is no file" in refused("import", tmp_path / "a.csv", "--out", tmp_path / "a.h5")
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    assert "save the table as one of these" in refused("import", tmp_path / "a.xlsx", "--out", tmp_path / "a.h5")
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    assert "can't be read as Parquet" in refused("import", tmp_path / "a.parquet", "--out", tmp_path / "a.h5")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    error = run("import", tmp_path / "a.parquet", "--out", tmp_path / "a.h5").exception
    assert isinstance(error, ModuleNotFoundError) and error.name == "pyarrow"


@pytest.mark.usefixtures("brief")
def test_the_page_on_data_shows_what_happens(tmp_path, monkeypatch):
    page = (Path(__file__).parents[2] / "docs" / "data.md").read_text()
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "docs/data.md", "exec"), names)
    data = Dataset.open("data.h5")
    assert data.units == {"t": "mm"} and np.isnan(data.jacobian[3]).all() and data.bounds[1].tolist() == [1.0, 3.0]
    np.testing.assert_array_equal(names["same"].jacobian, data.jacobian)
    write(tmp_path / "design.csv")
    commands = re.search(r"```bash\n(sobofem import.*?)```", page, re.DOTALL)[1].splitlines()
    words = [re.sub(" #.*", "", line).split()[1:] for line in commands]
    Path("data.h5").unlink()
    assert run(*words[0]).exit_code == 0 and same(Dataset.open("data.h5"))
    assert run(*words[1], "--descent", "--width", 4, "--depth", 1).exit_code == 0
