"""Study files: model, design, training and purposes in one place."""

from dataclasses import MISSING, fields, replace
import json
import os
from pathlib import Path
import shlex
import shutil
import warnings

from launching import TOYS, sobofem
import numpy as np
import pytest
import typer

from sobofem.coupling import Dataset, Design, Grid, Marginal, PointsFile, generate
from sobofem.coupling.commands import all_commands
from sobofem.coupling.commands import run as running
from sobofem.coupling.commands.run import Action, Source, _mark
from sobofem.coupling.parallel.world import Serial
from sobofem.coupling.study import Call, Files, Stage, Study, Training, definition, load_study
from sobofem.coupling.study.purposes import Calibration, Optimization, Uncertainty

SOURCE = f"""
import sys
sys.path.append({str(TOYS.parent)!r})
from sobofem.coupling import Design, Marginal
from sobofem.coupling.study import Study, Training, Stage
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
    Design("sobol", 8, seed=1, marginals={{"p": Marginal("normal", 1.0, 1.0)}}),
    unseen=Design("sobol", 4, seed=2),
    training=Training(descent=True, width=1, depth=1),
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
    words = Action.of(stages[0]).words
    assert words[:2] == ("generate", model)
    assert words[words.index("--samples") + 1] == "8" and words[words.index("--seed") + 1] == "1"
    assert words[words.index("--input") + 1] == "p=normal:1.0,1.0"


def test_a_dry_run_of_a_study_tells_and_does_nothing(here, file, tmp_path):
    code, text, _ = here("run", file, "--out", tmp_path / "out", "--dry")
    assert code == 0 and text.count("$ sobofem") == 5
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def once(tmp_path_factory):
    """A folder with the study, carried out on two ranks, and what was printed."""
    folder = tmp_path_factory.mktemp("once")
    (folder / "small.py").write_text(SOURCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done = sobofem("run", "small.py", ranks=2, timeout=120)
    assert done.returncode == 0, done.stderr
    return folder, done.stdout


@pytest.fixture
def studied(once, tmp_path, monkeypatch):
    """A copy of that folder, to work in."""
    shutil.copytree(once[0], tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "small"


@pytest.mark.slow
def test_a_study_is_done_on_several_ranks_and_says_each_command_once(once):
    folder, printed = once[0] / "small", once[1]
    assert printed.count("$ sobofem") == 5 and "(done" not in printed
    assert len(Dataset.open(folder / "data.h5")) == 8
    assert (folder / "surrogate.safetensors").is_file() and (folder / "report").is_dir()


@pytest.mark.slow
def test_a_study_is_not_done_twice(here, studied):
    written = (studied / "surrogate.safetensors").stat().st_mtime_ns
    code, text, errors = here("run", "small.py")
    assert code == 0, errors
    assert text.count("(done) $ sobofem") == 3  # all but those that find out by themselves
    assert (studied / "surrogate.safetensors").stat().st_mtime_ns == written


@pytest.mark.slow
def test_more_samples_are_added_and_all_that_follows_from_them_is_done_again(here, studied):
    before = Dataset.open(studied / "data.h5").x
    Path("small.py").write_text(SOURCE.replace('"sobol", 8', '"sobol", 16'))
    code, text, errors = here("run", "small.py")
    assert code == 0, errors
    assert text.count("$ sobofem") == 5 and "(done" not in text
    after = Dataset.open(studied / "data.h5").x
    assert len(after) == 16 and np.array_equal(after[:8], before)


@pytest.mark.slow
def test_a_stage_that_fails_ends_the_study_with_its_error_and_keeps_what_was_done(studied):
    broken = SOURCE.replace('"verify", str(files.data), "--derivatives"', '"info", "none.h5"')
    Path("small.py").write_text(broken.replace('name: str = "derivatives"', 'name: str = "broken"'))
    done = sobofem("run", "small.py", ranks=2)
    assert done.returncode == 2
    assert done.stderr.count("none.h5") == 1 and "$ sobofem info" in done.stdout
    ledger = json.loads((studied / "study.json").read_text())
    assert set(ledger) == {"generate", "generate unseen", "train", "report", "derivatives"}


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
        "from sobofem.coupling import Design\nfrom sobofem.coupling.study import Study\n"
        "study = Study(lambda: None, Design('sobol', 8, seed=1))\n"
    )
    with pytest.raises(ValueError, match="has no name; define it by `def`"):
        load_study(tmp_path / "lambda.py")


def test_what_is_wrong_with_a_later_stage_is_said_before_any_work(here, file, tmp_path):
    file.write_text(file.read_text().replace('"--derivatives")', '"--derivative")'))
    code, text, errors = here("run", file, "--out", tmp_path / "out")
    assert code == 2 and "--derivative" in text + errors and "$ sobofem" not in text
    assert not (tmp_path / "out").exists()


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
        return Action.of(next(iter(Study("a.py:b", recipe).stages(files)))).words[4:]

    assert words(Grid(3)) == ("--levels", "3")
    assert words(Grid({"E": 4}, {"t": Marginal("log")})) == ("--levels", "E=4", "--input", "t=log")
    assert words(PointsFile(tmp_path / "own.csv")) == ("--points", str(tmp_path / "own.csv"))


def test_a_stage_is_marked_by_its_options_its_files_and_the_model_if_it_asks_it(tmp_path):
    read, written = tmp_path / "in", tmp_path / "out"
    read.write_text("a")
    old, new = Source("m:n", "1"), Source("m:n", "2")
    stage, plain, asking = Stage("s", ("x",), (read,), (written,)), ["x"], ["x", "m:n"]
    assert _mark(stage, plain, old) is None
    written.write_text("")
    first = _mark(stage, plain, old)
    os.utime(read)
    assert _mark(stage, plain, old) == _mark(stage, plain, new) == first
    assert len({first, _mark(stage, asking, old), _mark(stage, asking, new)}) == 3
    read.write_text("b")
    assert _mark(stage, plain, old) != first
    assert _mark(stage, ["y"], old) not in (first, _mark(stage, plain, old))


def test_a_folder_of_an_earlier_version_is_known_whose_options_stood_in_another_order(tmp_path):
    earlier = (
        "optimize m:n --minimize mass=2.0 --maximize stiffness=0.5 --surrogate out/surrogate.safetensors "
        "--at-most stress=200.0 --at-least height=3.0 --fix load=10.0 --one-of layers=1.0,2.5 --start width=4.0 "
        "--tolerance 1e-05 --solves 30 --seed 7 --pareto 5 --ranks-per-solve 2 --data out/optimum.h5 "
        "--out out/optimum.json --picture out/optimum.png",
        "uq out/surrogate.safetensors --out out/uncertainty --model m:n --solves 32",
        "calibrate out/surrogate.safetensors curve.csv --out out/calibration --prior rate=log --model m:n --solves 32",
        "train out/data.h5 --out out/surrogate.safetensors --seed 0",
    )
    later = ["equal", "starts", "predictors", "confirm_on"]
    later += ["inputs", "correlated", "deviations", "failure_probability", "samples", "allow_outside"]
    defaults = Optimization("mass")
    with_defaults = replace(PURPOSES[0][0], **{name: getattr(defaults, name) for name in later})
    made = (with_defaults, Uncertainty(), Calibration(Path("curve.csv"), {"rate": Marginal("log")}))
    stages = [*(purpose.stage(FILES) for purpose in made), list(Study("m:n", Grid(2)).stages(FILES))[1]]
    for stage, line in zip(stages, earlier, strict=True):
        action = Action.of(stage)
        assert shlex.join(action.words) != line and action.is_same(shlex.split(line))
        assert not action.is_same([*shlex.split(line), "--seed", "8"]) and not action.is_same(["info", "none.h5"])
        assert not action.is_same([*shlex.split(line), "--gone"])


def test_the_definition_of_a_model_is_its_source_without_the_study(file):
    spec = f"{file}:plate"
    before = definition(spec, file)
    file.write_text("# A comment.\n" + SOURCE.replace("purposes=(Checked(),)", "purposes=()"))
    assert definition(spec, file) == before
    file.write_text(SOURCE.replace("toys.Smooth()", "toys.Smooth(seconds=0.1)"))
    assert definition(spec, file) != before
    assert definition(f"{TOYS}:smooth", file) == "smooth-1"  # a model has a digest of its own
    elsewhere = definition(f"{TOYS}:factory", file)
    assert elsewhere and elsewhere not in (
        before,
        definition("sobofem.fem.library.plate_with_hole:plate_with_hole", file),
    )


OPTIMIZED = """
import numpy as np
from sobofem.coupling import Design
from sobofem.coupling.study.purposes import Optimization
from sobofem.coupling.study import Study, Training

