from dataclasses import replace
import pickle
from types import MappingProxyType

import h5py
from launching import python
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, describe, generate
from sobofem.coupling.dataset import hdf5
from sobofem.coupling.models.taylor import taylor_test

BLOCKED = ("mpi4py", "dolfinx", "petsc4py", "torch", "pandas", "typer", "rich")


@pytest.fixture
def path(tmp_path):
    generate(toys.fragile, Design("sobol", 40, 3), tmp_path / "a.h5")
    return tmp_path / "a.h5"


def test_everything_comes_back_from_the_file(path, tmp_path):
    data = Dataset.open(path)
    expected = Design("sobol", 40, 3).points(toys.fragile.bounds)
    np.testing.assert_array_equal(data.design, expected)
    answered = expected[:, 2] <= 2.0
    np.testing.assert_array_equal(data.rows, np.flatnonzero(answered))
    for x, y, jacobian in zip(data.x, data.y, data.jacobian, strict=True):
        np.testing.assert_array_equal(y, toys.smooth.evaluate(x)[0])
        np.testing.assert_array_equal(jacobian, toys.smooth.evaluate(x)[1])
    assert [failure.row for failure in data.failures] == np.flatnonzero(~answered).tolist()
    first = data.failures[0]
    assert first.reason == f"buckled at p = {first.x[2]:.3f}" and first.load_factor == 2.0 / first.x[2]
    assert data.description.name == "Fragile" and data.units == toys.fragile.units
    assert data.parameters == ("E", "t", "p") and data.responses == ("energy", "weight", "sway")
    assert data.provenance["design"] == "sobol" and data.provenance["seed"] == 3
    assert data.provenance["versions"]["numpy"] == np.__version__


def test_summary_names_counts_ranges_and_failures(path):
    text = Dataset.open(path).summary()
    data = Dataset.open(path)
    assert f"{len(data)} samples of 40 planned (responses and Jacobians), {len(data.failures)} failed" in text
    assert "E [MPa]" in text and "buckled at p" in text and f"{data.y[:, 0].max():.6g}" in text


def test_selection_by_design_row_and_by_mask_agree(path):
    data = Dataset.open(path)
    chosen = data.select(data.y[:, 1] > 8.0)
    again = data.select(chosen.rows[::-1])
    np.testing.assert_array_equal(chosen.jacobian, again.jacobian)
    assert (chosen.y[:, 1] > 8.0).all() and 0 < len(chosen) < len(data)
    failed = data.failures[0].row
    with pytest.raises(ValueError, match=rf"design rows \[{failed}\] have no sample"):
        data.select([failed])
    with pytest.raises(ValueError, match="one entry a sample"):
        data.select([True, False])


def test_head_is_the_dataset_of_the_shorter_design(path, tmp_path):
    head = Dataset.open(path).head(16)
    alone = generate(toys.fragile, Design("sobol", 16, 3), tmp_path / "b.h5")
    np.testing.assert_array_equal(head.design, alone.design)
    np.testing.assert_array_equal(head.y, alone.y)
    assert [f.row for f in head.failures] == [f.row for f in alone.failures]
    with pytest.raises(ValueError, match="41 rows were asked for; the design has 40"):
        Dataset.open(path).head(41)


def test_split_is_disjoint_complete_and_repeatable(path):
    data = Dataset.open(path)
    training, validation = data.split(0.25, seed=1)
    assert sorted([*training.rows, *validation.rows]) == data.rows.tolist()
    assert len(validation) == round(0.25 * len(data))
    np.testing.assert_array_equal(validation.rows, data.split(0.25, seed=1)[1].rows)
    assert (validation.rows != data.split(0.25, seed=2)[1].rows).any()
    with pytest.raises(ValueError, match="leaves one part empty"):
        data.split(0.0, seed=1)


def test_numpy_and_pandas_get_the_same_numbers(path, tmp_path):
    data = Dataset.open(path)
    data.to_numpy(tmp_path / "a.npz")
    with np.load(tmp_path / "a.npz") as archive:
        np.testing.assert_array_equal(archive["jacobian"], data.jacobian)
        assert tuple(archive["responses"]) == data.responses
    frame = data.to_pandas()
    assert frame.index.tolist() == data.rows.tolist()
    np.testing.assert_array_equal(frame["sway"], data.y[:, 2])
    np.testing.assert_array_equal(frame["d(sway)/d(t)"], data.jacobian[:, 2, 1])


