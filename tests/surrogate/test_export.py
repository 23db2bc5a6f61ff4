from dataclasses import dataclass, replace
import json
import os
from pathlib import Path
import sys

from analytic import sample
import numpy as np
import pytest
import torch
from torch import nn

from sobofem.coupling.contract import Model
from sobofem.coupling.models.evaluation import checked_evaluation
from sobofem.surrogate import LBFGS, MLP, Adam, train
from sobofem.surrogate.export import export_model, open_exported
from sobofem.surrogate.export.program import Program
from sobofem.surrogate.export.tracing import fold, invert_lower, lift_numbers, softplus
from sobofem.surrogate.networks.base import NetworkModule
from sobofem.surrogate.reduction import FieldSurrogate, ReducedBasis

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SHORT = (Adam(10), LBFGS(10))
BOUNDS = [[293.0, 303.0], [2.0e5, 2.2e5], [-1e-3, 2e-3]]
KINDS = (".onnx", ".pt2")
BATCHES = (1, 2, 7, 1000)


def plant(x):
    """Two responses in inputs whose size is far above their range, or far below one."""
    T, E, gap = (x - torch.tensor([293.0, 2.0e5, -1e-3])) / torch.tensor([10.0, 2e4, 3e-3])
    return torch.stack([1e6 + 40.0 * torch.exp(T) * (1.0 + E * gap), 1e-4 * torch.sin(2.0 * gap + E) + 1e-4 * T])


@pytest.fixture(scope="module")
def data():
    units = {"p0": "K", "p1": "MPa", "q0": "N"}
    return replace(sample(plant, BOUNDS, 24, seed=0, units=units), provenance={"design": "uniform", "seed": 0})


