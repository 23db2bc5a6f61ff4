"""Where `fit` computes: on the device it is given, whatever torch's default device is."""

from dataclasses import replace

from analytic import five_samples
import numpy as np
import pytest
import torch

from sobofem.surrogate import MLP, Descent, Kriging, Solved, fit, load, train
from sobofem.surrogate.loss import Targets

FAMILIES = (
    Solved(units=16, members=2, iterations=20),
    Kriging(starts=(-7.0,), iterations=10),
    Descent(network=MLP(8, 2), members=2, iterations=20),
)


@pytest.fixture(scope="module")
def data():
    five = five_samples(10, seed=0)
    jacobian = five.jacobian[:, :2].copy()
    jacobian[::3, 1, 2] = np.nan
    return replace(five, y=five.y[:, :2], jacobian=jacobian, responses=five.responses[:2], missing=True)


@pytest.fixture
def elsewhere():
    """A default device where nothing can be computed: a tensor made there by oversight spoils all that it touches."""
    torch.set_default_device("meta")
    yield
    torch.set_default_device(None)


@pytest.fixture(scope="module")
def fitted(data):
    return fit(data, families=FAMILIES, device="cpu")


@pytest.mark.slow
def test_no_tensor_is_made_on_the_default_device(data, fitted, elsewhere):
    """Each is made where the samples are, or on the CPU: on a GPU the two never meet by accident."""
    again = fit(data, families=FAMILIES, device="cpu")
    for ours, theirs in zip(again.predict(data.x), fitted.predict(data.x), strict=True):
        assert np.array_equal(ours, theirs)
    for ours, theirs in zip(again.standard_deviation(data.x), fitted.standard_deviation(data.x), strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_family_computes_where_its_samples_are(family, elsewhere):
    rng = np.random.default_rng(0)
    x, y, jacobian = (torch.from_numpy(rng.normal(size=shape)) for shape in ((12, 3), (12, 2), (12, 2, 3)))
    learned = family.learn(Targets(x, y, jacobian), seed=0, progress=lambda *_: None)
    tensors = [*learned.module.state_dict().values(), learned.steps, learned.losses, learned.weights]
    assert {tensor.device.type for tensor in tensors} == {"cpu"}


@pytest.mark.slow
def test_what_was_fitted_is_saved_from_the_cpu(fitted, data, tmp_path):
    assert {tensor.device.type for tensor in fitted.module.state_dict().values()} == {"cpu"}
    fitted.save(tmp_path / "a.safetensors")
    assert np.array_equal(load(tmp_path / "a.safetensors").predict(data.x)[0], fitted.predict(data.x)[0])


def test_targets_move_as_a_whole(data):
    targets = Targets.of_labels(*(torch.from_numpy(part) for part in (data.x, data.y, data.jacobian)))
    moved = targets.to("meta")
    assert {part.device.type for part in (moved.x, moved.y, moved.jacobian, moved.presence)} == {"meta"}
    assert moved.directions is None


@pytest.mark.parametrize("learn", [fit, train])
@pytest.mark.parametrize("device", ["cuda:77", "meta", "abacus"])
def test_a_device_that_can_not_be_used_is_refused_at_once(data, learn, device):
    with pytest.raises(ValueError, match=rf"device '{device}' can't be used here \(.*\); train on 'cpu'"):
        learn(data, device=device)
