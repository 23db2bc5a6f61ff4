"""Ensembles under MPI, and what happens to them: kills, signals, bugs of one rank, second writers."""

import contextlib
import dataclasses
import importlib.util
import os
from pathlib import Path
import re
import signal
import subprocess
import sys
import time

from launching import MPIEXEC, TOYS, below, environment, journal_bytes, sobofem, start, wait_for, workers
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")]

SAMPLES = 64
KILLS = int(os.environ.get("SOBOFEM_KILLS", "3"))


# `smooth` and `slow` are one problem, and may finish each other's datasets.
def arguments(path, model="slow", samples=SAMPLES):
    return ("generate", f"{TOYS}:{model}", "--samples", samples, "--seed", 3, "--out", path)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The dataset of an uninterrupted serial run of the same problem."""
    return generate(toys.smooth, Design("sobol", SAMPLES, 3), tmp_path_factory.mktemp("whole") / "a.h5")


def assert_same(a, b):
    for name in ("x", "y", "jacobian", "rows", "design"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_any_number_of_ranks_gives_the_same_dataset(tmp_path, whole, ranks):
    done = sobofem(*arguments(tmp_path / "a.h5", "smooth"), ranks=ranks)
    assert done.returncode == 0, done.stderr
    assert "64 samples, 0 failed" in done.stdout and "64 of 64 samples" in done.stderr
    assert done.stdout.count("samples") == 1
    assert_same(Dataset.open(tmp_path / "a.h5"), whole)
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_kills_at_random_moments_lose_and_double_nothing(tmp_path):
    """`make test-faults` kills a hundred times."""
    path, rng, before, planned = tmp_path / "a.h5", np.random.default_rng(7), 0, 24 * KILLS
    whole = generate(toys.smooth, Design("sobol", planned, 3), tmp_path / "whole.h5")
    for kill in range(KILLS):
        job = start(*arguments(path, samples=planned), ranks=2)
        floor = journal_bytes(path)
        wait_for(lambda floor=floor: journal_bytes(path) != floor)
        time.sleep(rng.uniform(0.0, 0.15))
        complete = len(Dataset.open(path))
        ranks = workers(job, path)
        victims = ranks if kill % 3 == 1 else [rng.choice(ranks)]
        if len(victims) > 1:
            job.kill()
        for rank in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(rank, signal.SIGKILL)
        job.wait(20)
        job.stdout.close()
        job.stderr.close()
        kept = Dataset.open(path)
        assert len(kept) >= complete >= before, f"kill {kill} lost samples"
        before = len(kept)
    time.sleep(0.3)
    last = sobofem(*arguments(path, "smooth", planned), ranks=2)
    assert last.returncode == 0, last.stderr
    assert f"{planned - before} of {planned - before} samples" in last.stderr
    assert_same(Dataset.open(path), whole)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_to_one_rank_stops_all_in_order(tmp_path, whole, number, code):
    path = tmp_path / "a.h5"
    job = start(*arguments(path), ranks=2)
    wait_for(lambda: journal_bytes(path) > 1000)
    os.kill(workers(job, path)[-1], number)
    _, said = job.communicate(timeout=20)
    assert job.returncode == code, said
    missing = SAMPLES - len(Dataset.open(path))
    assert 0 < missing < SAMPLES
    assert f"stopped by {number.name}; repeat the same command to finish the {missing} that are missing" in said
    assert sobofem(*arguments(path, "smooth"), ranks=2).returncode == 0
    assert_same(Dataset.open(path), whole)


def test_a_finite_element_model_stops_on_sigterm_too(tmp_path):
    """PETSc starts collectively, and takes SIGTERM for itself when it does."""
    if importlib.util.find_spec("dolfinx") is None:
        pytest.skip("no dolfinx")
    path = tmp_path / "a.h5"
    line = ("generate", "plate_with_hole", "--seed", 3, "--out", path, "--samples")
    job = start(*line, 256, ranks=2)
    wait_for(lambda: journal_bytes(path) > 4000, seconds=120.0)
    os.kill(workers(job, path)[-1], signal.SIGTERM)
    _, said = job.communicate(timeout=20)
    assert job.returncode == 75, said
    data = Dataset.open(path)
    assert 0 < len(data) < 256 and data.jacobian.shape[1:] == (5, 6)


def test_a_serial_run_stops_on_sigterm_too(tmp_path, whole):
    path = tmp_path / "a.h5"
    job = start(*arguments(path))
    wait_for(lambda: journal_bytes(path) > 1000)
    job.terminate()
    _, said = job.communicate(timeout=20)
    assert job.returncode == 75 and "repeat the same command" in said
    assert sobofem(*arguments(path, "smooth")).returncode == 0
    assert_same(Dataset.open(path), whole)


@pytest.mark.parametrize(
    ("model", "message", "together"),
    [
        ("lone_bug", "ZeroDivisionError: a bug of rank one", 1),
        ("lone_bug", "ZeroDivisionError: a bug of rank one", 2),
        ("lone_exit", "called sys.exit('a bug of rank one')", 2),
        ("lone_c_bug", "called os._exit(0)", 1),
    ],
)
def test_an_error_on_one_rank_is_a_failure_of_its_sample(tmp_path, model, message, together):
    done = sobofem(*arguments(tmp_path / "a.h5", model), "--ranks-per-solve", together, ranks=2)
    assert done.returncode == 0 and done.stderr.count(" failed: ") == 1, done.stderr
    data = Dataset.open(tmp_path / "a.h5")
    (failure,) = data.failures
    assert message in failure.reason and len(data) == SAMPLES - 1
    assert "most frequent cause of failure (1 of 1): " in done.stdout


def test_ctrl_c_on_one_rank_alone_ends_the_job(tmp_path):
    done = sobofem(*arguments(tmp_path / "a.h5", "lone_interrupt", 400), ranks=2, timeout=30)
    assert done.returncode == 130 and len(Dataset.open(tmp_path / "a.h5")) >= 2


@pytest.mark.parametrize(
    ("model", "ranks", "together", "words"),
    [
        ("deadlocked", 4, 2, "RuntimeError: alone on rank one"),
        ("never_comes", 2, 2, "took longer than the 3 s that a sample may"),
        ("stuck", 2, 1, "took longer than the 3 s that a sample may"),
    ],
)
def test_what_can_not_be_interrupted_is_recorded_and_the_next_start_goes_on(
    tmp_path, whole, model, ranks, together, words
):
    """Ranks that wait for each other for ever, and C code that keeps Python's lock."""
    path = tmp_path / "a.h5"
    line = (*arguments(path, model), "--ranks-per-solve", together, "--sample-timeout", 3)
    first = sobofem(*line, ranks=ranks, timeout=60)
    assert first.returncode == (1 if model == "stuck" else 75), first.stderr
    second = sobofem(*line, ranks=ranks, timeout=60)
    assert second.returncode == 0, second.stderr
    data = Dataset.open(path)
    assert [failure.row for failure in data.failures] == [5] and words in data.failures[0].reason
    np.testing.assert_allclose(data.y, np.delete(whole.y, 5, axis=0), rtol=1e-14)
    assert data.attempts == {}


