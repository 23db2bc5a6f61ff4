"""The whole study, as the command `sobofem uq` does it."""

import json
import os
from pathlib import Path
import subprocess
import sys

from launching import sobofem
import numpy as np
import pytest
from toys import Fragile, Smooth
from uncertainty_cases import Imperfect, linear, standard

from coupling import Design
from coupling.contract import SampleFailure
from coupling.uncertainty import Limit, inputs
from coupling.uncertainty.evaluation import solved
from coupling.uncertainty.remembered import Remembered
from coupling.uncertainty.study import run

ROOT = Path(__file__).parents[2]
TOYS = Path(__file__).parent / "toys.py"
UNCERTAIN = ("--input", "E=normal:2e5,1e4", "--input", "t=normal:1.3,0.05", "--input", "p=normal:2,0.4")


@pytest.fixture(scope="module")
def surrogate_file(tmp_path_factory):
    import surrogate

    model = Smooth()
    x = Design("sobol", 12, 1).points(model.bounds)
    y, jacobian = zip(*map(model.evaluate, x), strict=True)
    samples = surrogate.Samples(
        x, np.array(y), np.array(jacobian), model.parameters, model.responses, model.bounds, dict(model.units)
    )
    path = tmp_path_factory.mktemp("uq") / "smooth.safetensors"
    surrogate.fit(samples, families=(surrogate.Kriging(),)).save(path)
    return path


def test_a_study_asks_the_model_for_nothing_twice():
    model = linear([1.0, 2.0])
    surrogate = Imperfect(model, 0.2, np.array([1.0, -0.5]))
    found = run(surrogate, inputs(surrogate, standard(model)), [Limit("y", 6.0)], check=model, solves=24)
    assert found.propagation.solves == found.indices.solves == found.measures.solves == 24
    assert found.failure.solves <= 24 and model.solves <= 48
    assert json.loads(json.dumps(found.record()))["failure"]["limits"] == ["y > 6"]


def test_a_limit_without_a_design_point_is_sampled_level_by_level():
    flat = linear([1.0, 0.0])
    flat.values = lambda x: np.floor(x[:, :1])  # stairs: no slope leads anywhere
    flat.slopes = lambda x: np.zeros((len(x), 1, 2))
    found = run(flat, inputs(flat, standard(flat)), [Limit("y", 1.5)])
    assert found.failure.method == "subset simulation" and "sampled level by level instead" in found.note
    assert found.failure.value == pytest.approx(0.02275, rel=0.15)


def test_answers_are_remembered_across_runs_and_so_are_failures(tmp_path):
    model, x = Fragile(), [np.array([2e5, 1.0, p]) for p in (0.5, 1.0, 3.0)]
    for run_number in range(2):
        remembered = Remembered(model, tmp_path / "solves")
        for point in x[:2]:
            y, jacobian = remembered.evaluate(point)
            true = model.evaluate(point)
            assert (y == true[0]).all() and (jacobian == true[1]).all()
        with pytest.raises(ArithmeticError, match="buckled at p = 3") as failure:
            remembered.evaluate(x[2])
        assert isinstance(failure.value, SampleFailure) and failure.value.load_factor == pytest.approx(2 / 3)
        assert remembered.solves == (3 if run_number == 0 else 0)
        remembered.close()
    with pytest.raises(ValueError, match="holds solves of another model"):
        Remembered(Smooth(), tmp_path / "solves")


