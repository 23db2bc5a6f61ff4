"""Training between fields: loss terms against exact maps, weightings, boundaries, files larger than memory, errors."""

from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np
from operator_cases import Plate
import pytest
from scipy.sparse import csr_array
import torch
from torch import nn

from sobofem import surrogate
from sobofem.coupling.contract import Model, Products, describe
from sobofem.surrogate import Adam, weighting
from sobofem.surrogate.operators import (
    DeepONet,
    FieldNetwork,
    OperatorData,
    OperatorSamples,
    field_errors,
    objective,
    samples,
    train_operator,
)
from sobofem.surrogate.operators.errors import Norms
from sobofem.surrogate.operators.objective import FieldObjective, FieldTargets
from sobofem.surrogate.operators.samples import FieldScaling
from sobofem.surrogate.operators.surrogate import Kept

PLATE = Plate.of(3, 2)
NETWORK = DeepONet(width=16, depth=1, rank=8)
STEPS = (Adam(8, 3e-3, batch=4, warm_up=3, longest=1.0),)


def objective_of(data, module, *, energy=None, relative=True):
    """The loss of a module on all samples, in double precision."""
    rows = np.arange(len(data))
    scaling = FieldScaling.from_data(data, rows)
    targets = FieldTargets(data, rows, scaling, products=True, dtype=torch.float64, device="cpu")
    norms = Norms(scaling, data.mesh.node_weights, energy, targets.x)
    return FieldObjective(
        Kept(module(scaling), scaling).double(),
        targets,
        surrogate.PerChannel(),
        norms,
        relative=relative,
        products=2,
        generator=torch.Generator().manual_seed(0),
    )


class Exact(nn.Module):
    """The plate's own flexibility between scaled fields."""

    def __init__(self, scaling, factor=1.0):
        super().__init__()
        P = len(PLATE.mesh)
        dense = PLATE.flexibility * scaling.input_scale.ravel()[:, None]
        inverse = np.divide(1.0, scaling.output_scale, out=np.zeros((P, 2)), where=scaling.output_scale > 0.0)
        self.matrix = nn.Parameter(torch.from_numpy(factor * dense * inverse.ravel()))
        offset = (scaling.input_center.ravel() @ PLATE.flexibility).reshape(P, 2) - scaling.output_center
        self.offset = nn.Parameter(torch.from_numpy(offset * inverse))

    def forward(self, x):
        return (x.flatten(1) @ self.matrix).unflatten(1, self.offset.shape) + self.offset


@pytest.mark.parametrize("relative", [True, False])
def test_the_exact_map_has_no_loss_and_the_mean_field_has_one(relative):
    data = PLATE.samples(8, products=2)
    rows = torch.arange(8)
    exact = objective_of(data, Exact, energy=PLATE.stiffness, relative=relative)
    assert exact.losses(exact.targets, rows).detach().abs().max() < 1e-20
    nothing = objective_of(data, lambda scaling: Exact(scaling, 0.0), energy=PLATE.stiffness, relative=relative)
    with torch.no_grad():
        nothing.module.inner.offset.zero_()
        losses = nothing.losses(nothing.targets, rows)
    assert torch.allclose(losses, torch.tensor([[1.0, 1.0, 1.0], [1.0, 1.0, 0.0]], dtype=torch.float64))
    assert torch.isclose(nothing(rows), torch.ones((), dtype=torch.float64))


def test_a_map_that_is_too_soft_is_off_by_as_much_in_every_norm():
    data = PLATE.samples(8, products=2)
    off = objective_of(data, lambda scaling: Exact(scaling, 1.1), energy=csr_array(PLATE.stiffness))
    with torch.no_grad():
        losses = off.losses(off.targets, torch.arange(8))
    assert torch.allclose(losses[:, 1], torch.tensor(0.01, dtype=torch.float64))
    assert torch.isclose(losses[0, 2], torch.tensor(0.01, dtype=torch.float64))


def test_energies_may_be_given_for_one_channel_or_for_all():
    data = PLATE.samples(8)
    P = len(PLATE.mesh)
    one = np.diag(1.0 + np.arange(P))
    both = [objective_of(data, lambda s: Exact(s, 0.5), energy=K) for K in (one, np.kron(one, np.eye(2)))]
    losses = [each.losses(each.targets, torch.arange(8)).detach() for each in both]
    assert torch.allclose(*losses)
    with pytest.raises(ValueError, match="energy has shape"):
        objective_of(data, Exact, energy=np.eye(3))


