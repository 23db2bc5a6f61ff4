"""Robust and reliable designs by `sobofem optimize`, against closed forms."""

from functools import partial
import json

import numpy as np
import pages
import pytest
from scipy.stats import norm, weibull_min

from sobofem.coupling.commands import front
from sobofem.coupling.contract import describe
from sobofem.coupling.optimize import Task, minimize, pareto
from sobofem.coupling.optimize.uncertain import Uncertainties

MODELS = """
import numpy as np

class Strut:
    parameters, responses = ("width", "load"), ("mass", "stress")
    bounds = np.array([[0.5, 12.0], [0.0, 30.0]])
    units = {"width": "mm", "stress": "MPa"}
    heavier = 1.0

    def evaluate(self, x, *, jacobian=True):
        width, load = x
        y = np.array([self.heavier * width, load / width])
        return y, np.array([[self.heavier, 0.0], [-load / width**2, 1.0 / width]]) if jacobian else None

class Valley(Strut):
    def evaluate(self, x, *, jacobian=True):
        a, z = x
        return np.array([(a - 6.0) ** 2 + a * (z - 10.0), a]), np.array([[2.0 * (a - 6.0) + z - 10.0, a], [1.0, 0.0]])

strut, valley, finer = Strut(), Valley(), Strut()
finer.heavier = 1.5
"""
BETA = -norm.ppf(0.01)


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    space = {}
    exec(MODELS, space)
    return space


def best(here, *words):
    code, output, errors = here("optimize", *words, "--out", "best.json")
    assert code == 0, errors + output
    with open("best.json") as file:
        return json.load(file)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "width"),
    [
        (("--input", "load=normal:10,1", "--deviations", 3, "--samples", 512), (10.0 + 3.0) / 2.0),
        (("--input", "load=normal:10,1", "--failure-probability", 0.01), (10.0 + BETA) / 2.0),
        (
            ("--input", "load=weibull_min:c=2,scale=6", "--failure-probability", 0.01),
            weibull_min(2.0, scale=6.0).isf(0.01) / 2.0,
        ),
    ],
)
def test_the_lightest_strut_has_the_width_of_the_closed_form(here, models, tmp_path, words, width):
    found = best(here, "models.py:strut", "--minimize", "mass", "--at-most", "stress=2", *words)
    assert found["certified"] and found["x"] == pytest.approx({"width": width}, rel=2e-3)
    page = pages.check(tmp_path / "best.html", tmp_path / "best.json")
    assert "Uncertain are load (" in page.text and "upper(stress)" in page.text and "MPa" in page.text


@pytest.mark.slow
def test_an_objective_is_that_of_mean_and_deviations(here, models):
    words = ("--input", "load=normal:10,0.5", "--deviations", 2, "--samples", 512)
    found = best(here, "models.py:valley", "--minimize", "mass", *words)  # (a - 6)² + k σ a
    assert found["x"]["width"] == pytest.approx(6.0 - 0.5 * 2.0 * 0.5, rel=2e-3)
    assert list(found["objective"]) == ["upper(mass)"]


@pytest.mark.slow
def test_a_lower_limit_is_kept_by_the_mean_less_deviations(models):
    task = Task({"mass": -1.0}, at_least={"stress": 2.0})
    asked = Uncertainties({"load": "normal:10,1"}, {}, deviations=3.0, samples=512)
    found = minimize(asked.model(models["strut"], task), asked.task(task))
    assert found.certified and found.x[0] == pytest.approx((10.0 - 3.0) / 2.0, rel=2e-3)
    assert found.optimum.task.weights == {"lower(mass)": -1.0}


@pytest.mark.slow
def test_the_page_of_a_front_says_what_is_uncertain(here, models, tmp_path, monkeypatch):
    pytest.importorskip("pymoo")
    asked = Uncertainties({"load": "normal:10,0.5"}, {}, deviations=2.0)
    monkeypatch.setattr(front, "pareto", partial(pareto, points=12, generations=20))
    monkeypatch.setattr(front, "_fitted", lambda data: asked.model(models["valley"], Task("mass")))
    words = ("--minimize", "mass", "--minimize", "stress", "--pareto", 2, "--input", "load=normal:10,0.5")
    found = best(here, "models.py:valley", *words, "--deviations", 2)
    assert found["objectives"] == ["upper(mass)", "upper(stress)"] and found["uncertain"] == str(asked)
    page = pages.check(tmp_path / "best.html", tmp_path / "best.json")
    assert "Uncertain are load (normal:10,0.5)." in page.text


@pytest.mark.slow
def test_another_model_judges_the_same_design(here, models):
    words = ("--input", "load=normal:10,1", "--failure-probability", 0.01, "--confirm-on", "models.py:finer")
    found = best(here, "models.py:strut", "--minimize", "mass", "--at-most", "stress=2", *words)
    assert found["confirmed_on"]["model"]["mass"] == pytest.approx(1.5 * found["model"]["mass"])


def test_solves_of_other_distributions_are_those_of_another_model(models):
    task = Task("mass", at_most={"stress": 2.0})
    digests = {
        describe(Uncertainties({"load": how}, {}, deviations=k).model(models["strut"], task)).digest
        for how in ("normal:10,1", "normal:10,2")
        for k in (2.0, 3.0)
    }
    assert len(digests) == 4


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--deviations", 3), "no input is uncertain; say how one is distributed"),
        (("--input", "load=normal:10,1"), "either by --deviations"),
        (("--input", "load=normal:10,1", "--deviations", 3, "--failure-probability", 0.1), "either by --deviations"),
        (("--input", "load=normal:10,1", "--failure-probability", 0.6), "less than 0.5"),
        (("--input", "load=normal:10,1", "--deviations", 3, "--fix", "load=3"), "load is uncertain, and has given"),
        (("--input", "load=normal:10,1", "--deviations", 3, "--equal", "mass=3"), "mass is to equal a value"),
        (("--input", "load=normal:10,1", "--input", "width=uniform", "--deviations", 3), "every input is uncertain"),
    ],
)
def test_what_makes_no_sense_ends_with_a_sentence(here, models, words, message):
    code, _, errors = here("optimize", "models.py:strut", "--minimize", "mass", "--at-most", "stress=2", *words)
    assert code == 2 and message in " ".join(errors.split())


def test_a_frozen_distribution_is_written_as_its_text():
    asked = Uncertainties({"load": weibull_min(2.0, scale=6.0)}, {}, failure_probability=0.01)
    assert str(asked).startswith("Uncertain are load (weibull_min:c=2,scale=6). ")


def test_a_statistic_of_what_does_not_scatter_is_its_value(models):
    asked = Uncertainties({"load": "normal:10,1"}, {}, deviations=3.0)
    y, slopes = asked.model(models["strut"], Task("mass")).evaluate(np.array([4.0]))
    assert y[:4] == pytest.approx([4.0, 0.0, 4.0, 4.0], abs=1e-12) and slopes[:4, 0] == pytest.approx([1, 0, 1, 1])
