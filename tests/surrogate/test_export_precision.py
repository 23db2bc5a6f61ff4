"""Programs in single precision whose Gaussian processes compute in double."""

from dataclasses import replace

from analytic import sample
import numpy as np
import pytest
from test_export import BOUNDS, KINDS, directions, hessian_actions, off, plant, points
import torch
from torch import nn

from sobofem.surrogate import MLP, Adam, Descent, Kriging, Solved, Surrogate, train
from sobofem.surrogate.export import export_model, open_exported
from sobofem.surrogate.export.program import InDouble, Program, doubled, in_precision
from sobofem.surrogate.families.kriging import Posterior
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.selection.stacking import Mixture, MixtureModule
from sobofem.surrogate.training.train import scaled_targets

FAMILIES = (
    Solved(units=6, members=1, iterations=20),
    Kriging(starts=(-12.0,), iterations=40),
    Descent(network=MLP(4, 1), members=2, iterations=30),
)


@pytest.fixture(scope="module")
def mixed():
    """All three families in one mixture, a share of each for both responses."""
    data = sample(plant, BOUNDS, 12, seed=0)
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    targets = scaled_targets(scaling, data.x, data.y, data.jacobian, device="cpu")
    learned = [family.learn(targets, seed=0, progress=lambda *_: None) for family in FAMILIES]
    module = MixtureModule([part.module for part in learned], 3, 2)
    module.weights.copy_(torch.tensor([[0.2, 0.5, 0.3], [0.4, 0.4, 0.2]]))
    module.gain.fill_(0.7)
    module.floor.fill_(1e-4)
    network, history = Mixture(tuple(part.network for part in learned)), train(data, optimizers=(Adam(1),)).history
    return Surrogate(module, network, scaling, data.parameters, data.responses, data.bounds, {}, {}, history)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.bench)])
def test_a_mixture_with_a_gaussian_process_keeps_five_digits_in_single_precision(mixed, tmp_path, kind):
    path, ranges = tmp_path / f"mixed{kind}", np.ptp(BOUNDS, axis=1)
    differences = export_model(mixed, path, precision="float32")
    assert set(differences) == {"y", "jacobian", "y_std", "jacobian_std"}
    program = open_exported(path)
    x = points(BOUNDS, 5).astype(np.float32).astype(np.float64)
    found, (y, jacobian) = program.run(x), mixed.predict(x, extrapolate=True)
    assert {array.dtype for name, array in found.items() if name != "inside"} == {np.dtype("float32")}
    assert off(found["y"], y) < 1e-5
    assert off(found["jacobian"], jacobian, ranges) < 1e-5
    deviation, of_jacobian = mixed.standard_deviation(x, extrapolate=True)
    assert (np.abs(found["y_std"] - deviation) < 1e-5 * np.abs(y).max(axis=0)).all()
    size = np.abs(jacobian * ranges).max(axis=(0, 2))[:, None]
    assert (np.abs(found["jacobian_std"] - of_jacobian) * ranges < 1e-5 * size).all()
    assert program.about["in_double"] == ["Posterior"]


@pytest.mark.slow
def test_products_with_hessians_of_a_gaussian_process_keep_five_digits_in_single_precision(mixed, tmp_path):
    alone, path = replace(mixed, module=mixed.module.parts[1]), tmp_path / "alone.pt2"
    export_model(alone, path, precision="float32", hessian=True)
    x, v = (given(BOUNDS, 5).astype(np.float32).astype(np.float64) for given in (points, directions))
    action = open_exported(path).run(x, v)["hessian_action"]
    assert action.dtype == np.float32
    assert off(action, hessian_actions(alone, x, v), np.ptp(BOUNDS, axis=1)) < 1e-5


def test_networks_beside_a_gaussian_process_stay_in_single_precision(mixed):
    module = Program(mixed, torch.float32, hessian=False).module
    kinds = {type(part).__name__: {tensor.dtype for tensor in part.state_dict().values()} for part in module.parts}
    assert kinds == {
        "ShallowModule": {torch.float32},
        "InDouble": {torch.float64},
        "EnsembleModule": {torch.float32},
    }
    assert module.weights.dtype == torch.float32
    assert mixed.module.parts[0].W.dtype == torch.float64
    assert doubled(Program(mixed, torch.float64, hessian=False).module) == ()


@pytest.mark.slow
def test_single_precision_throughout_would_not_do_for_a_gaussian_process(mixed, tmp_path, monkeypatch):
    monkeypatch.setattr(Posterior, "needs_double", False)
    with pytest.raises(ArithmeticError, match=r"of the exported program is off by .*; export in float64, or allow"):
        export_model(replace(mixed, module=mixed.module.parts[1]), tmp_path / "alone.pt2", precision="float32")


class Careful(NetworkModule):
    """A difference of large numbers, which knows what that takes."""

    needs_double = True

    def __init__(self):
        super().__init__()
        self.register_buffer("shift", torch.tensor(1e6))

    def forward(self, x):
        return (self.shift + x) - self.shift


def test_any_module_may_say_that_it_needs_double_precision():
    x = torch.linspace(-1.0, 1.0, 7).unsqueeze(1)
    alone = in_precision(Careful(), torch.float32)
    assert isinstance(alone, InDouble) and torch.equal(alone(x), Careful().double()(x.double()).float())
    within = in_precision(nn.Sequential(nn.Linear(1, 1), Careful(), nn.Sequential(Careful())), torch.float32)
    assert [type(part).__name__ for part in within] == ["Linear", "InDouble", "Sequential"]
    assert within[0].weight.dtype == torch.float32 and isinstance(within[2][0], InDouble)
    assert not alone.differentiates_itself and not alone.has_standard_deviation


def test_a_part_offers_what_it_offered(mixed):
    process = mixed.module.parts[1]
    part = in_precision(process, torch.float32)
    x = torch.tensor([[0.3, -0.2, 1.1], [0.0, 1.0, -1.0]])
    for name in ("value_and_jacobian", "disagreement"):
        for ours, theirs in zip(getattr(part, name)(x), getattr(process, name)(x.double()), strict=True):
            assert torch.equal(ours, theirs.float())
    assert not part.has_standard_deviation
