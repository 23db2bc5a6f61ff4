from dataclasses import dataclass, replace
import json
import pickle

from analytic import borehole_samples, five_samples
import numpy as np
import pytest
from safetensors.torch import save_file
import torch
from torch import nn

from benchmarks.damaged_models import trial
from sobofem.coupling.contract import Model, describe
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.surrogate import LBFGS, MLP, Adam, OnlineTraining, load, register, train
from sobofem.surrogate.files import FORMAT, VERSION, container

SHORT = (Adam(20), LBFGS(20))


@pytest.fixture(scope="module")
def data():
    return replace(borehole_samples(24, seed=0), provenance={"design": "uniform", "seed": 0})


@pytest.fixture(scope="module")
def trained(data):
    return train(data, optimizers=SHORT)


@register
@dataclass(frozen=True)
class Skip:
    """A user's own network: a linear map beside a hidden layer, without a Jacobian of its own."""

    width: int = 6

    def build(self, n, m, generator):
        module = SkipModule(n, m, self.width).double()
        for parameter in module.parameters():
            nn.init.normal_(parameter, std=0.3, generator=generator)
        return module


class SkipModule(nn.Module):
    def __init__(self, n, m, width):
        super().__init__()
        self.straight, self.hidden, self.out = nn.Linear(n, m), nn.Linear(n, width), nn.Linear(width, m)

    def forward(self, x):
        return self.straight(x) + self.out(torch.tanh(self.hidden(x)))


def test_satisfies_the_contract_of_a_model(trained, data):
    assert isinstance(trained, Model)
    y, jacobian = checked_evaluation(trained, data.x[0])
    assert (y.dtype, jacobian.dtype) == (np.float64, np.float64)
    assert trained.evaluate(data.x[0], jacobian=False)[1] is None
    assert describe(trained).label("radius") == "radius [m]"


def test_of_no_points_there_are_no_answers(trained, data):
    n, m = len(data.parameters), len(data.responses)
    y, jacobian = trained.predict(np.zeros((0, n)))
    assert (y.shape, jacobian.shape) == ((0, m), (0, m, n))


def test_jacobian_is_the_derivative_of_the_values_in_physical_units(trained, data):
    rng = np.random.default_rng(1)
    middle, width = data.bounds.mean(axis=1), np.ptp(data.bounds, axis=1)
    x, direction = middle + 0.3 * width * rng.uniform(-1, 1, len(width)), width * rng.uniform(-1, 1, len(width))
    _, jacobian = trained.evaluate(x)
    step = 1e-5
    ahead, behind = (trained.evaluate(x + sign * step * direction)[0] for sign in (1, -1))
    assert np.allclose(jacobian @ direction, (ahead - behind) / (2 * step), rtol=1e-7)


def test_prediction_in_chunks_equals_evaluation_point_by_point(trained, data):
    y, jacobian = trained.predict(data.x, chunk=7)
    for row, x in enumerate(data.x):
        one, slope = trained.evaluate(x)
        assert np.allclose(y[row], one, rtol=1e-12)
        assert np.allclose(jacobian[row], slope, rtol=1e-10, atol=1e-300)
    assert trained.predict(data.x[:0])[0].shape == (0, 1)


def test_points_outside_are_refused_unless_extrapolation_is_wanted(trained, data):
    x = data.bounds.mean(axis=1)
    x[5] = 821.0
    with pytest.raises(ValueError, match=r"'lower_head' is 821 in row 0, outside its bounds \[700, 820\]"):
        trained.evaluate(x)
    assert np.isfinite(trained.predict(x[None], extrapolate=True)[0]).all()


def test_points_of_the_wrong_shape_are_refused(trained):
    with pytest.raises(ValueError, match=r"x has shape \(3,\), expected \(8,\)"):
        trained.evaluate([1.0, 2.0, 3.0])
    with pytest.raises(ValueError, match=r"x has shape \(8,\), expected \(N, 8\)"):
        trained.predict(np.zeros(8))
    with pytest.raises(ValueError, match="NaN"):
        trained.evaluate(np.full(8, np.nan))


