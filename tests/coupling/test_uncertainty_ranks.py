"""Solves that correct estimates, shared out over groups of ranks: the same numbers, and nothing is lost."""

import json
import os
from pathlib import Path
import signal
import subprocess
import sys

import asking
from launching import MPIEXEC, TOYS, environment, wait_for, workers
import pytest

PROGRAM = Path(asking.__file__)

pytestmark = pytest.mark.slow


def started(model, folder, *, ranks, per_solve=1):
    """The program in a process group of its own."""
    line = [MPIEXEC, "-n", str(ranks), sys.executable, PROGRAM, f"{TOYS}:{model}", str(per_solve), folder]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(list(map(str, line)), text=True, env=environment(), start_new_session=True, **pipes)


def ended(*arguments, **how):
    """The program's exit code, what it found and counted, and what it complained of."""
    process = started(*arguments, **how)
    output, errors = process.communicate(timeout=60)
    return process.returncode, json.loads(output or "null"), errors


def found(folder):
    return json.loads((folder / "found.json").read_text())


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one rank finds."""
    folder = tmp_path_factory.mktemp("alone")
    code, counts, errors = ended("smooth", folder, ranks=1)
    assert code == 0, errors
    assert 28 <= counts["solves"] == counts["points"] <= 32
    return found(folder), counts["points"]


@pytest.mark.parametrize(("ranks", "per_solve", "model"), [(2, 1, "smooth"), (3, 1, "smooth"), (3, 2, "of_two")])
def test_numbers_are_the_same_on_any_ranks_and_groups(alone, tmp_path, ranks, per_solve, model):
    code, counts, errors = ended(model, tmp_path, ranks=ranks, per_solve=per_solve)
    assert code == 0, errors
    assert found(tmp_path) == alone[0]
    assert counts == {"solves": alone[1], "failed": 0, "points": alone[1]}
    assert len(list((tmp_path / "solves").glob("*.journal"))) == ranks // per_solve


def test_a_rank_that_fails_alone_ends_the_job_and_the_next_one_goes_on(alone, tmp_path):
    code, _, errors = ended("lone_bug", tmp_path, ranks=3)
    assert code != 0 and "a bug of rank one" in errors
    assert not (tmp_path / "found.json").exists()
    code, counts, errors = ended("smooth", tmp_path, ranks=2)
    assert code == 0, errors
    assert counts["solves"] <= alone[1] - 6 and counts["points"] == alone[1]  # each rank had two answers before
    assert found(tmp_path) == alone[0]


def test_a_bug_of_every_rank_is_told_and_ends_all(tmp_path):
    code, _, errors = ended("all_bug", tmp_path, ranks=2)
    assert code != 0 and "ZeroDivisionError: a bug of every rank" in errors


def test_a_mistake_on_rank_0_ends_all_ranks(tmp_path):
    (tmp_path / "found.json").mkdir()  # where the program would write
    code, _, errors = ended("smooth", tmp_path, ranks=2)
    assert code != 0 and "IsADirectoryError" in errors


def test_solves_of_a_killed_job_are_not_lost(alone, tmp_path):
    job = started("slow", tmp_path, ranks=2)
    wait_for(lambda: len(list((tmp_path / "solves").glob("*.journal"))) == 2)
    for rank in workers(job, tmp_path):
        os.kill(rank, signal.SIGKILL)
    job.communicate()
    assert not (tmp_path / "found.json").exists()
    code, counts, errors = ended("smooth", tmp_path, ranks=2)
    assert code == 0, errors
    assert counts["solves"] <= alone[1] - 2 and counts["points"] == alone[1]
    assert found(tmp_path) == alone[0]
