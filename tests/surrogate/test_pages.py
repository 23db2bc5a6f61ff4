"""What the pages about surrogates show is what happens."""

from dataclasses import replace
from pathlib import Path
import re

import numpy as np

from surrogate import LBFGS, MLP, Samples, train

PAGE = (Path(__file__).parents[2] / "docs" / "surrogates.md").read_text()


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


def error(network, model):
    """Root mean square error of the Jacobian at unseen points."""
    x = np.random.default_rng(2).uniform(*model.bounds.T, size=(300, 2))
    return np.sqrt(np.mean((network.predict(x)[1] - [model.evaluate(point)[1] for point in x]) ** 2))
