import builtins
import errno
import functools
import io
import re
import sys
import tempfile

from launching import TOYS, python, sobofem
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.commands.files import check_writable
from sobofem.coupling.display import display, duration, generation
from sobofem.coupling.solving.ledger import Progress

COMMANDS = (
    *("generate", "stream", "jobscript", "check", "status", "info", "verify", "merge", "infill", "train", "report"),
    *("optimize", "export-model", "uq", "calibrate", "run", "doctor"),
)


@pytest.mark.slow
def test_help_names_every_command(here):
    assert all(command in here("--help")[1] for command in COMMANDS)


@pytest.mark.parametrize(("set_before", "used"), [("", "1"), pytest.param("3", "3", marks=pytest.mark.slow)])
def test_libraries_compute_on_one_thread_unless_the_environment_says_more(set_before, used):
    done = python(
        """
import os, sys
os.environ.pop("OMP_NUM_THREADS")
if sys.argv[1]:
    os.environ["OMP_NUM_THREADS"] = sys.argv[1]
from sobofem.coupling.start import main
assert "numpy" not in sys.modules  # it reads the variable when it is loaded
before, sys.argv[1:] = sys.argv[1], ["models"]
try:
    main()
except SystemExit:
    print("threads", os.environ["OMP_NUM_THREADS"])
""",
        set_before,
    )
    assert done.stdout.endswith(f"threads {used}\n"), done.stderr


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_a_command_shows_an_example(here, command):
    code, text, _ = here(command, "--help")
    assert code == 0 and f"sobofem {command} " in text.partition("Example:")[2]


def test_a_command_imports_no_libraries_that_only_others_need():
    done = python(
        "import sys\nfrom sobofem.coupling.cli import main\nsys.argv = ['sobofem', 'models']\ntry:\n    main()\n"
        "finally:\n    print({'matplotlib', 'mpi4py', 'scipy', 'torch'} & set(sys.modules))"
    )
    assert "cantilever" in done.stdout and done.stdout.endswith("set()\n"), done.stderr


def test_check_passes_a_right_model_and_fails_a_wrong_one(here):
    code, text, _ = here("check", f"{TOYS}:smooth", "--points", 2)
    assert code == 0 and "Every derivative is right" in text
    assert text.count("all together") == 6 and "E [MPa]" in text
    code, text, _ = here("check", f"{TOYS}:wrong")
    assert code == 1 and "WRONG" in text and "2 of 12 derivatives failed" in text


def test_check_fails_a_response_that_a_second_way_contradicts(here):
    code, text, _ = here("check", f"{TOYS}:twofold", "--directions", 1)
    assert code == 1 and "Every derivative along these directions is right" in text
    assert text.count("by a form of its own") == 1


def test_check_warns_of_unstable_equilibria_at_the_points_where_they_are(here):
    code, text, errors = here("check", f"{TOYS}:snapped", "--points", 3, "--directions", 1)
    assert code == 0, errors
    points = [float(p) for p in re.findall(r"p = (\S+)\s", text.partition("Warning")[0])]
    said = [float(p) for p in re.findall(r"p = (\S+) an equilibrium is no minimum", text.replace("\n", " "))]
    assert said == [p for p in points if p > 0.0] and 0 < len(said)


@pytest.mark.slow
def test_check_under_mpi_prints_once():
    done = sobofem("check", f"{TOYS}:smooth", ranks=2)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Every derivative is right") == 1