def test_a_table_is_read_by_the_names_of_its_columns(path):
    data = Dataset.open(path)
    frame = data.to_pandas().iloc[:, ::-1]
    x, y = frame[list(data.parameters[::-1])], frame[list(data.responses[::-1])]
    slopes = frame[[name for name in frame if name.startswith("d(")]]
    again = Dataset.from_arrays(x, y, slopes, description=data.description)
    for name in ("x", "y", "jacobian"):
        np.testing.assert_array_equal(getattr(again, name), getattr(data, name))
    with pytest.raises(ValueError, match="x lacks 't' and has besides 'thickness'"):
        Dataset.from_arrays(x.rename(columns={"t": "thickness"}), y, slopes, description=data.description)
    with pytest.raises(TypeError, match="y is complex"):
        Dataset.from_arrays(data.x, data.y + 1j, None, description=data.description)


def arrays(N=5):
    x = Design("halton", N, 1).points(toys.smooth.bounds)
    pairs = [toys.smooth.evaluate(row) for row in x]
    return x, np.array([y for y, _ in pairs]), np.array([dy for _, dy in pairs])


def test_arrays_from_elsewhere_become_a_dataset_and_a_file(tmp_path):
    x, y, jacobian = arrays()
    Dataset.from_arrays(x, y, jacobian, description=describe(toys.smooth)).save(tmp_path / "b.h5")
    data = Dataset.open(tmp_path / "b.h5")
    np.testing.assert_array_equal(data.jacobian, jacobian)
    assert data.rows.tolist() == [0, 1, 2, 3, 4]


def test_numbers_of_any_type_are_written_so_that_they_are_read(path, tmp_path):
    data = Dataset.open(path)
    whole = replace(data.description, bounds=np.round(data.bounds).astype(np.int64) + np.array([-1, 1]))
    for change in (
        {"seconds": data.seconds.astype(np.float32), "y": data.y.astype(">f8"), "rows": data.rows.astype(np.int32)},
        {"negative_pivots": np.arange(len(data), dtype=np.int16), "description": whole},
    ):
        changed = replace(data, **change)
        changed.save(tmp_path / "b.h5")
        read = Dataset.open(tmp_path / "b.h5")
        for name in ("x", "y", "rows", "seconds", "negative_pivots", "bounds"):
            np.testing.assert_array_equal(getattr(read, name), getattr(changed, name))
    for count in (0.5, np.nan):
        with pytest.raises(ValueError, match="negative_pivots holds other numbers than whole ones"):
            replace(data, negative_pivots=np.full(len(data), count)).save(tmp_path / "b.h5")
    np.testing.assert_array_equal(Dataset.open(tmp_path / "b.h5").x, data.x)


def test_wrong_arrays_are_refused_by_name_and_row():
    description = describe(toys.smooth)
    x, y, jacobian = arrays()
    with pytest.raises(ValueError, match=r"jacobian has shape \(5, 3\), expected \(5, 3, 3\)"):
        Dataset.from_arrays(x, y, jacobian[:, 0], description=description)
    y[3, 1] = np.nan
    with pytest.raises(ValueError, match=r"y holds NaN or infinity in rows \[3\]"):
        Dataset.from_arrays(x, y, jacobian, description=description)
    y[3, 1], x[2, 1] = 0.0, 2.5
    with pytest.raises(ValueError, match=r"row 2 has t = 2.5, outside its bounds \[0.5, 2\]"):
        Dataset.from_arrays(x, y, jacobian, description=description)


def test_wrong_files_are_refused_by_name(path, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match="no dataset"):
        Dataset.open(tmp_path / "none.h5")
    (tmp_path / "text.h5").write_text("x, y")
    with pytest.raises(ValueError, match=r"text.h5 is no HDF5 file"):
        Dataset.open(tmp_path / "text.h5")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 3
    with pytest.raises(ValueError, match=r"foreign.h5 .* another program's file"):
        Dataset.open(tmp_path / "foreign.h5")
    monkeypatch.setattr(hdf5, "WITHOUT_ACTIONS", 5)
    Dataset.open(path).save(path)
    monkeypatch.undo()
    with pytest.raises(ValueError, match=r"dataset format 5, this sobofem reads up to 4"):
        Dataset.open(path)


