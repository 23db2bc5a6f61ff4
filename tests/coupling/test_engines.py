"""Ensembles on executors: pools of processes, Dask, `mpi4py.futures`; what survives as under MPI."""

from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from functools import partial
import multiprocessing
from pathlib import Path
import re
import signal
import subprocess
import sys
import threading
import time
import warnings

import engine_models
from launching import MPIEXEC, TOYS, environment
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, Interrupted, generate
from sobofem.coupling.solving import engines
from sobofem.coupling.solving.diagnosis import TooManyFailures
from sobofem.coupling.solving.engines import WorkerDied

DESIGN, NINTH = Design("sobol", 24, 1), 9
MODELS = engine_models.__file__
CLEAN = multiprocessing.get_context("forkserver")  # from a process in which nothing has started
CLEAN.set_forkserver_preload(["sobofem.coupling.solving.engine_worker"])


@pytest.fixture(scope="module")
def pool():
    """Two workers, which tests leave alive."""
    with ProcessPoolExecutor(2, mp_context=CLEAN) as executor:
        yield executor


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The samples as one process computes them."""
    return generate(f"{TOYS}:smooth", DESIGN, tmp_path_factory.mktemp("alone") / "a.h5")


def assert_same(data, other):
    np.testing.assert_array_equal(data.rows, other.rows)
    for name in ("x", "y", "jacobian", "design"):
        np.testing.assert_array_equal(getattr(data, name), getattr(other, name))
    assert data.description.digest == other.description.digest


class Here:
    """An executor in this process that computes at once, and whose workers die as a test wants it."""

    def __init__(self, workers=2, dies=lambda row: None):
        self.num_workers, self.dies, self.most, self.open = workers, dies, 0, []

    def submit(self, function, *arguments):
        self.open = [future for future in self.open if not future.done()]
        future = Future()
        self.open.append(future)
        self.most = max(self.most, len(self.open))
        threading.Timer(0.002, self._run, (future, function, arguments)).start()
        return future

    def _run(self, future, function, arguments):
        if not future.set_running_or_notify_cancel():
            return
        error = self.dies(arguments[1].row) if len(arguments) > 1 else None
        if error is not None:
            future.set_exception(error)
        else:
            try:
                future.set_result(function(*arguments))
            except Exception as raised:
                future.set_exception(raised)


def test_a_pool_computes_what_one_process_does(pool, alone, tmp_path):
    counts = []
    data = generate(
        f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=pool, progress=lambda p: counts.append(p.done)
    )
    assert_same(data, alone)
    assert_same(Dataset.open(tmp_path / "a.h5"), alone)
    assert counts[-1] == 24 and list(tmp_path.iterdir()) == [tmp_path / "a.h5"]


def test_each_worker_makes_the_model_once(pool, tmp_path):
    generate(partial(engine_models.Counted, tmp_path / "notes"), DESIGN, tmp_path / "a.h5", executor=pool)
    made = (tmp_path / "notes").read_text().split()
    assert 1 <= len(made) <= 2 and len(set(made)) == len(made)


def test_failures_keep_their_reasons_and_all_goes_on(pool, tmp_path):
    data = generate(f"{TOYS}:fragile", DESIGN, tmp_path / "a.h5", executor=pool)
    assert len(data) + len(data.failures) == 24 and (data.x[:, 2] <= 2.0).all()
    assert all("buckled at p" in failure.reason and failure.load_factor < 1.0 for failure in data.failures)
    with pytest.raises(TooManyFailures):
        generate(f"{TOYS}:fragile", Design("sobol", 32, 1), tmp_path / "b.h5", executor=pool, max_failures=0.1)


def test_a_longer_design_asks_for_the_new_rows_alone(pool, alone, tmp_path):
    asked = Here()
    generate(f"{TOYS}:smooth", Design("sobol", 8, 1), tmp_path / "a.h5", executor=pool)
    rows = []
    asked.dies = rows.append
    assert_same(generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=asked), alone)
    assert sorted(rows) == [*range(8, 24)]


def test_few_samples_are_under_way_at_once(tmp_path):
    executor = Here(workers=3)
    generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=executor)
    assert executor.most <= 6
    executor = Here(workers=3)
    generate(f"{TOYS}:smooth", DESIGN, tmp_path / "b.h5", executor=executor, in_flight=1)
    assert executor.most == 1


@pytest.mark.slow
def test_a_worker_that_dies_is_named_and_nothing_finished_is_lost(tmp_path):
    with ProcessPoolExecutor(2, mp_context=CLEAN) as executor, pytest.raises(WorkerDied, match=rf"\b{NINTH}\b"):
        generate(f"{MODELS}:Deadly", DESIGN, tmp_path / "a.h5", executor=executor)
    assert len(Dataset.open(tmp_path / "a.h5")) >= NINTH - 2
    rows = []

    def dies(row):
        rows.append(row)
        return BrokenExecutor("of a test") if row == NINTH else None

    for alone in (False, True):
        with pytest.raises(WorkerDied, match=rf"\b{NINTH}\b"):
            generate(f"{MODELS}:Deadly", DESIGN, tmp_path / "a.h5", executor=Here(1 + alone, dies))
        assert NINTH in rows[-4:]  # among the last, with what was under way beside it
    data = generate(f"{MODELS}:Deadly", DESIGN, tmp_path / "a.h5", executor=Here())
    (failure,) = data.failures
    assert failure.row == NINTH and "died 3 times" in failure.reason and len(data) == 23


@pytest.mark.parametrize("late", [None, 0.3])
def test_an_answer_that_an_executor_loses_is_asked_for_once_more(late, alone, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_SILENCE", 0.05)
    asked = []

    class Losing(Here):
        def _run(self, future, function, arguments):
            asked.append(arguments[1].row if len(arguments) > 1 else None)
            if asked.count(NINTH) != 1 or asked[-1] != NINTH:
                super()._run(future, function, arguments)
            elif late is not None:
                threading.Timer(late, super()._run, (future, function, arguments)).start()

    assert_same(generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=Losing()), alone)
    assert asked.count(NINTH) == 2 and sorted(set(asked[1:])) == [*range(24)]


def test_an_answer_that_is_lost_again_after_its_worker_died_is_asked_for_again(alone, tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_SILENCE", 0.05)
    asked = []

    class Losing(Here):
        def _run(self, future, function, arguments):
            asked.append(arguments[1].row if len(arguments) > 1 else None)
            if asked[-1] == NINTH and asked.count(NINTH) == 2:
                future.set_exception(RuntimeError("a node was lost"))
            elif asked[-1] != NINTH or asked.count(NINTH) > 3:  # the first and third are lost
                super()._run(future, function, arguments)

    with pytest.warns(RuntimeWarning, match="is computed again"):
        assert_same(generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=Losing()), alone)
    assert asked.count(NINTH) == 4


def test_a_row_that_is_given_out_twice_before_it_begins_is_blamed_for_its_workers_death(tmp_path, monkeypatch):
    monkeypatch.setattr(engines, "_SILENCE", 0.2)
    first = threading.Event()

    class OneWorker(Here):
        """Its first sample takes long, and the second kills it."""

        def _run(self, future, function, arguments):
            row = arguments[1].row if len(arguments) > 1 else None
            if row == 0:
                time.sleep(0.8)
            if row == 1:
                first.wait()
                time.sleep(0.5)  # by then the first one's answer is known
                if future.set_running_or_notify_cancel():
                    future.set_exception(BrokenExecutor("killed"))
                return
            super()._run(future, function, arguments)
            if row == 0:
                first.set()

    with pytest.raises(WorkerDied):
        generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=OneWorker(workers=1), in_flight=2)
    assert Dataset.open(tmp_path / "a.h5").attempts == {1: 1}


def test_a_row_whose_workers_die_while_others_live_is_tried_again_at_the_end(tmp_path, alone):
    dead = []

    def dies(row):
        if row in (3, 5) and (row == 5 or dead.count(row) < 2):
            dead.append(row)
            return RuntimeError("a node was lost")
        return None

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        data = generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=Here(dies=dies))
    assert sorted(dead) == [3, 3, 5, 5, 5]
    assert sum("is computed again" in str(warning.message) for warning in said) == 4
    (failure,) = data.failures
    assert failure.row == 5 and "a node was lost" in failure.reason
    assert len(data) == 23


def test_a_signal_ends_it_in_order_and_the_same_call_goes_on(tmp_path, alone):
    executor = Here(dies=lambda row: signal.raise_signal(signal.SIGINT) if row == 12 else None)
    with pytest.raises(Interrupted) as stopped:
        generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=executor)
    assert stopped.value.signal == signal.SIGINT
    assert 12 <= len(Dataset.open(tmp_path / "a.h5")) < 24
    assert_same(generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=Here()), alone)


def test_a_sample_that_hangs_is_a_failure_after_its_time(tmp_path, pool):
    data = generate(f"{MODELS}:Sleepy", DESIGN, tmp_path / "a.h5", executor=pool, sample_timeout=0.3)
    (failure,) = data.failures
    assert failure.row == NINTH and "took longer" in failure.reason


def test_a_model_that_can_t_be_made_says_why(pool, tmp_path):
    with pytest.raises(ValueError, match="every rank says no"):
        generate(f"{TOYS}:lame", DESIGN, tmp_path / "a.h5", executor=pool)
    with pytest.raises(ValueError, match="has no 'x'"):
        generate(f"{TOYS}:x", DESIGN, tmp_path / "a.h5", executor=pool)


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (toys.smooth, {}, "each worker makes its own"),
        (f"{TOYS}:smooth", {"ranks_per_solve": 2}, "mpiexec"),
        (f"{TOYS}:smooth", {"in_flight": 0}, "at least one"),
        (lambda: toys.smooth, {}, "top of a module"),
    ],
)
def test_what_no_worker_could_do_is_refused(pool, tmp_path, model, options, message):
    with pytest.raises((ValueError, TypeError), match=message):
        generate(model, DESIGN, tmp_path / "a.h5", executor=pool, **options)


def test_forked_workers_are_refused_once_mpi_has_started(tmp_path):
    from mpi4py import MPI

    assert MPI.Is_initialized()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("fork")) as executor:
        with pytest.raises(ValueError, match="spawn"):
            generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=executor)


@pytest.fixture
def dask():
    """Dask's `distributed`, whose clusters leave connections to the garbage collector."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield pytest.importorskip("distributed")