@pytest.mark.slow
def test_designs_are_asked_for_by_levels_points_and_distributions(here, tmp_path):
    def made(name, *options):
        assert here("generate", f"{TOYS}:smooth", "--out", tmp_path / name, *options)[0] == 0
        return Dataset.open(tmp_path / name)

    assert len(made("a.h5", "--levels", 3)) == 27
    data = made("b.h5", "--levels", "E=4", "--levels", "p=2", "--input", "E=log")
    assert np.unique(data.x[:, 0]) == pytest.approx(1e5 * 3 ** (np.arange(4) / 3))
    assert data.provenance["inputs"] == {"E": "log"}
    (tmp_path / "own.csv").write_text("t,p,E\n1.0,2.0,2e5\n")
    assert made("c.h5", "--points", tmp_path / "own.csv").x.tolist() == [[2e5, 1.0, 2.0]]
    data = made("d.h5", "--samples", 64, "--input", "p=normal:1,0.1")
    assert data.x[:, 2].std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", 4, "--levels", 3], "give one of them"),
        (["--points", "p.csv", "--input", "E=log"], "--points says where they are"),
        (["--levels", "three"], "expected whole numbers K or NAME=K"),
        (["--levels", "3", "--levels", "E=2"], "one K for all inputs, or NAME=K"),
        (["--input", "E"], "is no NAME=HOW"),
        (["--input", "E=gamma:1,2"], "gamma has the numbers a, loc, scale"),
        (["--input", "F=log"], "there is no input F; there are E, t, p"),
        (["--points", "absent.csv"], "absent.csv"),
    ],
)
def test_a_design_that_can_t_be_made_says_why(here, tmp_path, options, message):
    code, _, errors = here("generate", f"{TOYS}:smooth", "--out", tmp_path / "a.h5", *options)
    assert code == 2 and message in errors and not (tmp_path / "a.h5").exists()