def test_a_file_cut_anywhere_is_refused_by_name(path, tmp_path):
    data = path.read_bytes()
    for length in np.random.default_rng(0).integers(0, len(data), 40):
        (tmp_path / "cut.h5").write_bytes(data[:length])
        with pytest.raises(ValueError, match=r"cut\.h5 is (no HDF5 file|damaged or cut off)"):
            Dataset.open(tmp_path / "cut.h5")


def test_a_flipped_number_is_found(path):
    data = bytearray(path.read_bytes())
    number = Dataset.open(path).y[0, 0].tobytes()
    data[data.index(number)] ^= 1
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged"):
        Dataset.open(path)


@pytest.mark.slow
def test_saving_where_the_disk_refuses_leaves_the_old_file(path):
    before = path.read_bytes()
    code = """
import resource, sys
from sobofem.coupling import Dataset
data = Dataset.open(sys.argv[1])
for limit in range(0, int(sys.argv[2]), 997):  # HDF5 itself raises other errors, or crashes, depending on the place
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        data.save(sys.argv[1])
    except OSError as error:
        print(error)
"""
    said = python(code, path, len(before))
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    assert len(lines) > 5 and all("could not write" in line and "as it was before" in line for line in lines)
    assert path.read_bytes() == before and list(path.parent.iterdir()) == [path]


def test_a_values_only_dataset_has_no_jacobian(tmp_path):
    data = generate(toys.smooth, Design("halton", 6, 1), tmp_path / "v.h5", jacobian=False)
    assert data.jacobian is None and Dataset.open(tmp_path / "v.h5").jacobian is None
    assert "d(sway)/d(t)" not in data.to_pandas()
    with pytest.raises(ValueError, match="rows must increase"):
        replace(data, rows=data.rows[::-1])


def test_datasets_open_and_models_are_checked_with_the_heavy_packages_blocked(path):
    code = """
import sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.startswith(tuple(sys.argv[2].split(","))):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)
sys.meta_path.insert(0, Blocker())
before = set(sys.modules)
from sobofem import coupling
import sobofem.coupling.models.taylor, sobofem.coupling.contract
print(len(coupling.Dataset.open(sys.argv[1])))
"""
    said = python(code, path, ",".join(BLOCKED))
    assert said.stdout.strip() == str(len(Dataset.open(path))), said.stderr


def test_a_noise_free_model_passes_at_a_given_point():
    assert taylor_test(toys.smooth, point=[2e5, 1.0, 1.0]).passed


def test_arrays_are_read_only_and_the_callers_own_are_not(path):
    x, y, jacobian = arrays()
    data = Dataset.from_arrays(x, y, jacobian, description=describe(toys.smooth))
    made = Dataset(x, y, jacobian, np.arange(5), np.zeros(5), describe(toys.smooth), x)
    copied = pickle.loads(pickle.dumps(data))
    for dataset in (data, made, copied, Dataset.open(path), data.select([1, 3])):
        for name in ("x", "y", "jacobian", "rows", "seconds", "design"):
            with pytest.raises(ValueError, match="read-only"):
                getattr(dataset, name)[0] = 1.0
    x[0], y[0] = x[1], y[1]


def test_a_dataset_trains_and_is_predicted_although_it_is_read_only(path):
    surrogate = pytest.importorskip("sobofem.surrogate")
    data = Dataset.open(path)
    trained = surrogate.train(data, optimizers=(surrogate.Adam(2),))
    assert trained.predict(data.x)[0].shape == data.y.shape
    assert trained.provenance["digest"] == "fragile-1" and trained.provenance["samples"] == len(data)


def test_units_of_what_a_model_has_not_do_not_part_it_from_its_own_samples(tmp_path):
    """A class that makes several models often has the units of all."""

    class Strut:
        parameters, responses, bounds = ("width",), ("mass",), np.array([[1.0, 2.0]])
        units = MappingProxyType({"width": "mm", "stress": "MPa"})

        def evaluate(self, x, *, jacobian=True):
            return np.array(x), np.eye(1) if jacobian else None

    assert describe(Strut()).units == {"width": "mm"}
    Dataset.from_arrays([[1.5]], [[1.5]], description=describe(Strut())).save(tmp_path / "strut.h5")
    assert Dataset.open(tmp_path / "strut.h5").units == describe(Strut()).units
