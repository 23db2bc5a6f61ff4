"""Study files: model, design, training and purposes in one place."""

import json
import os

from launching import TOYS, sobofem
import numpy as np
import pytest
import typer

from coupling import Dataset, Design, Grid, Marginal, PointsFile
from coupling.commands import run as running
from coupling.commands.run import _mark
from coupling.study import Files, Stage, Study, Training, load_study
from coupling.world import Serial

SOURCE = f"""
import sys
sys.path.append({str(TOYS.parent)!r})
from coupling import Design, Marginal
from coupling.study import Study, Training, Stage
from dataclasses import dataclass
import toys

@dataclass(frozen=True)
class Checked:
    name: str = "derivatives"
    def stage(self, files):
        words = ("verify", str(files.data), "--derivatives")
        return Stage(self.name, words, (files.data,))

def plate():
    return toys.Smooth()

study = Study(
    plate,
    Design("sobol", 16, seed=1, marginals={{"p": Marginal("normal", 1.0, 1.0)}}),
    unseen=Design("sobol", 8, seed=2),
    training=Training(descent=True, width=4, depth=1),
    purposes=(Checked(),),
)
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SOURCE)
    return path


def test_stages_are_commands_in_order_with_all_that_a_design_says(file, tmp_path):
    study, model = load_study(file)
    assert model == f"{file}:plate"
    stages = list(study.stages(Files(tmp_path / "out", model)))
    assert [stage.name for stage in stages] == ["generate", "generate unseen", "train", "report", "derivatives"]
    words = stages[0].words
    assert words[:2] == ("generate", model)
    assert words[words.index("--samples") + 1] == "16" and words[words.index("--seed") + 1] == "1"
    assert words[words.index("--input") + 1] == "p=normal:1.0,1.0"


def test_a_dry_run_of_a_study_tells_and_does_nothing(here, file, tmp_path):
    code, text, _ = here("run", file, "--out", tmp_path / "out", "--dry")
    assert code == 0 and text.count("$ sobofem") == 5
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_study_is_done_once_and_again_where_something_changed(file, tmp_path):
    out = tmp_path / "out"
    first = sobofem("run", file, "--out", out, ranks=2, timeout=120)
    assert first.returncode == 0, first.stderr
    assert first.stdout.count("$ sobofem") == 5 and "(done)" not in first.stdout
    data = Dataset.open(out / "data.h5")
    assert len(data) == 16 and (out / "surrogate.safetensors").is_file() and (out / "report").is_dir()

    written = (out / "surrogate.safetensors").stat().st_mtime_ns
    second = sobofem("run", file, "--out", out)
    assert second.returncode == 0, second.stderr
    assert second.stdout.count("(done) $ sobofem") == 3  # all but those that find out by themselves
    assert (out / "surrogate.safetensors").stat().st_mtime_ns == written

    file.write_text(SOURCE.replace('"sobol", 16', '"sobol", 32').replace('{"p"', '{"p"'))
    third = sobofem("run", file, "--out", out, timeout=120)
    assert third.returncode == 0, third.stderr
    assert "(done)" not in third.stdout  # more samples: a new surrogate, and all that follows from it
    assert np.array_equal(Dataset.open(out / "data.h5").x[:16], data.x)


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_study_with_its_error_and_keeps_what_was_done(file, tmp_path):
    out = tmp_path / "out"
    file.write_text(SOURCE.replace('"verify", str(files.data), "--derivatives"', '"info", "none.h5"'))
    done = sobofem("run", file, "--out", out, ranks=2, timeout=120)
    assert done.returncode == 2
    assert done.stderr.count("none.h5") == 1 and "$ sobofem info" in done.stdout
    ledger = json.loads((out / "study.json").read_text())
    assert set(ledger) == {"generate", "generate unseen", "train", "report"}


def test_what_could_not_be_carried_out_is_refused(tmp_path):
    design = Design("sobol", 8, seed=1)
    with pytest.raises(TypeError, match="expected a function that makes one"):
        Study(3, design)
    with pytest.raises(TypeError, match="expected a Design, a Grid or a PointsFile"):
        Study("a.py:b", [[1.0]])
    with pytest.raises(ValueError, match="give it another seed"):
        Study("a.py:b", design, unseen=Design("sobol", 8, seed=1))
    with pytest.raises(ValueError, match="has no 'study'"):
        (tmp_path / "empty.py").write_text("x = 1\n")
        load_study(tmp_path / "empty.py")
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load_study(tmp_path / "none.py")
    (tmp_path / "lambda.py").write_text(
        "from coupling import Design\nfrom coupling.study import Study\n"
        "study = Study(lambda: None, Design('sobol', 8, seed=1))\n"
    )
    with pytest.raises(ValueError, match="has no name; define it by `def`"):
        load_study(tmp_path / "lambda.py")


def test_an_unknown_stage_and_a_damaged_ledger_are_named(here, file, tmp_path):
    out = tmp_path / "out"
    code, _, error = here("run", file, "--out", out, "--only", "tain")
    assert code == 2 and "there is no stage tain; there are generate, generate unseen, train" in error
    out.mkdir(exist_ok=True)
    (out / "study.json").write_text("{")
    code, _, error = here("run", file, "--out", out, "--only", "train")
    assert code == 2 and "study.json is damaged" in error


def test_grids_and_files_of_points_are_written_as_options(tmp_path):
    def words(recipe):
        files = Files(tmp_path, "a.py:b")
        return next(iter(Study("a.py:b", recipe).stages(files))).words[4:]

    assert words(Grid(3)) == ("--levels", "3")
    assert words(Grid({"E": 4}, {"t": Marginal("log")})) == ("--levels", "E=4", "--input", "t=log")
    assert words(PointsFile(tmp_path / "own.csv")) == ("--points", str(tmp_path / "own.csv"))


def test_a_stage_is_marked_by_its_options_and_the_contents_of_what_it_reads(tmp_path):
    read, written = tmp_path / "in", tmp_path / "out"
    read.write_text("a")
    stage = Stage("s", ("x",), (read,), (written,))
    assert _mark(stage) is None
    written.write_text("")
    first = _mark(stage)
    os.utime(read)
    assert _mark(stage) == first
    read.write_text("b")
    assert _mark(stage) != first
    assert _mark(Stage("s", ("y",), (read,), (written,))) not in (first, _mark(stage))


def test_training_says_its_options(tmp_path):
    words = Training(seed=3, samples=12, descent=True).stage(Files(tmp_path, "m:n")).words
    assert words[-5:] == ("--seed", "3", "--descent", "--samples", "12")


def test_an_interrupted_stage_ends_the_study_and_is_not_done(tmp_path, monkeypatch):
    written = tmp_path / "out"
    written.write_text("from an earlier call")
    stage = Stage("s", ("optimize",), (), (written,))
    monkeypatch.setattr(running, "_command", lambda words, together: 130)
    with pytest.raises(typer.Exit) as ended:
        running._carry_out(stage, tmp_path, Serial(), dry=False)
    assert ended.value.exit_code == 130 and not (tmp_path / "study.json").exists()
    monkeypatch.setattr(running, "_command", lambda words, together: 1)
    assert running._carry_out(stage, tmp_path, Serial(), dry=False) == 1
    assert "s" in json.loads((tmp_path / "study.json").read_text())
