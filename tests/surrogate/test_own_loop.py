"""Networks and loops of one's own: any smooth module, the loss, samples as batches, and what becomes of them."""

from copy import deepcopy
from pathlib import Path
import re
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import jacrev
from torch.utils.data import DataLoader

from sobofem import surrogate
from sobofem.surrogate.files import registry
from sobofem.surrogate.loss import term_losses
from sobofem.surrogate.networks.base import value_and_jacobian
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.train import targets_of

BOUNDS = np.array([[-1.0, 1.0], [1.0, 3.0]])


def truth(x):
    a, b = x.T
    y = np.stack([np.sin(a) * b, a * b**2], 1)
    return y, np.stack([np.stack([np.cos(a) * b, np.sin(a)], 1), np.stack([b**2, 2 * a * b], 1)], 1)


def samples(N=48, seed=0):
    x = np.random.default_rng(seed).uniform(*BOUNDS.T, size=(N, 2))
    return surrogate.Samples(x, *truth(x), ("a", "b"), ("q", "r"), BOUNDS)


def error(model):
    """Root mean square errors of values and slopes, both of sizes up to 9."""
    x = np.random.default_rng(9).uniform(*BOUNDS.T, size=(200, 2))
    y, jacobian = model.predict(x)
    true, slopes = truth(x)
    return tuple(float(np.sqrt(np.mean(off**2))) for off in (y - true, jacobian - slopes))


def smooth(m=2, width=16):
    torch.manual_seed(0)
    layers = [nn.Linear(2, width), nn.SiLU(), nn.LayerNorm(width), nn.Linear(width, width), nn.Softplus(beta=2.0)]
    return nn.Sequential(*layers, nn.Linear(width, m)).double()


class Skipping(nn.Module):
    """A module whose class is nobody else's."""

    def __init__(self, width, bias=True):
        super().__init__()
        self.width = width
        self.inner, self.outer = nn.Linear(2, width, bias=bias), nn.Linear(width, 2)
        self.bias = bias
        self.line = nn.Linear(2, 2)

    def forward(self, x):
        return self.line(x) + self.outer(torch.tanh(self.inner(x)))


@pytest.mark.parametrize("m", [1, 2, 4, 5, 9])
def test_the_jacobian_of_a_module_is_that_of_single_samples_and_differentiable_again(m):
    module, x = smooth(m), torch.randn(7, 2, dtype=torch.float64)
    y, jacobian = value_and_jacobian(module, x)
    single = torch.stack([jacrev(lambda row: module(row[None])[0])(row) for row in x])
    torch.testing.assert_close(jacobian, single)
    torch.testing.assert_close(y, module(x))
    by_weights = torch.autograd.grad(jacobian.square().sum(), module[0].weight)[0]
    torch.testing.assert_close(by_weights, torch.autograd.grad(single.square().sum(), module[0].weight)[0])
    with torch.no_grad():
        torch.testing.assert_close(value_and_jacobian(module, x)[1], single)
    inputs = x.clone().requires_grad_()
    (through,) = torch.autograd.grad(value_and_jacobian(module, inputs)[1].sum(), inputs)
    curved = torch.stack([jacrev(jacrev(lambda row: module(row[None])[0].sum()))(row).sum(1) for row in x])
    torch.testing.assert_close(through, curved)
    action = torch.stack([jacrev(lambda row: value_and_jacobian(module, row[None])[1][0].sum())(row) for row in x])
    torch.testing.assert_close(action, curved)


