"""Networks between fields: what each can represent, its symmetries, and its derivatives."""

from dataclasses import dataclass, replace

import numpy as np
from operator_cases import Plate, rectangle
import pytest
import torch
from torch import nn

from sobofem import surrogate
from sobofem.surrogate import Adam
from sobofem.surrogate.operators import (
    DeepONet,
    FieldNetwork,
    FourierOperator,
    GraphUNet,
    GridUNet,
    Mesh,
    MgNO,
    PerceiverIO,
    choose,
    train_operator,
)
from sobofem.surrogate.operators.grid_networks import SpectralConvolution, VCycle

PLATE = Plate.of(4, 3)
SMALL = [
    DeepONet(width=16, depth=2, rank=12),
    FourierOperator(width=12, layers=2),
    GraphUNet(width=4, levels=2),
    GridUNet(width=8, levels=1),
    MgNO(width=8, layers=2),
    PerceiverIO(width=16, latents=6, layers=1, heads=2),
]
by_network = pytest.mark.parametrize("network", SMALL, ids=lambda network: type(network).__name__)


def built(network, mesh, seed=0):
    torch.manual_seed(seed)
    return network.build(mesh, 2, 2).double()


def fields(N, P, seed=1):
    return torch.randn(N, P, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.slow
@by_network
def test_four_samples_are_learned_by_heart(network):
    """Their mean alone is off by some 0.9 of their size."""
    """Their mean alone is off by some 0.9 of their size."""
    data = PLATE.samples(4)
    model = train_operator(data, network, optimizers=(surrogate.LBFGS(60),), validation=0.0)
    assert np.linalg.norm(model.predict(data.inputs) - data.outputs) < 0.5 * np.linalg.norm(data.outputs)


@by_network
def test_products_with_the_jacobian_are_derivatives(network):
    data = PLATE.samples(3, products=2)
    model = train_operator(data, network, optimizers=(Adam(2, 1e-3, batch=2),), validation=0.0, precision="float64")
    h = 1e-5
    steps = h * data.directions[:, 1]
    difference = (model.predict(data.inputs + steps) - model.predict(data.inputs - steps)) / (2 * h)
    derivatives = model.jvp(data.inputs, data.directions)
    assert np.allclose(derivatives[:, 1], difference, atol=1e-7 * np.abs(difference).max())
    gradients = model.vjp(data.inputs, data.weights)
    assert np.allclose((gradients * data.directions).sum((2, 3)), (derivatives * data.weights).sum((2, 3)))
    assert np.allclose(model.jvp(data.inputs, data.directions[0])[0], derivatives[0])


@by_network
def test_samples_of_a_batch_do_not_see_each_other(network):
    module, x = built(network, PLATE.mesh), fields(3, len(PLATE.mesh))
    assert torch.allclose(module(x)[1:2], module(x[1:2]), atol=1e-12)


@by_network
def test_a_mesh_may_stand_anywhere_and_have_any_size(network):
    mesh, x = PLATE.mesh, fields(2, len(PLATE.mesh))
    moved = Mesh(3.0 * mesh.points + 40.0, mesh.cells, mesh.cell)
    assert torch.allclose(built(network, mesh)(x), built(network, moved)(x), atol=1e-6)


@pytest.mark.parametrize("network", [each for each in SMALL if not isinstance(each, GraphUNet | DeepONet)], ids=repr)
def test_nodes_may_be_numbered_in_any_order(network):
    mesh, x = PLATE.mesh, fields(2, len(PLATE.mesh))
    order = np.random.default_rng(0).permutation(len(mesh))
    other = Mesh(mesh.points[order], np.argsort(order)[mesh.cells], mesh.cell)
    assert torch.allclose(built(network, other)(x[:, order]), built(network, mesh)(x)[:, order], atol=1e-6)


@pytest.mark.parametrize("shape", [(9,), (6, 5), (4, 5, 6)])
def test_a_spectral_layer_commutes_with_shifts(shape):
    layer = SpectralConvolution(shape, 3, 2).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    assert torch.allclose(layer(x.roll(2, dims=-1)), layer(x).roll(2, dims=-1), atol=1e-12)
    assert torch.allclose(layer(x.roll(1, dims=2)), layer(x).roll(1, dims=2), atol=1e-12)


def test_a_cycle_is_linear_and_reaches_across_the_grid():
    cycle = VCycle(2, 2, 3, 3, 2).double()
    f, g = torch.randn(2, 1, 2, 16, 16, dtype=torch.float64)
    assert torch.allclose(cycle(2.0 * f + g), 2.0 * cycle(f) + cycle(g), atol=1e-12)
    corner = torch.zeros(1, 2, 16, 16, dtype=torch.float64)
    corner[..., 0, 0] = 1.0
    assert (cycle(corner)[0, :, 15, 15] != 0.0).all()


def test_networks_build_in_space_and_on_lines():
    line = Mesh(np.arange(9.0)[:, None], np.stack((np.arange(8), np.arange(1, 9)), 1), "line")
    x, y, z = np.meshgrid(*(np.arange(4.0),) * 3, indexing="ij")
    points = np.stack((x.ravel(), y.ravel(), z.ravel()), 1)
    numbers = np.arange(64).reshape(4, 4, 4)
    lower = np.stack((numbers[:-1, :-1], numbers[1:, :-1], numbers[1:, 1:], numbers[:-1, 1:]), -1)
    block = Mesh(points, np.concatenate((lower[:, :, :-1], lower[:, :, 1:]), -1).reshape(-1, 8), "hexahedron")
    assert np.isclose(block.node_weights.sum(), 27.0) and block.grid.full
    for mesh in (line, block):
        for network in SMALL:
            assert built(network, mesh)(fields(2, len(mesh))).shape == (2, len(mesh), 2)


def test_grid_networks_refuse_scattered_nodes_and_say_what_does():
    mesh = PLATE.mesh
    scattered = Mesh(
        mesh.points + np.random.default_rng(0).uniform(-0.2, 0.2, mesh.points.shape), mesh.cells, mesh.cell
    )
    for network in (GridUNet(), MgNO(), FourierOperator()):
        with pytest.raises(ValueError, match="take GraphUNet or PerceiverIO"):
            network.build(scattered, 1, 1)


def test_settings_follow_from_mesh_and_samples():
    mesh = PLATE.mesh
    assert GridUNet().sized(mesh, 50).width < GridUNet().sized(mesh, 500).width == GridUNet().sized(mesh).width
    assert GraphUNet(levels=1).sized(mesh) == GraphUNet(16, 1, 2)
    assert choose(PLATE.samples(40))[1].startswith("DeepONet: 40 samples")
    many = PLATE.samples(300)
    assert isinstance(choose(many)[0], DeepONet) and "components" in choose(many)[1]
    rich = Plate.of(8, 4).samples(300)
    assert isinstance(choose(rich)[0], GridUNet)
    moved = rich.mesh.points + np.random.default_rng(0).uniform(-0.2, 0.2, rich.mesh.points.shape)
    assert isinstance(choose(replace(rich, mesh=Mesh(moved, rich.mesh.cells, "triangle")))[0], GraphUNet)


@surrogate.register
@dataclass(frozen=True)
class Scaled(FieldNetwork):
    """A network of one's own: outputs proportional to the inputs at the same node."""

    start: float = 1.0

    def build(self, mesh, inputs, outputs):
        module = nn.Linear(inputs, outputs)
        nn.init.constant_(module.weight, self.start)
        return module


def test_a_network_of_ones_own_trains_and_comes_back(tmp_path):
    data = PLATE.samples(6)
    data = replace(data, outputs=3.0 * data.inputs)
    model = train_operator(data, Scaled(0.5), optimizers=(surrogate.LBFGS(50),), validation=0.0, precision="float64")
    assert np.allclose(model.predict(data.inputs), data.outputs, atol=1e-4)
    model.save(tmp_path / "own.safetensors")
    again = surrogate.load(tmp_path / "own.safetensors")
    assert again.network == Scaled(0.5) and np.array_equal(again.predict(data.inputs), model.predict(data.inputs))


@by_network
def test_files_hold_all_of_it(network, tmp_path):
    data = PLATE.samples(4)
    model = train_operator(data, network, optimizers=(Adam(2),), validation=0.25)
    model.save(tmp_path / "model.safetensors")
    again = surrogate.load(tmp_path / "model.safetensors")
    assert np.array_equal(again.predict(data.inputs), model.predict(data.inputs))
    assert again.network == model.network and again.units == data.units and again.mesh.cell == "triangle"
    assert again.provenance == model.provenance and np.array_equal(again.history.train, model.history.train)
    assert again.input_names == data.input_names and np.array_equal(again.scaling.high, model.scaling.high)


def exported(network, path, precision="float64"):
    """The largest difference of a program from the surrogate that it was made of."""
    data = PLATE.samples(4)
    model = train_operator(data, network, optimizers=(Adam(2),), validation=0.0)
    differences = surrogate.export_model(model, path, precision=precision)
    program = surrogate.open_exported(path)
    assert program.checked and program.nodes == len(PLATE.mesh) and program.units["u_x"] == "mm"
    assert program.input_names == data.input_names and differences["y"] < 1e-5
    return np.abs(program.predict(data.inputs) - model.predict(data.inputs)).max()


@pytest.mark.slow
def test_a_program_gives_the_same_fields_without_sobofem(tmp_path):
    assert exported(SMALL[0], tmp_path / "net.pt2") < 1e-4
    with pytest.raises(ValueError, match="hessian"):
        model = train_operator(PLATE.samples(4), SMALL[0], optimizers=(Adam(1),), validation=0.0)
        surrogate.export_model(model, tmp_path / "net.pt2", hessian=True)


@pytest.mark.slow  # of several seconds each
@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
@pytest.mark.parametrize("network", SMALL[1:], ids=lambda network: type(network).__name__)
def test_all_networks_are_exported_as_far_as_there_are_operators(network, ending, tmp_path):
    if isinstance(network, FourierOperator) and ending == ".onnx":
        with pytest.raises(ValueError, match="export it to"):
            exported(network, tmp_path / f"net{ending}")
    else:
        assert exported(network, tmp_path / f"net{ending}", "float32") < 1e-4


def test_meshes_of_the_cases_are_what_they_say():
    assert len(rectangle(4, 3)) == 20 and np.isclose(rectangle(4, 3).node_weights.sum(), 12.0)