@pytest.mark.slow
def test_dask_computes_what_one_process_does(dask, alone, tmp_path):
    with (
        dask.LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        dask.Client(cluster) as client,
    ):
        data = generate(f"{TOYS}:smooth", DESIGN, tmp_path / "a.h5", executor=client.get_executor())
    assert_same(data, alone)


@pytest.mark.slow
def test_dask_gives_a_row_up_that_kills_its_workers_and_the_rest_is_computed(dask, tmp_path):
    import dask as settings

    with (
        settings.config.set({"distributed.scheduler.allowed-failures": 0}),
        dask.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        dask.Client(cluster) as client,
    ):
        data = generate(f"{MODELS}:Deadly", DESIGN, tmp_path / "a.h5", executor=client.get_executor())
    (failure,) = data.failures
    assert failure.row == NINTH and "KilledWorker" in failure.reason and len(data) == 23


FUTURES = """
import sys
from mpi4py.futures import MPIPoolExecutor
from sobofem.coupling import Design, generate

if __name__ == "__main__":
    with MPIPoolExecutor() as executor:
        generate(sys.argv[1], Design("sobol", int(sys.argv[2]), 1), sys.argv[3], executor=executor)
"""


def futures(folder, *arguments, ranks=3):
    """Run an ensemble by `mpi4py.futures` on some ranks, of which one hands out the work."""
    (folder / "program.py").write_text(FUTURES)
    line = [MPIEXEC, "-n", str(ranks), sys.executable, "-m", "mpi4py.futures", str(folder / "program.py")]
    return subprocess.run(
        [*line, *map(str, arguments)], env=environment(), capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.slow
def test_mpi_futures_compute_what_one_process_does(alone, tmp_path):
    done = futures(tmp_path, f"{TOYS}:factory", 24, tmp_path / "a.h5")
    assert done.returncode == 0, done.stdout + done.stderr
    data = Dataset.open(tmp_path / "a.h5")
    np.testing.assert_array_equal(data.jacobian, alone.jacobian)
    assert data.description.digest == "factory-1"  # each worker solves by itself


@pytest.mark.slow
def test_mpi_futures_solve_finite_elements_one_worker_each(tmp_path):
    done = futures(tmp_path, "shallow_arch", 4, tmp_path / "a.h5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(Dataset.open(tmp_path / "a.h5")) == 4


PAGE = re.findall(r"```python\n(.*?)```", (Path(__file__).parents[2] / "docs" / "engines.md").read_text(), re.DOTALL)


@pytest.mark.slow
@pytest.mark.parametrize("text", PAGE)
def test_snippets_of_the_page_run_as_files(tmp_path, text):
    (tmp_path / "snippet.py").write_text(text)
    line = [sys.executable, "snippet.py"]
    done = subprocess.run(
        line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 samples" in done.stdout or "True" in done.stdout