@pytest.mark.parametrize("command", ["generate", "check"])
def test_a_factory_that_exits_on_one_rank_ends_the_job(tmp_path, command):
    line = arguments(tmp_path / "a.h5", "exits_on_one_rank")
    done = sobofem(*(line if command == "generate" else ("check", line[1])), ranks=2, timeout=30)
    assert done.returncode == 2 and "called sys.exit('no licence on rank one')" in done.stderr


def test_a_script_of_ones_own_ends_too_when_one_rank_raises(tmp_path):
    script = "import sys; sys.path.append(sys.argv[1]); from sobofem import coupling; import toys\n"
    script += "coupling.generate(toys.lone_interrupt, coupling.Design('sobol', 400, 3), sys.argv[2])"
    line = [MPIEXEC, "-n", "2", sys.executable, "-c", script, str(TOYS.parent), str(tmp_path / "a.h5")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=30, env=environment(), check=False)
    assert done.returncode == 130
    assert "rank 1 of 2: Traceback" in done.stderr and "KeyboardInterrupt: a bug of rank one" in done.stderr


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (("info", "nofile.h5"), "error: there is no file nofile.h5"),
        (("train", "nofile.h5", "--out", "none/a"), "error: there is no folder none"),
        (("check", f"{TOYS}:lame"), "error: ValueError: every rank says no"),
        (("generate", "no_such_module:model", "--out", "a.h5"), "error: there is no module 'no_such_module'"),
        (
            ("generate", "imports_nothing.py:model", "--out", "a.h5"),
            "imports_nothing.py, line 1: No module named 'no_such_package'",
        ),
    ],
)
def test_what_all_ranks_fail_in_alike_is_said_once_in_order(tmp_path, monkeypatch, line, message):
    (tmp_path / "imports_nothing.py").write_text("import no_such_package\n")
    monkeypatch.chdir(tmp_path)
    done = sobofem(*line, ranks=2, timeout=60)
    assert done.returncode == 2, done.stderr
    assert done.stderr.count(message) == 1 and len(done.stderr.splitlines()) == 1
    assert "TERMINATION" not in done.stdout