@pytest.fixture(scope="module")
def trained(data):
    return train(data, network=MLP(12, 2), optimizers=SHORT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


@pytest.fixture(scope="module", params=[KINDS[0], pytest.param(KINDS[1], marks=pytest.mark.slow)])
def double(request, trained, folder):
    """A program in double precision that multiplies Hessians with directions."""
    export_model(trained, folder / f"double{request.param}", hessian=True)
    return open_exported(folder / f"double{request.param}")


@pytest.fixture(scope="module", params=KINDS)
def single(request, trained, folder):
    """A program in single precision."""
    export_model(trained, folder / f"single{request.param}", precision="float32", hessian=True)
    return open_exported(folder / f"single{request.param}")


def points(bounds, N, seed=1):
    return np.random.default_rng(seed).uniform(*np.asarray(bounds).T, (N, len(bounds)))


def directions(bounds, N, seed=2):
    return np.ptp(bounds, axis=1) * np.random.default_rng(seed).standard_normal((N, len(bounds)))


def hessian_actions(surrogate, x, v):
    """H v by the whole Hessian of the module, one point and one response at a time."""
    scaling = surrogate.scaling
    found = np.empty((len(x), len(scaling.y_scale), x.shape[1]))
    for k, row in enumerate(scaling.scale_x(x)):
        for i, scale in enumerate(scaling.y_scale):
            gradient = torch.func.jacrev(lambda z, i=i: surrogate.module(z.unsqueeze(0))[0, i])
            H = torch.func.jacrev(gradient)(torch.from_numpy(row))
            H = scale * H.detach().numpy() / np.outer(scaling.x_scale, scaling.x_scale)
            found[k, i] = H @ v[k]
    return found


def off(given, truth, ranges=1.0):
    """Largest difference over the largest entry of the response."""
    given, truth = given * ranges, truth * ranges
    axes = (0, *range(2, truth.ndim))
    return (np.abs(given - truth).max(axis=axes) / np.abs(truth).max(axis=axes)).max()


@pytest.mark.slow
@pytest.mark.parametrize("N", BATCHES)
def test_one_program_gives_what_the_surrogate_gives_for_any_number_of_points(double, trained, data, N):
    x = points(data.bounds, N)
    found, (y, jacobian) = double.run(x, directions(data.bounds, N)), trained.predict(x)
    assert off(found["y"], y) < 1e-10
    assert off(found["jacobian"], jacobian, np.ptp(data.bounds, axis=1)) < 1e-10
    assert found["y"].dtype == found["jacobian"].dtype == np.float64


def test_hessian_actions_agree_with_the_hessian_of_the_module(double, trained, data):
    x, v = points(data.bounds, 5), directions(data.bounds, 5)
    action = double.run(x, v)["hessian_action"]
    assert off(action, hessian_actions(trained, x, v), np.ptp(data.bounds, axis=1)) < 1e-10


def test_hessian_actions_are_the_differences_of_jacobians(double, trained, data):
    x, v = 0.5 * (points(data.bounds, 4) + data.bounds.mean(axis=1)), directions(data.bounds, 4)
    ahead, behind = (trained.predict(x + sign * 1e-4 * v)[1] for sign in (1, -1))
    assert off(double.run(x, v)["hessian_action"], (ahead - behind) / 2e-4, np.ptp(data.bounds, axis=1)) < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("N", BATCHES)
def test_single_precision_keeps_five_digits_of_inputs_far_from_zero(single, trained, data, N):
    x = points(data.bounds, N).astype(np.float32).astype(np.float64)
    v = directions(data.bounds, N).astype(np.float32).astype(np.float64)
    found, (y, jacobian) = single.run(x, v), trained.predict(x, extrapolate=True)
    assert found["y"].dtype == np.float32
    assert off(found["y"], y) < 1e-6
    assert off(found["jacobian"], jacobian, np.ptp(data.bounds, axis=1)) < 1e-5
    if N < 10:
        action = hessian_actions(trained, x, v)
        assert off(found["hessian_action"], action, np.ptp(data.bounds, axis=1)) < 1e-5


def test_inside_tells_the_box_with_its_slack(double, data):
    low, high = data.bounds.T
    middle = data.bounds.mean(axis=1)
    x = np.stack([low, high, middle, high + 1e-10 * (high - low), middle, np.where([0, 0, 1], high * 1.01, middle)])
    x[4, 1] = low[1] - 1.0
    inside = double.run(x, np.zeros_like(x))["inside"]
    assert inside.dtype == np.bool_
    assert inside.tolist() == [True, True, True, True, False, False]


@pytest.mark.slow
def test_the_corners_of_the_box_stay_inside_in_single_precision(single, data):
    corners = np.array(np.meshgrid(*data.bounds)).reshape(3, -1).T
    far = np.nextafter(corners.astype(np.float32), np.sign(corners - data.bounds.mean(axis=1)).astype(np.float32) * 1e9)
    assert single.run(corners, np.zeros_like(corners))["inside"].all()
    assert not single.run(np.where([1, 0, 0], far, corners), np.zeros_like(corners))["inside"].any()


def test_an_opened_program_is_a_model(double, trained, data):
    assert isinstance(double, Model)
    y, jacobian = checked_evaluation(double, data.x[3])
    assert np.allclose(y, trained.evaluate(data.x[3])[0], rtol=1e-12)
    assert np.allclose(jacobian, trained.evaluate(data.x[3])[1], rtol=1e-10)
    assert double.evaluate(data.x[3], jacobian=False)[1] is None
    outside = np.add(data.x[:2], [0.0, 0.0, 1.0])
    with pytest.raises(ValueError, match=r"'p2' is .* outside its bounds"):
        double.predict(outside)
    assert np.isfinite(double.predict(outside, extrapolate=True)[0]).all()
    with pytest.raises(ValueError, match=r"x has shape \(2,\), expected \(3,\)"):
        double.evaluate([1.0, 2.0])
    with pytest.raises(ValueError, match="the program takes a direction"):
        double.run(data.x)


def test_a_program_tells_what_it_is(double, trained):
    for name in ("parameters", "responses", "units", "provenance"):
        assert getattr(double, name) == getattr(trained, name)
    assert np.array_equal(double.bounds, trained.bounds)
    assert double.about["network"] == str(trained.network)
    assert double.about["versions"]["torch"] == torch.__version__
    assert list(double.about["outputs"]) == ["y", "jacobian", "hessian_action", "inside"]


def test_onnx_alone_reads_names_and_meanings(trained, folder, double):
    path = folder / "double.onnx"
    if not path.exists():
        export_model(trained, path, hessian=True)
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.input] == ["x", "direction"]
    assert [value.name for value in model.graph.output] == ["y", "jacobian", "hessian_action", "inside"]
    assert model.graph.output[1].doc_string == "derivatives dy/dx (N, m, n)"
    shapes = [[d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.output]
    assert shapes == [["N", 2], ["N", 2, 3], ["N", 2, 3], ["N"]]
    about = json.loads({entry.key: entry.value for entry in model.metadata_props}["sobofem"])
    assert about["parameters"] == ["p0", "p1", "p2"] and about["units"]["p0"] == "K"


def test_files_tell_nothing_of_the_machine_that_made_them(folder, double):
    path = next(path for path in folder.glob("double.*") if len(path.read_bytes()))
    content = path.read_bytes()
    for trace in (str(Path(__file__).parents[2]), sys.prefix, os.uname().nodename, ".py"):
        assert trace.encode() not in content


@dataclass(frozen=True)
class Given:
    """A module as it is."""

    module: nn.Module

    def build(self, n, m, generator):
        return self.module


def with_module(trained, module):
    return replace(trained, module=module.double().eval(), network=Given(module))


class Kriging(NetworkModule):
    """A Gaussian process with a kernel exp(-r²/2), its matrix factorized in each call, without closed derivatives."""

    def __init__(self, n, m, N=9):
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.register_buffer("z", torch.randn(N, n, dtype=torch.float64, generator=generator))
        self.register_buffer("t", torch.randn(N, m, dtype=torch.float64, generator=generator))
        self.register_buffer("spread", torch.linspace(0.5, 2.0, m, dtype=torch.float64))

    def kernel(self, x):
        return torch.exp(-0.5 * (x.unsqueeze(1) - self.z).square().sum(2))

    def factor(self):
        return torch.linalg.cholesky(self.kernel(self.z) + 1e-3 * torch.eye(len(self.z), dtype=self.z.dtype))

    def forward(self, x):
        return self.kernel(x) @ torch.cholesky_solve(self.t, self.factor())

    def standard_deviation(self, x):
        k = self.kernel(x)
        slope = (self.z - x.unsqueeze(1)) * k.unsqueeze(2)  # (N, points, n)
        w = torch.linalg.solve_triangular(self.factor(), k.T, upper=False)
        u = torch.linalg.solve_triangular(self.factor().T, slope.transpose(1, 2), upper=True, left=False)
        of_y = (1.0 - w.square().sum(0)).sqrt().unsqueeze(1)
        of_jacobian = (1.0 - u.square().sum(2)).sqrt().unsqueeze(1)
        return of_y * self.spread, of_jacobian * self.spread.unsqueeze(1)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_gaussian_process_brings_its_standard_deviations(trained, data, tmp_path, kind):
    surrogate = with_module(trained, Kriging(3, 2))
    path = tmp_path / f"gp{kind}"
    differences = export_model(surrogate, path)
    assert set(differences) == {"y", "jacobian", "y_std", "jacobian_std"} and max(differences.values()) < 1e-10
    x, scaling, gp = points(data.bounds, 6), trained.scaling, surrogate.module
    found = open_exported(path).run(x)
    assert off(found["jacobian"], surrogate.predict(x)[1], np.ptp(data.bounds, axis=1)) < 1e-10
    K = gp.kernel(gp.z).numpy() + 1e-3 * np.eye(9)
    k = gp.kernel(torch.from_numpy(scaling.scale_x(x))).numpy()
    variance = 1.0 - np.einsum("na,ab,nb->n", k, np.linalg.inv(K), k)
    assert np.allclose(found["y_std"], np.sqrt(variance)[:, None] * gp.spread.numpy() * scaling.y_scale, rtol=1e-9)
    dk = (gp.z.numpy() - scaling.scale_x(x)[:, None]) * k[:, :, None]
    variance = 1.0 - np.einsum("naj,ab,nbj->nj", dk, np.linalg.inv(K), dk)
    of_jacobian = np.sqrt(variance)[:, None, :] * gp.spread.numpy()[:, None]
    expected = of_jacobian * scaling.y_scale[:, None] / scaling.x_scale
    assert np.allclose(found["jacobian_std"], expected, rtol=1e-9)


class Ensemble(NetworkModule):
    """Networks side by side in batched products, and the spread of their answers."""

    def __init__(self, n, m, members=3, width=5):
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.first = nn.Parameter(torch.randn(members, n, width, generator=generator))
        self.shift = nn.Parameter(torch.randn(members, 1, width, generator=generator))
        self.last = nn.Parameter(torch.randn(members, width, m, generator=generator))

    def members(self, x):
        z = torch.einsum("ni,miw->mnw", x, self.first) + self.shift
        y = torch.bmm(torch.nn.functional.softplus(z), self.last)
        return y, torch.einsum("miw,mnw,mwk->mnki", self.first, torch.sigmoid(z), self.last)

    def forward(self, x):
        return self.members(x)[0].mean(0)

    def value_and_jacobian(self, x):
        y, jacobian = self.members(x)
        return y.mean(0), jacobian.mean(0)

    def standard_deviation(self, x):
        y, jacobian = self.members(x)
        return y.std(0), jacobian.std(0)


def sequential(*activations):
    generator = torch.Generator().manual_seed(7)
    net = nn.Sequential(nn.Linear(3, 6), *activations, nn.Linear(6, 2))
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.5, generator=generator)
    return net