@pytest.mark.slow
def test_derivatives_teach_what_values_do_not():
    data, unseen = PLATE.samples(12, products=4), PLATE.samples(20, seed=5, products=2)
    steps = (surrogate.LBFGS(30),)
    network = DeepONet(width=16, depth=1, rank=18)
    found = {}
    for name, given in {"with": data, "without": replace(data, directions=None, derivatives=None)}.items():
        given = replace(given, weights=None, gradients=None)
        model = train_operator(given, network, optimizers=steps, validation=0.0, products=4)
        found[name] = field_errors(model, unseen)
    assert np.median(found["with"].relative) < 0.5 * np.median(found["without"].relative)
    assert np.median(found["with"].derivatives) < 0.5 * np.median(found["without"].derivatives)


WEIGHTINGS = [
    weighting.Fixed(1.0, 0.5),
    weighting.GradNorm(layer="all"),
    weighting.InverseDirichlet(),
    weighting.NeuralTangent(),
    weighting.PowerMean(),
]


@pytest.mark.parametrize("strategy", WEIGHTINGS, ids=lambda strategy: type(strategy).__name__)
def test_weightings_see_norms_as_responses_and_products_as_derivatives(strategy):
    data = PLATE.samples(8, products=2)
    model = train_operator(data, NETWORK, weighting=strategy, optimizers=STEPS, energy=PLATE.stiffness, validation=0.0)
    assert model.history.weights.shape[1:] == (2, 3) and np.isfinite(model.history.train).all()


def test_weightings_that_do_not_fit_are_refused():
    data = PLATE.samples(8)
    with pytest.raises(ValueError, match="ValuesOnly"):
        train_operator(data, NETWORK, weighting=surrogate.PerChannel())
    with pytest.raises(ValueError, match="single samples"):
        train_operator(PLATE.samples(8, products=1), NETWORK, weighting=weighting.SelfAdaptive(per_sample=True))
    with pytest.raises(TypeError, match="FieldNetwork"):
        train_operator(data, surrogate.MLP())


def test_gradients_count_only_where_inputs_vary():
    data = PLATE.samples(8, products=2)
    inputs, gradients = np.array(data.inputs), np.array(data.gradients)
    inputs[:, :8], gradients[:, :, :8] = 0.0, 0.0  # unknown there, and stored as zero
    outputs = (inputs.reshape(8, -1) @ PLATE.flexibility).reshape(inputs.shape)
    partial = replace(data, inputs=inputs, gradients=gradients, outputs=outputs)
    exact = objective_of(partial, Exact)
    assert exact.losses(exact.targets, torch.arange(8)).detach().abs().max() < 1e-20


def test_prescribed_values_are_kept_exactly():
    data = PLATE.samples(8)
    outputs = np.array(data.outputs)
    outputs[:, PLATE.mesh.points[:, 0] == 0.0] = (0.1, -0.3)
    model = train_operator(replace(data, outputs=outputs), NETWORK, optimizers=STEPS)
    predicted = model.predict(PLATE.samples(3, seed=7).inputs)
    assert (predicted[:, PLATE.mesh.points[:, 0] == 0.0] == (0.1, -0.3)).all()
    assert predicted[:, PLATE.mesh.points[:, 0] > 0.0].std() > 0.0


@pytest.mark.parametrize("value", [0.0, 210_000.0])
def test_networks_see_nothing_of_an_input_channel_that_is_the_same_everywhere(value):
    data = PLATE.samples(6)
    inputs = np.concatenate((data.inputs, np.full((6, 12, 1), value)), axis=2)
    inputs[:, 3, 0] = 1.0 + 1e-16 * np.arange(6)  # rounding
    found = FieldScaling.from_data(replace(data, inputs=inputs, input_names=("a", "b", "E")), np.arange(6))
    assert (found.scale_inputs(inputs)[..., 2] == 0.0).all()
    assert found.varied.sum() == 23 and not found.varied[3, 0]


def test_of_few_samples_one_at_least_is_trained_on():
    model = train_operator(PLATE.samples(3), NETWORK, optimizers=STEPS, validation=0.3)
    assert model.provenance["validation"]["samples"] == 1
    with pytest.raises(ValueError, match="don't vary over the 1 samples"):
        train_operator(PLATE.samples(1), NETWORK, optimizers=STEPS, validation=0.5)