@pytest.mark.slow
def test_any_smooth_module_trains_is_saved_and_exported(tmp_path):
    module = smooth()
    before = deepcopy(module.state_dict())
    model = surrogate.train(samples(), network=module, optimizers=(surrogate.LBFGS(150),))
    of_values, of_slopes = error(model)
    assert of_values < 0.05 and of_slopes < 0.3
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)  # one's own stays as it is
    model.save(tmp_path / "a.safetensors")
    loaded = surrogate.load(tmp_path / "a.safetensors")
    x = samples(5, seed=3).x
    for mine, theirs in zip(model.predict(x), loaded.predict(x), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    surrogate.export_model(loaded, tmp_path / "a.pt2")
    y, _ = surrogate.open_exported(tmp_path / "a.pt2").evaluate(x[0])
    np.testing.assert_allclose(y, model.evaluate(x[0])[0], rtol=1e-9)


def test_frozen_parameters_stay_what_they_are():
    module = smooth()
    module[0].requires_grad_(False)
    model = surrogate.train(samples(), network=module, optimizers=(surrogate.LBFGS(5),))
    torch.testing.assert_close(model.module[0].weight, module[0].weight, rtol=0, atol=0)
    assert not torch.equal(model.module[3].weight, module[3].weight)


def between(layer):
    return nn.Sequential(nn.Linear(2, 4), layer, nn.Linear(4, 2)).double()


class Centered(nn.Module):
    """Mixes the samples of a batch without any layer that is known for it."""

    def __init__(self):
        super().__init__()
        self.line = nn.Linear(2, 2, dtype=torch.float64)

    def forward(self, x):
        return self.line(x - x.mean(0))


class Through(nn.Module):
    """A linear layer, and what somebody does with it and its inputs."""

    def __init__(self, function):
        super().__init__()
        self.line = nn.Linear(2, 2, dtype=torch.float64)
        self.function = function

    def forward(self, x):
        return self.function(self.line, x)


REFUSED = {
    "batch normalization": (
        between(nn.BatchNorm1d(4)),
        ValueError,
        r"layer '1' \(BatchNorm1d\) mixes.*LayerNorm.*eval",
    ),
    "dropout": (between(nn.Dropout(0.1)), ValueError, r"layer '1' \(Dropout\) draws at random.*eval\(\)"),
    "random slope": (between(nn.RReLU()), ValueError, r"layer '1' \(RReLU\) draws at random"),
    "mixes": (Centered(), ValueError, "Centered mixes the samples of a batch"),
    "untracked": (between(nn.BatchNorm1d(4, track_running_stats=False)).eval(), ValueError, "off or not; take LayerN"),
    "detached": (Through(lambda line, x: line(x.detach())), ValueError, "has slopes that its values contradict"),
    "half detached": (Through(lambda line, x: line(x) + x.detach()), ValueError, "slopes that its values contradict"),
    "no_grad": (Through(torch.no_grad()(lambda line, x: line(x))), ValueError, "slopes that its values contradict"),
    "numpy": (Through(lambda line, x: torch.tensor(np.tanh(x.numpy()))), ValueError, "can't be differentiated"),
    "in place": (Through(lambda line, x: line(x).tanh().mul_(2)), ValueError, "can't be differentiated.*inplace"),
    "inputs in place": (Through(lambda line, x: line(x.mul_(2))), ValueError, "Through changes its inputs in place"),
    "complex outputs": (Through(lambda line, x: line(x) * (1 + 1j)), ValueError, "gives complex numbers"),
    "infinite": (Through(lambda line, x: line(x) / x[:, :1].clamp(min=0)), ValueError, "gives NaN or infinity"),
    "single precision": (nn.Linear(2, 2), TypeError, r"'weight' of Linear is of torch.float32.*module.double\(\)"),
    "complex": (nn.Linear(2, 2, dtype=torch.complex128), TypeError, "'weight' of Linear is of torch.complex128"),
    "half": (nn.Sequential(nn.Linear(2, 2).half()), TypeError, "'0.weight' of Sequential is of torch.float16"),
    "inputs": (nn.Linear(3, 2).double(), ValueError, r"does not take inputs \(4, 2\), \(N, n\) for 2 parameters"),
    "outputs": (nn.Linear(2, 3).double(), ValueError, r"gives \(4, 3\) for 4 points; expected \(N, m\) = \(4, 2\)"),
    "nothing to train": (nn.Tanh(), ValueError, "Tanh has no parameters that are free"),
    "around a module": (surrogate.Separate(surrogate.Positive(nn.Linear(2, 1))), TypeError, "is around a .*Linear"),
    "a class": (Centered, TypeError, "network is the class .*Centered; expected what builds one"),
}


@pytest.mark.parametrize(("module", "kind", "message"), REFUSED.values(), ids=REFUSED)
def test_what_can_not_be_learned_with_is_refused_by_layer_and_remedy(module, kind, message):
    with pytest.raises(kind, match=message):
        surrogate.train(samples(), network=module)


def test_layers_that_are_switched_off_do_no_harm_and_kinks_are_named():
    module = between(nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Tanh()).eval())
    surrogate.train(samples(), network=module, optimizers=(surrogate.LBFGS(3),))
    with pytest.warns(UserWarning, match=r"layer '1' \(ReLU\) has kinks.*Softplus"):
        surrogate.train(samples(), network=between(nn.ReLU()), optimizers=(surrogate.LBFGS(3),))


def test_a_class_of_ones_own_is_saved_once_it_is_registered(tmp_path):
    module = Skipping(6, bias=False)
    model = surrogate.Surrogate.from_module(module, {"a": (-1.0, 1.0), "b": (1.0, 3.0)}, ("q", "r"))
    with pytest.raises(ValueError, match=r"Skipping can't be saved.*surrogate\.register"):
        model.save(tmp_path / "a.safetensors")
    surrogate.register(Skipping)
    surrogate.Surrogate.from_module(module, {"a": (-1.0, 1.0), "b": (1.0, 3.0)}, ("q", "r")).save(
        tmp_path / "a.safetensors"
    )
    x = np.array([[0.5, 2.0]])
    y = surrogate.load(tmp_path / "a.safetensors").predict(x)[0]
    np.testing.assert_allclose(y, module.double()(torch.tensor(x)).detach().numpy(), rtol=1e-12)
    registry._CLASSES["module"].clear()
    with pytest.raises(ValueError, match="module 'Skipping' is unknown; import what registers it"):
        surrogate.load(tmp_path / "a.safetensors")


