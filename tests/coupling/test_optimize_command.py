"""`sobofem optimize`: cold, from samples, with a surrogate, and refused."""

from dataclasses import fields
from inspect import signature
import json

import pytest

from sobofem.coupling import Dataset
from sobofem.coupling.optimize import Task, minimize
from sobofem.coupling.options import options_of
from sobofem.coupling.study.purposes import Optimization

pytestmark = pytest.mark.usefixtures("undrawn")

MODEL = "sketches.py:shaft"
SKETCH = """
import numpy as np

class Shaft:
    parameters, responses = ("width", "height"), ("weight", "stress")
    bounds = np.array([[0.1, 2.0], [0.5, 3.0]])
    units = {"weight": "kg"}

    def evaluate(self, x, *, jacobian=True):
        w, h = x
        y = np.array([w * h, 1 / (w * h**2)])
        return y, np.array([[h, w], [-1 / (w * h) ** 2, -2 / (w * h**3)]]) if jacobian else None

class Finer(Shaft):
    def evaluate(self, x, *, jacobian=True):
        y, slopes = super().evaluate(x)
        return y * [1.0, 1.1], slopes * [[1.0], [1.1]] if jacobian else None

class Torn(ArithmeticError):
    reason, load_factor = "the mesh inverts", 0.0

class Tearing(Shaft):
    def evaluate(self, x, *, jacobian=True):
        raise Torn

class Narrow(Shaft):
    bounds = np.array([[0.1, 2.0], [0.5, 1.0]])

class Other(Shaft):
    responses = ("mass", "stress")

shaft, finer, tearing, narrow, other = Shaft(), Finer(), Tearing(), Narrow(), Other()
"""


@pytest.fixture
def sketch(tmp_path, monkeypatch):
    (tmp_path / "sketches.py").write_text(SKETCH)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_cold_with_data_certificate_and_picture(here, sketch):
    wanted = ("optimize", MODEL, "--minimize", "weight", "--at-most", "stress=0.5", "--data", "shaft.h5")
    code, output, errors = here(*wanted, "--out", "best.json", "--picture", "best.png")
    assert code == 0
    assert "Certified: the model itself finds this point feasible" in output
    record = json.loads((sketch / "best.json").read_text())
    assert record["certified"] and record["optimality"] <= 1e-6
    assert record["value"] == pytest.approx(1 / (0.5 * 3.0), rel=1e-6)
    assert record["x"]["height"] == pytest.approx(3.0)
    assert record["solves"] == len(Dataset.open("shaft.h5")) == errors.count("solve ")
    assert (sketch / "best.png").stat().st_size > 1000
    code, output, errors = here(*wanted)
    assert code == 0 and "after 0 solves" in output and "solve 1" not in errors


def test_a_sum_with_a_start_and_a_fixed_parameter(here, sketch):
    code, output, _ = here(
        "optimize", MODEL, "--minimize", "weight", "--maximize", "stress=0.01", "--fix", "height=2",
        "--at-most", "stress=1", "--start", "width=1.5", "--out", "best.json", "--predictors", "quasi-newton",
    )  # fmt: skip
    assert code == 0
    record = json.loads((sketch / "best.json").read_text())
    assert record["objective"] == {"weight": 1.0, "stress": -0.01}
    assert record["value"] == pytest.approx(0.5 - 0.01, rel=1e-6)
    assert "2 (fixed)" in output and "kg" in output


@pytest.mark.slow
def test_an_equation_is_met_and_shown(here, sketch):
    """The greatest weight of a given stress has the least height: w h = 1 / h."""
    code, output, _ = here(
        "optimize", MODEL, "--maximize", "weight", "--equal", "stress=2", "--predictors", "quasi-newton",
        "--out", "best.json", "--picture", "best.png",
    )  # fmt: skip
    record = json.loads((sketch / "best.json").read_text())
    assert code == 0 and "= 2" in output and (sketch / "best.png").stat().st_size > 1000
    assert record["value"] == pytest.approx(-1 / (2 * 0.5), rel=1e-6)
    assert record["at_most"] == record["at_least"] == {"stress": 2.0}
    assert record["multipliers"]["stress"] > 0.0  # a greater stress costs weight


@pytest.mark.slow
def test_discrete_values(here, sketch):
    code, output, _ = here(
        "optimize",
        MODEL,
        "--minimize",
        "weight",
        "--at-most",
        "stress=1",
        "--one-of",
        "height=1,2,2.5",
        "--predictors",
        "quasi-newton",
    )
    assert code == 0
    assert "best of" in output and "2.5" in output


@pytest.mark.slow
def test_exit_code_1_and_advice_where_nothing_is_certified(here, sketch):
    wanted = ("optimize", MODEL, "--minimize", "weight", "--at-most", "stress=0.5", "--predictors", "quasi-newton")
    code, output, _ = here(*wanted, "--solves", "2")
    assert code == 1
    assert "Not certified after 2 solves: all solves are spent" in output
    code, output, _ = here(*wanted, "--at-most", "weight=0.1")
    assert code == 1
    assert "no point near meets the limits" in output and "Relax a limit" in output


