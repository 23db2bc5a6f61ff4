"""Ensembles of fields on a mesh: products in place of Jacobians, rows that stay in files, damage, refusals."""

from dataclasses import replace
import errno
import io
import os
import signal
import tracemalloc

from field_toys import CELLS, POINTS, Plate, plate
import h5py
from launching import python
import numpy as np
import pytest

from sobofem.coupling import Dataset, Description, generate, merge
from sobofem.coupling.dataset import hdf5, names, rows, unfinished
from sobofem.coupling.dataset.field_data import FieldData
from sobofem.coupling.dataset.mesh import Mesh, OnMesh
from sobofem.coupling.dataset.rows import Rows
from sobofem.coupling.design.own import OwnDesign
from sobofem.coupling.parallel.interruption import Interrupted

OWN = OwnDesign(30, 3)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("fields") / "a.h5"
    generate(plate, OWN, path, directions=3, weights=2)
    return path


def test_fields_come_back_at_their_nodes_with_products_of_the_jacobian(path):
    data = FieldData.open(path)
    np.testing.assert_array_equal(data.mesh.points, POINTS)
    np.testing.assert_array_equal(data.mesh.cells, CELLS)
    assert (data.mesh.cell, data.input_names, data.output_names) == ("quad", ("load",), ("u_x", "u_y"))
    assert data.units == {"load": "N", "u_x": "mm", "u_y": "mm"} and data.provenance["design"] == "own"
    assert [a.shape for a in (data.inputs, data.outputs)] == [(30, 12, 1), (30, 12, 2)]
    points = plate.sample(30, 3)
    for k in (0, 7, 29):
        np.testing.assert_array_equal(data.inputs[k], np.r_[np.zeros(4), points[k]][:, None])
        np.testing.assert_array_equal(data.outputs[k], plate.evaluate(points[k])[0].reshape(12, 2))
        J, v, w = plate.matrix(points[k]), data.directions[k][:, 4:, 0], data.weights[k].reshape(2, -1)
        np.testing.assert_allclose(data.derivatives[k].reshape(3, -1), v @ J.T, rtol=1e-14, atol=1e-14)
        np.testing.assert_allclose(data.gradients[k][:, 4:, 0], w @ J, rtol=1e-14, atol=1e-14)
        assert not data.directions[k][:, :4].any() and not data.gradients[k][:, :4].any()


def test_directions_are_others_for_each_sample_and_as_different_as_its_inputs(path):
    directions = FieldData.open(path).directions[:]
    assert len(np.unique(directions.reshape(90, -1), axis=0)) > 80
    assert ((directions != 0).sum(axis=(2, 3)) <= 2).all()  # one place each, in the difference of two samples


def test_rows_stay_in_the_file_until_they_are_wanted(path):
    data, whole = FieldData.open(path), FieldData.of(Dataset.open(path))
    assert isinstance(data.outputs, Rows) and isinstance(whole.outputs, np.ndarray)
    for name in ("inputs", "outputs", "directions", "derivatives", "weights", "gradients"):
        rows, array = getattr(data, name), getattr(whole, name)
        assert rows.shape == array.shape and rows.ndim == array.ndim and rows.size == array.size
        for key in (3, -1, slice(2, 9, 3), [5, 1, 5], np.arange(30) % 7 == 2, (4, 1), (slice(3), 1)):
            np.testing.assert_array_equal(rows[key], array[key])
        np.testing.assert_array_equal(np.asarray(rows), array)
    few = data.select([4, 2])
    assert len(few) == 2 and isinstance(few.outputs, Rows)
    np.testing.assert_array_equal(few.gradients[:], whole.gradients[[4, 2]])
    path_of_another = path.with_name("other.h5")
    Dataset.open(path).save(path_of_another)
    other = FieldData.open(path_of_another)
    path_of_another.unlink()
    np.testing.assert_array_equal(other.outputs[:], whole.outputs)  # it is open


def test_reading_needs_neither_fem_nor_mpi_nor_torch(path):
    code = """if True:
        import sys
        for name in ("mpi4py", "dolfinx", "petsc4py", "torch", "pandas", "typer"):
            sys.modules[name] = None
        from sobofem.coupling.dataset.field_data import FieldData
        print(FieldData.open(sys.argv[1]).outputs[[1, 2]].shape)"""
    assert python(code, path).stdout.strip() == "(2, 12, 2)"