class Doubled(nn.Sequential):
    """A sequence that does more than its layers."""

    def forward(self, x):
        return 2.0 * super().forward(x)


class Scaled(nn.Module):
    """Does not keep what it is made with under the name of its argument."""

    def __init__(self, scale=2.0):
        super().__init__()
        self.factor, self.line = scale, nn.Linear(2, 2)

    def forward(self, x):
        return self.factor * self.line(x)


def _hooked():
    module = between(nn.Tanh())
    module[0].register_forward_hook(lambda layer, inputs, outputs: 2.0 * outputs)
    return module


def _replaced():
    module = between(nn.Tanh())
    module[1].forward = torch.sin
    return module


@pytest.mark.parametrize("make", [_hooked, _replaced, lambda: Doubled(nn.Linear(2, 2)), lambda: Scaled(3.0)])
def test_a_module_that_a_file_would_give_back_as_another_is_not_saved(tmp_path, make):
    surrogate.register(Scaled)
    model = surrogate.Surrogate.from_module(make(), {"a": (-1.0, 1.0), "b": (1.0, 3.0)}, ("q", "r"))
    with pytest.raises(ValueError, match="can't be saved"):
        model.save(tmp_path / "a.safetensors")
    assert not (tmp_path / "a.safetensors").exists()


def test_layers_that_share_their_numbers_are_saved(tmp_path):
    twice = nn.Linear(4, 4)
    module = nn.Sequential(nn.Linear(2, 4), twice, nn.Tanh(), twice, nn.Linear(4, 2))
    model = surrogate.Surrogate.from_module(module, {"a": (-1.0, 1.0), "b": (1.0, 3.0)}, ("q", "r"))
    model.save(tmp_path / "a.safetensors")
    x = np.array([[0.3, 1.2], [-0.5, 2.0]])
    np.testing.assert_array_equal(surrogate.load(tmp_path / "a.safetensors").predict(x)[1], model.predict(x)[1])


def test_a_trained_module_is_a_surrogate_in_physical_units_by_three_arguments():
    line = nn.Linear(2, 1)
    with torch.no_grad():
        line.weight.copy_(torch.tensor([[2.0, -3.0]]))
        line.bias.fill_(1.0)
    model = surrogate.Surrogate.from_module(line, {"a": (0.0, 1.0), "b": (0.0, 5.0)}, ["q"])
    y, jacobian = model.evaluate({"b": 4.0, "a": 0.5})
    assert y.tolist() == [-10.0] and jacobian.tolist() == [[2.0, -3.0]]
    with pytest.raises(ValueError, match="outside its bounds"):
        model.evaluate([0.5, 6.0])
    with pytest.raises(ValueError, match=r"gives \(4, 1\)"):
        surrogate.Surrogate.from_module(line, {"a": (0.0, 1.0), "b": (0.0, 5.0)}, ["q", "r"])


def test_the_loss_is_that_of_training_with_its_terms_by_name():
    data, module = samples(), smooth()
    loss = surrogate.SobolevLoss(data)
    value = loss(module, {"x": data.x, "y": data.y, "jacobian": data.jacobian})
    scaling = Scaling.from_data(data.bounds, data.y, data.responses)
    targets = targets_of(scaling, data, device="cpu")
    losses, squares = term_losses(module, targets), targets.mean_squares()
    weights = surrogate.PerChannel().start(targets).values
    torch.testing.assert_close(value, (weights * losses).sum() / (weights * squares).sum())
    assert list(loss.terms) == ["q", "d(q)/d(a)", "d(q)/d(b)", "r", "d(r)/d(a)", "d(r)/d(b)"]
    torch.testing.assert_close(loss.terms["d(r)/d(a)"], losses[1, 1].detach())


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Linear(2, 1).double(), r"gives \(4, 1\) for 4 points; expected \(N, m\) = \(4, 2\)"),
        (Through(lambda line, x: (line(x), x)), r"gives tuple for 4 points"),
        (between(nn.BatchNorm1d(4)), "BatchNorm1d.*mixes the samples of a batch"),
        (Through(lambda line, x: line(x.detach())), "can't be differentiated by its inputs"),
        (nn.Tanh(), "Tanh has no parameters; expected some"),
    ],
)
def test_the_loss_of_a_loop_refuses_modules_whose_slopes_mean_nothing(module, message):
    with pytest.raises(ValueError, match=message):
        surrogate.SobolevLoss(samples())(module, next(iter(DataLoader(samples(), batch_size=8))))


