"""What limits a surrogate is said where the answer is known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sobofem import surrogate
from sobofem.surrogate.export.card import card
from sobofem.surrogate.model.limits import effects, limits

RANGES = {"a": (0.0, 1.0), "b": (0.0, 10.0), "c": (5.0, 6.0)}


def plane(**provenance):
    """q = a + b / 2, r = 2 a: c matters nowhere, and b changes q five times as much as a does."""
    line = nn.Linear(3, 2, bias=False)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[1.0, 0.5, 0.0], [2.0, 0.0, 0.0]]))
    return replace(surrogate.Surrogate.from_module(line, RANGES, ("q", "r")), provenance=provenance)


def errors(values, slopes=0.1):
    return {name: {"values": value, "slopes": slopes} for name, value in zip("qr", values, strict=True)}


def test_effects_are_slopes_over_ranges_and_an_input_without_any_is_named():
    np.testing.assert_allclose(effects(plane()), [[0.2, 1.0, 0.0], [1.0, 0.0, 0.0]])
    (said,) = limits(plane())
    assert said.startswith("c changes no response") and "leave it out" in said


def test_each_response_has_its_error_its_limit_and_its_remedy():
    found = limits(plane(samples=20, held_out=errors((0.003, 0.2))))
    assert "q: errs by 0.3 % of its spread; nothing limits it" in found[0]
    assert "r: errs by 20 %" in found[1] and "20 samples of 3 parameters are too few" in found[1]
    assert "infill" in found[1] and "or derivatives" not in found[1]
    assert "or derivatives" in limits(plane(samples=20, held_out=errors((0.2, 0.2), None)))[0]
    kinks = {"slopes of all samples": {"r": ["a"]}}
    assert "slopes by a contradict" in limits(plane(samples=20, held_out=errors((0.2, 0.2)), doubts=kinks))[1]
    scatter = {"values": {"q": 0.15, "r": 0.05}}
    found = limits(plane(samples=20, held_out=errors((0.2, 0.2)), noise=scatter))
    assert "labels scatter by about 15 %" in found[0] and "too few" in found[1]
    short = {"seconds": 20.0, "missed": {"shallow network": "not tried: the time was over"}}
    found = limits(plane(samples=20, held_out=errors((0.003, 0.2)), budget=short))
    assert "nothing limits it" in found[0] and "20 s were too short for shallow network: train in more time" in found[1]
    assert "not known" in limits(plane(samples=20))[0]
    assert "nothing of it was learned" in limits(plane(samples=20, held_out=errors((0.2, 1.0)), noise=scatter))[1]


def test_noise_of_a_plane_is_told_and_waves_between_the_samples_are_not_called_that():
    rng = np.random.default_rng(0)
    x = rng.uniform(-1.0, 1.0, (40, 2))
    noisy = x[:, :1] - 2.0 * x[:, 1:] + 0.2 * rng.standard_normal((40, 1))
    corners = np.stack(np.divmod(np.arange(36), 6), axis=1)
    waves = (-1.0) ** corners.sum(axis=1, keepdims=True)  # of half a wavelength from each sample to the next
    families = (surrogate.Kriging(),)
    with_noise = surrogate.fit(surrogate.Samples(x, noisy, None, ("a", "b"), ("q",)), families=families)
    assert "labels scatter" in limits(with_noise)[0]
    sparse = surrogate.Samples(corners / 2.5 - 1.0, waves, None, ("a", "b"), ("q",))
    with pytest.warns(UserWarning, match="nothing of 'q' was learned"):
        unlearned = surrogate.fit(sparse, families=families)
    assert "nothing of it was learned" in limits(unlearned)[0]


def test_the_card_tells_what_limits_it():
    text = card(plane(samples=20, held_out=errors((0.003, 0.2))))
    assert "## What limits it" in text and "- r: errs by 20 %" in text
