from dataclasses import dataclass, replace

from analytic import five_samples
import numpy as np
import pytest
import torch

from sobofem.surrogate import LBFGS, MLP, Adam, ValuesOnly, train
from sobofem.surrogate.export.card import ProgramFile, Quality, card, coverage
from sobofem.surrogate.networks.base import NetworkModule


@pytest.fixture(scope="module")
def data():
    provenance = {"design": "sobol", "seed": 3, "digest": "plate-1", "inputs": {"E": "log"}}
    return replace(five_samples(16, seed=0), units={"p0": "MPa", "q2": "m^3|yr"}, provenance=provenance)


@pytest.fixture(scope="module")
def trained(data):
    return train(data, network=MLP(6, 1), optimizers=(Adam(10), LBFGS(15)), validation=0.25)


def tables(text):
    """All tables of a card, as lists of rows without the rules."""
    blocks = [block for block in text.strip().split("\n\n") if block.startswith("|")]
    rows = [[line.strip("| ").split(" | ") for line in block.splitlines()] for block in blocks]
    return [[row for row in table if set(row) != {"---"}] for table in rows]


def section(text, heading):
    return text.partition(f"## {heading}\n")[2].partition("\n## ")[0]


def test_the_box_stands_in_the_units_of_the_parameters(trained):
    (rows,) = tables(section(card(trained), "Parameters"))
    assert rows[1] == ["p0", "MPa", "-1", "1"]
    assert [row[0] for row in rows[1:]] == [f"p{j}" for j in range(6)]


def test_units_with_a_bar_do_not_break_the_table(trained):
    assert "| q2 | m^3\\|yr |" in card(trained)


def test_training_tells_data_network_stages_and_loss(trained):
    text = section(card(trained), "Data and training")
    for fact in ("design | sobol", "seed | 3", "digest | plate-1", "inputs | E log", "samples | 16"):
        assert f"| {fact} |" in text
    assert "`MLP(width=6, depth=1, activation='softplus')`" in text
    ends = [end for _, end in trained.history.stages]
    assert f"Adam {ends[0]} steps, L-BFGS {ends[1] - ends[0]} steps" in text
    assert "values and derivatives, the same throughout" in text
    best = list(trained.history.step).index(trained.history.best)
    assert f"step {trained.history.best}, relative loss {trained.history.train[best]:.3g}" in text
    assert f"| held out | relative loss {trained.history.validation[best]:.3g}" in text


def test_weights_are_told_from_their_course(data, trained):
    blind = train(data, network=MLP(4, 1), weighting=ValuesOnly(), optimizers=(Adam(5),))
    assert "| weights | values only |" in card(blind) and "| held out |" not in card(blind)
    history = replace(trained.history, weights=trained.history.weights * trained.history.step[:, None, None])
    text = card(replace(trained, history=replace(history, interrupted=True)))
    assert "adapted during training" in text and "stopped by hand" in text


def test_a_surrogate_that_was_not_trained_by_descent_has_a_card(trained):
    empty = np.empty(0)
    history = replace(
        trained.history, step=empty, train=empty, validation=empty, weights=np.empty((0, 5, 7)), stages=(), best=0
    )
    text = card(replace(trained, history=history))
    assert "network" in text and "stages" not in text


def test_errors_stand_where_they_belong(trained):
    values, derivatives = np.arange(5) / 100, np.arange(30).reshape(5, 6) / 1000
    covered = Quality(40, values, derivatives, 1.0 - values, 1.0 - derivatives, level=0.9, data="unseen.h5")
    text = section(card(trained, quality=covered), "Errors")
    errors, shares = tables(text)
    assert errors[0] == ["response", "value", *(f"d/d p{j}" for j in range(6))]
    assert errors[4] == ["q3", "0.03", *(f"{d:.3g}" for d in derivatives[3])]
    assert shares[2] == ["q1", "0.99", *(f"{d:.3g}" for d in 1.0 - derivatives[1])]
    assert "40 samples (unseen.h5)" in text and "90 % intervals" in text
    (only,) = tables(section(card(trained, quality=Quality(40, values)), "Errors"))
    assert only[5] == ["q4", "0.04"]
    assert "## Errors" not in card(trained)


def test_errors_of_another_surrogate_are_refused(trained):
    with pytest.raises(ValueError, match=r"derivatives has shape \(6, 5\), expected \(5, 6\) for this surrogate"):
        card(trained, quality=Quality(40, np.zeros(5), np.zeros((6, 5))))


def test_each_file_gets_its_lines_and_its_differences(trained):
    files = [ProgramFile("a.safetensors"), ProgramFile("a.onnx", "float32", True, {"y": 1.2e-7, "jacobian": 3e-7})]
    text = card(trained, name="Plate", files=files)
    assert text.startswith("# Plate\n\nMaps 6 parameters to 5 responses")
    assert 'surrogate.load("a.safetensors")' in text
    lines = section(text, "a.onnx, with ONNX Runtime")
    assert "dtype=np.float32)  # p0, p1, p2, p3, p4, p5" in lines and '"direction": np.ones_like(x)' in lines
    assert "| `jacobian` | derivatives dy/dx (N, m, n) | 3.0e-07 |" in lines and "`inside`" in lines
    assert f"torch {torch.__version__}" in text


def test_a_card_is_no_secret_about_the_outside(trained):
    assert "Nothing was learned outside this box" in card(trained)


@dataclass(frozen=True)
class Doubtful:
    """A network that gives zero with standard deviations that differ by response and derivative."""

    def build(self, n, m, generator):
        return DoubtfulModule()


class DoubtfulModule(NetworkModule):
    sizes = torch.tensor([0.5, 1.0, 2.0, 3.0, 0.0], dtype=torch.float64)

    def forward(self, x):
        return torch.zeros(len(x), 5, dtype=x.dtype)

    def standard_deviation(self, x):
        of_y = self.sizes.expand(len(x), 5)
        return of_y, of_y.unsqueeze(2) * torch.linspace(0.5, 1.5, 6, dtype=x.dtype)


def test_coverage_of_normal_errors_is_the_normal_distribution(trained, data):
    from statistics import NormalDist

    N, rng, sizes, shares = 4000, np.random.default_rng(0), DoubtfulModule.sizes.numpy(), np.linspace(0.5, 1.5, 6)
    scaling = trained.scaling
    y = scaling.unscale_y(rng.standard_normal((N, 5)))
    jacobian = scaling.unscale_jacobian(rng.standard_normal((N, 5, 6)))
    x = np.repeat(data.x, N // 16, axis=0)
    unseen = replace(data, x=x, y=y, jacobian=jacobian)
    doubtful = replace(trained, module=DoubtfulModule(), network=Doubtful())
    values, derivatives = coverage(doubtful, unseen, level=0.9)
    reach = NormalDist().inv_cdf(0.95)
    within = np.vectorize(lambda size: 2.0 * NormalDist().cdf(reach * size) - 1.0)
    assert values == pytest.approx(within(sizes), abs=0.03)
    assert derivatives == pytest.approx(within(np.outer(sizes, shares)), abs=0.03)
    assert coverage(doubtful, replace(unseen, jacobian=None))[1] is None
    assert coverage(trained, data) is None
