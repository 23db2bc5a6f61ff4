"""Parts of one's own, each in a file of its own: they train, are saved, and are read back once that is imported."""

import importlib
import sys
from textwrap import dedent

from analytic import five_samples
import numpy as np
import pytest

from sobofem.surrogate import LBFGS, MLP, Adam, Kriging, OnlineSettings, OnlineTraining, Samples, fit, load, train
from sobofem.surrogate.files import registry
from sobofem.surrogate.networks import layers

SHORT = (Adam(5), LBFGS(iterations=5))


@pytest.fixture(scope="module")
def data():
    return five_samples(16, seed=0)


@pytest.fixture
def own(tmp_path, monkeypatch):
    """Writes a file of one's own and imports it."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(text):
        name = "own_part"
        (tmp_path / f"{name}.py").write_text(dedent(text))
        importlib.invalidate_caches()
        sys.modules.pop(name, None)
        return importlib.import_module(name)

    yield write
    sys.modules.pop("own_part", None)


def online(data, **settings):
    """An online training of all samples, two steps on."""
    training = OnlineTraining(
        data.parameters, data.responses, data.bounds, settings=OnlineSettings(watermark=16, start=1, **settings)
    )
    training.add(np.arange(len(data.x)), data.x, data.y, data.jacobian)
    training.step()
    training.step()
    return training


def same(ours, theirs, x):
    """Check that two surrogates predict the same, to the last digit."""
    for a, b in zip(ours.predict(x), theirs.predict(x), strict=True):
        assert np.array_equal(a, b)


WEIGHTING = """
    from dataclasses import dataclass

    import torch
    from sobofem.surrogate import Weighting, register
    from sobofem.surrogate.weighting import Weights


    @register
    @dataclass(frozen=True)
    class Cubed(Weighting):
        power: float = 3.0

        def start(self, targets):
            return Weights(1.0 / targets.mean_squares().clamp(min=0.1) ** self.power)
"""


def test_a_weighting_of_one_method_trains_and_goes_on_from_a_checkpoint(data, own, tmp_path, monkeypatch):
    Cubed = own(WEIGHTING).Cubed
    weights = train(data, weighting=Cubed(2.0), network=MLP(4, 1), optimizers=SHORT).history.weights
    assert np.ptp(weights[0]) > 0.0 and np.array_equal(weights[0], weights[-1])
    training = online(data, network=MLP(4, 1), weighting=Cubed(2.0))
    training.save_checkpoint(tmp_path / "checkpoint")
    again = OnlineTraining.load_checkpoint(tmp_path / "checkpoint")
    assert again.settings.weighting == Cubed(2.0)
    same(training.surrogate(), again.surrogate(), data.x)
    monkeypatch.delitem(registry._CLASSES["weighting"], "Cubed")
    with pytest.raises(ValueError, match=r"weighting 'Cubed' is unknown; import own_part, which registers it"):
        OnlineTraining.load_checkpoint(tmp_path / "checkpoint")


NETWORK = """
    from dataclasses import dataclass

    import torch
    from torch import nn
    from sobofem.surrogate import register


    @register
    @dataclass(frozen=True)
    class PlainOwn:
        width: int = 4

        def build(self, n, m, generator):
            module = nn.Sequential(nn.Linear(n, self.width), nn.Tanh(), nn.Linear(self.width, m)).double()
            for parameter in module.parameters():
                nn.init.normal_(parameter, std=0.3, generator=generator)
            return module
"""


def test_a_network_of_plain_modules_trains_is_saved_and_goes_on_from_a_checkpoint(data, own, tmp_path, monkeypatch):
    PlainOwn = own(NETWORK).PlainOwn
    surrogate = train(data, network=PlainOwn(), optimizers=SHORT)
    surrogate.save(tmp_path / "model.safetensors")
    same(surrogate, load(tmp_path / "model.safetensors"), data.x)
    training = online(data, network=PlainOwn())
    training.save_checkpoint(tmp_path / "checkpoint")
    same(training.surrogate(), OnlineTraining.load_checkpoint(tmp_path / "checkpoint").surrogate(), data.x)
    with pytest.raises(TypeError, match="PlainOwn offers no standard deviation"):
        surrogate.standard_deviation(data.x)
    monkeypatch.delitem(registry._CLASSES["network"], "PlainOwn")
    with pytest.raises(ValueError, match=r"network 'PlainOwn' is unknown; import own_part, which registers it"):
        load(tmp_path / "model.safetensors")


ABLE = """
    from dataclasses import dataclass

    import torch
    from torch import nn
    from sobofem.surrogate import Network, NetworkModule, register


    @register
    @dataclass(frozen=True)
    class Line(Network):
        def build(self, n, m, generator):
            return LineModule(n, m, generator)


    class LineModule(NetworkModule):
        def __init__(self, n, m, generator):
            super().__init__()
            self.W = nn.Parameter(torch.randn(m, n, dtype=torch.float64, generator=generator))
            self.b = nn.Parameter(torch.zeros(m, dtype=torch.float64))

        def forward(self, x):
            return x @ self.W.T + self.b

        def value_and_jacobian(self, x):
            return self(x), self.W.expand(len(x), -1, -1)

        def standard_deviation(self, x):
            return torch.ones_like(self(x)), torch.zeros_like(self.W.expand(len(x), -1, -1))

        def penalty(self):
            return 0.0 * self.W.sum()
