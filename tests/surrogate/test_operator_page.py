"""What the page on networks between fields shows is what happens."""

from pathlib import Path
import re

import numpy as np
from operator_cases import rectangle
import pytest

from sobofem import surrogate
from sobofem.surrogate import LBFGS
from sobofem.surrogate.operators import OperatorSamples, field_errors, train_operator

PAGE = (Path(__file__).parents[2] / "docs" / "operators.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.slow
def test_a_string_is_learned_and_used_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "page"}
    exec(compile(SNIPPETS[0], "docs/operators.md", "exec"), names)
    model, unseen = names["model"], names["unseen"]
    true = names["green"] @ unseen
    off = np.linalg.norm(names["fields"] - true, axis=(1, 2)) / np.linalg.norm(true, axis=(1, 2))
    assert np.median(off) < 0.15 and (names["fields"][:, [0, 16]] == 0.0).all()
    assert field_errors(model, names["data"]).derivatives.mean() < 0.3
    middle = names["response"].bounds.mean(axis=1)
    field = model.predict(middle.reshape(1, 17, 1))
    assert np.isclose(names["y"][0], field[0, 8, 0], atol=1e-6) and names["slopes"].shape == (1, 17)


@pytest.mark.slow
def test_a_network_of_ones_own_is_as_short_as_the_page_shows(tmp_path):
    names = {"__name__": "page"}
    exec(compile(SNIPPETS[1], "docs/operators.md", "exec"), names)
    rng = np.random.default_rng(0)
    inputs = rng.standard_normal((8, 12, 1))
    data = OperatorSamples(rectangle(3, 2), inputs, np.tanh(inputs))
    steps = (LBFGS(200),)
    model = train_operator(data, names["NodeByNode"](), optimizers=steps, validation=0.0, precision="float64")
    assert field_errors(model, data).relative.max() < 0.1
    model.save(tmp_path / "own.safetensors")
    assert surrogate.load(tmp_path / "own.safetensors").network.width == 16