def test_given_vectors_are_stored_once_and_belong_to_the_dataset(tmp_path):
    path, V = tmp_path / "a.h5", np.eye(8)[[1, 5]]
    generate(plate, OWN, path, directions=V)
    data = FieldData.open(path)
    assert data.directions.shape == (30, 2, 12, 1) and data.weights is None and data.gradients is None
    np.testing.assert_array_equal(data.derivatives[3, 1].ravel(), plate.matrix(plate.sample(30, 3)[3])[:, 5])
    with h5py.File(path) as file:
        assert file["jvp_directions"].shape == (2, 8) and "jacobian" not in file
    with pytest.raises(ValueError, match=r"made differently: directions was 2 given ones .* now 2 given ones"):
        generate(plate, OWN, path, directions=2.0 * V)
    with pytest.raises(ValueError, match=r"directions was 2 given ones .* now 3 of each sample's own"):
        generate(plate, OWN, path, directions=np.int64(3))
    with pytest.raises(ValueError, match=r"directions have shape \(2, 7\), for 8 parameters"):
        generate(plate, OWN, tmp_path / "b.h5", directions=V[:, :7])


@pytest.mark.slow
def test_an_own_design_grows_and_parts_are_merged(path, tmp_path, monkeypatch):
    grown, first = tmp_path / "a.h5", Dataset.open(path)
    first.save(grown)
    generate(plate, OwnDesign(40, 3), grown, directions=3, weights=2)
    data = Dataset.open(grown)
    assert len(data) == 40
    np.testing.assert_array_equal(data.jvp[:30], first.jvp)
    other = Dataset.open(grown, in_memory=False).select(np.arange(25, 40))
    merged = merge([Dataset.open(path, in_memory=False), other])
    merged.save(tmp_path / "merged.h5")
    assert isinstance(merged.y, Rows)
    monkeypatch.setattr(rows, "BLOCK", 24 * 8 * 4)
    for one, two in ((True, False), (False, True)):
        both = [Dataset.open(file, in_memory=kept) for file, kept in ((path, one), (grown, two))]
        np.testing.assert_array_equal(np.asarray(merge(both).y), data.y)
    assert len(FieldData.of(merged).select([])) == 0
    for name in ("x", "y", "jvp", "vjp", "jvp_directions", "vjp_weights"):
        np.testing.assert_array_equal(getattr(Dataset.open(tmp_path / "merged.h5"), name), getattr(data, name))
    with pytest.raises(ValueError, match="two datasets differ in u_1 at"):
        merge([Dataset.open(path), Dataset.open(grown).__class__(**{**vars(first), "y": 1.0 + first.y})])
    assert first.on_mesh is not None
    turned = replace(first.on_mesh, mesh=replace(first.on_mesh.mesh, cells=first.on_mesh.mesh.cells[::-1]))
    with pytest.raises(ValueError, match=r"mesh.*12 nodes, 6 quad cells, load to u_x, u_y"):
        merge([first, replace(first, on_mesh=turned)])


class Stopping(Plate):
    """Is asked to end in its tenth sample."""

    calls = 0

    def evaluate(self, x, *, jacobian=True):
        self.calls += 1
        if self.calls == 10:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().evaluate(x, jacobian=jacobian)


def test_an_interrupted_run_is_read_and_finished(path, tmp_path):
    stopped, whole = tmp_path / "a.h5", Dataset.open(path)
    with pytest.raises(Interrupted):
        generate(Stopping(), OWN, stopped, directions=3, weights=2)
    assert unfinished.files(stopped)
    part = FieldData.open(stopped)
    assert 10 <= len(part) < 30
    np.testing.assert_array_equal(part.derivatives[:], FieldData.of(whole).derivatives[: len(part)])
    np.testing.assert_array_equal(Dataset.open(stopped).vjp, whole.vjp[: len(part)])
    data = generate(Plate(), OWN, stopped, directions=3, weights=2)
    assert not unfinished.files(stopped)
    for name in ("rows", "x", "y", "jvp_directions", "jvp", "vjp_weights", "vjp"):
        np.testing.assert_array_equal(np.asarray(getattr(data, name)), getattr(whole, name))


class Large(Plate):
    """Many outputs."""

    def __post_init__(self):
        self.A = np.random.default_rng(2).normal(size=(10_000, 8))
        self.parameters = tuple(f"load_{k}" for k in range(8))
        self.responses = tuple(f"u_{k}" for k in range(10_000))
        self.bounds, self.units, self.nodes = np.tile([-2.0, 2.0], (8, 1)), {}, 8
        self.on_mesh = OnMesh(Mesh(np.random.rand(5_000, 2), np.array([[0, 1, 2]]), "triangle"), range(8), "f", "uv")  # noqa: NPY002

    def evaluate(self, x, *, jacobian=True):
        return self.A @ x, None

    def matrix(self, x):
        return self.A


