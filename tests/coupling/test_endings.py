"""How the program ends: with which exit code, whatever a model does to its process or leaves behind."""

import functools
import json
import os
import re
import signal

import h5py
from launching import MPIEXEC, TOYS, journal_bytes, python, sobofem, start, wait_for
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.solving.diagnosis import TooManyFailures

KILLED = (9, -signal.SIGKILL)
"""Exit codes by `mpiexec`, and without it (137 in a shell)."""

RANKS = [0, *(() if MPIEXEC is None else (pytest.param(ranks, marks=pytest.mark.slow) for ranks in (1, 3)))]


@pytest.mark.slow
@pytest.mark.parametrize("ranks", RANKS)
@pytest.mark.parametrize("model", ["vanishes", "replaced"])
def test_a_process_that_ends_with_code_zero_before_it_is_done_counts_as_killed(tmp_path, model, ranks):
    path = tmp_path / "a.h5"
    done = sobofem("generate", f"{TOYS}:{model}", "--samples", 8, "--seed", 3, "--out", path, ranks=ranks)
    assert done.returncode in KILLED, done.stderr
    assert "C or Fortran code of the model ended the program before it was done" in done.stderr
    counts = json.loads(sobofem("status", path, "--json").stdout)
    assert counts["remaining"] > 0 and counts["deaths"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "optimize"])
def test_every_command_that_runs_a_model_notices_that_it_was_ended(tmp_path, command):
    (tmp_path / "ends.py").write_text("import ctypes\nctypes.CDLL(None)._exit(0)\n")
    options = () if command == "check" else ("--minimize", "y")
    done = sobofem(command, f"{tmp_path / 'ends.py'}:model", *options)
    assert done.returncode in KILLED and "before it was done" in done.stderr


LEFT = ("thread", "process", "program")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "ranks"),
    [
        ("thread", 0),
        pytest.param("process", 0, marks=pytest.mark.slow),
        *(pytest.param(w, r.values[0], marks=r.marks) for w in LEFT for r in RANKS[2:]),
    ],
)
def test_what_a_model_leaves_running_keeps_no_job_alive(tmp_path, what, ranks):
    path = tmp_path / "a.h5"
    done = sobofem("generate", f"{TOYS}:leaves_{what}", "--samples", 8, "--out", path, ranks=ranks, timeout=40)
    assert done.returncode == 0 and len(Dataset.open(path)) == 8, done.stderr
    assert done.stderr.count("not waiting for what the model left running: ") == (what != "program")


def test_an_ensemble_with_too_many_failures_says_so_each_time(tmp_path, here):
    line = ("generate", f"{TOYS}:fragile", "--samples", 8, "--out", tmp_path / "a.h5", "--max-failures")
    for _ in range(2):
        code, _, said = here(*line, 0.1)
        assert code == 3 and re.search(r"\d of 8 samples failed, more than the 10 % allowed: buckled", said)
    assert here(*line, 0.9)[0] == 0
    with pytest.raises(TooManyFailures):
        generate(toys.fragile, Design("sobol", 8, 0), tmp_path / "a.h5", max_failures=0.1)


@pytest.mark.slow
def test_a_signal_that_a_destructor_swallows_is_heard_all_the_same():
    done = sobofem("check", f"{TOYS}:swallows", timeout=15)
    assert done.returncode == 130 and done.stderr.splitlines()[-1].startswith("stopped by SIGINT; "), done.stderr


