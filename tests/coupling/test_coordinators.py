"""Work that is passed on between rank 0 and the groups; by real messages where that matters."""

import os
from pathlib import Path
import signal
import subprocess
import sys

from launching import MPIEXEC, TOYS, environment, journal_bytes, wait_for
import numpy as np
import pytest

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.parallel.groups import Groups
from sobofem.coupling.solving.handout import Outcome, together
from sobofem.coupling.solving.schedule import Schedule

DESIGN = Design("sobol", 96, seed=3)
needs_mpi = pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")

FORCED = """
import os, sys
from mpi4py import MPI
from sobofem.coupling import Design, generate
from sobofem.coupling.models.loading import load_model
from sobofem.coupling.parallel import groups
from sobofem.coupling.parallel.interruption import Interrupted
groups.MIN_RANKS_WITH_COORDINATORS, groups.SECTOR = 4, 2
path, name, seconds = sys.argv[1:]
model, rows = load_model(name), []
model.seconds = float(seconds)
solve = model.evaluate
model.evaluate = lambda x, jacobian=True: (rows.append(tuple(x)), solve(x, jacobian=jacobian))[1]
comm = MPI.COMM_WORLD
open(f"{path}.{comm.rank}.pid", "w").write(str(os.getpid()))
try:
    data = generate(model, Design("sobol", 96, seed=3), path)
    counts = comm.gather(len(rows))
    if comm.rank == 0:
        print(len(data), len(data.failures), *counts)
except Interrupted as stopped:
    if comm.rank == 0:
        print("stopped", stopped.signal)
"""


class Ranks:
    def __init__(self, rank, size):
        self.rank, self.size = rank, size


def forced(path, name="smooth", seconds=0.0, ranks=6):
    line = [MPIEXEC, "-n", str(ranks), sys.executable, "-c", FORCED, str(path), f"{TOYS}:{name}", str(seconds)]
    return subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(), start_new_session=True
    )


def assert_same(found, expected):
    for name in ("x", "y", "jacobian", "rows", "design", "negative_pivots"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert [(f.row, f.reason) for f in found.failures] == [(f.row, f.reason) for f in expected.failures]


@pytest.mark.parametrize(("size", "count"), [(6, 2), (12, 3), (64_000, 250)])
def test_every_group_has_one_coordinator_and_shares_are_even(size, count):
    coordinators, leaders = range(1, 1 + count), range(1 + count, size)
    everybody = [Groups(Ranks(rank, size), None, -1, leaders, coordinators) for rank in range(min(size, 400))]
    assert everybody[0].inferiors == coordinators and {everybody[k].superior for k in coordinators} == {0}
    shares = [everybody[rank].inferiors for rank in coordinators]
    assert [leader for share in shares for leader in share] == list(leaders)
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for groups in everybody[1 + count :]:
        assert groups.world.rank in everybody[groups.superior].inferiors and groups.inferiors == ()


@pytest.mark.parametrize("N", [1, 100, 3000])
def test_those_who_pass_rows_on_get_each_once_in_shares_that_shrink_to_a_part_of_their_groups(N):
    points, blocks = np.random.default_rng(0).uniform(size=(N, 2)), [np.arange(N)]
    schedule = Schedule(points, 4, lambda least: blocks.pop() if blocks else np.zeros(0, np.int64), width=16)
    shares = []
    while rows := schedule.take():
        shares.append(rows)
    assert sorted(row for share in shares for row in share) == list(range(N)) and schedule.finished
    sizes = [len(share) for share in shares]
    assert sizes == sorted(sizes, reverse=True) and all(size >= 2 for size in sizes[:-1])


def test_a_schedule_that_is_to_get_rows_later_has_not_ended():
    answers = [None, np.array([4, 2]), None, np.zeros(0, np.int64)]
    schedule = Schedule(np.zeros((5, 1)), 1, lambda least: answers.pop(0), ahead=1)
    assert schedule.take() == [] and not schedule.finished
    assert schedule.take() == [4] and schedule.take() == [2] and not schedule.finished
    assert schedule.take() == [] and not schedule.finished
    assert schedule.take() == [] and schedule.finished


def test_outcomes_that_say_nothing_but_that_rows_have_an_answer_travel_as_one():
    failed = Outcome((7,), (0.5,), failed=True, words="buckled")
    plain = [Outcome((row,), (0.1 * row,), failed=False) for row in range(3)]
    assert together([plain[0], failed, *plain[1:]]) == (Outcome((0, 1, 2), (0.0, 0.1, 0.2), failed=False), failed)
    assert together([failed]) == (failed,) and together([]) == ()


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize(("name", "ranks"), [("smooth", 6), ("fragile", 8)])
def test_coordinators_lose_and_double_no_row_and_leave_the_dataset_of_one_rank(tmp_path, name, ranks):
    out, errors = forced(tmp_path / "a.h5", name, ranks=ranks).communicate(timeout=120)
    assert out, errors
    whole = generate(load_model(f"{TOYS}:{name}"), DESIGN, tmp_path / "whole.h5")
    samples, failures, *counts = map(int, out.split()[-2 - ranks :])
    assert samples + failures == 96 == sum(counts)
    coordinators = -(-(ranks - 1) // 3)
    assert not any(counts[: 1 + coordinators]) and all(counts[1 + coordinators :])
    assert_same(Dataset.open(tmp_path / "a.h5"), whole)
    assert [file.name for file in tmp_path.glob("a.h5*") if file.suffix != ".pid"] == ["a.h5"]


@needs_mpi
@pytest.mark.slow
@pytest.mark.parametrize("rank", [1, 5], ids=["coordinator", "group"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_after_the_end_of_any_rank_only_what_is_missing_is_computed(tmp_path, rank, number):
    path = tmp_path / "a.h5"
    job = forced(path, seconds=0.15)  # long enough for a busy machine
    wait_for(lambda: journal_bytes(path) > 4000)
    os.kill(int(Path(f"{path}.{rank}.pid").read_text()), number)
    out, _ = job.communicate(timeout=60)
    assert ("stopped" in out) == (number == signal.SIGTERM)
    kept = len(Dataset.open(path))
    assert 0 < kept < 96
    out, errors = forced(path).communicate(timeout=120)
    assert out, errors
    samples, failures, *counts = map(int, out.split())
    assert (samples, failures, sum(counts)) == (96, 0, 96 - kept)
    assert_same(Dataset.open(path), generate(load_model(f"{TOYS}:smooth"), DESIGN, tmp_path / "whole.h5"))