def test_the_loss_of_a_loop_broadcasts_no_labels():
    loss, batch = surrogate.SobolevLoss(samples()), next(iter(DataLoader(samples(), batch_size=8)))
    for part in ({"y": batch["y"][:, :1]}, {"y": batch["y"][:1]}, {"jacobian": batch["jacobian"][:, :1]}):
        with pytest.raises(ValueError, match=r"the batch has .* of shape .*, expected"):
            loss(nn.Linear(2, 2).double(), batch | part)
    with pytest.raises(ValueError, match="the batch is empty"):
        loss(nn.Linear(2, 2).double(), {name: part[:0] for name, part in batch.items()})
    with pytest.raises(ValueError, match="the batch is a tuple"):
        loss(nn.Linear(2, 2).double(), tuple(batch.values()))


def test_batches_of_a_loader_average_to_the_whole_and_gaps_count_nothing():
    data, module = samples(48), smooth()
    loss = surrogate.SobolevLoss(data)
    parts = [float(loss(module, batch).detach()) for batch in DataLoader(data, batch_size=12)]
    whole = float(loss(module, next(iter(DataLoader(data, batch_size=48)))).detach())
    assert np.mean(parts) == pytest.approx(whole, rel=1e-12)
    batch = next(iter(DataLoader(data, batch_size=48)))
    batch["jacobian"][:, 1, 0] = torch.nan
    batch["y"][5, 0] = torch.nan
    loss(module, batch).backward()
    assert float(loss.terms["d(r)/d(a)"]) == 0.0
    assert all(bool(torch.isfinite(p.grad).all()) for p in module.parameters())


def test_adaptive_weights_go_on_from_their_state_in_single_precision_too():
    data = samples()
    kinds = (surrogate.InverseDirichlet(), surrogate.PerChannel())
    for weighting in kinds:
        module = smooth().float()
        loss, again = surrogate.SobolevLoss(data, weighting), surrogate.SobolevLoss(data, weighting)
        for batch in DataLoader(data, batch_size=12):
            loss(module, batch)
        again.load_state_dict(loss.state_dict())
        assert again.steps == loss.steps == 4
        loss.eval(), again.eval()
        torch.testing.assert_close(again(module, batch), loss(module, batch), rtol=0, atol=0)
    assert loss.steps == 4
    with pytest.raises(ValueError, match="weighs sensitivities, but the batch has no jacobian"):
        loss(module, {"x": data.x, "y": data.y})


def blocks():
    page = (Path(__file__).parents[2] / "docs" / "surrogates.md").read_text()
    section = page.partition("## A loop of your own")[2].partition("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.DOTALL)


def show(text, names):
    exec(compile(text, "docs/surrogates.md", "exec"), names)


@pytest.mark.slow
def test_the_loop_of_the_page_trains_in_plain_python_and_from_a_stream(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    loop, stream = (next(text for text in blocks() if word in text) for word in ("OneCycleLR", "Reservoir"))
    names = {"data": samples(64)}
    show(loop, names)
    assert error(names["model"])[0] < 0.2
    show(stream, names)
    assert names["reservoir"].exhausted
    assert error(surrogate.load("own.safetensors")) == error(names["model"])


def test_the_page_on_lightning_is_right_as_far_as_it_can_be_run():
    text = next(text for text in blocks() if "lightning" in text)
    compile(text, "docs/surrogates.md", "exec")
    pytest.importorskip("lightning")
    show(text, {"data": samples(32), "surrogate": surrogate, "nn": nn, "torch": torch, "DataLoader": DataLoader})


def test_loggers_hear_of_a_training_by_its_progress(monkeypatch):
    logged = []

    class Writer:
        def __init__(self, folder):
            pass

        def __enter__(self):
            return self

        def __exit__(self, *error):
            pass

        def add_scalar(self, name, value, step):
            logged.append((name, value, step))

    board, flow = ModuleType("torch.utils.tensorboard"), ModuleType("mlflow")
    board.SummaryWriter = Writer
    flow.start_run = lambda: Writer("")
    flow.log_metric = lambda name, value, step: logged.append((name, value, step))
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", board)
    monkeypatch.setitem(sys.modules, "mlflow", flow)
    short = SimpleNamespace(**vars(surrogate))
    short.train = lambda data, **more: surrogate.train(data, optimizers=(surrogate.Adam(10),), **more)
    for word in ("tensorboard", "mlflow"):
        logged.clear()
        text = next(text for text in blocks() if word in text)
        assert len(text.strip().splitlines()) <= 5
        show(text, {"data": samples(16), "surrogate": short})
        assert len(logged) == 2 and all(np.isfinite(value) for _, value, _ in logged)
