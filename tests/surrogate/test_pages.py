"""What the pages about surrogates show is what happens."""

from dataclasses import replace
from pathlib import Path
import re

from analytic import five_samples
import numpy as np
import pytest

from sobofem.surrogate import LBFGS, MLP, Adam, Samples, train

PAGE = (Path(__file__).parents[2] / "docs" / "surrogates.md").read_text()


@pytest.mark.slow
def test_products_of_hessians_are_labelled_and_learned_as_the_page_shows():
    block = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "hvp" in text)
    names = {}
    exec(compile(block, "docs/surrogates.md", "exec"), names)
    model, data = names["model"], names["data"]
    h = 1e-5
    for point, v, action in zip(data.x, data.directions, data.hessian_actions, strict=True):
        difference = (model.evaluate(point + h * v)[1] - model.evaluate(point - h * v)[1]) / (2 * h)
        assert np.allclose(action, difference, atol=1e-7)
    plain = replace(data, directions=None, hessian_actions=None)
    without = train(plain, network=MLP(24, 2), optimizers=(LBFGS(400),))
    assert isinstance(data, Samples) and error(names["network"], model) < 0.67 * error(without, model)


def test_parts_of_ones_own_train_as_the_page_shows():
    block = next(text for text in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if "Halved" in text)
    names = {"__name__": "page"}
    exec(compile(block, "docs/surrogates.md", "exec"), names)
    weights = train(five_samples(16, seed=0), optimizers=(Adam(100),), **names["settings"]).history.weights
    assert np.allclose(weights[-1, :, 1:], 0.5 * weights[0, :, 1:]) and np.allclose(weights[-1, :, 0], 1.0)


def error(network, model):
    """Root mean square error of the Jacobian at unseen points."""
    x = np.random.default_rng(2).uniform(*model.bounds.T, size=(300, 2))
    return np.sqrt(np.mean((network.predict(x)[1] - [model.evaluate(point)[1] for point in x]) ** 2))
