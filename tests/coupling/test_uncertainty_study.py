"""The whole study, as the command `sobofem uq` does it."""

import json
import os
from pathlib import Path
import subprocess
import sys

from contexts import labels_believed
from launching import sobofem
import numpy as np
import pages
import pytest
from toys import Fragile, Smooth
from uncertainty_cases import Fragile as Buckling
from uncertainty_cases import Imperfect, linear, standard

from sobofem.coupling import Design
from sobofem.coupling.contract import SampleFailure
from sobofem.coupling.solving.cached_model import CachedModel, cached_on_disk
from sobofem.coupling.uncertainty import Limit, inputs
from sobofem.coupling.uncertainty.evaluation import solved
from sobofem.coupling.uncertainty.study import quantify

ROOT = Path(__file__).parents[2]
TOYS = Path(__file__).parent / "toys.py"
UNCERTAIN = ("--input", "E=normal:2e5,1e4", "--input", "t=normal:1.3,0.05", "--input", "p=normal:2,0.4")


@pytest.fixture(scope="module")
def surrogate_file(tmp_path_factory):
    from sobofem import surrogate

    model = Smooth()
    x = Design("sobol", 12, 1).points(model.bounds)
    y, jacobian = zip(*map(model.evaluate, x), strict=True)
    samples = surrogate.Samples(
        x, np.array(y), np.array(jacobian), model.parameters, model.responses, model.bounds, dict(model.units)
    )
    path = tmp_path_factory.mktemp("uq") / "smooth.safetensors"
    with labels_believed():
        surrogate.fit(samples, families=(surrogate.Kriging(starts=(-7.0,), iterations=40),)).save(path)
    return path


def test_a_study_asks_the_model_for_nothing_twice():
    model = linear([1.0, 2.0])
    surrogate = Imperfect(model, 0.2, np.array([1.0, -0.5]))
    found = quantify(surrogate, inputs(surrogate, standard(model)), [Limit("y", 6.0)], model=model, solves=24)
    assert found.propagation.solves == found.indices.solves == found.measures.solves == 24
    assert found.failure.solves <= 24 and model.solves <= 48
    assert json.loads(json.dumps(found.record()))["failure"]["limits"] == ["y > 6"]


def test_a_limit_without_a_design_point_is_sampled_level_by_level():
    flat = linear([1.0, 0.0])
    flat.values = lambda x: np.floor(x[:, :1])  # stairs: no slope leads anywhere
    flat.slopes = lambda x: np.zeros((len(x), 1, 2))
    found = quantify(flat, inputs(flat, standard(flat)), [Limit("y", 1.5)])
    assert found.failure.method == "subset simulation" and "sampled level by level instead" in found.note
    assert found.failure.value == pytest.approx(0.02275, rel=0.15)


def test_answers_are_remembered_across_runs_and_so_are_failures(tmp_path):
    model, x = Fragile(), [np.array([2e5, 1.0, p]) for p in (0.5, 1.0, 3.0)]
    for run_number in range(2):
        with cached_on_disk(model, tmp_path / "solves") as remembered:
            for point in x[:2]:
                y, jacobian = remembered.evaluate(point)
                true = model.evaluate(point)
                assert (y == true[0]).all() and (jacobian == true[1]).all()
            with pytest.raises(ArithmeticError, match="buckled at p = 3") as failure:
                remembered.evaluate(x[2])
            assert isinstance(failure.value, SampleFailure) and failure.value.load_factor == pytest.approx(2 / 3)
            assert (remembered.solves, remembered.failed) == ((3, 1) if run_number == 0 else (0, 0))
            assert (remembered.points, remembered.failures) == (3, 1)
    with (
        pytest.raises(ValueError, match="holds solves of another model"),
        cached_on_disk(Smooth(), tmp_path / "solves"),
    ):
        pass


def test_many_points_are_answered_at_once_and_none_is_solved_twice():
    model = linear([1.0, 2.0])
    remembered = CachedModel.of(model)
    x = np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [2.0, 2.0]])
    reports = []
    assert [record.y[0] for record in remembered.answers(x, lambda: reports.append(1))] == [1.0, 2.0, 1.0, 6.0]
    assert model.solves == remembered.solves == remembered.points == len(reports) == 3
    assert remembered.evaluate(x[3], jacobian=False) == (6.0, None) and model.solves == 3


def test_a_folder_serves_one_process_at_a_time(tmp_path):
    with (
        cached_on_disk(Smooth(), tmp_path),
        pytest.raises(BlockingIOError, match="another process is asking for solves"),
        cached_on_disk(Smooth(), tmp_path),
    ):
        pass


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
    with pytest.raises(KeyboardInterrupt), cached_on_disk(model, tmp_path) as first:
        solved(first, x)
    with cached_on_disk(model, tmp_path) as second:
        assert len(solved(second, x).x) == 4 and second.solves == 2


