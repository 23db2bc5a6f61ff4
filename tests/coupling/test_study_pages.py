"""Pages of studies: whole, true to their records, safe with any names, and written also where a search is cut short."""

import json
import shlex
import sys

from matplotlib.figure import Figure
import numpy as np
import pages
import pytest

from sobofem.coupling import Dataset
from sobofem.coupling.commands import find_command
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.optimize import Front, pareto
from sobofem.coupling.report.page import Number, Page, Picture, Points, Section, Table, write_page, write_record

NASTY = '<b onload="x">&amp; $a$ `c` "d"'
MODELS = """
import numpy as np
from sobofem.fem import NotConverged

class Shaft:
    parameters, responses = ("<b>width</b>", "height"), ("weight & more", "stress")
    bounds = np.array([[0.1, 2.0], [0.5, 3.0]])
    units = {"weight & more": "kg", "height": "m<sup>2</sup>"}
    calls, ends = 0, 10**6

    def evaluate(self, x, *, jacobian=True):
        self.calls += 1
        if self.calls > self.ends:
            raise KeyboardInterrupt
        w, h = x
        y = np.array([w * h, 1 / (w * h**2)])
        return y, np.array([[h, w], [-1 / (w * h) ** 2, -2 / (w * h**3)]]) if jacobian else None

class Never(Shaft):
    def evaluate(self, x, *, jacobian=True):
        raise NotConverged("no", reason="mesh <inverted>")

shaft, never, stopped = Shaft(), Never(), Shaft()
stopped.ends = 3
"""
TASK = ("--minimize", "weight & more", "--at-most", "stress=0.5")