def test_an_interrupted_study_asks_only_for_what_is_missing(tmp_path):
    class Impatient(Smooth):
        """The user presses Ctrl-C in the third solve."""

        count = 0

        def evaluate(self, x, *, jacobian=True):
            self.count += 1
            if self.count == 3:
                raise KeyboardInterrupt
            return super().evaluate(x, jacobian=jacobian)

    model, x = Impatient(), Design("sobol", 4, 1).points(Smooth.bounds)
    first = Remembered(model, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        solved(first, x)
    second = Remembered(model, tmp_path)
    assert len(solved(second, x).x) == 4 and second.solves == 2
    first.close()
    second.close()


def test_the_help_shows_an_example(here):
    code, text, _ = here("uq", "--help")
    assert code == 0 and "sobofem uq " in text.partition("Example:")[2]


@pytest.mark.slow
def test_ranks_solve_together_and_one_prints(surrogate_file, tmp_path):
    options = (*UNCERTAIN, "--fail", "energy > 1.6", "--solves", 16, "--samples", 1024)
    both = [
        sobofem("uq", surrogate_file, *options, "--model", f"{TOYS}:{model}", "--out", tmp_path / model, ranks=ranks)
        for model, ranks in (("of_two", 2), ("smooth", 1))
    ]
    assert [done.returncode for done in both] == [0, 0], both[0].stderr
    assert both[0].stdout.count("results.json") == 1
    together, alone = (json.loads((tmp_path / model / "results.json").read_text()) for model in ("of_two", "smooth"))
    assert together["failure"]["value"] == pytest.approx(alone["failure"]["value"], rel=1e-6)
    assert len(list((tmp_path / "of_two" / "solves").glob("*.journal"))) == 1


def test_the_command_writes_numbers_and_pictures_and_goes_on_where_it_was(here, surrogate_file, tmp_path):
    out = tmp_path / "uq"
    options = (*UNCERTAIN, "--fail", "energy > 1.6", "--model", f"{TOYS}:smooth", "--solves", 16, "--samples", 2048)
    code, text, errors = here("uq", surrogate_file, *options, "--out", out)
    assert code == 0, errors
    assert "is confirmed by the model" in text and "32 solves of the model in this run" in text
    assert {path.name for path in out.glob("*.png")} == {"densities.png", "sensitivity.png", "design_points.png"}
    numbers = json.loads((out / "results.json").read_text())
    x = np.random.default_rng(0).normal([2e5, 1.3, 2.0], [1e4, 0.05, 0.4], (400_000, 3))
    energy = x[:, 2] ** 2 / (x[:, 0] * 1e-5 * x[:, 1] ** 3)
    low, high = numbers["failure"]["interval"]
    assert low < np.mean(energy > 1.6) < high < 2.0 * low
    mean = numbers["propagation"]["mean"]
    assert mean["low"][0] - 2e-3 < energy.mean() < mean["high"][0] + 2e-3
    code, text, _ = here("uq", surrogate_file, *options, "--out", out)
    assert code == 0 and "0 solves of the model in this run" in text
    assert json.loads((out / "results.json").read_text()) == numbers


def test_without_a_model_the_bars_are_said_to_be_the_surrogates_word(here, surrogate_file, tmp_path):
    code, text, errors = here(
        "uq", surrogate_file, *UNCERTAIN[:4], "--fix", "p=2", "--samples", 1024, "--out", tmp_path
    )
    assert code == 0, errors
    assert "Error bars are the surrogate's own word" in text and not (tmp_path / "solves").exists()


def test_the_command_works_without_finite_elements_and_mpi(surrogate_file, tmp_path):
    blocked = ("dolfinx", "petsc4py", "mpi4py", "ufl", "basix", "fem")
    code = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    arguments = ["sobofem", "uq", str(surrogate_file), *UNCERTAIN, "--samples", "1024", "--out", str(tmp_path / "uq")]
    code += f"from coupling.cli import main\nsys.argv = {arguments!r}\nmain()\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "uq" / "densities.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "E"], "'E' is no NAME=HOW; write --input young=normal:70e3,2e3"),
        (["--input", "E=log", "--input", "E=log"], "input 'E' is given twice"),
        (["--input", "E=gamma:1"], "no distribution is called 'gamma'"),
        (["--input", "E=normal:1e5,1e4"], "50.00% of normal:100000,10000 lies outside the bounds"),
        (["--fix", "p=two"], "'p=two' is no value"),
        (["--fix", "q=2"], "there is no input q"),
        (["--fail", "energy"], "write when it has failed"),
        (["--fail", "stress > 3"], "there is no response 'stress'; there are energy, weight, sway"),
        (["--model", f"{TOYS}:absent"], "has no 'absent'"),
    ],
)
def test_the_command_says_what_is_wrong(here, surrogate_file, tmp_path, options, message):
    code, _, errors = here("uq", surrogate_file, *options, "--samples", 1024, "--out", tmp_path / "out")
    assert code == 2 and message in errors.replace("\n", " "), errors


def test_failure_too_rare_to_sample_is_told_and_the_rest_is_there(here, surrogate_file, tmp_path):
    code, text, errors = here(
        "uq", surrogate_file, "--fail", "energy > 1e9", "--samples", 1024, "--out", tmp_path / "out"
    )
    assert code == 0 and "less probable than 1e-12" in (text + errors).replace("\n", " "), errors
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["failure"] is None and results["propagation"]


def test_a_missing_surrogate_is_named(here, tmp_path):
    code, _, errors = here("uq", tmp_path / "absent.safetensors", "--out", tmp_path)
    assert code == 2 and "absent.safetensors" in errors
