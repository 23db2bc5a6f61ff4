"""From a dataset of fields on a mesh to a surrogate between fields, and its report, by commands."""

from dataclasses import replace
import json

import field_toys
import numpy as np
import pytest

from sobofem import surrogate
from sobofem.coupling.dataset.field_data import FieldData
from sobofem.coupling.report.fields import triangles, write_field_report
from sobofem.surrogate.operators import GridUNet, OperatorData, OperatorSurrogate

TOYS = field_toys.__file__


def test_a_dataset_of_fields_becomes_a_surrogate_and_a_report(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("fields.h5", "1"), ("unseen.h5", "2")):
        code, _, errors = here(
            *("generate", f"{TOYS}:plate", "--samples", "12", "--seed", seed, "--directions", "2"),
            *("--out", name),
        )
        assert code == 0, errors
    assert isinstance(FieldData.open("fields.h5"), OperatorData)
    code, output, errors = here(
        *("train", "fields.h5", "--out", "net.safetensors", "--steps", "40", "--network", "GridUNet", "--width", "4")
    )
    assert code == 0 and "GridUNet(width=4" in output and "held out" in output, errors
    model = surrogate.load("net.safetensors")
    assert isinstance(model, OperatorSurrogate) and model.network.width == 4 and isinstance(model.network, GridUNet)
    assert model.units["load"] == "N" and model.output_names == ("u_x", "u_y")
    code, output, errors = here("info", "net.safetensors")
    assert code == 0 and "from load to u_x, u_y at 12 nodes of 6 cells (quad)" in output, errors
    code, output, errors = here("export-model", "net.safetensors", "--out", "net.pt2")
    assert code == 0 and np.allclose(
        surrogate.open_exported("net.pt2").predict(np.zeros((1, 12, 1))), model.predict(np.zeros((1, 12, 1))), atol=1e-3
    ), errors
    code, output, errors = here("report", "net.safetensors", "unseen.h5", "--out", "report")
    assert code == 0, errors
    numbers = json.loads((tmp_path / "report" / "errors.json").read_text())
    data = FieldData.open("unseen.h5")
    off = np.asarray(model.predict(data.inputs[:]) - data.outputs[:]).reshape(12, -1)
    relative = np.linalg.norm(off, axis=1) / np.linalg.norm(np.asarray(data.outputs[:]).reshape(12, -1), axis=1)
    assert np.isclose(numbers["relative"]["mean"], relative.mean()) and numbers["derivatives"] > 0.0
    assert {file.name for file in (tmp_path / "report").iterdir()} == {
        *("report.html", "errors.json", "fields.png", "history.png")
    }
    assert "warning" not in errors
    _, _, errors = here("report", "net.safetensors", "fields.h5", "--out", "report")
    assert "trained on 12 samples of this same design" in errors
    moved = replace(data, mesh=replace(data.mesh, points=1.01 * data.mesh.points))
    with pytest.raises(ValueError, match=r"on another mesh, of 12 nodes and 6 cells"):
        write_field_report(model, moved, "report")
    with pytest.raises(ValueError, match=r"output_names are a, b; the surrogate's are u_x, u_y"):
        write_field_report(model, replace(data, output_names=("a", "b")), "report")


def test_options_that_do_not_belong_are_refused(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here("generate", f"{TOYS}:plate", "--samples", "4", "--directions", "1", "--out", "fields.h5")[0] == 0
    code, _, errors = here("train", "fields.h5", "--out", "net.safetensors", "--budget", "3")
    assert code != 0 and "--steps" in errors
    code, _, errors = here("train", "fields.h5", "--out", "net.safetensors", "--network", "MLP")
    assert code != 0 and "GraphUNet" in errors


def test_jacobians_that_are_not_learned_from_are_not_passed_over_in_silence(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here("generate", f"{TOYS}:plate", "--samples", "4", "--out", "fields.h5")[0] == 0
    words = ("--steps", "5", "--network", "GridUNet", "--width", "4")
    code, _, errors = here("train", "fields.h5", "--out", "net.safetensors", *words)
    assert code == 0 and "Jacobians in fields.h5 are not used" in errors and "--directions 2" in errors


@pytest.mark.parametrize("cell, corners, count", [("tetra", 4, 4), ("hexahedron", 8, 12), ("quad", 4, 2)])
def test_what_is_drawn_of_a_cell_is_its_outside(cell, corners, count):
    assert len(triangles(np.arange(corners)[None], cell)) == count