"""


def test_what_a_module_overrides_is_used(data, own):
    surrogate = train(data, network=own(ABLE).Line(), optimizers=(LBFGS(iterations=20),))
    y, slopes = surrogate.standard_deviation(data.x)
    assert np.allclose(y, surrogate.scaling.y_scale) and not slopes.any()
    assert np.allclose(np.ptp(surrogate.predict(data.x)[1], axis=0), 0.0)


def test_an_ability_of_a_plain_module_is_not_overlooked_in_silence(data, own):
    mine = own(ABLE.replace("LineModule(NetworkModule)", "LineModule(nn.Module)"))
    with pytest.raises(TypeError, match=r"LineModule defines value_and_jacobian, .* derive it from surrogate.Network"):
        train(data, network=mine.Line(), optimizers=SHORT)


STAGE = """
    from dataclasses import dataclass

    import torch
    from sobofem.surrogate import Optimizer


    @dataclass(frozen=True)
    class Descent(Optimizer):
        steps: int = 10

        def run(self, objective, monitor):
            optimizer = torch.optim.SGD(objective.parameters, lr=0.05)
            monitor.begin("Descent", self.steps, None)
            for step in range(1, self.steps + 1):
                optimizer.zero_grad()
                objective().backward()
                optimizer.step()
                if monitor.stop(step):
                    return
                objective.reweigh(monitor.total)
"""


def test_a_stage_of_ones_own_trains_beside_others(data, own):
    surrogate = train(data, network=MLP(4, 1), optimizers=(own(STAGE).Descent(20), LBFGS(iterations=5)))
    assert surrogate.history.stages == (("Descent", 20), ("L-BFGS", 25))
    assert surrogate.history.train[3] < surrogate.history.train[0]


ACTIVATION = """
    import torch
    from sobofem.surrogate import Activation, register_activation


    def slope(z):
        return z / (1.0 + z * z).sqrt(), (1.0 + z * z) ** -1.5


    register_activation("algebraic", Activation(lambda z: slope(z)[0], slope, gain=0.5, monotone=True))
"""


def test_an_activation_of_ones_own_is_saved_by_its_name(data, own, tmp_path, monkeypatch):
    own(ACTIVATION)
    surrogate = train(data, network=MLP(4, 1, "algebraic"), optimizers=SHORT)
    surrogate.save(tmp_path / "model.safetensors")
    same(surrogate, load(tmp_path / "model.safetensors"), data.x)
    monkeypatch.delitem(layers.ACTIVATIONS, "algebraic")
    with pytest.raises(ValueError, match=r"no activation is called 'algebraic'.*import the module that registers it"):
        load(tmp_path / "model.safetensors")


FAMILY = """
    from dataclasses import dataclass

    import torch
    from torch import nn
    from sobofem.surrogate import Family, register
    from sobofem.surrogate.families import Learned


    @register
    @dataclass(frozen=True)
    class Linear:
        def build(self, n, m, generator):
            return nn.Linear(n, m, dtype=torch.float64)


    @dataclass(frozen=True)
    class LeastSquares(Family):
        name: str = "least squares"

        def learn(self, targets, *, seed, progress, quick=False):
            (N, n), m = targets.x.shape, targets.y.shape[1]
            module = Linear().build(n, m, None)
            A = torch.cat((targets.x, targets.x.new_ones(N, 1)), 1)
            solution = torch.linalg.lstsq(A, targets.y).solution.T
            with torch.no_grad():
                module.weight.copy_(solution[:, :n])
                module.bias.copy_(solution[:, n])
            one = torch.ones(1, dtype=torch.float64)
            return Learned(module.eval(), Linear(), one, one, torch.ones(m, 1 + n, dtype=torch.float64))
"""


@pytest.mark.slow
def test_a_family_of_ones_own_is_chosen_from_and_saved(data, own, tmp_path):
    slopes = np.array([[1.0, -2.0, 0.5, 0.0, 0.0, 3.0]])
    straight = Samples(data.x, data.x @ slopes.T, np.repeat(slopes[None], 16, 0), data.parameters, ("q",), data.bounds)
    surrogate = fit(straight, families=(own(FAMILY).LeastSquares(), Kriging(iterations=10)))
    assert surrogate.provenance["choice"]["shares"]["least squares"] > 0.5
    assert np.allclose(surrogate.predict(data.x)[1][:, 0], slopes, atol=1e-2)
    surrogate.save(tmp_path / "model.safetensors")
    same(surrogate, load(tmp_path / "model.safetensors"), data.x)
    with pytest.raises(TypeError, match=r"families holds a .*; expected families, such as surrogate.Kriging"):
        fit(straight, families=(object(),))