def test_channels_of_one_unit_or_vector_share_a_scale_and_others_do_not():
    data = PLATE.samples(20)
    data = replace(data, outputs=data.outputs * (1.0, 100.0))

    def scales(names, units):
        found = FieldScaling.from_data(replace(data, output_names=names, units=units), np.arange(20))
        return found.output_scale.max(axis=0)

    alike, vector = scales(("bend", "sway"), {"bend": "mm", "sway": "mm"}), scales(("u_x", "u_y"), {})
    for apart in (scales(("bend", "sway"), {}), scales(("u_x", "v_y"), {})):
        assert alike[0] == alike[1] == vector[0] == vector[1] == apart[1] > 5.0 * apart[0]


@pytest.mark.slow
def test_a_seed_decides_all_numbers_and_leaves_those_of_torch_alone():
    data = PLATE.samples(8, products=2)
    before = torch.get_rng_state()
    found = [train_operator(data, NETWORK, optimizers=STEPS, seed=s).predict(data.inputs) for s in (3, 3, 4)]
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    assert torch.equal(before, torch.get_rng_state())


def test_the_state_kept_is_that_with_the_least_loss_on_samples_held_out():
    model = train_operator(PLATE.samples(20), NETWORK, optimizers=(Adam(60, 3e-2, batch=4),), validation=0.2)
    history, held = model.history, model.provenance["validation"]
    assert held["samples"] == 4 and held["loss"] == np.nanmin(history.validation)
    assert history.best == history.step[np.nanargmin(history.validation)] and 0.0 < held["relative"] < 2.0


def test_an_interrupt_keeps_the_best_so_far():
    seen = []

    def stop(progress):
        seen.append(progress.step)
        if len(seen) == 3:
            raise KeyboardInterrupt

    model = train_operator(PLATE.samples(8), NETWORK, optimizers=(Adam(2000, batch=4),), progress=stop)
    assert model.history.interrupted and model.history.best <= seen[-1] < 2000


class Rows:
    """An array of which only a few rows can be read at once, as from a file."""

    def __init__(self, values, most):
        self.values, self.most, self.shape = values, most, values.shape

    def __getitem__(self, rows):
        found = self.values[rows]
        assert len(found) <= self.most, f"{len(found)} rows were read at once"
        return found


def test_files_larger_than_memory_are_read_by_batches(monkeypatch):
    data = PLATE.samples(40, products=2)
    names = ("inputs", "outputs", "directions", "derivatives", "weights", "gradients")
    kept = train_operator(data, NETWORK, optimizers=STEPS)
    monkeypatch.setattr(objective, "KEPT_NUMBERS", 0)
    monkeypatch.setattr(objective, "MAX_JUDGES", 8)
    monkeypatch.setattr("sobofem.surrogate.operators.training.PREPARED", 16)
    monkeypatch.setattr(samples, "NUMBERS_AT_ONCE", 4 * 24)
    stored = SimpleNamespace(
        mesh=data.mesh,
        input_names=data.input_names,
        output_names=data.output_names,
        units=data.units,
        **{name: Rows(getattr(data, name), 16) for name in names},
    )
    assert isinstance(stored, OperatorData)
    read = train_operator(stored, NETWORK, optimizers=STEPS)
    assert np.allclose(read.scaling.output_scale, kept.scaling.output_scale)
    assert np.isfinite(read.history.validation).all()


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"outputs": np.zeros((4, 5, 2))}, "mesh of 12 nodes"),
        ({"directions": np.zeros((4, 1, 12, 2))}, "come together"),
        ({"directions": np.zeros((4, 1, 12, 2)), "derivatives": np.zeros((4, 2, 12, 2))}, "derivatives have shape"),
        ({"input_names": ("a",)}, "2 different names"),
        ({"inputs": np.full((4, 12, 2), np.nan)}, "NaN"),
        ({"outputs": np.ones((4, 12, 2))}, "don't vary"),
    ],
)
def test_data_that_do_not_fit_are_refused(change, reason):
    data = PLATE.samples(4)
    with pytest.raises(ValueError, match=reason):
        train_operator(replace(data, **change), NETWORK, optimizers=STEPS, validation=0.0)
    with pytest.raises(TypeError, match="lacks outputs"):
        OperatorSamples.of(SimpleNamespace(mesh=1, inputs=1, input_names=(), output_names=()))


@dataclass(frozen=True)
class Constant:
    """Predicts a given field."""

    field: np.ndarray

    def predict(self, inputs):
        return np.broadcast_to(self.field, (len(inputs), *self.field.shape))