def test_what_every_rank_must_know_is_said_once(tmp_path):
    generate(toys.smooth, Design("sobol", 8, 3), tmp_path / "a.h5")
    done = sobofem(*arguments(tmp_path / "a.h5", "fragile", 8), ranks=2)
    assert done.returncode == 2
    assert done.stderr.count("was smooth-1, now fragile-1") == 1
    assert "Traceback" not in done.stderr and "TERMINATION" not in done.stderr + done.stdout


def test_jobs_on_one_dataset_share_it(tmp_path):
    path, whole = tmp_path / "a.h5", generate(toys.smooth, Design("sobol", 300, 3), tmp_path / "whole.h5")
    jobs = [start(*arguments(path, samples=300), ranks=ranks) for ranks in (0, 2)]
    wait_for(lambda: journal_bytes(path) > 10_000)
    running = sobofem("info", path)
    assert running.returncode == 0 and "missing" in running.stdout
    said = [job.communicate(timeout=60)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0, 0], said
    assert_same(Dataset.open(path), whole)
    done = [int(re.findall(r"(\d+) of \d+ samples", text)[-1]) for text in said]
    assert sum(done) == 300 and min(done) > 0, "one did all, or both did the same"
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "whole.h5"]


def test_what_a_killed_job_had_claimed_is_done_by_another(tmp_path):
    """The first job is not done before the second begins, however long that takes to start."""
    path, whole = tmp_path / "a.h5", generate(toys.smooth, Design("sobol", 100, 3), tmp_path / "whole.h5")
    killed = start(*arguments(path, "waits", samples=100))
    wait_for(lambda: journal_bytes(path) > 1000)
    second = start(*arguments(path, samples=100))
    wait_for(lambda: len(list(path.with_name("a.h5.parts").glob("*.journal"))) == 2)
    killed.kill()
    killed.communicate()
    _, said = second.communicate(timeout=60)
    assert second.returncode == 0, said
    assert_same(Dataset.open(path), whole)


@pytest.mark.parametrize(("ranks", "together"), [(3, 2), (4, 2), (3, 3)])
def test_groups_of_ranks_solve_together(tmp_path, whole, ranks, together):
    """Three ranks in groups of two: one only hands out."""
    path = tmp_path / "a.h5"
    done = sobofem(
        *arguments(path, "of_two" if together == 2 else "of_three"), "--ranks-per-solve", together, ranks=ranks
    )
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(Dataset.open(path).y, whole.y, rtol=1e-14)


def test_ranks_that_make_no_groups_are_refused(tmp_path):
    done = sobofem(*arguments(tmp_path / "a.h5"), "--ranks-per-solve", 2, ranks=1)
    assert done.returncode == 2 and "groups of 2 ranks can't be made of 1; start 2 or 3" in done.stderr


@pytest.mark.parametrize("ranks", [0, 2])
def test_groups_of_no_ranks_are_refused(tmp_path, ranks):
    done = sobofem(*arguments(tmp_path / "a.h5"), "--ranks-per-solve", 0, ranks=ranks)
    assert done.returncode == 2 and "0 ranks a solve were asked for; expected at least one" in done.stderr


def test_a_sample_that_kills_its_process_is_given_up_after_three_deaths(tmp_path, whole):
    path = tmp_path / "a.h5"
    codes = [sobofem(*arguments(path, "deadly"), ranks=2).returncode for _ in range(4)]
    assert codes[3] == 0 and all(codes[:3]), codes
    data = Dataset.open(path)
    (failure,) = data.failures
    assert failure.row == 5 and "its process died 3 times" in failure.reason and data.attempts == {}
    np.testing.assert_array_equal(data.y, np.delete(whole.y, 5, axis=0))
    assert sobofem(*arguments(path, "deadly"), ranks=2).returncode == 0
    assert sobofem(*arguments(path, "deadly"), "--retry-failed").returncode != 0


@pytest.mark.parametrize("ranks", [0, 2])
def test_too_many_failures_stop_early_and_say_where(tmp_path, ranks):
    path = tmp_path / "a.h5"
    line = arguments(path, "fragile", 4096)
    done = sobofem(*line, "--max-failures", 0.2, ranks=ranks)
    assert done.returncode == 3, done.stderr
    assert "they fail where p >" in done.stderr.lower() and "--max-failures" in done.stderr
    data = Dataset.open(path)
    assert 20 <= len(data) + len(data.failures) < 1000
    assert done.stderr.count("Narrow the bounds") == 1