def test_generate_and_info_agree(here, tmp_path):
    path = tmp_path / "a.h5"
    code, text, _ = here("generate", f"{TOYS}:fragile", "--samples", 16, "--design", "halton", "--out", path)
    assert code == 0 and "failed" in text
    said = here("info", path)[1]
    assert "samples of 16 planned" in said and "design halton, seed 0" in said and "buckled" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("info", "none.h5"), "error: there is no file none.h5"),
        (("check", f"{TOYS}:smoth"), "did you mean 'smooth'?"),
        (("generate", f"{TOYS}:smooth", "--design", "sobel", "--out", "a.h5"), "no design is called 'sobel'"),
        (("generate", f"{TOYS}:smooth", "--out", "none/a.h5"), "there is no folder none"),
        (("generate", f"{TOYS}:smooth", "--samples", "0", "--out", "a.h5"), "--samples"),
        (("generate", f"{TOYS}:smooth", "--seed", "-1", "--out", "a.h5"), "--seed"),
        (("generate", f"{TOYS}:smooth", "--out", "."), "error: .: is a folder; name a file in it"),
        (("check", f"{TOYS}:smooth", "--seed", "-1"), "--seed"),
        (("train", "none.h5", "--seed", "-1", "--out", "a"), "--seed"),
        (("train", "none.h5", "--out", "."), "error: .: is a folder; name a file in it"),
        (("train", "none.h5", "--out", "none/a"), "error: there is no folder none to write a to"),
    ],
)
def test_mistakes_end_in_one_line_and_code_two(here, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, said = here(*arguments)
    assert code == 2 and message in said and "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        *((command, "a.h5") for command in ("info", "verify", "status")),
        ("train", "a.h5", "--out", "b.safetensors"),
        ("merge", "a.h5", "b.h5", "--out", "c.h5"),
        ("generate", f"{TOYS}:smooth", "--out", "a.h5"),
        *((command, "a.safetensors") for command in ("info", "verify")),
        ("export-model", "a.safetensors", "--out", "b.pt2"),
        ("uq", "a.safetensors", "--out", "b"),
        ("calibrate", "a.safetensors", "a.csv", "--out", "b"),
        *(("generate", f"{TOYS}:smooth", "--points", f"a.{kind}", "--out", "b.h5") for kind in ("csv", "npy")),
        *(("verify", f"a.{kind}") for kind in ("pt2", "onnx")),
        *(("import", f"a.{kind}", "--out", "b.h5") for kind in ("csv", "npz", "npy", "parquet")),
        ("infill", "a.h5", "--out", "b.csv"),
        ("report", "a.safetensors", "b.h5", "--out", "b"),
        ("optimize", f"{TOYS}:smooth", "--minimize", "weight", "--data", "a.h5"),
        ("run", "a.py"),
        ("check", "a.py:model"),
        ("jobscript", "a.py:model", "--out", "b.h5"),
        ("--use", "a.py", "models"),
    ],
)
def test_a_file_without_the_right_to_read_it_is_named_in_one_line(here, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    files = [name.removesuffix(":model") for name in arguments if name.startswith("a.")]
    for name in files:
        (tmp_path / name).touch()

    def refused(file, *how, **more):
        if str(file).rpartition("/")[2] in files:
            raise PermissionError(errno.EACCES, "Permission denied", str(file))
        return opened(file, *how, **more)

    opened = io.open
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", refused)
    code, shown, said = here(*arguments)
    assert code == (1 if arguments[0] == "verify" else 2)
    (line,) = (shown + said).splitlines()
    assert any(name in line for name in files) and "Permission denied" in line and "chmod" in line


@pytest.mark.parametrize(
    "arguments",
    [
        *(("generate", f"{TOYS}:smooth", "--points", f"a.{kind}", "--out", "b.h5") for kind in ("csv", "npy")),
        ("calibrate", "a.safetensors", "a.csv", "--out", "b"),
    ],
)
def test_a_table_that_is_missing_or_a_folder_is_named_in_words(here, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    name = next(name for name in arguments if name.endswith((".csv", ".npy")))
    assert here(*arguments)[::2] == (2, f"error: there is no file {name}\n")
    (tmp_path / name).mkdir()
    assert here(*arguments)[::2] == (2, f"error: {name} is a folder; name a file in it\n")


@pytest.mark.parametrize("content", [b"", b"some text", bytes(range(256)), b"\x93NUMPY\x01\x00v\x00", b"PK\x03\x04"])
@pytest.mark.parametrize(
    "arguments",
    [("generate", f"{TOYS}:smooth", "--points", "a.npy", "--out", "b.h5"), ("import", "a.npy", "--out", "b.h5")],
)
def test_what_is_no_numpy_file_is_told_without_advice_to_run_it(here, tmp_path, monkeypatch, arguments, content):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.npy").write_bytes(content)
    code, _, said = here(*arguments)
    assert code == 2 and re.fullmatch(r"error: a\.npy .*save arrays of numbers by np\.save.*\n", said), said
    assert "pickle" not in said


@pytest.mark.slow
def test_debug_shows_where_an_error_came_from():
    done = sobofem("--debug", "check", f"{TOYS}:smoth")
    assert "Traceback" in done.stderr and "did you mean 'smooth'?" in done.stderr


def test_a_file_of_another_kind_is_no_surrogate(here, tmp_path):
    pytest.importorskip("torch")
    (tmp_path / "a.txt").write_text("x")
    code, _, said = here("info", tmp_path / "a.txt")
    assert code == 2 and "a.txt" in said


def test_a_missing_package_is_named_with_its_extra(here, tmp_path, monkeypatch):
    (tmp_path / "a.txt").write_text("x")
    monkeypatch.setitem(sys.modules, "sobofem.surrogate", None)
    monkeypatch.setattr("sobofem.coupling.cli._EXTRAS", {"sobofem": "surrogate"})
    code, _, said = here("info", tmp_path / "a.txt")
    assert code == 2 and "pip install 'sobofem[surrogate]'" in said


@pytest.mark.slow
def test_train_and_report_make_their_files(here, tmp_path, monkeypatch):
    surrogate = pytest.importorskip("sobofem.surrogate")
    short = functools.partial(surrogate.train, optimizers=(surrogate.Adam(20), surrogate.LBFGS(20)))
    monkeypatch.setattr(surrogate, "train", short)
    generate(toys.smooth, Design("sobol", 24, 3), tmp_path / "a.h5")
    model = tmp_path / "a.safetensors"
    options = ("--samples", 16, "--descent", "--width", 1, "--depth", 1, "--weighting", "fixed")
    code, text, said = here("train", tmp_path / "a.h5", "--out", model, *options)
    assert code == 0 and "trained on 16 samples" in text and "step" in said
    about = here("info", model)[1]
    assert "MLP(width=1, depth=1" in about
    assert "trained on 16 samples: design sobol, seed 3, model Smooth, digest smooth-1" in about
    assert "errors on unseen samples are not known: none was held out" in about
    code, _, said = here("report", model, tmp_path / "a.h5", "--out", tmp_path / "report")
    assert code == 0 and any((tmp_path / "report").glob("*.png"))
    warning = "warning: the surrogate was trained on 16 samples of this same design (sobol, seed 3)"
    assert warning in said and warning in (tmp_path / "report" / "errors.md").read_text()
    generate(toys.smooth, Design("sobol", 8, 4), tmp_path / "b.h5")
    assert "warning" not in here("report", model, tmp_path / "b.h5", "--out", tmp_path / "other")[2]
    assert "warning" not in (tmp_path / "other" / "errors.md").read_text()


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
def test_training_tells_what_was_chosen_and_why(here, tmp_path, monkeypatch):
    surrogate = pytest.importorskip("sobofem.surrogate")
    quick = (surrogate.Solved(units=16, members=1, iterations=20), surrogate.Kriging(starts=(-7.0,), iterations=10))
    monkeypatch.setattr(surrogate, "fit", functools.partial(surrogate.fit, families=quick))
    generate(toys.smooth, Design("sobol", 8, 3), tmp_path / "a.h5")
    model = tmp_path / "a.safetensors"
    code, text, said = here("train", tmp_path / "a.h5", "--out", model, "--seed", 1)
    assert code == 0 and "trained on 8 samples" in text and "fold 1 to 2 of 8" in said
    assert re.search(r"step \d+ of at most \d+; at most \S+ s more", said)
    for family in ("shallow network", "Gaussian process"):
        assert re.search(rf"{family}: error on unseen folds \S+ in values, \S+ in slopes; share \d+ %", text)
    about = here("info", model)[1]
    for response in toys.smooth.responses:
        line = rf"  {response}: values \S+, slopes \S+\n"
        assert re.search(line, text) and re.search(line, about + "\n")
    assert here("report", model, tmp_path / "a.h5", "--out", tmp_path / "report")[0] == 0


@pytest.mark.slow
def test_training_within_a_budget_tells_what_more_time_would_bring(here, tmp_path):
    pytest.importorskip("torch")
    generate(toys.smooth, Design("sobol", 16, 3), tmp_path / "a.h5")
    code, text, said = here("train", tmp_path / "a.h5", "--out", tmp_path / "a.safetensors", "--budget", 0.1)
    assert code == 0, said
    assert re.search(r"\S+ s of 0.1 s were used: more time would also try .*shallow network.*perceptron", text)
    assert "perceptron: left out, not tried: the time was over" in text
    assert here("info", tmp_path / "a.safetensors")[0] == 0


def test_options_of_descent_are_not_ignored_without_it(here, tmp_path):
    code, _, said = here("train", "none.csv", "--out", tmp_path / "a", "--width", 8, "--weighting", "fixed")
    assert code == 2 and "--width, --weighting belongs to training by descent; add --descent" in said
    code, _, said = here("train", "none.csv", "--out", tmp_path / "a", "--descent", "--budget", 8)
    assert code == 2 and "--budget is for the choice among families" in said


def test_words_for_durations_and_progress():
    assert [duration(s) for s in (4.21, 45.2, 725.0, 12000.0)] == ["4.2 s", "45 s", "12 min 5 s", "3 h 20 min"]
    said = generation(Progress(done=18, failed=2, total=100, before=7, seconds=10.0))
    assert said == "20 of 100 samples, 2 a second, 40 s left, 2 failed, 7 from before"


def test_a_log_gets_few_lines_and_always_the_last(capsys):
    with display(interval=60.0) as update:
        for k in range(1000):
            update(k, 1000, f"{k} of 1000")
    assert capsys.readouterr().err.split("\n") == ["0 of 1000", "999 of 1000", ""]


def test_a_file_that_cannot_be_written_is_refused_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []

    def refuse(*_, **__):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(PermissionError, match="can't be written: Permission denied") as caught:
        check_writable(tmp_path / "a")
    assert caught.value.filename == str(tmp_path / "a")