@pytest.fixture
def models(tmp_path, monkeypatch):
    (tmp_path / "models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def figure(points=5):
    drawn = Figure(figsize=(3, 2))
    axes = drawn.subplots()
    axes.semilogy(np.arange(1, points + 1), np.arange(1.0, points + 1), "o", label=NASTY)
    axes.set(xlabel=NASTY, ylabel="height [mm]", title=NASTY)
    axes.legend()
    return drawn


def test_a_page_shows_any_text_as_it_is_and_loads_nothing(tmp_path):
    parts = [
        NASTY,
        Table([NASTY, NASTY, "c"], [[NASTY, NASTY, 0.1]], NASTY),
        Picture(figure(), NASTY, NASTY),
        Points([NASTY]),
    ]
    record = {"value": 0.1}
    write_record(record, tmp_path / "record.json")
    made = Page(NASTY, "bad", NASTY, NASTY, [Section(NASTY, parts), Section(NASTY, parts, folded=True)], [NASTY])
    write_page(made, tmp_path / "page.html", record="record.json")
    page = pages.check(tmp_path / "page.html", tmp_path / "record.json")
    assert not any(tag == "b" and "onload" in about for tag, about in page.tags)
    assert page.text.count('<b onload="x">&amp; $a$ `c` "d"') >= 10
    # verdict, warning, and twice prose and a sentence: backticks make code
    assert page.text.count('<b onload="x">&amp; $a$ c "d"') == 6


def test_points_of_a_figure_tell_where_they_are(tmp_path):
    write_page(Page("a", "good", "b", "c", [Section("d", [Picture(figure(), "e")])]), tmp_path / "page.html")
    page = pages.read(tmp_path / "page.html")
    hovers = [about for tag, about in page.tags if tag == "circle" and about.get("class") == "hover"]
    assert len(hovers) == 5 and "height [mm] 3" in page.text
    heights = [float(about["cy"]) for about in hovers]
    assert np.diff(heights).max() < 0.0  # upwards, as the values
    # on a logarithmic axis 1, 2 and 4 are equally far apart
    assert heights[0] - heights[1] == pytest.approx(heights[1] - heights[3], abs=0.11)


@pytest.mark.slow
def test_a_large_figure_becomes_pixels_with_an_alternative_text(tmp_path):
    drawn = Figure()
    drawn.subplots().scatter(*np.random.default_rng(0).random((2, 20_000)))
    write_page(Page("a", "good", "b", "c", [Section("d", [Picture(drawn, "cloud <of> points")])]), tmp_path / "p.html")
    page = pages.read(tmp_path / "p.html")
    (about,) = [about for tag, about in page.tags if tag == "img"]
    assert about["alt"] == "cloud <of> points" and about["src"].startswith("data:image/png;base64,")


def test_thousands_of_rows_are_shown_at_both_ends_and_numbers_that_json_lacks_are_none(tmp_path):
    rows = [[f"x_{k}", float(k), Number(0.25, "25%"), float("nan"), None] for k in range(5000)]
    write_record({"x": [row[1] for row in rows], "share": 0.25, "none": float("inf")}, tmp_path / "r.json")
    assert json.loads((tmp_path / "r.json").read_text())["none"] is None
    write_page(Page("a", "open", "b", "c", [Section("d", [Table(list("abcde"), rows)])]), tmp_path / "page.html")
    page = pages.check(tmp_path / "page.html", tmp_path / "r.json")
    assert "… 4980 others" in page.text and "x_4999" in page.text and "x_2500" not in page.text
    assert len(page.numbers) == 2 * 20


@pytest.mark.slow
def test_an_optimization_writes_its_page_and_the_command_on_it_repeats_it(here, models):
    code, _, errors = here("optimize", "models.py:shaft", *TASK, "--fix", "<b>width</b>=0.5", "--out", "best.json")
    assert code == 0, errors
    page = pages.check(models / "best.html", models / "best.json")
    assert "Certified" in page.text and "<b>width</b>" in page.text and "m<sup>2</sup>" in page.text
    (line,) = page.code[:1]
    words = shlex.split(line)
    again = find_command("optimize").parse(words[2:])
    assert words[:2] == ["sobofem", "optimize"] and str(again["out"]) == "best.json"
    assert again["settings"].at_most == {"stress": 0.5} and again["settings"].fixed == {"<b>width</b>": 0.5}


@pytest.mark.slow
def test_a_search_without_a_feasible_point_has_a_page_that_says_so_first(here, models):
    limits = ("--at-most", "weight & more=0.1", "--solves", "4")
    assert here("optimize", "models.py:shaft", *TASK, *limits, "--out", "best.json")[0] == 1
    page = pages.check(models / "best.html", models / "best.json")
    assert page.text.index("Not certified") < page.text.index("Task") < page.text.index("not met")
    assert "No point that was solved meets all limits" in page.text and "limits not met" in page.text


def test_a_search_without_any_answer_has_a_page(here, models):
    code, _, errors = here("optimize", "models.py:never", *TASK, "--out", "best.json")
    assert code == 2 and "no answer at any of" in errors
    page = pages.check(models / "best.html", models / "best.json")
    assert "Not certified" in page.text and "mesh <inverted>" in page.text


@pytest.mark.slow
def test_an_interrupted_search_has_a_page_with_the_best_so_far(here, models):
    code, _, errors = here("optimize", "models.py:stopped", *TASK, "--data", "d.h5", "--out", "best.json")
    assert code == 130 and "stopped by SIGINT" in errors
    page = pages.check(models / "best.html", models / "best.json")
    record = json.loads((models / "best.json").read_text())
    assert "Unfinished" in page.text and "goes on from d.h5" in page.text
    assert record["solves"] == 3 and len(record["path"]) == 3 and not record["certified"]


@pytest.fixture
def cheap(monkeypatch):
    """A front of a few generations, sought on a model of closed form in place of a surrogate."""
    pytest.importorskip("pymoo")
    from sobofem.coupling.commands import front

    def few(*asked, **how):
        return pareto(*asked, **how, points=12, generations=20)

    def exact(data):
        return load_model("models.py:shaft")

    monkeypatch.setattr(front, "pareto", few)
    monkeypatch.setattr(front, "_fitted", exact)


FRONT = ("--minimize", "weight & more", "--minimize", "stress", "--pareto", 2, "--out", "front.json")


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_a_front_has_a_record_and_a_page_with_the_course_of_each_point(here, models):
    code, _, errors = here("optimize", "models.py:shaft", *FRONT)
    assert code == 0, errors
    page = pages.check(models / "front.html", models / "front.json")
    record = json.loads((models / "front.json").read_text())
    assert "2 of 2 points certified" in page.text and "Courses of the searches" in page.text
    assert record["ended"] and not record["waiting"] and len(record["front"]) > 3
    for point in record["points"]:  # on the front the width is least, or the height greatest
        assert point["certified"]
        assert min(point["x"]["<b>width</b>"] - 0.1, 3.0 - point["x"]["height"]) == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_an_interrupted_front_keeps_what_is_certified_and_has_a_page(here, models):
    with (models / "models.py").open("a") as file:
        file.write("stopped.ends = 4\n")
    code, _, errors = here("optimize", "models.py:stopped", *FRONT, "--data", "d.h5")
    assert code == 130 and "stopped by SIGINT" in errors and "not yet; all solves are in" in errors, errors
    page = pages.check(models / "front.html", models / "front.json")
    record = json.loads((models / "front.json").read_text())
    assert "Unfinished" in page.text and "goes on from d.h5" in page.text and "not certified yet" in page.text
    assert not record["ended"] and len(record["points"]) + len(record["waiting"]) == 2 and record["points"]
    solves = sum(point["solves"] for point in record["points"]) + (record["under_way"] or {"solves": 0})["solves"]
    assert solves == 4 == len(Dataset.open("d.h5"))


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
def test_an_error_in_the_midst_of_a_front_has_a_page_of_what_was_certified_before(here, models, monkeypatch):
    certify, calls = Front.certify, []

    def second(*asked, **how):
        calls.append(asked)
        if len(calls) == 2:
            raise OSError("no space left")
        return certify(*asked, **how)

    monkeypatch.setattr(Front, "certify", second)
    code, _, errors = here("optimize", "models.py:shaft", *FRONT)
    assert code != 0 and "no space left" in errors
    page = pages.check(models / "front.html", models / "front.json")
    assert "Unfinished: 1 of 2 points certified" in page.text and "no space left" in page.text


def test_a_page_is_for_another_file_than_its_numbers(here, models):
    code, _, errors = here("optimize", "models.py:shaft", *TASK, "--out", "best.html")
    assert code == 2 and "name it .json" in errors


@pytest.mark.slow
def test_finite_elements_are_shown_before_and_after_and_written_for_paraview(here, models):
    pytest.importorskip("sobofem.fem")
    (models / "beam.py").write_text(
        "from sobofem.fem.library.mbb_beam import mbb_beam\ndef beam(comm):\n    return mbb_beam(comm, cells=(6, 2))\n"
    )
    words = ("--minimize", "compliance", "--at-most", "volume=0.5", "--solves", 3, "--out", "best.json")
    assert here("optimize", "beam.py:beam", *words)[0] == 1
    page = pages.check(models / "best.html", models / "best.json")
    assert "Before and after" in page.text and "where the search began" in page.text
    assert any(tag == "image" for tag, _ in page.tags) and (models / "best.pvd").exists()
    assert "best.pvd" in page.references


@pytest.mark.slow
def test_the_largest_value_stands_beside_the_p_norm_that_is_limited(here, models):
    pytest.importorskip("sobofem.fem")
    words = ("--minimize", "mass", "--at-most", "stress_concentration=2.9", "--solves", 3, "--out", "best.json")
    _, output, _ = here("optimize", "plate_with_hole", *words)
    record = json.loads((models / "best.json").read_text())
    largest, mean = record["largest"]["stress_concentration"], record["model"]["stress_concentration"]
    assert 1.02 * mean < largest < 1.5 * mean
    said = " ".join(output.split())
    assert f"the largest value is {largest:.6g}" in said
    assert f"{'met' if largest <= 2.9 else 'not met'} by that" in said
    assert "largest value of what stress_concentration" in pages.check(models / "best.html", models / "best.json").text


def test_commands_that_call_others_stand_on_the_page_as_well(monkeypatch):
    from sobofem.coupling.dataset import origin

    monkeypatch.setattr(sys, "argv", ["-c"])
    assert origin.commands() == ()
    monkeypatch.setattr(sys, "argv", ["my study.py", "--fast"])
    assert origin.commands() == ("python 'my study.py' --fast",)
    with origin.running(lambda: "sobofem run s.py"), origin.running(lambda: "sobofem uq a --seed 3", seed=3):
        assert origin.commands() == ("sobofem uq a --seed 3", "sobofem run s.py")
        assert origin.origin()["seed"] == "3"
    assert "numpy" in origin.origin()["versions"] and sys.version.split()[0] in origin.origin()["versions"]
