"""Training while samples arrive, under MPI: to the end, interrupted, killed, steered."""

import csv
import os
from pathlib import Path
import signal

from launching import MPIEXEC, TOYS, journal_bytes, sobofem, start, wait_for, workers
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, describe, generate
from sobofem.coupling.solving.campaign import plan
from sobofem.coupling.solving.settings import Streaming
from sobofem.coupling.solving.stream import StreamTrainer, stream
from sobofem.surrogate import load

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")]
PATIENCE = 150
BRIEF = Path(__file__).with_name("brief.py")


def line(folder, model="slow", samples=48, *more):
    files = ("--data", folder / "a.h5", "--out", folder / "a.safetensors")
    plan = ("--samples", samples, "--seed", 3, "--width", 16, "--depth", 2)
    return ("--use", BRIEF, "stream", f"{TOYS}:{model}", *plan, *files, *more)


def assert_whole(folder, samples):
    """Each planned sample is there once, as `generate` makes it, and was trained on."""
    whole = generate(toys.smooth, Design("sobol", samples, 3), folder / "whole.h5")
    data = Dataset.open(folder / "a.h5")
    np.testing.assert_array_equal(data.rows, whole.rows)
    np.testing.assert_array_equal(data.y, whole.y)
    trained = load(folder / "a.safetensors")
    assert trained.provenance["samples"] == samples
    y, _ = trained.predict(whole.x)
    assert (np.abs(y - whole.y).mean(axis=0) < 0.1 * whole.y.std(axis=0)).all()


def test_samples_are_trained_on_as_they_come_and_written_down(tmp_path):
    done = sobofem(*line(tmp_path), ranks=3, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert "trained on 48 samples" in done.stdout
    assert_whole(tmp_path, 48)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "a.h5", "a.safetensors", "a.safetensors.csv", "whole.h5"
    ]  # fmt: skip
    with (tmp_path / "a.safetensors.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert int(rows[-1]["done"]) == 48 and rows[-1]["stage"] == "finishing"
    steps = [int(row["steps"]) for row in rows]
    assert steps == sorted(steps)


def test_a_small_memory_slows_the_solvers_and_sees_every_sample_though_some_fail(tmp_path):
    """What failed takes no room, for which the trainer would wait."""
    more = ("--capacity", 8, "--watermark", 8, "--max-failures", 1)
    done = sobofem(*line(tmp_path, "fragile", 24, *more), ranks=2, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    data = Dataset.open(tmp_path / "a.h5")
    assert len(data) + len(data.failures) == 24 and len(data.failures) > 0
    assert f"trained on {len(data)} samples" in done.stdout


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_stream_goes_on_where_it_was_stopped(tmp_path, number):
    job = start(*line(tmp_path, "slow", 160), ranks=2)
    wait_for(lambda: journal_bytes(tmp_path / "a.h5") > 4000, seconds=PATIENCE)
    os.kill(workers(job, tmp_path / "a.h5")[-1], number)
    _, said = job.communicate(timeout=60)
    assert job.returncode == (75 if number == signal.SIGTERM else 137) or number == signal.SIGKILL, said
    kept = len(Dataset.open(tmp_path / "a.h5"))
    assert 0 < kept < 160
    assert (tmp_path / "a.safetensors.checkpoint").exists() == (number == signal.SIGTERM)
    again = sobofem(*line(tmp_path, "smooth", 160), ranks=3, timeout=PATIENCE)
    assert again.returncode == 0, again.stderr
    assert_whole(tmp_path, 160)
    assert not (tmp_path / "a.safetensors.checkpoint").exists()


@pytest.mark.parametrize("steer", ["disagreement", "gradient-residual"])
def test_the_trainer_chooses_what_is_solved(tmp_path, steer):
    done = sobofem(*line(tmp_path, "smooth", 24, "--steer", steer), ranks=2, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    data = Dataset.open(tmp_path / "a.h5")
    assert len(data) == 24 and len(data.design) == 8 * 24
    assert data.rows.max() >= 24, "the order of the design was followed"
    assert load(tmp_path / "a.safetensors").provenance["samples"] == 24


def test_too_many_failures_stop_it(tmp_path):
    many = sobofem(*line(tmp_path, "fragile", 256, "--max-failures", 0.1), ranks=2, timeout=PATIENCE)
    assert many.returncode == 3 and "Narrow the bounds" in many.stderr


def test_a_checkpoint_of_another_problem_is_refused(tmp_path):
    job = start(*line(tmp_path, "slow", 160), ranks=2)
    wait_for(lambda: journal_bytes(tmp_path / "a.h5") > 2000, seconds=PATIENCE)
    os.kill(workers(job, tmp_path / "a.h5")[0], signal.SIGTERM)
    job.communicate(timeout=60)
    before = (tmp_path / "a.h5").read_bytes()
    other = ("--design", "halton", "--data", tmp_path / "b.h5")
    done = sobofem(*line(tmp_path, "slow", 160, *other), ranks=2, timeout=PATIENCE)
    assert done.returncode == 2 and "design was sobol, now halton" in done.stderr
    assert (tmp_path / "a.h5").read_bytes() == before and not (tmp_path / "b.h5").exists()
    for width, model, message in (
        (9, toys.smooth, r"other settings \(network\)"),
        (16, toys.fragile, "digest was smooth-1, now fragile-1"),
    ):
        online = Streaming(samples=160, seed=3, width=width, depth=2).online()
        planned = plan(Design("sobol", 160, 3), describe(model), order=1, model="toys")
        with pytest.raises(ValueError, match=message):
            StreamTrainer(tmp_path / "a.safetensors", online, "", 160, None).check(planned)


def test_a_device_that_is_not_there_is_named(tmp_path):
    done = sobofem(*line(tmp_path, "smooth", 16, "--device", "cuda:77"), ranks=2, timeout=PATIENCE)
    assert done.returncode == 2 and "device 'cuda:77' can't be used here" in done.stderr, done.stderr
    assert not (tmp_path / "a.h5").exists()


def test_one_rank_alone_is_refused(tmp_path):
    done = sobofem(*line(tmp_path))
    assert done.returncode == 2 and "two ranks at least" in done.stderr
    with pytest.raises(ValueError, match="two ranks at least"):
        stream(toys.smooth, Design("sobol", 8, 3), tmp_path / "a.h5", tmp_path / "a.safetensors")


def test_the_last_stage_of_training_stops_on_sigterm_too(tmp_path):
    job = start(*line(tmp_path, "smooth", 64)[2:], ranks=2)  # the whole of that stage, so that there is time for it
    log = tmp_path / "a.safetensors.csv"
    wait_for(lambda: log.exists() and "finishing" in log.read_text(), seconds=PATIENCE)
    os.kill(workers(job, tmp_path / "a.h5")[0], signal.SIGTERM)
    _, said = job.communicate(timeout=20)
    assert job.returncode == 75, said
    assert (tmp_path / "a.safetensors.checkpoint").exists() and not (tmp_path / "a.safetensors").exists()
    assert sobofem(*line(tmp_path, "smooth", 64), ranks=2, timeout=PATIENCE).returncode == 0
    assert_whole(tmp_path, 64)