def test_progress_is_of_all_solves_that_are_planned():
    reports = []
    model = linear([1.0, 2.0])
    surrogate = Imperfect(model, 0.2, np.array([1.0, -0.5]))
    given, limits = inputs(surrogate, standard(model)), [Limit("y", 6.0)]
    quantify(
        surrogate, given, limits, model=model, solves=24, samples=1024, progress=lambda *words: reports.append(words)
    )
    done, planned, words = zip(*reports, strict=True)
    assert set(planned) == {48} and list(done) == sorted(done) and 24 in done
    assert done[-1] == model.solves <= 48
    assert words[0].endswith("; distributions") and words[-1] == f"{done[-1]} of 48 solves of the model; failure"


def test_solves_without_an_answer_are_counted_and_told():
    model = Buckling(lambda x: x[:, :1], lambda x: np.ones((len(x), 1, 1)), [[-9.0, 9.0]], ("x0",))
    model.most = 1.0
    surrogate, reports = Imperfect(linear([1.0]), 0.2, np.array([2.0])), []
    given = inputs(surrogate, standard(surrogate))
    found = quantify(
        surrogate, given, [Limit("y", 0.5)], model=model, solves=32, progress=lambda *words: reports.append(words[2])
    )
    assert found.solves == found.propagation.solves + found.failure.solves + found.unanswered > 40
    assert found.unanswered == len(found.propagation.failures) + len(found.failure.failures) > 3
    assert f", {found.unanswered} without an answer; failure" in reports[-1]


def test_a_model_without_an_answer_at_the_design_point_leaves_failure_to_subset_simulation():
    model = Buckling(lambda x: x[:, :1], lambda x: np.ones((len(x), 1, 1)), [[-9.0, 9.0]], ("x0",))
    model.most = 2.2
    surrogate = Imperfect(linear([1.0]), 0.2, np.array([2.0]))
    found = quantify(surrogate, inputs(surrogate, standard(surrogate)), [Limit("y", 2.5)], model=model)
    assert "no answer at the surrogate's design point: buckled" in found.note
    assert found.failure is None or found.failure.method == "subset simulation"


def test_the_help_shows_an_example(here):
    code, text, _ = here("uq", "--help")
    assert code == 0 and "sobofem uq " in text.partition("Example:")[2]


