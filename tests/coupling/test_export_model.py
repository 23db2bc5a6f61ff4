from pathlib import Path
import re
import shlex
import sys

import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.report.accuracy import errors

pytest.importorskip("onnxruntime")
surrogate = pytest.importorskip("sobofem.surrogate")

DOCS = Path(__file__).parents[2] / "docs" / "model_files.md"
BLOCK = re.compile(r"```(?P<language>bash|python)\n(?P<text>.*?)```", re.DOTALL)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A surrogate of a toy and samples that it has not seen."""
    folder = tmp_path_factory.mktemp("export")
    generate(toys.smooth, Design("sobol", 16, 3), folder / "plate.h5")
    generate(toys.smooth, Design("sobol", 8, 4), folder / "unseen.h5")
    stages = (surrogate.Adam(10), surrogate.LBFGS(10))
    trained = surrogate.train(Dataset.open(folder / "plate.h5"), network=surrogate.MLP(6, 1), optimizers=stages)
    trained.save(folder / "plate.safetensors")
    return folder


def blocks(text, language):
    return [block["text"] for block in BLOCK.finditer(text) if block["language"] == language]


@pytest.mark.slow
def test_the_page_and_the_card_that_it_makes_hold_what_they_say(here, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (line,) = blocks(DOCS.read_text(), "bash")
    program, *arguments = shlex.split(line)
    assert program == "sobofem"
    code, said, wrong = here(*arguments)
    assert code == 0 and said.count("off by") == 2 and "plate.card.md: what it is" in said and wrong == ""
    card = (folder / "plate.card.md").read_text()
    model = surrogate.load("plate.safetensors")
    y, jacobian = model.predict(model.bounds.mean(axis=1)[None])
    lines = blocks(DOCS.read_text(), "python") + blocks(card, "python")
    assert len(lines) == 6
    for text in lines:
        found = {}
        exec(text, found)
        assert np.allclose(np.asarray(found["y"]).reshape(1, 3), y, rtol=1e-10)
        assert np.allclose(np.asarray(found["jacobian"]).reshape(1, 3, 3), jacobian, rtol=1e-8)
        assert np.asarray(found.get("inside", True)).all()
    unseen = Dataset.open("unseen.h5")
    table = errors(model, unseen)
    assert "| E | MPa | 100000 | 300000 |" in card and "| energy | mJ |" in card
    assert "| digest | smooth-1 |" in card and "8 samples (unseen.h5, unseen in training" in card
    assert f"| sway | {table.values[2]:.3g} | {table.derivatives[2, 0]:.3g} |" in card


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--out", "a.h5"), "ends in '.h5'; expected one of .onnx, .pt2"),
        (("--out", "a.pt2", "--out", "b.h5"), "b.h5 ends in '.h5'; expected one of .onnx, .pt2"),
        (("--out", "none/a.onnx"), "there is no folder none to write a.onnx to"),
        (("--out", "a.pt2", "--data", "absent.h5"), "absent.h5"),
        (("--out", "a.pt2", "--precision", "half"), "--precision"),
        ((), "--out"),
    ],
)
def test_mistakes_end_in_one_line_and_leave_nothing(here, folder, monkeypatch, arguments, message):
    monkeypatch.chdir(folder)
    before = set(folder.iterdir())
    code, _, said = here("export-model", "plate.safetensors", *arguments)
    assert code == 2 and message in said and "Traceback" not in said
    assert set(folder.iterdir()) == before


def test_a_missing_package_leaves_no_half_of_the_files(here, folder, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    before = set(folder.iterdir())
    code, _, said = here("export-model", "plate.safetensors", "--out", "a.pt2", "--out", "a.onnx")
    assert code == 2 and "take a .pt2 file" in said
    assert set(folder.iterdir()) == before


def test_a_surrogate_of_many_inputs_is_refused_in_words(here, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = surrogate.Samples.of(Dataset.open(folder / "plate.h5"))
    subspace = surrogate.linear_subspace(np.eye(3)[:, :2], data.parameters, data.bounds)
    inside = surrogate.train(subspace.reduce(data), network=surrogate.MLP(4, 1), optimizers=(surrogate.Adam(1),))
    surrogate.ProjectedSurrogate(subspace, inside).save("many.safetensors")
    assert "in 2 coordinates of 3 inputs\nparameters: E in [" in here("info", "many.safetensors")[1]
    code, _, said = here("export-model", "many.safetensors", "--out", "a.pt2")
    assert code == 2 and "a ProjectedSurrogate can't be exported" in said and "export the `surrogate` inside it" in said
    assert {file.name for file in tmp_path.iterdir()} == {"many.safetensors"}


def test_samples_of_the_same_design_are_called_so(here, folder, tmp_path, monkeypatch):
    monkeypatch.setattr("sobofem.surrogate.export.export_model", lambda *_, **__: {"y": 0.0})
    model, data = folder / "plate.safetensors", folder / "plate.h5"
    code, _, _ = here("export-model", model, "--out", tmp_path / "a.pt2", "--data", data)
    assert code == 0
    assert "16 samples (the surrogate was trained on 16 samples of this same" in (tmp_path / "a.card.md").read_text()


def test_help_shows_an_example(here):
    code, text, _ = here("export-model", "--help")
    assert code == 0 and "sobofem export-model plate.safetensors --out" in text.partition("Example:")[2]