@pytest.mark.slow
def test_memory_stays_flat_whatever_the_number_of_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(rows, "BLOCK", 1 << 18)
    model, one = Large(), 8 * 10_000 * 5
    tracemalloc.start()
    try:
        generate(model, OwnDesign(24, 3), tmp_path / "a.h5", directions=4)
        data = FieldData.open(tmp_path / "a.h5")
        total = sum(float(np.abs(field).sum()) for field in data.derivatives)
        merge([Dataset.open(tmp_path / "a.h5", in_memory=False)]).save(tmp_path / "b.h5")
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total > 0 and 24 * one > 2.5 * peak, f"{peak:.2g} bytes at most, for {24 * one:.2g} of samples"


def test_ten_thousand_names_take_a_few_bytes_and_come_back():
    description = Description(
        "d",
        (*(f"load_{k}" for k in range(1, 10_001)), "load_10003", "E", "a_07", "a_8", "9", "10"),
        ("u_9", "u_10", "u_10b", "stress"),
        np.zeros((10_006, 2)),
        {"load_3": "N", "E": "MPa", "u_9": "mm", "u_10": "mm"},
    )
    record = names.counted(description)
    assert len(str(record)) < 600
    parameters, responses, units = names.listed(record)
    assert (parameters, responses) == (description.parameters, description.responses)
    assert {name: unit for name, unit in units.items() if unit} == description.units


def test_a_jacobian_of_fields_is_not_stored_by_mistake(tmp_path, monkeypatch):
    monkeypatch.setattr("sobofem.coupling.solving.campaign.MOST_ENTRIES", 100)
    with pytest.raises(ValueError, match=r"Jacobian of 24 responses by 8 parameters.*--directions 4"):
        generate(plate, OWN, tmp_path / "a.h5")


def test_what_does_not_fit_is_refused_with_what_to_do(tmp_path, path):
    class Bare:
        parameters, responses, bounds = ("a",), ("b",), np.array([[0.0, 1.0]])

        def evaluate(self, x, *, jacobian=True):
            return np.array([1.0]), np.array([[0.0]])

    with pytest.raises(TypeError, match="no jvp"):
        generate(Bare(), np.array([[0.2], [0.7]]), tmp_path / "a.h5", directions=1)
    with pytest.raises(TypeError, match=r"no sample\(count, seed\)"):
        generate(Bare(), OWN, tmp_path / "a.h5")
    generate(Bare(), np.array([[0.2], [0.7]]), tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"a\.h5 holds no mesh"):
        FieldData.open(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"cells have nodes 0 to 3, of 3"):
        Mesh(POINTS[:3], np.array([[0, 1, 3]]), "triangle")
    with pytest.raises(ValueError, match="expected one of triangle, quad"):
        Mesh(POINTS, CELLS, "pyramid")
    with pytest.raises(ValueError, match=r"kind 'tetra', and points in the plane"):
        Mesh(POINTS, CELLS, "tetra")
    data = FieldData.open(path)
    with pytest.raises(ValueError, match=r"outputs have shape \(30, 12, 2\), expected \(30, 12, 1\)"):
        FieldData(data.mesh, data.inputs, data.outputs)
    with pytest.raises(ValueError, match="go together"):
        FieldData(data.mesh, data.inputs, data.inputs, directions=data.directions)


class Full(io.BytesIO):
    """A disk with room for so many bytes."""

    def write(self, content):
        if self.tell() + len(content) > 20_000:
            raise OSError(errno.ENOSPC, "no room")
        return super().write(content)


def test_a_full_disk_is_said_and_does_not_crash_hdf5(path):
    with pytest.raises(OSError, match="no room"):
        hdf5.write(Full(), Dataset.open(path, in_memory=False))


def test_the_command_makes_and_describes_fields(here, tmp_path):
    toys = os.path.join(os.path.dirname(__file__), "field_toys.py")
    np.save(tmp_path / "w.npy", np.ones((1, 24)))
    code, said, _ = here(
        "generate", f"{toys}:plate", "--design", "own", "--samples", 6, "--directions", 2, "--weights",
        tmp_path / "w.npy",
        "--out", tmp_path / "a.h5",
    )  # fmt: skip
    assert code == 0 and "6 samples, 0 failed" in said
    code, said, _ = here("info", tmp_path / "a.h5")
    assert code == 0 and "mesh of 12 nodes and 6 cells (quad)" in said and "2 derivatives along directions" in said
    assert here("verify", tmp_path / "a.h5")[0] == 0
    code, _, said = here("generate", f"{toys}:plate", "--directions", "two", "--out", tmp_path / "b.h5")
    assert code and "neither a number of vectors nor a NumPy file" in said