def test_a_saved_surrogate_predicts_bit_for_bit_the_same(trained, data, tmp_path):
    trained.save(tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    for ours, theirs in zip(trained.predict(data.x), again.predict(data.x), strict=True):
        assert np.array_equal(ours, theirs)
    for name in ("parameters", "responses", "units", "provenance", "network"):
        assert getattr(again, name) == getattr(trained, name)
    assert np.array_equal(again.bounds, trained.bounds)
    assert np.array_equal(again.history.weights, trained.history.weights)
    assert again.history.stages == trained.history.stages


def test_saving_leaves_one_file_and_a_failed_save_none(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    trained.save(path)
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):
        trained.save(tmp_path / "nowhere" / "model.safetensors")


def test_a_registered_network_of_the_user_trains_saves_and_loads(tmp_path):
    data = five_samples(16, seed=0)
    surrogate = train(data, network=Skip(5), optimizers=SHORT)
    step = np.array([0.0, 0.0, 1e-5, 0.0, 0.0, 0.0])
    difference = (surrogate.evaluate(step)[0] - surrogate.evaluate(-step)[0]) / 2e-5
    assert np.allclose(surrogate.evaluate(0 * step)[1][:, 2], difference, rtol=1e-6)
    surrogate.save(tmp_path / "own.safetensors")
    again = load(tmp_path / "own.safetensors")
    assert again.network == Skip(5)
    assert np.array_equal(again.predict(data.x)[1], surrogate.predict(data.x)[1])


def test_an_unregistered_network_trains_but_is_not_saved(tmp_path):
    @dataclass(frozen=True)
    class Hidden:
        def build(self, n, m, generator):
            return MLP(4, 1).build(n, m, generator)

    surrogate = train(five_samples(8, seed=0), network=Hidden(), optimizers=(Adam(5),))
    with pytest.raises(ValueError, match=r"'Hidden' is not registered: decorate it"):
        surrogate.save(tmp_path / "model.safetensors")


def test_files_that_are_no_surrogate_are_refused(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match="there is no model file"):
        load(path)
    path.write_text("not a model")
    with pytest.raises(ValueError, match="no whole safetensors file"):
        load(path)
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match="but no surrogate of sobofem"):
        load(path)
    OnlineTraining(("a",), ("q",), [[0.0, 1.0]]).save_checkpoint(path)
    with pytest.raises(ValueError, match=r"is a checkpoint of sobofem, expected a surrogate; OnlineTraining\.load"):
        load(path)
    trained.save(path)
    with pytest.raises(ValueError, match=r"is a surrogate of sobofem, expected a checkpoint; surrogate\.load reads it"):
        OnlineTraining.load_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_cut_short_is_refused(trained, tmp_path, share):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model.safetensors is no whole safetensors file"):
        load(path)


def write(path, tensors, record, version=VERSION):
    metadata = {"format": FORMAT, "version": str(version), "record": json.dumps(record)}
    path.write_bytes(container.pack(tensors, metadata))


def test_a_newer_file_says_to_upgrade(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    write(path, {"weight": torch.zeros(3)}, {}, VERSION + 1)
    with pytest.raises(ValueError, match=f"format version {VERSION + 1}.*upgrade sobofem"):
        load(path)


def contents(path):
    """Tensors and record of a file."""
    found = container.unpack(path.read_bytes())
    return found.arrays(), json.loads(found.metadata["record"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"network": {"name": "Absent", "fields": {}}}, r"network 'Absent' is unknown; import the module"),
        ({"network": {"name": "MLP", "fields": {"width": 3}}}, ""),
        ({"network": {"name": "MLP", "fields": {"width": 10**9}}}, r"width .* 1000000000, but the file holds"),
        ({"network": {"name": "Skip", "fields": {"width": 10**8}}}, "its network is larger than all"),
        ({"network": None}, "its network is 'None'"),
        ({"parameters": None}, "its record has parameters"),
        ({"parameters": ["radius"] * 8}, "expected different names"),
        ({"best": "x"}, "its record has best 'x', of type str"),
        ({"stages": [1]}, ""),
    ],
)
def test_a_record_that_no_file_of_ours_has_is_refused_though_its_checksum_fits(trained, tmp_path, change, message):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    tensors, record = contents(path)
    write(path, tensors, record | change)
    with pytest.raises(ValueError, match=rf"model\.safetensors can't be loaded: .*{message}"):
        load(path)