def test_errors_are_what_they_are_by_hand():
    data = PLATE.samples(3)
    outputs = np.zeros((3, 12, 2))
    outputs[0, 0], outputs[1, 5], outputs[2, 7] = (3.0, 4.0), (0.0, 10.0), (1.0, 0.0)
    field = np.zeros((12, 2))
    field[5] = (0.0, 9.0)
    found = field_errors(Constant(field), replace(data, outputs=outputs))
    assert np.allclose(found.relative, [np.sqrt(25 + 81) / 5, 0.1, np.sqrt(82)])
    assert np.isclose(found.of_largest_field, 0.1) and np.allclose(found.largest, [3.0, 9.0])
    assert np.allclose(found.mean, [4.0 / 36, (4.0 + 9.0 + 1.0 + 9.0) / 36])
    assert np.allclose(found.channels, [1.0, np.sqrt((16 + 81 + 1 + 81) / 116)])
    weights = np.arange(1.0, 13.0)
    for norm in (weights, np.diag(weights), csr_array(np.diag(np.repeat(weights, 2)))):
        assert np.isclose(
            field_errors(Constant(field), replace(data, outputs=outputs), norm=norm).norms[1], 10 * 6**0.5
        )


def test_as_a_model_it_maps_nodal_inputs_to_responses_with_their_jacobian():
    data = PLATE.samples(6)
    inputs = np.array(data.inputs)
    inputs[:, :8] = 0.5  # only the last nodes are loaded
    model = train_operator(replace(data, inputs=inputs), NETWORK, optimizers=STEPS, precision="float64")
    tip = np.zeros((12, 2))
    tip[11, 1] = 1.0
    view = model.as_model({"tip": tip, "size": lambda field: (field**2).sum().sqrt()})
    assert isinstance(view, Model) and isinstance(view, Products)
    assert view.parameters[:2] == ("force_x[8]", "force_y[8]") and len(view.parameters) == 8
    assert describe(view).units["force_y[8]"] == "N"
    x = view.bounds.mean(axis=1)
    y, slopes = view.evaluate(x)
    full = np.full((1, 12, 2), 0.5)
    full[0, 8:] = x.reshape(4, 2)
    field = model.predict(full)[0]
    assert np.allclose(y, [field[11, 1], np.linalg.norm(field)])
    h = 1e-5 * np.eye(8)
    differences = [(view.evaluate(x + e)[0] - view.evaluate(x - e)[0]) / 2e-5 for e in h]
    assert np.allclose(slopes.T, differences, atol=1e-7 * np.abs(slopes).max())
    assert np.allclose(view.jvp(x, np.eye(8)), slopes.T) and np.allclose(view.vjp(x, np.eye(2)), slopes)
    for wrong in ({}, {"a": lambda field: field[:2, 0]}, {"a": lambda field: field.detach().numpy().max()}):
        with pytest.raises(ValueError, match=r"responses are none|a tensor \(2,\)|a float64; expected one number"):
            model.as_model(wrong)
    whole = model.as_model()
    values, jacobian = whole.evaluate(x)
    assert whole.responses[23] == "u_y[11]" and np.allclose(values, field.ravel())
    assert np.allclose(tip.ravel() @ jacobian, slopes[0]) and whole.units["u_y[11]"] == "mm"
    with pytest.raises(ValueError, match="bounds"):
        view.evaluate(x + 100.0)


@pytest.mark.parametrize("longest, expected", [(None, 3.0), (1.0, 1.0)])
def test_steps_rise_then_fall_along_half_a_cosine_and_gradients_are_cut(longest, expected):
    stage = Adam(11, 0.5, final=0.1, warm_up=4, longest=longest)
    optimizer, schedule = stage.fresh([nn.Parameter(torch.zeros(1))])
    rates = []
    for _ in range(12):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert np.allclose(rates[:5], 0.5 * np.arange(1, 6) / 5) and np.allclose(rates[11], 0.05)
    assert np.allclose(rates[4:], 0.05 + 0.45 * (1 + np.cos(np.pi * np.arange(8) / 7)) / 2)
    parameter = nn.Parameter(torch.zeros(1))
    monitor = SimpleNamespace(begin=lambda *a, **k: None, stop=lambda step: True, total=1)
    steep = SimpleNamespace(parameters=[parameter], judges=lambda size: None, draws=lambda size: iter([None]))

    class Steep:
        parameters, judges, draws = steep.parameters, staticmethod(steep.judges), staticmethod(steep.draws)

        def __call__(self, rows):
            return 3.0 * parameter.sum()

    stage.run(Steep(), monitor)
    assert torch.isclose(parameter.grad, torch.tensor(expected))
    with pytest.raises(ValueError, match="warm_up"):
        Adam(10, warm_up=10)


def test_what_is_no_network_between_fields_needs_no_defaults():
    assert FieldNetwork.kind == "operator" and NETWORK.sized(PLATE.mesh) == NETWORK