def test_finite_elements_on_groups_of_ranks_agree_with_one_rank(tmp_path):
    if importlib.util.find_spec("dolfinx") is None:
        pytest.skip("no dolfinx")
    line = ("generate", "plate_with_hole", "--samples", 6, "--seed", 3, "--out")
    for name, ranks, more in (("one.h5", 0, ()), ("groups.h5", 3, ("--ranks-per-solve", 2))):
        done = sobofem(*line, tmp_path / name, *more, ranks=ranks, timeout=120)
        assert done.returncode == 0, done.stderr
    one, groups = (Dataset.open(tmp_path / name) for name in ("one.h5", "groups.h5"))
    np.testing.assert_allclose(groups.y, one.y, rtol=1e-8)
    np.testing.assert_allclose(groups.jacobian, one.jacobian, rtol=1e-8, atol=1e-8 * np.abs(one.jacobian).max())


def test_rows_that_wait_for_each_other_are_done_quickly(tmp_path, whole):
    """Two rows with two deaths behind them run one after the other, and the second must not wait for ever."""
    path = tmp_path / "a.h5"
    empty = dataclasses.replace(whole.select(np.zeros(len(whole), dtype=bool)), attempts={3: 2, 5: 2, 9: 1})
    empty.save(path)
    done = sobofem(*arguments(path), ranks=2, timeout=30)
    assert done.returncode == 0, done.stderr
    assert_same(Dataset.open(path), whole)


def test_no_row_is_blamed_for_an_error(tmp_path):
    path = tmp_path / "a.h5"
    for _ in range(2):
        assert sobofem(*arguments(path, "lone_interrupt", 400), ranks=2, timeout=30).returncode == 130
        assert Dataset.open(path).attempts == {} and Dataset.open(path).failures == ()


SCRIPT = """
import sys
sys.path.append(sys.argv[1])
from mpi4py import MPI
from sobofem import coupling
import sobofem.coupling.solving.diagnosis, toys
for k, samples in enumerate((200, 48, 7)):
    try:
        model, design = toys.smooth if k else toys.all_bug, coupling.Design("sobol", samples, 3)
        coupling.generate(model, design, sys.argv[2] + str(k))
    except sobofem.coupling.solving.diagnosis.TooManyFailures:
        assert k == 0
"""


def test_an_ensemble_after_one_that_failed_meets_none_of_its_messages(tmp_path):
    line = [MPIEXEC, "-n", "3", sys.executable, "-c", SCRIPT, str(TOYS.parent), str(tmp_path / "a.h5")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=60, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    assert [len(Dataset.open(tmp_path / f"a.h5{k}")) for k in (1, 2)] == [48, 7]


SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
PLATE = "plate_with_hole"
LONG = {
    "check": ("check", PLATE, "--points", 99),
    "optimize": ("optimize", PLATE, "--minimize", "stress_concentration", "--tolerance", "1e-15", "--solves", 9999),
}


def ended(job, code, words):
    """That a job ends with a code and one line that holds these words."""
    _, said = job.communicate(timeout=40)
    assert job.returncode == code, said
    assert words in said.splitlines()[-1] or ("MPI_Abort" in said.splitlines()[-1] and words in said), said
    assert not [word for word in ("Traceback", "PETSC ERROR", "Caught signal") if word in said], said


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_during_imports_ends_the_program_in_words(number):
    job = start("check", f"{TOYS}:smooth", "--points", 999)
    wait_for(lambda: any("numpy" in Path(f"/proc/{process}/maps").read_text() for process in below(job.pid)))
    os.kill(job.pid, number)
    ended(job, 128 + number, f"stopped by {number.name}")


@pytest.mark.parametrize(
    ("command", "number", "ranks"),
    [
        ("check", signal.SIGTERM, 0),
        ("check", signal.SIGHUP, 0),
        ("check", signal.SIGINT, 2),
        ("optimize", signal.SIGINT, 0),
        ("optimize", signal.SIGTERM, 2),
    ],
)
def test_long_commands_end_in_words_on_a_signal(command, number, ranks):
    if importlib.util.find_spec("dolfinx") is None:
        pytest.skip("no dolfinx")
    job = start(*LONG[command], ranks=ranks)
    assert job.stderr.readline().startswith(("point 1 of 99", "solve 1: "))
    os.kill(job.pid, number)
    ended(job, 128 + number, f"stopped by {number.name}; ")


def test_ctrl_c_twice_ends_with_the_code_of_one(tmp_path):
    job = start(*arguments(tmp_path / "a.h5"))
    wait_for(lambda: journal_bytes(tmp_path / "a.h5") > 1000)
    for _ in range(2):
        os.kill(job.pid, signal.SIGINT)
        time.sleep(0.3)
    ended(job, 130, "stopped by SIGINT")


def test_c_code_that_ends_the_program_is_named_and_counts_as_a_death(tmp_path):
    done = sobofem(*arguments(tmp_path / "a.h5", "stops", 8), ranks=2)
    assert "C or Fortran code of the model ended the program before it was done" in done.stderr
    assert done.returncode != 0 and Dataset.open(tmp_path / "a.h5").attempts[5] == 1