def test_weights_that_are_no_numbers_and_tensors_that_are_missing_are_refused(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    tensors, record = contents(path)
    name = next(name for name in tensors if name.startswith("module."))
    write(path, tensors | {name: torch.full_like(tensors[name], torch.nan)}, record)
    with pytest.raises(ValueError, match="its weights hold NaN"):
        load(path)
    write(path, {key: value for key, value in tensors.items() if key != "bounds"}, record)
    with pytest.raises(ValueError, match="its record lacks 'bounds'"):
        load(path)


def test_the_checksum_holds_whatever_the_order_of_the_file_and_breaks_with_any_number_or_text(trained, data, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    found = container.unpack(path.read_bytes())
    tensors, metadata = found.arrays(), found.metadata
    save_file(dict(sorted(tensors.items(), reverse=True)), path, metadata=metadata)
    assert np.array_equal(load(path).predict(data.x)[0], trained.predict(data.x)[0])
    name = next(name for name in tensors if name.startswith("module."))
    changed = tensors[name].clone()
    changed.view(-1)[0] = torch.nextafter(changed.view(-1)[0], torch.tensor(9.0, dtype=torch.float64))
    for other in ((tensors | {name: changed}, metadata), (tensors, metadata | {"versions": "{}"})):
        save_file(other[0], path, metadata=other[1])
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged: .* does not fit its checksum"):
            load(path)
    save_file(tensors, path, metadata={key: text for key, text in metadata.items() if key != container.CHECKSUM})
    with pytest.raises(ValueError, match="it has lost its checksum"):
        load(path)


def test_a_file_of_an_older_version_is_read_with_a_warning(trained, data, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    found = container.unpack(path.read_bytes())
    metadata = {key: text for key, text in found.metadata.items() if key != container.CHECKSUM} | {"version": "1"}
    save_file(found.arrays(), path, metadata=metadata)
    with pytest.warns(UserWarning, match="by an older sobofem, without a checksum"):
        assert np.array_equal(load(path).predict(data.x)[0], trained.predict(data.x)[0])
    for version in ("0", "", "-1", "²"):
        save_file(found.arrays(), path, metadata=metadata | {"version": version})
        with pytest.raises(ValueError, match="is damaged: its format version is"):
            load(path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty"),
        (b"PK\x03\x04" + bytes(99), "it is a zip archive"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "it is a dataset"),
        (pickle.dumps([1] * 99), "it is a pickle"),
        (b"hello" * 99, "its header is longer than the file"),
        ((2**62).to_bytes(8, "little") + b"{}", "its header is longer than the file"),
        ((100_000).to_bytes(8, "little") + b"[" * 100_000, "its header is no JSON"),
        ((2).to_bytes(8, "little") + b"[]", "no table of tensors"),
    ],
)
def test_what_is_no_file_of_ours_is_named(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        load(path)
    with pytest.raises(ValueError, match="is a folder; name the model file in it"):
        load(tmp_path)


def test_a_size_is_believed_only_after_comparison_with_that_of_the_file(trained, tmp_path):
    path = tmp_path / "model.safetensors"
    trained.save(path)
    with path.open("r+b") as file:
        file.truncate(2**40)  # sparse: a terabyte that takes no room
    with pytest.raises(ValueError, match=r"its tensors end at byte \d+, and the file at 1099511627776"):
        load(path)


@pytest.mark.slow
def test_damages_of_all_kinds_of_model_files_are_refused_in_one_line():
    counts, bad = trial(12, forged=97, programs=False)
    assert not bad
    assert sum(found.total() for found in counts.values()) > 100
