"""Maps between fields by modes: what is learned from, what is held out, and what their functions are worth."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sobofem.surrogate import fit_operator, load
from sobofem.surrogate.selection import between_fields
from sobofem.surrogate.selection import field as of_fields

X = np.linspace(0.0, 1.0, 11)
MESH = SimpleNamespace(points=X[:, None], cells=np.stack((np.arange(10), np.arange(1, 11)), 1), cell="line")
INSIDE = (np.minimum.outer(X, X) - np.outer(X, X))[:, 1:-1]
"""Deflections of a string by forces at its nine inner nodes."""


@dataclass
class Strings:
    """Deflections that grow less than the forces do, and what else a dataset has."""

    x: np.ndarray
    y: Any = None
    jacobian: Any = None
    on_mesh: Any = None
    provenance: dict = field(default_factory=dict)
    parameters = tuple(f"force_{k}" for k in range(1, 10))
    bounds = np.tile((-1.0, 1.0), (9, 1))
    description = SimpleNamespace(digest="string-1")

    def __post_init__(self):
        if self.y is None:
            s = 2.0 * self.x @ INSIDE.T
            self.y, self.jacobian = np.arcsinh(s), 2.0 * INSIDE / np.sqrt(1.0 + s**2)[:, :, None]
        self.on_mesh = SimpleNamespace(
            mesh=MESH, inputs=np.arange(1, 10), input_names=("force",), output_names=("deflection",)
        )

    def select(self, rows):
        return Strings(self.x[rows], self.y[rows], self.jacobian[rows])


def everywhere(count, seed):
    return np.random.default_rng(seed).uniform(-1.0, 1.0, (count, 9))


def here_or_there(count, seed):
    x = np.zeros((count, 9))
    x[np.arange(count), np.arange(count) % 3] = np.random.default_rng(seed).uniform(-1.0, 1.0, count)
    return x


@pytest.mark.slow
def test_samples_that_lack_a_derivative_are_left_out_and_counted(tmp_path):
    gaps = Strings(everywhere(14, 0))
    gaps.jacobian[3, 2, 1], gaps.jacobian[8] = np.nan, np.nan
    model, without = fit_operator(gaps), fit_operator(gaps.select(np.isfinite(gaps.jacobian).all(axis=(1, 2))))
    forces = np.zeros((3, 11, 1))
    forces[:, 1:-1, 0] = everywhere(3, 1)
    assert np.array_equal(model.predict(forces), without.predict(forces))
    model.save(tmp_path / "model.safetensors")
    known = load(tmp_path / "model.safetensors").provenance
    assert (known["samples"], known["incomplete"], known["digest"]) == (12, 2, "string-1")
    gaps.jacobian[:8] = np.nan
    with pytest.raises(ValueError, match="5 of 14 samples have all values and derivatives, expected 8 or more"):
        fit_operator(gaps)


@pytest.mark.slow
def test_an_unloaded_sample_belongs_to_each_case_and_tells_no_infinite_error():
    x = here_or_there(60, 0)
    x[0] = 0.0
    for seed in range(3):
        model = fit_operator(Strings(x), seed=seed)
        assert "3 cases" in model.provenance["choice"]["because"]
        assert model.provenance["validation"]["relative"] < 0.01
    dense = everywhere(10, 0)
    dense[:] = np.where(np.arange(10)[:, None] % 2, dense, 0.0)
    assert fit_operator(Strings(dense[:8])).provenance.get("validation", {"relative": 0.0})["relative"] < 10.0


@pytest.mark.parametrize("seed", range(5))
def test_of_each_case_enough_samples_are_learned_from_before_all_are(seed):
    x = here_or_there(90, 0)
    x = x[np.argsort(x[:, 0] != 0.0, kind="stable")][: 60 + 4]  # four of the first case
    held = between_fields._held_out(x, seed)
    assert held.sum() == 6 and not held[60:].any()
    assert not between_fields._held_out(everywhere(8, 0), seed).any()
    assert between_fields._held_out(everywhere(9, 0), seed).sum() == 1


@pytest.mark.slow
def test_functions_of_a_field_have_the_derivatives_of_differences():
    weights = np.arange(11.0)[:, None]
    model = fit_operator(Strings(everywhere(30, 0)), units={"force": "N", "deflection": "mm"}).as_model(
        {
            "square": lambda u: (u**2).sum(),
            "middle": lambda u: u[5, 0].exp(),
            "weighted": weights,
            "none": lambda u: 0.0 * u[0, 0],
        }
    )
    x = everywhere(1, 3)[0] / 2.0
    y, slopes = model.evaluate(x)
    u = np.arcsinh(2.0 * INSIDE @ x)
    assert np.allclose(y, [(u**2).sum(), np.exp(u[5]), weights[:, 0] @ u, 0.0], atol=0.01 * np.abs(u).max() * 55)
    ahead, behind = (np.stack([model.evaluate(x + step * e)[0] for e in np.eye(9)]) for step in (1e-4, -1e-4))
    assert np.allclose((ahead - behind).T / 2e-4, slopes, atol=1e-6 * np.abs(slopes).max())
    assert model.evaluate(x, jacobian=False)[1] is None
    assert model.parameters == Strings.parameters and model.units == dict.fromkeys(Strings.parameters, "N")
    with pytest.raises(ValueError, match="have shape"):
        model.surrogate.as_model({"wrong": np.ones(4)})


@pytest.mark.slow
@pytest.mark.parametrize("draw", [everywhere, here_or_there])
def test_no_fields_are_none_and_products_are_of_as_many_samples_as_inputs(draw):
    model, none = fit_operator(Strings(draw(30, 0))), np.zeros((0, 11, 1))
    along = np.zeros((2, 11, 1))
    assert model.predict(none).shape == (0, 11, 1)
    assert model.jvp(none, along).shape == model.vjp(none, along).shape == (0, 2, 11, 1)
    for product in (model.jvp, model.vjp):
        with pytest.raises(ValueError, match="are of 3 samples, inputs of 2"):
            product(np.zeros((2, 11, 1)), np.zeros((3, 2, 11, 1)))


@pytest.mark.slow
def test_every_nodal_value_may_be_an_input():
    data = Strings(everywhere(20, 0))
    part = SimpleNamespace(points=X[1:-1, None], cells=np.stack((np.arange(8), np.arange(1, 9)), 1), cell="line")
    data.on_mesh = SimpleNamespace(mesh=part, inputs=np.arange(9), input_names=("force",), output_names=("deflection",))
    data.y, data.jacobian = data.y[:, 1:-1], data.jacobian[:, 1:-1]
    data.select = lambda rows: SimpleNamespace(
        **vars(Strings(data.x[rows], data.y[rows], data.jacobian[rows])), parameters=data.parameters, bounds=data.bounds
    )
    model, unseen = fit_operator(data), everywhere(4, 1) / 2.0
    expected = np.arcsinh(2.0 * unseen @ INSIDE.T)[:, 1:-1]
    assert np.abs(model.predict(unseen[..., None])[..., 0] - expected).max() < 0.02 * np.abs(expected).max()


def test_an_interrupted_search_ends_and_takes_no_half_trained_network(monkeypatch):
    def stopped(*args, **settings):
        calls.append(args)
        return SimpleNamespace(history=SimpleNamespace(interrupted=True))

    calls = []
    monkeypatch.setattr(of_fields, "_few_labels", lambda samples: False)
    monkeypatch.setattr(of_fields, "train", stopped)
    with pytest.raises(KeyboardInterrupt):
        fit_operator(Strings(everywhere(20, 0)))
    assert len(calls) == 1