MODULES = {
    "ensemble": Ensemble(3, 2),
    "sine": MLP(8, 2, "sine").build(3, 2, torch.Generator().manual_seed(0)),
    "tanh": MLP(8, 1, "tanh").build(3, 2, torch.Generator().manual_seed(0)),
    "silu, elu and layer norm": sequential(nn.SiLU(), nn.ELU(), nn.LayerNorm(6)),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float64") for name in MODULES), ("ensemble", "float32")],
)
def test_other_modules_pass_with_their_hessians(trained, data, tmp_path, name, precision):
    surrogate = with_module(trained, MODULES[name])
    hessian = precision == "float64"
    differences = export_model(surrogate, tmp_path / "a.onnx", precision=precision, hessian=hessian)
    assert max(differences.values()) < {"float64": 1e-10, "float32": 1e-5}[precision]
    if hessian:
        x, v = points(data.bounds, 3), directions(data.bounds, 3)
        action = open_exported(tmp_path / "a.onnx").run(x, v)["hessian_action"]
        assert off(action, hessian_actions(surrogate, x, v), np.ptp(data.bounds, axis=1)) < 1e-9


@pytest.mark.slow
def test_what_onnx_and_its_runtime_lack_is_named(trained, tmp_path):
    with pytest.raises(ValueError, match=r"ONNX Runtime has no Erf in the precision of a\.onnx; export in the other"):
        export_model(with_module(trained, sequential(nn.GELU())), tmp_path / "a.onnx")
    with pytest.raises(
        ValueError, match=r"Special can't be exported to ONNX: ONNX has no prims\.bessel_j1; export it to a"
    ):
        export_model(with_module(trained, Special()), tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


class Special(NetworkModule):
    def forward(self, x):
        return torch.special.bessel_j0(x[:, :2])

    def value_and_jacobian(self, x):
        slope = -torch.special.bessel_j1(x[:, :2])
        return self(x), torch.nn.functional.pad(torch.diag_embed(slope), (0, 1))


class Branching(nn.Module):
    def forward(self, x):
        return x[:, :2] if x.sum() > 0.0 else -x[:, :2]


def test_a_module_that_branches_on_values_is_refused_with_the_reason(trained, tmp_path):
    with pytest.raises(ValueError, match=r"Branching can't be exported: .*without a branch on their values"):
        export_model(with_module(trained, Branching()), tmp_path / "a.pt2")
    assert list(tmp_path.iterdir()) == []


class Fixing(NetworkModule):
    def forward(self, x):
        return x[:, :2] ** 2

    def value_and_jacobian(self, x):
        return self(x), torch.eye(3, dtype=x.dtype)[:2].expand(len(x), 2, 3)


def test_a_module_that_fixes_the_number_of_points_is_told_how_not_to(trained, tmp_path):
    with pytest.raises(ValueError, match=r"points is fixed in .*test_export\.py:\d+ in value_and_jacobian: take x\.sh"):
        export_model(with_module(trained, Fixing()), tmp_path / "a.pt2")


class Cancelling(NetworkModule):
    """The difference of two large numbers, which single precision can't tell."""

    def forward(self, x):
        return (1e6 + x[:, :2]) - 1e6

    def value_and_jacobian(self, x):
        return self(x), torch.eye(3, dtype=x.dtype)[:2].expand(x.shape[0], 2, 3)


def test_a_program_that_differs_from_the_model_is_not_written(trained, tmp_path):
    surrogate = with_module(trained, Cancelling())
    with pytest.raises(ArithmeticError, match=r"y of the exported program is off by .*; export in float64, or allow"):
        export_model(surrogate, tmp_path / "a.pt2", precision="float32", tolerance=1e-7)
    assert list(tmp_path.iterdir()) == []


def test_units_beyond_single_precision_are_refused(trained, tmp_path):
    tiny = replace(trained.scaling, x_scale=trained.scaling.x_scale * [1.0, 1.0, 1e-42])
    with pytest.raises(ValueError, match=r"slopes of the scaling doesn't fit into torch\.float32: export in float64"):
        export_model(replace(trained, scaling=tiny), tmp_path / "a.pt2", precision="float32")


def test_only_surrogates_of_responses_are_exported(trained, tmp_path):
    basis = ReducedBasis(np.zeros(5), np.eye(5)[:, :2], np.eye(5)[:, :2], np.ones(2), np.zeros(5))
    with pytest.raises(TypeError, match=r"a FieldSurrogate can't be exported.*export the `surrogate` inside it"):
        export_model(FieldSurrogate(basis, replace(trained, responses=basis.coefficients)), tmp_path / "a.pt2")
    with pytest.raises(TypeError, match=r"a str can't be exported, only a Surrogate$"):
        export_model("plate.safetensors", tmp_path / "a.pt2")
    assert not list(tmp_path.iterdir())


def test_mistakes_are_told_before_any_work(trained, tmp_path):
    with pytest.raises(ValueError, match=r"ends in '\.h5'; expected one of \.onnx, \.pt2"):
        export_model(trained, tmp_path / "a.h5")
    with pytest.raises(ValueError, match="precision is 'half'; expected one of float64, float32"):
        export_model(trained, tmp_path / "a.onnx", precision="half")
    with pytest.raises(FileNotFoundError, match="there is no program file"):
        open_exported(tmp_path / "a.onnx")


def test_a_missing_package_is_named_with_the_way_to_get_it(trained, tmp_path, monkeypatch):
    (tmp_path / "a.onnx").write_bytes(b"")
    hint = r'pip install "sobofem\[onnx\]", or take a \.pt2 file'
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ModuleNotFoundError, match=rf"onnxscript.*{hint}"):
        export_model(trained, tmp_path / "b.onnx")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModuleNotFoundError, match=rf"onnxruntime.*{hint}"):
        open_exported(tmp_path / "a.onnx")


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_foreign_files_are_refused(double, folder, tmp_path, kind):
    path = tmp_path / f"a{kind}"
    path.write_text("not a program")
    with pytest.raises(ValueError, match=rf"a\{kind} is no whole"):
        open_exported(path)
    whole = folder / f"double{kind}"
    if whole.exists():
        content = whole.read_bytes()
        path.write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=rf"a\{kind} is (no whole|damaged)"):
            open_exported(path)
        for at in np.random.default_rng(0).integers(len(content), size=40):
            path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
            with pytest.raises(ValueError, match=rf"a\{kind} is (no whole|damaged)"):
                open_exported(path)