@pytest.mark.slow
def test_a_surrogate_guides_and_a_front_is_certified(here, sketch):
    pytest.importorskip("pymoo")
    surrogate = pytest.importorskip("sobofem.surrogate")
    assert here("generate", MODEL, "--samples", "12", "--seed", "1", "--out", "data.h5")[0] == 0
    fitted = surrogate.train(Dataset.open("data.h5"), optimizers=(surrogate.LBFGS(iterations=60),))
    fitted.save("shaft.safetensors")
    code, output, _ = here(
        "optimize", MODEL, "--surrogate", "shaft.safetensors", "--minimize", "weight", "--at-most", "stress=0.5"
    )
    assert code == 0 and "Certified" in output
    code, output, _ = here(
        "optimize", MODEL, "--surrogate", "shaft.safetensors", "--minimize", "weight", "--minimize", "stress",
        "--pareto", "3", "--picture", "front.png", "--data", "data.h5",
    )  # fmt: skip
    assert code == 0
    assert "3 of 3 points certified by the model" in output
    assert (sketch / "front.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "name a response: --minimize mass"),
        (("--minimize", "wait"), "unknown response 'wait'"),
        (("--minimize", "weight", "--at-most", "stress"), "'stress' is no NAME=VALUE; write --at-most stress=200"),
        (("--minimize", "weight", "--one-of", "height=a"), "'height=a' is no NAME=A,B,C; write --one-of"),
        (("--minimize", "weight", "--fix", "height=1", "--fix", "height=2"), "fix 'height' is given twice"),
        (("--minimize", "weight", "--maximize", "weight"), "weight is to be minimized and maximized"),
        (("--minimize", "weight", "--equal", "stress=1", "--at-most", "stress=2"), "leave out its other limits"),
        (("--minimize", "weight", "--out", "no/best.json"), "make it first"),
        (("--minimize", "weight", "--start", "depth=1"), "start names 'depth'"),
        (("--minimize", "weight", "--minimize", "stress", "--pareto", "3"), "give --surrogate, or --data"),
        (("--minimize", "weight", "--tolerance", "0"), "tolerance is 0"),
        (("--minimize", "weight", "--pareto", "3", "--confirm-on", MODEL), "--confirm-on is for one optimum"),
    ],
)
def test_mistakes_end_with_a_sentence(here, sketch, words, message):
    code, _, errors = here("optimize", MODEL, *words)
    assert code == 2
    assert message in errors


def test_a_surrogate_in_place_of_the_model_is_explained(here, sketch):
    code, _, errors = here("optimize", "shaft.safetensors", "--minimize", "weight")
    assert code == 2 and "--surrogate shaft.safetensors" in errors


def test_what_python_offers_is_on_the_command_line():
    """All arguments of `minimize`, fields of the task, and nothing that has another default."""
    offered = {each.name: each.default for each in fields(Optimization)}
    arguments = {name: each.default for name, each in signature(minimize).parameters.items()}
    about = {"model": "MODEL", "task": "the limits", "comm": "mpiexec", "progress": "printed", "path": "--data"}
    about |= {"archive": "--data", "surrogate": "--surrogate", "start": "--start"}
    assert arguments.keys() - offered.keys() - about.keys() == set()
    for name in arguments.keys() & offered.keys() - about.keys():
        assert arguments[name] == offered[name]
    assert {each.name for each in fields(Task)} - offered.keys() == {"discrete"}  # --one-of
    flags = {flag for _, _, every in options_of(Optimization) for flag in every}
    assert {"--starts", "--predictors", "--equal", "--one-of", "--start"} <= flags


@pytest.mark.slow
def test_starts_and_predictors_reach_the_search(here, sketch):
    code, output, errors = here(
        "optimize",
        MODEL,
        "--minimize",
        "weight",
        "--at-most",
        "stress=1",
        "--starts",
        "4",
        "--predictors",
        "quasi-newton",
    )
    assert code == 0 and "Certified" in output
    assert errors.count(", start") == 4 and "process" not in errors


@pytest.mark.slow
def test_a_finer_model_says_what_it_thinks_of_the_optimum(here, sketch):
    code, output, _ = here(
        "optimize", MODEL, "--minimize", "weight", "--at-most", "stress=1", "--predictors", "quasi-newton",
        "--confirm-on", "sketches.py:finer", "--out", "best.json",
    )  # fmt: skip
    assert code == 0 and "Certified" in output and "a local optimum by the model as it is" in output
    assert "+10 %" in output and "not met" in output and "bounds and active limits leave no direction free" in output
    assert "By sketches.py:finer not all limits are met: stress is 1.1, at most 1 (0.1 too much)" in output
    record = json.loads((sketch / "best.json").read_text())
    assert record["certified"] and not record["confirmed_on"]["feasible"]
    assert record["confirmed_on"]["model"]["stress"] == pytest.approx(1.1, rel=1e-6)
    assert record["confirmed_on"]["model"]["weight"] == record["model"]["weight"]
    assert record["confirmed_on"]["not_met"] == ["stress"] and record["curvature"]["minimum"]
    assert "+10 %" in (sketch / "best.html").read_text()
    code, output, _ = here(
        "optimize", MODEL, "--minimize", "weight", "--at-most", "stress=1", "--predictors", "quasi-newton",
        "--confirm-on", "sketches.py:tearing",
    )  # fmt: skip
    assert code == 0 and "sketches.py:tearing has no answer there: the mesh inverts" in output


@pytest.mark.slow
def test_a_finer_model_that_the_optimum_does_not_fit_is_named_and_the_rest_is_kept(here, sketch):
    line = ("optimize", MODEL, "--minimize", "weight", "--at-most", "stress=1", "--predictors", "quasi-newton")
    code, output, _ = here(*line, "--confirm-on", "sketches.py:narrow", "--out", "best.json")
    assert code == 0 and "sketches.py:narrow has no answer there: the optimum has height" in output
    assert "outside" in json.loads((sketch / "best.json").read_text())["confirmed_on"]["no_answer"]
    code, _, errors = here(*line, "--confirm-on", "sketches.py:other")
    assert code != 0 and "--confirm-on sketches.py:other has responses ('mass', 'stress')" in errors
    assert "solve 1" not in errors
