"""From a dataset of fields on a mesh to a surrogate between fields, and its report, by commands."""

from dataclasses import replace
import json

import field_toys
import numpy as np
import pytest

from sobofem import surrogate
from sobofem.coupling import Dataset
from sobofem.coupling.dataset.field_data import FieldData
from sobofem.coupling.report.fields import triangles, write_field_report
from sobofem.surrogate.operators import GridUNet, OperatorData, OperatorSurrogate, field_errors

TOYS = field_toys.__file__


@pytest.mark.slow
def test_a_dataset_of_fields_becomes_a_surrogate_and_a_report(here, tmp_path, monkeypatch, request):
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
    request.getfixturevalue("undrawn")
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
    words = ("--steps", "5", "--descent")
    code, _, errors = here("train", "fields.h5", "--out", "net.safetensors", *words)
    assert code == 0 and "the Jacobians are not used" in errors and "--directions 2" in errors


@pytest.mark.slow
def test_where_there_are_jacobians_modes_are_learned_with_them_and_reported_like_a_network(
    here, tmp_path, monkeypatch, request
):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("fields.h5", "1"), ("unseen.h5", "2")):
        line = ("generate", f"{TOYS}:plate", "--design", "own", "--samples", "80", "--seed", seed, "--out", name)
        assert here(*line)[0] == 0
    code, output, errors = here("train", "fields.h5", "--out", "modes.safetensors")
    assert code == 0 and "reduced basis of" in output and "8 cases" in output, errors
    assert "of 8 fields held out" in output and "not used" not in errors
    model, unseen = surrogate.load("modes.safetensors"), FieldData.open("unseen.h5")
    assert model.units["load"] == "N"
    found = field_errors(model, unseen)
    assert np.median(found.relative) < 0.01
    inputs, weights = unseen.inputs[1:4], np.ones((1, *unseen.outputs.shape[1:]))
    along = np.stack((inputs, np.zeros_like(inputs)), axis=1)
    along[:, 1, model.inputs, 0] = np.arange(1.0, 9.0)
    derivatives, gradients = model.jvp(inputs, along), model.vjp(inputs, weights)
    ahead, behind = (model.predict(inputs * (1.0 + sign * 1e-5)) for sign in (1, -1))
    assert np.allclose((ahead - behind) / 2e-5, derivatives[:, 0], atol=1e-5 * np.abs(derivatives).max())
    assert np.allclose(derivatives.sum(axis=(2, 3)), (gradients * along).sum(axis=(2, 3)))
    true = np.stack(
        [field_toys.plate.jvp(x[model.inputs, 0], v[:, model.inputs, 0]) for x, v in zip(inputs, along, strict=True)]
    )
    assert np.linalg.norm(derivatives.reshape(true.shape) - true) < 0.03 * np.linalg.norm(true)
    with pytest.raises(ValueError, match="not zero in load at node"):
        model.predict(np.ones_like(inputs))
    code, output, _ = here("info", "modes.safetensors")
    assert code == 0 and "surrogate between fields: reduced basis of" in output and "12 nodes" in output
    assert here("report", "modes.safetensors", "unseen.h5", "--out", "report")[0] == 0
    assert {file.name for file in (tmp_path / "report").iterdir()} == {"report.html", "errors.json", "fields.png"}
    code, _, errors = here("export-model", "modes.safetensors", "--out", "modes.onnx")
    assert code == 2 and "a ReducedOperator can't be exported" in errors and "inside" not in errors
    request.getfixturevalue("undrawn")
    _, _, errors = here("report", "modes.safetensors", "fields.h5", "--out", "report")
    assert "trained on 80 samples of this same design" in errors
    _, output, _ = here("info", "modes.safetensors")
    assert "trained on 80 samples: design own" in output and "error of 8 fields held out: 0.0" in output


@pytest.mark.slow
def test_of_fields_as_of_responses_samples_are_the_first_rows_of_the_design(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert here("generate", f"{TOYS}:fragile", "--samples", "24", "--out", "fields.h5")[0] == 0
    failed = [failure.row for failure in Dataset.open("fields.h5").failures]
    assert 0 < sum(row < 16 for row in failed) < 6
    code, output, errors = here("train", "fields.h5", "--out", "modes.safetensors", "--samples", "16")
    assert code == 0 and f"trained on {16 - sum(row < 16 for row in failed)} samples" in output, errors
    code, _, errors = here("train", "fields.h5", "--out", "modes.safetensors", "--samples", "25")
    assert code != 0 and "the design has 24" in errors


@pytest.mark.parametrize("cell, corners, count", [("tetra", 4, 4), ("hexahedron", 8, 12), ("quad", 4, 2)])
def test_what_is_drawn_of_a_cell_is_its_outside(cell, corners, count):
    assert len(triangles(np.arange(corners)[None], cell)) == count