BROKEN = {
    "utf16": ("model = 1\n".encode("utf-16"), r" is no Python code: .*; save it as UTF-8"),
    "latin": ("model = 'é'\n".encode("latin-1"), r", line 1 is no Python code: .*; save it as UTF-8"),
    "syntax": (b"x = 1\ndef f(:\n", r", line 2 is no Python code: invalid syntax"),
    "missing": (b"\nimport no_such_package\n", r", line 2: No module named 'no_such_package'"),
    "absent": (b"from math import no_such_function\n", r", line 1: ImportError: cannot import name"),
    "ends": (b"import sys\n\nsys.exit(0)\n", r", line 3: .* called sys.exit\(0\)"),
    "stops": (b"import os\nos._exit(0)\n", r", line 2: .* called os._exit\(0\)"),
    "fails": (b"def f():\n    return 1 / 0\nf()\n", r", line 2: ZeroDivisionError: division by zero"),
    "deep": (b"import json\njson.loads('{')\n", r", line 2: JSONDecodeError: "),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_file_that_can_not_be_imported_is_named_with_its_line(tmp_path, here, name):
    content, words = BROKEN[name]
    (tmp_path / f"{name}.py").write_bytes(content)
    for line in (("check", f"{tmp_path / name}.py:model"), ("run", f"{tmp_path / name}.py")):
        code, _, said = here(*line)
        assert code == 2 and len(said.splitlines()) == 1
        assert re.search(rf"^error: \S*{name}\.py{words}", said), said


def folder(path):
    path.mkdir()


def other_program(path):
    with h5py.File(path, "w") as file:
        file["a"] = np.arange(3.0)


NO_FILES = {
    "a folder": folder,
    "a pipe": os.mkfifo,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("some text\n" * 99),
    "zeros": lambda path: path.write_bytes(bytes(4096)),
    "of another program": other_program,
    "a broken link": lambda path: path.symlink_to("nowhere"),
    "missing": lambda path: None,
}
READERS = {
    ".h5": (
        *(("status",), ("info",), ("verify",), ("merge", "--out", "new.h5"), ("infill", "--out", "new.csv")),
        ("train", "--out", "new.safetensors"),
    ),
    ".safetensors": (
        *(("info",), ("verify",), ("uq", "--out", "new"), ("export-model", "--out", "new.onnx")),
        ("report", "a.h5", "--out", "new"),
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", NO_FILES)
@pytest.mark.parametrize("ending", READERS)
def test_what_is_no_dataset_or_surrogate_is_refused_in_one_line(tmp_path, monkeypatch, here, what, ending):
    if ending == ".safetensors":
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    generate(toys.smooth, Design("sobol", 4, 3), "a.h5")
    file = tmp_path / f"odd{ending}"
    NO_FILES[what](file)
    for command, *options in READERS[ending]:
        code, text, said = here(command, file.name, *options)
        lines = (text + said).splitlines()
        assert code == (1 if command == "verify" else 2) and len(lines) == 1, (command, lines)
        assert lines[0].count(file.name) == 1 and "Traceback" not in lines[0]


def exit_codes(folder):
    """What is documented, as (situation, command line, exit code); run in this order."""
    data, model = folder / "a.h5", folder / "a.safetensors"
    fragile = ("generate", f"{TOYS}:fragile", "--samples", 8, "--out", folder / "b.h5")
    return [
        ("done", ("generate", f"{TOYS}:smooth", "--samples", 8, "--out", data), 0),
        ("done again", ("generate", f"{TOYS}:smooth", "--samples", 8, "--out", data), 0),
        ("another problem", ("generate", f"{TOYS}:fragile", "--samples", 8, "--out", data), 2),
        ("too many failures", (*fragile, "--max-failures", 0.1), 3),
        ("few enough", (*fragile, "--max-failures", 0.9), 0),
        ("right derivatives", ("check", f"{TOYS}:smooth", "--directions", 1), 0),
        ("wrong derivatives", ("check", f"{TOYS}:wrong"), 1),
        ("no model", ("check", f"{TOYS}:number"), 2),
        ("unknown option", ("check", f"{TOYS}:smooth", "--nonsense"), 2),
        ("known", ("status", data), 0),
        ("not there", ("status", folder / "none.h5"), 2),
        ("not there, for scripts", ("status", folder / "none.h5", "--json"), 0),
        ("readable", ("info", data), 0),
        ("intact", ("verify", data), 0),
        ("merged", ("merge", data, "--out", folder / "c.h5"), 0),
        ("there already", ("merge", data, "--out", folder / "c.h5"), 2),
        ("trained", ("train", data, "--out", model, "--descent", "--width", 1, "--depth", 1), 0),
        ("nothing to learn from", ("train", folder / "none.h5", "--out", model), 2),
        ("intact surrogate", ("verify", model), 0),
        ("judged", ("report", model, data, "--out", folder / "report"), 0),
        ("no goal", ("optimize", f"{TOYS}:smooth"), 2),
        ("certified", ("optimize", f"{TOYS}:smooth", "--minimize", "weight"), 0),
        ("too few solves", ("optimize", f"{TOYS}:smooth", "--minimize", "energy", "--solves", 1), 1),
        ("a script", ("jobscript", f"{TOYS}:smooth", "--out", data, "--script", folder / "a.sh"), 0),
        ("no distribution", ("uq", model, "--input", "E=gamma:1", "--out", folder / "uq"), 2),
        ("no measurements", ("calibrate", model, folder / "none.csv", "--out", folder / "cal"), 2),
        ("no study", ("run", TOYS), 2),
        ("points exist", ("infill", data, "--out", folder / "a.sh"), 2),
    ]


@pytest.mark.slow
def test_exit_codes_are_those_of_the_documentation(tmp_path, here, monkeypatch):
    surrogate = pytest.importorskip("sobofem.surrogate")
    monkeypatch.setattr(surrogate, "train", functools.partial(surrogate.train, optimizers=(surrogate.LBFGS(5),)))
    lines = exit_codes(tmp_path)
    found = [(situation, here(*line)[0]) for situation, line, _ in lines]
    assert found == [(situation, code) for situation, _, code in lines]
    damaged = bytearray((tmp_path / "a.h5").read_bytes())
    damaged[3000] ^= 1
    (tmp_path / "a.h5").write_bytes(damaged)
    assert here("verify", tmp_path / "a.h5")[0] == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75), (signal.SIGHUP, 129), (signal.SIGKILL, -9)]
)
def test_generate_ends_by_a_signal_with_the_documented_code(tmp_path, number, code):
    path = tmp_path / "a.h5"
    job = start("generate", f"{TOYS}:slow", "--samples", 4000, "--out", path)
    wait_for(lambda: journal_bytes(path) > 1000)
    os.kill(job.pid, number)
    job.communicate(timeout=20)
    assert job.returncode == code
    kept = len(Dataset.open(path))
    assert 0 < kept == len(Dataset.open(path)), "a process outlived the job"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "when", "kept"),
    [
        (["--descent"], "L-BFGS", True),
        ([], "Gaussian process", True),
        ([], "fold 3", False),
        (["--budget", 600], "shallow network, fold", True),
    ],
)
def test_an_interrupted_training_says_what_it_has_kept(tmp_path, here, monkeypatch, options, when, kept):
    surrogate = pytest.importorskip("sobofem.surrogate")
    quick = (surrogate.Solved(units=16, members=1, iterations=20), surrogate.Kriging(starts=(-7.0,), iterations=10))
    monkeypatch.setattr(surrogate, "fit", functools.partial(surrogate.fit, families=quick))
    monkeypatch.setattr(
        surrogate, "train", functools.partial(surrogate.train, optimizers=(surrogate.Adam(20), surrogate.LBFGS(20)))
    )
    generate(toys.smooth, Design("sobol", 8, 3), tmp_path / "a.h5")

    def interrupt(progress):
        if when in progress.stage and ("fold" in when or "fold" not in progress.stage):
            raise KeyboardInterrupt
        return ""

    monkeypatch.setattr("sobofem.coupling.commands.train._words", interrupt)
    out = tmp_path / "a.safetensors"
    code, text, said = here("train", tmp_path / "a.h5", "--out", out, *options)
    assert code == 130 and said.splitlines()[-1].startswith("stopped by SIGINT; "), said
    assert out.exists() == kept == ("is the best so far" in said) == ("trained on 8 samples" in text)
    assert ("no surrogate was written" in said) != kept


WATCHED = """
import os, signal, sys, time
from sobofem.coupling.parallel import supervision
supervision.supervise()
if sys.argv[1] == "confirmed":
    supervision.confirm()
if sys.argv[1] == "killed":
    os.kill(os.getpid(), signal.SIGSEGV)
os._exit(int(sys.argv[2]))
"""


@pytest.mark.parametrize(
    ("how", "code", "seen"), [("confirmed", 0, 0), ("", 0, -9), ("confirmed", 3, 3), ("", 3, 3), ("killed", 0, -11)]
)
def test_exit_codes_and_signals_of_the_working_process_are_those_of_the_program(how, code, seen):
    done = python(WATCHED, how, code)
    assert done.returncode == seen and ("before it was done" in done.stderr) == (how == "" and code == 0)