@pytest.mark.slow
def test_ranks_solve_in_groups_and_one_prints(surrogate_file, tmp_path):
    options = (*UNCERTAIN, "--solves", 16, "--samples", 1024, "--model", f"{TOYS}:of_two", "--ranks-per-solve", 2)
    done = sobofem("uq", surrogate_file, *options, "--out", tmp_path, ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results.json") == done.stdout.count("16 solves of the model in this run") == 1
    assert "of 16 solves of the model; " in done.stderr


@pytest.mark.slow
def test_the_command_takes_correlations_and_names_pairs_that_are_none(here, surrogate_file, tmp_path):
    options = (*UNCERTAIN, "--samples", 1024, "--out", tmp_path / "uq")
    code, text, errors = here("uq", surrogate_file, *options, "--correlate", "E,t=-0.4")
    assert code == 0, errors
    assert "Inputs are correlated" in " ".join(text.split()) and "Sobol" not in text
    record = json.loads((tmp_path / "uq" / "results.json").read_text())
    assert record["correlated"] == [{"inputs": ["E", "t"], "coefficient": -0.4}] and record["indices"] is None
    pages.check(tmp_path / "uq" / "report.html", tmp_path / "uq" / "results.json")
    code, _, errors = here("uq", surrogate_file, *options, "--correlate", "E,width=-0.4")
    assert code == 2 and "E,width are no two inputs that are uncertain; these are" in errors


@pytest.mark.slow
def test_the_command_writes_numbers_and_pictures_and_goes_on_where_it_was(here, surrogate_file, tmp_path, request):
    out = tmp_path / "uq"
    options = (*UNCERTAIN, "--fail", "energy > 1.6", "--model", f"{TOYS}:smooth", "--solves", 64, "--samples", 2048)
    code, text, errors = here("uq", surrogate_file, *options, "--out", out)
    assert code == 0, errors
    assert "is confirmed by the model" in text and "128 solves of the model in this run" in text
    assert {path.name for path in out.glob("*.png")} == {"densities.png", "sensitivity.png", "design_points.png"}
    page = pages.check(out / "report.html", out / "results.json")
    assert "energy > 1.6" in page.text and "confirmed by the model" in page.text
    numbers = json.loads((out / "results.json").read_text())
    x = np.random.default_rng(0).normal([2e5, 1.3, 2.0], [1e4, 0.05, 0.4], (400_000, 3))
    energy = x[:, 2] ** 2 / (x[:, 0] * 1e-5 * x[:, 1] ** 3)
    low, high = numbers["failure"]["interval"]
    assert low < np.mean(energy > 1.6) < high < 2.0 * low
    mean = numbers["propagation"]["mean"]
    assert mean["low"][0] - 2e-3 < energy.mean() < mean["high"][0] + 2e-3
    request.getfixturevalue("undrawn")
    code, text, _ = here("uq", surrogate_file, *options, "--out", out)
    assert code == 0 and "0 solves of the model in this run; 128 more are remembered from earlier runs" in text
    assert json.loads((out / "results.json").read_text()) == numbers


@pytest.mark.slow
def test_the_command_counts_solves_without_an_answer(here, surrogate_file, tmp_path):
    options = (*UNCERTAIN, "--model", f"{TOYS}:fragile", "--solves", 16, "--samples", 1024, "--out", tmp_path)
    code, text, errors = here("uq", surrogate_file, *options)
    failed = len(json.loads((tmp_path / "results.json").read_text())["propagation"]["failures"])
    assert code == 0 and failed > 4, errors
    assert f"16 solves of the model in this run, {failed} of them without an answer." in text
    assert f"16 of 16 solves of the model, {failed} without an answer" in errors


@pytest.mark.slow
def test_without_a_model_the_bars_are_said_to_be_the_surrogates_word(here, surrogate_file, tmp_path):
    code, text, errors = here(
        "uq", surrogate_file, *UNCERTAIN[:4], "--fix", "p=2", "--samples", 1024, "--out", tmp_path
    )
    assert code == 0, errors
    assert "Error bars are the surrogate's own word" in text and not (tmp_path / "solves").exists()
    page = pages.check(tmp_path / "report.html", tmp_path / "results.json")
    assert "By the surrogate alone" in page.text and "normal:200000,10000" in page.text


@pytest.mark.slow
def test_the_command_works_without_finite_elements_and_mpi(surrogate_file, tmp_path):
    blocked = ("dolfinx", "petsc4py", "mpi4py", "ufl", "basix", "sobofem.fem")
    code = "import sys\n" + "".join(f"sys.modules[{name!r}] = None\n" for name in blocked)
    arguments = ["sobofem", "uq", str(surrogate_file), *UNCERTAIN, "--samples", "1024", "--out", str(tmp_path / "uq")]
    code += f"from sobofem.coupling.cli import main\nsys.argv = {arguments!r}\nmain()\n"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "uq" / "densities.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--input", "E"], "'E' is no NAME=HOW; write --input young=normal:70e3,2e3"),
        (["--input", "E=log", "--input", "E=log"], "input 'E' is given twice"),
        (["--input", "E=gamma:1"], "SciPy's gamma has the numbers a, loc, scale"),
        (["--input", "E=normal:1e5,1e4"], "50.00% of normal:100000,10000 lies outside the bounds"),
        (["--fix", "p=two"], "'p=two' is no NAME=VALUE; write --fix poisson=0.3"),
        (["--fix", "q=2"], "there is no input q"),
        (["--fail", "energy"], "write when it has failed"),
        (["--fail", "stress > 3"], "there is no response 'stress'; there are energy, weight, sway"),
        (["--model", f"{TOYS}:absent"], "has no 'absent'"),
    ],
)
def test_the_command_says_what_is_wrong(here, surrogate_file, tmp_path, options, message):
    code, _, errors = here("uq", surrogate_file, *options, "--samples", 1024, "--out", tmp_path / "out")
    assert code == 2 and message in errors.replace("\n", " "), errors


@pytest.mark.slow
@pytest.mark.parametrize(("limit", "truth"), [("energy > 1e9", 0.0), ("energy < 1e9", 1.0)])
def test_impossible_and_certain_failure_are_answers_that_are_told(here, surrogate_file, tmp_path, limit, truth):
    code, text, errors = here("uq", surrogate_file, "--fail", limit, "--samples", 1024, "--out", tmp_path / "out")
    output = " ".join((text + errors).split())
    assert code == 0 and f"failure is {'certain' if truth else 'impossible'} by the model at hand" in output, errors
    failure = json.loads((tmp_path / "out" / "results.json").read_text())["failure"]
    assert failure["value"] == truth and failure["beta"] is None and limit[:6] in failure["certain"][0]


def test_a_missing_surrogate_is_named(here, tmp_path):
    code, _, errors = here("uq", tmp_path / "absent.safetensors", "--out", tmp_path)
    assert code == 2 and "absent.safetensors" in errors
