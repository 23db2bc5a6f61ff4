"""Job scripts on a real Slurm: `make test-cluster`. Jobs run at once; each test waits for its own."""

import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
import sys
import time

from controller import Controller, missing
import numpy as np
import pytest
from typer.testing import CliRunner

from sobofem.coupling import Dataset
from sobofem.coupling.cli import app

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif("SOBOFEM_CLUSTER" not in os.environ, reason="runs by `make test-cluster`"),
]

BIN = Path(sys.executable).parent
ROOT = Path(__file__).parents[2]
SRUN = "srun --mpi=pmi2 --wait=5"
MPIEXEC = shutil.which("mpiexec", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")
LIMIT = 300  # for a job to hit its time limit, to be requeued and to finish [s]

# What `sobofem jobscript` is given, by name of the job. Slurm looks at the time every 30 s: a limit of a minute strikes
# after 60 to 90 s, the signals of the first two jobs after 30 to 60 s, by when they compute.
LIMITED = {
    "srun": ("slow_at_first", 256, "--ntasks=2", "--time=2", "--grace=60", f"--launcher={SRUN}"),
    "mpiexec": ("slow_at_first", 256, "--ntasks=2", "--time=2", "--grace=60", f"--launcher={MPIEXEC}"),
    "overlong": ("endless_at_first", 8, "--ntasks=2", "--time=1", "--grace=5", f"--launcher={SRUN}"),
}
OTHERS = {
    "array": ("steady", 128, "--ntasks=2", "--array=3", f"--launcher={SRUN}"),
    "mistake": ("no_such_model", 8, "--ntasks=2", f"--launcher={SRUN}"),
    "deadly": ("deadly", 8, "--ntasks=2", "--max-requeues=1", f"--launcher={SRUN}"),
    "cancelled": ("endless", 8, "--ntasks=2", f"--launcher={SRUN}"),
}


@dataclass(frozen=True)
class Submitted:
    """A job in its own folder."""

    cluster: Controller
    number: str
    folder: Path

    def ended(self, seconds=LIMIT):
        return self.cluster.ended(self.number, seconds=seconds)

    @property
    def log(self):
        return "\n".join(file.read_text() for file in sorted(self.folder.glob("*.log")))

    @property
    def dataset(self):
        return Dataset.open(self.folder / "bowl.h5")

    def seen(self):
        """What the model's processes noted: (job, restarts) and (folder of compiled forms, its presence, threads)."""
        files = self.folder.glob("seen-*")
        return {(tuple(file.name.split("-")[1:3]), tuple(file.read_text().split())) for file in files}

    def wait_until_it_computes(self):
        end = time.monotonic() + 60
        while not self.seen():
            assert time.monotonic() < end, self.log
            time.sleep(0.5)


@pytest.fixture(scope="module")
def cluster():
    if missing():
        pytest.fail(f"there is no {', '.join(missing())}: apt-get install slurm-wlm munge")
    with Controller() as running:
        yield running


@pytest.fixture(scope="module")
def jobs(cluster, tmp_path_factory):
    """All jobs; those whose time is limited first, and one after the other until they compute."""
    started = {}
    for name, command in (LIMITED | OTHERS).items():
        started[name] = submitted(cluster, tmp_path_factory.mktemp(name), *command)
        if name in LIMITED:
            started[name].wait_until_it_computes()
    return started


def submitted(cluster, folder, model, samples, *options):
    """Write a script with `sobofem jobscript` and submit it."""
    shutil.copy(Path(__file__).with_name("workload.py"), folder)
    (folder / "local").mkdir()
    setup = f"export PATH={BIN}:$PATH PYTHONPATH={ROOT} TMPDIR={folder}/local"
    line = ("jobscript", f"workload.py:{model}", "--out=bowl.h5", "--script=job.sh", f"--setup={setup}", *options)
    with contextlib.chdir(folder):
        done = CliRunner().invoke(app, [*line, "--", f"--samples={samples}"])
    assert done.exit_code == 0, done.output
    return Submitted(cluster, cluster.submit(folder / "job.sh"), folder)


def assert_complete(job, samples):
    """Every row once, and nothing left beside the dataset or in the folder for compiled forms."""
    data = job.dataset
    np.testing.assert_array_equal(data.rows, np.arange(samples), err_msg=job.log)
    np.testing.assert_allclose(data.y[:, 0], (data.x**2).sum(axis=1))
    assert not list(job.folder.glob("bowl.h5.*")), job.log
    assert not list((job.folder / "local").iterdir())


@pytest.mark.parametrize("launcher", ["srun", "mpiexec"])
def test_the_time_limit_strikes_and_the_job_requeues_itself_and_finishes(jobs, launcher):
    job = jobs[launcher]
    (end,) = job.ended()
    assert (end["JobState"], end["ExitCode"]) == ("COMPLETED", "0:0") and int(end["Restarts"]) >= 1, job.log
    assert "stopped by SIGTERM" in job.log and "requeued, asked to stop before the time limit" in job.log
    assert " from before" in job.log, "the second run began anew"
    assert_complete(job, 256)


def test_a_sample_longer_than_the_grace_costs_itself_alone(jobs):
    job = jobs["overlong"]
    (end,) = job.ended()
    assert end["JobState"] == "COMPLETED" and int(end["Restarts"]) >= 1, job.log
    assert "requeued, a sample took longer than the grace" in job.log
    assert_complete(job, 8)


def test_an_array_shares_one_dataset_and_no_cache(jobs):
    job = jobs["array"]
    tasks = job.ended()
    assert [(task["JobState"], task["Restarts"]) for task in tasks] == [("COMPLETED", "0")] * 3, job.log
    assert_complete(job, 128)
    folders = {number: about for number, about in job.seen()}
    assert len(folders) == len(job.seen()) == 3, "every task was to have its share, and one cache"
    assert len({folder for folder, _, _ in folders.values()}) == 3
    assert all((there, threads) == ("True", "1") for _, there, threads in folders.values())


def test_a_mistake_of_the_user_is_not_requeued(jobs):
    (end,) = jobs["mistake"].ended()
    assert (end["JobState"], end["Restarts"], end["ExitCode"]) == ("FAILED", "0", "2:0")
    assert "no_such_model" in jobs["mistake"].log


def test_crashes_without_a_new_sample_are_not_repeated_for_ever(jobs):
    job = jobs["deadly"]
    (end,) = job.ended()
    assert (end["JobState"], end["Restarts"], end["ExitCode"]) == ("FAILED", "2", "1:0"), job.log
    assert job.log.count("requeued, killed (exit code 137") == 2
    assert "no new sample in 2 runs" in job.log


def test_a_cancelled_job_stays_cancelled(jobs):
    job = jobs["cancelled"]
    job.wait_until_it_computes()
    job.cluster.run("scancel", job.number)
    (end,) = job.ended()
    assert (end["JobState"], end["Restarts"]) == ("CANCELLED", "0"), job.log