def test_programs_of_others_are_refused(tmp_path):
    value = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.DOUBLE, ["N"]) for name in ("x", "y")]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Neg", ["x"], ["y"])], "other", value[:1], value[1:])
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match=r"other\.onnx was not exported by sobofem"):
        open_exported(tmp_path / "other.onnx")
    onnx.helper.set_model_props(model, {"sobofem": json.dumps({"format": "sobofem-program", "version": 99})})
    onnx.save(model, tmp_path / "newer.onnx")
    with pytest.raises(ValueError, match=r"format version 99.*upgrade sobofem"):
        open_exported(tmp_path / "newer.onnx")


def test_a_folder_that_is_not_there_is_named_and_nothing_is_left(trained, tmp_path):
    with pytest.raises(FileNotFoundError, match="can't be written") as caught:
        export_model(trained, tmp_path / "nowhere" / "a.pt2")
    assert caught.value.filename == str(tmp_path / "nowhere" / "a.pt2")


def test_softplus_has_no_overflow_and_agrees_with_pytorch():
    z = torch.tensor([-800.0, -30.0, -1e-3, 0.0, 2.0, 19.9, 20.1, 800.0], dtype=torch.float64)
    for beta in (1.0, 3.0):
        assert torch.allclose(softplus(z, beta), torch.nn.functional.softplus(z, beta), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("k", [1, 2, 7, 16])
def test_blockwise_inverse_of_triangular_matrices(k):
    L = torch.randn(3, k, k, dtype=torch.float64, generator=torch.Generator().manual_seed(k)).tril()
    L = L + 3.0 * torch.eye(k)
    assert torch.allclose(invert_lower(L), torch.linalg.inv(L), atol=1e-12)
    unit = L.tril(-1) + torch.eye(k)
    assert torch.allclose(invert_lower(L, unitriangular=True), torch.linalg.inv(unit), atol=1e-9)


def test_folding_leaves_what_depends_on_inputs_and_keeps_numbers_whole():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("A", torch.tensor([[2.0, 0.3], [0.3, 1.0]], dtype=torch.float64))

        def forward(self, x):
            return x @ torch.linalg.inv(self.A).T * 0.1 + 1e-5

    mixed, x = Mixed(), torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    graph = torch.fx.experimental.proxy_tensor.make_fx(
        lambda x: mixed(x), tracing_mode="fake", _allow_non_fake_inputs=True
    )(x)
    folded = lift_numbers(fold(graph))
    calls = [str(node.target) for node in folded.graph.nodes if node.op == "call_function"]
    assert not any("inv" in call for call in calls) and sum("mm" in call for call in calls) == 1
    assert not any(isinstance(arg, float) for node in folded.graph.nodes for arg in node.args)
    assert torch.allclose(folded(x), x @ torch.linalg.inv(mixed.A).T * 0.1 + 1e-5, rtol=1e-15)


def test_centers_are_carried_in_two_numbers(trained):
    program = Program(trained, torch.float32, hessian=False)
    whole = program.x_center.double() + program.x_center_rest.double()
    assert torch.allclose(whole, torch.from_numpy(trained.scaling.x_center), rtol=1e-13)