class Shaft:
    parameters, responses = ("width", "height"), ("weight", "stress")
    bounds = np.array([[0.1, 2.0], [0.5, 3.0]])
    digest = "shaft"

    def evaluate(self, x, *, jacobian=True):
        w, h = x
        y = np.array([w * h, 1 / (w * h**2)])
        return y, np.array([[h, w], [-1 / (w * h) ** 2, -2 / (w * h**3)]]) if jacobian else None

study = Study(
    Shaft,
    Design("sobol", 4, seed=1),
    training=Training(descent=True, width=4, depth=1),
    purposes=(Optimization("weight", fixed={"height": 1.0}, solves=1),),
)
"""


@pytest.fixture
def trained(tmp_path, labels_believed):
    """A folder with the samples and a surrogate of the model of `OPTIMIZED`, in no time."""
    from sobofem import surrogate

    file, out = tmp_path / "shaft.py", tmp_path / "out"
    file.write_text(OPTIMIZED)
    out.mkdir()
    data = generate(f"{file}:Shaft", Design("sobol", 4, seed=1), out / "data.h5")
    with warnings.catch_warnings(action="ignore"):  # four samples teach it nothing
        surrogate.fit(data, families=(surrogate.Kriging(),)).save(out / "surrogate.safetensors")
    return file, out


@pytest.mark.slow
def test_a_purpose_without_success_says_so_again_and_how_to_go_on(here, trained):
    file, out = trained
    for again in (False, True):
        code, text, errors = here("run", file, "--out", out, "--only", "optimum")
        assert code == 1
        assert ("(done, without success) $ sobofem optimize" in text) is again
        assert f"optimum: without success, as the output and the files in {out} say" in errors
        assert f"change them in {file}, such as `solves`" in errors.replace("\n", " ")
    file.write_text(OPTIMIZED.replace("solves=1", "solves=50"))
    code, text, errors = here("run", file, "--out", out, "--only", "optimum")
    assert code == 0 and "(done" not in text and "Certified" in text and "has changed" not in errors


@pytest.mark.slow
def test_a_changed_model_is_noticed_and_its_purposes_are_not_done(here, trained):
    file, out = trained
    file.write_text(OPTIMIZED.replace("solves=1", "solves=50"))
    assert here("run", file, "--out", out, "--only", "optimum")[0] == 0
    code, text, errors = here("run", file, "--out", out, "--only", "optimum", "--dry")
    assert "(done) $ sobofem optimize" in text and not errors
    heavier = file.read_text().replace("[w * h, 1", "[2 * w * h, 1").replace('"shaft"', '"heavier shaft"')
    file.write_text(heavier)
    code, text, errors = here("run", file, "--out", out, "--only", "optimum", "--dry")
    assert code == 0 and "(done)" not in text
    assert "the source of" in errors and "has changed since" in errors
    code, text, errors = here("run", file, "--out", out)
    assert code == 2 and "problem definition (digest) was shaft, now heavier shaft" in errors
    assert "name another folder (--out), or remove this one" in errors


def test_training_says_its_options(tmp_path):
    study = Study("m:n", Grid(2), training=Training(seed=3, samples=12, descent=True, validation=0.25, device="cuda"))
    _, stage = study.stages(Files(tmp_path, "m:n"))
    said = shlex.join(Action.of(stage).words)
    assert said.endswith("--seed 3 --samples 12 --descent --validation 0.25 --device cuda")


def test_a_purpose_beyond_the_range_of_its_command_is_refused(tmp_path):
    for purpose, message in (
        (Uncertainty(solves=2), "solves of Uncertainty is 2, expected at least 4"),
        (Uncertainty(allow_outside=2.0), "allow_outside of Uncertainty is 2.0, expected at most 1"),
        (Optimization("mass", solves=0), "solves of Optimization is 0, expected at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Action.of(purpose.stage(FILES))


def test_a_stage_calls_a_function_of_the_user_or_a_command_by_its_name(tmp_path):
    called = []

    def weigh(surrogate: Path, out: Path, factor: float = 1.0) -> None:
        called.append((surrogate, factor))

    arguments = {"surrogate": tmp_path / "a", "out": tmp_path / "b", "factor": 2.0}
    action = Action.of(Stage("weighed", Call(weigh, arguments)))
    assert action.carry_out() == 0 and called == [(tmp_path / "a", 2.0)]
    assert shlex.join(action.words) == f"weigh --surrogate {tmp_path / 'a'} --out {tmp_path / 'b'} --factor 2.0"
    with pytest.raises(ValueError, match=r"calls 'way', which is no command; there are .*optimize"):
        Action.of(Stage("s", Call("way", {})))
    with pytest.raises(ValueError, match="s calls report without surrogate, out"):
        Action.of(Stage("s", Call("report", {"data": "a.h5"})))
    with pytest.raises(ValueError, match=r"s gives info \['fil'\]; it takes file"):
        Action.of(Stage("s", Call("info", {"file": "a.h5", "fil": "a.h5"})))


def test_an_interrupted_stage_ends_the_study_and_is_not_done(tmp_path, monkeypatch):
    written = tmp_path / "out"
    written.write_text("from an earlier call")
    stage, source = Stage("s", Call("models", {}), (), (written,)), Source("m:n", "1")
    monkeypatch.setattr(running, "_act", lambda action, together: 130)
    with pytest.raises(typer.Exit) as ended:
        running._carry_out(stage, tmp_path, source, Serial(), dry=False)
    assert ended.value.exit_code == 130 and not (tmp_path / "study.json").exists()
    monkeypatch.setattr(running, "_act", lambda action, together: 1)
    assert running._carry_out(stage, tmp_path, source, Serial(), dry=False) == 1
    assert "s" in json.loads((tmp_path / "study.json").read_text())


FILES = Files(Path("out"), "m:n")
PURPOSES = [
    (
        Optimization(
            {"mass": 2.0, "stiffness": -0.5},
            at_most={"stress": 200.0},
            at_least={"height": 3.0},
            equal={"volume": 0.5},
            fixed={"load": 10.0},
            one_of={"layers": (1, 2.5)},
            start={"width": 4.0},
            tolerance=1e-5,
            solves=30,
            starts=3,
            predictors="quasi-newton",
            seed=7,
            pareto=5,
            confirm_on="fine.py:model",
            ranks_per_solve=2,
            inputs={"load": Marginal.of("weibull_min:c=2")},
            correlated={"load,force": 0.5},
            deviations=2.0,
            failure_probability=0.01,
            samples=64,
            allow_outside=0.2,
        ),
        "--minimize mass=2.0 --maximize stiffness=0.5 "
        "--at-most stress=200.0 --at-least height=3.0 --equal volume=0.5 --fix load=10.0 "
        "--one-of layers=1.0,2.5 --start width=4.0 --tolerance 1e-05 --solves 30 --starts 3 "
        "--predictors quasi-newton --seed 7 --pareto 5 --confirm-on fine.py:model "
        "--ranks-per-solve 2 --input load=weibull_min:c=2.0 --correlate load,force=0.5 --deviations 2.0 "
        "--failure-probability 0.01 --samples 64 --allow-outside 0.2",
    ),
    (
        Uncertainty(
            {"load": Marginal("normal", 100.0, 8.0)},
            fixed={"width": 4.0},
            fail=("stress > 200", "mass > 3"),
            solves=64,
            samples=2048,
            method="subset",
            seed=7,
            allow_outside=0.2,
            ranks_per_solve=2,
        ),
        "--input load=normal:100.0,8.0 --fix width=4.0 --fail 'stress > 200' --fail 'mass > 3' --solves 64 "
        "--samples 2048 --method subset --seed 7 --allow-outside 0.2 --ranks-per-solve 2 --model m:n",
    ),
    (
        Calibration(
            Path("curve.csv"),
            {"rate": Marginal("log")},
            fixed={"young": 2e5},
            unknown_noise=True,
            solves=16,
            certify=4,
            ignore_surrogate_error=True,
            starts=8,
            draws=500,
            tune=200,
            chains=3,
            seed=7,
            axis="displacement [mm]",
            ranks_per_solve=2,
        ),
        "--prior rate=log --fix young=200000.0 --unknown-noise --solves 16 --certify 4 --ignore-surrogate-error "
        "--starts 8 --draws 500 --tune 200 --chains 3 --seed 7 --axis 'displacement [mm]' --ranks-per-solve 2 "
        "--model m:n",
    ),
]


@pytest.mark.parametrize(("purpose", "words"), PURPOSES)
def test_every_field_of_a_purpose_is_said_and_read_back(purpose, words):
    action = Action.of(purpose.stage(FILES))
    assert words in shlex.join(action.words)
    defaults = {each.name: each.default for each in fields(purpose) if each.default is not MISSING}
    assert not [name for name, default in defaults.items() if getattr(purpose, name) == default and name != "name"]
    read = all_commands()[action.words[0]].parse(action.words[1:])
    assert read["settings"] == purpose and read == dict(action.arguments)


def test_purposes_ask_groups_of_the_size_that_the_study_says():
    files = Files(Path("out"), "m:n", ranks_per_solve=4)
    for purpose in (Uncertainty(), Calibration(Path("curve.csv"))):
        words = Action.of(purpose.stage(files)).words
        assert words[-4:] == ("--ranks-per-solve", "4", "--model", "m:n")
        unasked = Action.of(replace(purpose, solves=0).stage(files)).words
        assert not {"--model", "--solves", "--ranks-per-solve"} & set(unasked)
    assert "--ranks-per-solve" not in Action.of(Optimization("mass").stage(files)).words  # all ranks solve each point
