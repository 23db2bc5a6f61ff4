"""What a job does when its files are removed, replaced or refused under it, or when locks do not hold between nodes."""

import contextlib
import errno
import os
import shutil
import threading
import time

from launching import MPIEXEC, TOYS, journal_bytes, sobofem, start, wait_for
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.dataset import journal, presence, store, unfinished
from sobofem.coupling.solving import jobs

DESIGN = Design("sobol", 24, 3)


class Meddled(toys.Smooth):
    """Something happens in its tenth sample."""

    def __init__(self, happens=lambda: None):
        super().__init__()
        self.happens, self.count = happens, 0

    def evaluate(self, x, *, jacobian=True):
        self.count += 1
        if self.count == 10:
            self.happens()
        return super().evaluate(x, jacobian=jacobian)


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(jobs, "_INTERVAL", 0.0)
    return tmp_path / "a.h5"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return generate(toys.smooth, DESIGN, tmp_path_factory.mktemp("whole") / "a.h5")


def assert_finished(path, whole, kept):
    """The same call computes what is missing, and no more."""
    model = Meddled()
    data = generate(model, DESIGN, path)
    assert model.count == len(DESIGN.points(whole.bounds)) - kept
    for name in ("x", "y", "jacobian", "rows", "design"):
        np.testing.assert_array_equal(getattr(data, name), getattr(whole, name))
    assert path.parent / "a.h5.parts" not in path.parent.iterdir()


def removed(path):
    """At one moment for a job at work, which may add a file to a folder that is being emptied."""
    moved(path)
    shutil.rmtree(path.with_name("elsewhere"))


def moved(path):
    unfinished.folder(path).rename(path.with_name("elsewhere"))


def replaced(path):
    """As by a job that was started after somebody removed the folder."""
    moved(path)
    unfinished.folder(path).mkdir()
    for file in path.with_name("elsewhere").iterdir():
        (unfinished.folder(path) / file.name).touch()


def copied(path):
    """As onto another disk."""
    shutil.copytree(unfinished.folder(path), path.with_name("elsewhere"))
    shutil.rmtree(unfinished.folder(path))
    unfinished.folder(path).symlink_to(path.with_name("elsewhere"))


@pytest.mark.parametrize("meddle", [removed, moved, replaced])
def test_a_job_whose_folder_vanishes_stops_and_loses_nothing(path, whole, meddle):
    model = Meddled(lambda: meddle(path))
    with pytest.raises(OSError, match=r"a\.h5\.parts was removed, moved or replaced .* kept in .*a\.h5\.parts"):
        generate(model, DESIGN, path)
    assert model.count == len(Dataset.open(path)) == 10
    assert_finished(path, whole, 10)


def test_a_folder_that_was_copied_elsewhere_keeps_the_samples_of_both(path):
    with pytest.raises(OSError, match="removed, moved or replaced"):
        generate(Meddled(lambda: copied(path)), DESIGN, path)
    assert len(Dataset.open(path)) == 10


def test_a_file_in_place_of_the_folder_costs_no_sample(path, whole):
    def meddle():
        removed(path)
        unfinished.folder(path).touch()

    with pytest.warns(RuntimeWarning, match=r"samples are kept in .*parts\.kept"), pytest.raises(OSError):
        generate(Meddled(meddle), DESIGN, path)
    unfinished.folder(path).unlink()
    path.with_name("a.h5.parts.kept").rename(unfinished.folder(path))
    assert_finished(path, whole, 10)


def test_a_dataset_that_vanishes_is_made_again_from_what_the_job_kept(path, whole):
    with pytest.raises(OSError, match=r"a\.h5 was removed, moved or replaced"):
        generate(Meddled(path.unlink), DESIGN, path)
    assert not path.exists()
    assert_finished(path, whole, 10)


def test_a_dataset_that_is_replaced_by_another_one_is_left_alone(path, whole, tmp_path):
    generate(toys.fragile, DESIGN, tmp_path / "other.h5")
    content = (tmp_path / "other.h5").read_bytes()
    mine = tmp_path / "mine.h5"

    def meddle():
        path.rename(mine)
        path.write_bytes(content)

    with pytest.raises(ValueError, match=r"belongs to another problem definition.* put the dataset back"):
        generate(Meddled(meddle), DESIGN, path)
    assert path.read_bytes() == content
    mine.replace(path)
    assert_finished(path, whole, 24)


def test_a_whole_folder_that_is_moved_takes_its_samples_along(tmp_path, whole, monkeypatch):
    monkeypatch.setattr(jobs, "_INTERVAL", 0.0)
    (tmp_path / "run").mkdir()
    path, after = tmp_path / "run" / "a.h5", tmp_path / "moved" / "a.h5"
    with pytest.raises(OSError, match="or where these were moved to"):
        generate(Meddled(lambda: path.parent.rename(after.parent)), DESIGN, path)
    assert len(Dataset.open(after)) == 10
    assert_finished(after, whole, 10)


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.ESTALE, errno.ENOSPC])
def test_a_folder_that_refuses_further_claims_stops_the_job_in_order(path, whole, monkeypatch, code):
    model = Meddled(lambda: monkeypatch.setattr(jobs, "locked", refuse))
    monkeypatch.setattr("sobofem.coupling.solving.schedule.AHEAD", 1)

    def refuse(path):
        raise OSError(code, os.strerror(code), str(path))

    with pytest.raises(OSError, match=os.strerror(code)):
        generate(model, DESIGN, path)
    monkeypatch.undo()
    kept = len(Dataset.open(path))
    assert kept == model.count >= 10
    assert_finished(path, whole, kept)


@pytest.mark.parametrize(("function", "code"), [("write", errno.EDQUOT), ("fsync", errno.EDQUOT), ("fsync", errno.EIO)])
def test_a_journal_that_the_disk_refuses_ends_the_job_in_a_sentence(path, whole, monkeypatch, function, code):
    def refuse(*arguments):
        raise OSError(code, os.strerror(code))

    later = time.monotonic() + 1e6

    def meddle():
        monkeypatch.setattr(journal.time, "monotonic", lambda: later)
        monkeypatch.setattr(journal.os, function, refuse)

    with pytest.raises(
        OSError, match=rf"{os.strerror(code)}: could not append to the journal.*repeat the same command"
    ):
        generate(Meddled(meddle), DESIGN, path)
    monkeypatch.undo()
    kept = len(Dataset.open(path))
    assert kept == {"write": 9, "fsync": 10}[function]
    assert_finished(path, whole, kept)


def test_a_full_disk_at_the_end_keeps_the_journals(path, whole, monkeypatch):
    def refuse(*names):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(OSError, match=r"could not write .*a\.h5, which is as it was before: .*No space left"):
        generate(Meddled(lambda: monkeypatch.setattr(store.os, "replace", refuse)), DESIGN, path)
    monkeypatch.undo()
    assert [file for file in path.parent.iterdir() if file.suffix == ".tmp"] == []
    assert_finished(path, whole, 24)


def test_a_stale_journal_is_said_and_what_comes_after_is_kept(path, whole, monkeypatch):
    """The server of a network file system removed it: its records can't be read from the open file either."""

    def stale(*arguments):
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    def meddle():
        removed(path)
        monkeypatch.setattr(journal.os, "pread", stale)

    with (
        pytest.warns(RuntimeWarning, match=r"was removed, and \d+ bytes of records with it"),
        pytest.raises(OSError, match="removed, moved or replaced"),
    ):
        generate(Meddled(meddle), DESIGN, path)
    monkeypatch.undo()
    assert len(Dataset.open(path)) == 1
    assert_finished(path, whole, 1)


@contextlib.contextmanager
def elsewhere(path, run=1):
    """A job on another machine whose lock is not seen from here, though it lives."""
    unfinished.folder(path).mkdir(exist_ok=True)
    file = unfinished.folder(path) / f"run-{run:06d}.lock"
    file.write_text("process 7 on node9\nanother machine\ntoken\n")
    stop = threading.Event()

    def renew():
        while not stop.wait(0.05):
            with contextlib.suppress(FileNotFoundError):
                os.utime(file)

    renewing = threading.Thread(target=renew)
    renewing.start()
    try:
        yield file
    finally:
        stop.set()
        renewing.join()


def test_a_job_elsewhere_whose_lock_is_not_seen_is_not_disturbed(path):
    with elsewhere(path) as file:
        assert jobs.living(path) == {1}
        with pytest.raises(BlockingIOError, match=r"process 7 on node9 is at work on .*keeps locks to one machine"):
            generate(toys.smooth, DESIGN, path)
        assert file.exists() and not path.exists()


def test_a_job_that_meets_one_elsewhere_stops_and_keeps_its_samples(path, whole):
    """Both began at the same moment, and neither saw the other."""
    with contextlib.ExitStack() as other:

        def meddle():
            other.enter_context(elsewhere(path, run=2))
            with jobs.shared_state(path):
                pass

        class Slow(Meddled):
            def evaluate(self, x, *, jacobian=True):
                time.sleep(0.02)
                return super().evaluate(x, jacobian=jacobian)

        model = Slow(meddle)
        with pytest.raises(OSError, match=r"node9 is at work on .* its lock is not seen"):
            generate(model, DESIGN, path)
        kept = len(Dataset.open(path))
        assert kept == model.count < 24
    (unfinished.folder(path) / "run-000002.lock").unlink()
    assert_finished(path, whole, kept)


def test_a_dead_job_elsewhere_is_waited_for_no_longer_than_its_signs_of_life_last(path, whole, monkeypatch):
    with elsewhere(path) as file:
        pass
    monkeypatch.setattr(presence, "DEAD", 0.3)
    assert_finished(path, whole, 0)
    with elsewhere(path) as file:
        pass
    os.utime(file, (0, 0))
    monkeypatch.setattr(presence, "DEAD", 1e3)
    generate(toys.smooth, DESIGN, path)


def test_two_jobs_that_take_one_number_at_the_same_moment_notice(path):
    unfinished.folder(path).mkdir()
    with jobs.alive(path, 1):
        with pytest.raises(BlockingIOError, match="keeps locks to one machine"):
            jobs.Member(path, 1)
        assert jobs.living(path) == {1}


def test_signs_of_life_end_with_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr(presence, "BEAT", 0.05)
    own = presence.Presence(tmp_path / "a.lock")
    before = presence.sighted(tmp_path / "a.lock")
    wait_for(lambda: presence.sighted(tmp_path / "a.lock").time > before.time)
    assert before.held and own.is_there
    (tmp_path / "a.lock").rename(tmp_path / "b.lock")
    (tmp_path / "a.lock").write_text("of another")
    assert not own.is_there
    own.close()
    assert (tmp_path / "a.lock").read_text() == "of another"


@pytest.mark.slow
@pytest.mark.skipif(MPIEXEC is None, reason="no mpiexec")
@pytest.mark.parametrize("ranks", [0, 3])
def test_every_group_writes_its_samples_again_when_the_folder_vanishes(tmp_path, ranks):
    path, line = tmp_path / "a.h5", ("--samples", 300, "--seed", 3, "--out", tmp_path / "a.h5")
    job = start("generate", f"{TOYS}:slow", *line, ranks=ranks)
    wait_for(lambda: journal_bytes(path) > 8000)
    kept = len(Dataset.open(path))
    removed(path)
    _, said = job.communicate(timeout=30)
    assert job.returncode == 2 and said.count("was removed, moved or replaced") == 1, said
    assert "Traceback" not in said and "TERMINATION" not in said
    assert kept <= len(Dataset.open(path)) < 300
    assert sobofem("generate", f"{TOYS}:smooth", *line, ranks=ranks).returncode == 0
    assert len(Dataset.open(path)) == 300


@pytest.mark.slow
def test_a_job_that_another_believes_dead_loses_nothing(tmp_path, monkeypatch):
    """On two machines that see neither each other's locks nor, for a while, signs of life."""
    path, line = tmp_path / "a.h5", ("--samples", 300, "--seed", 3, "--out", tmp_path / "a.h5")
    job = start("generate", f"{TOYS}:slow", *line)
    wait_for(lambda: journal_bytes(path) > 8000)
    own = f"process {os.getpid()} on ".encode()
    monkeypatch.setattr(presence, "_is_locked", lambda file: os.pread(file, len(own), 0) == own)
    monkeypatch.setattr(presence, "machine", lambda: "another")
    with pytest.raises(BlockingIOError, match="its lock is not seen"):
        generate(toys.smooth, Design("sobol", 300, 3), path)
    monkeypatch.setattr(presence, "DEAD", 0.0)
    whole = generate(toys.smooth, Design("sobol", 300, 3), path)
    monkeypatch.undo()
    _, said = job.communicate(timeout=30)
    assert job.returncode == 2 and "was removed, moved or replaced" in said
    data = Dataset.open(path)
    assert len(data) == len(whole) == 300 and data.damage == ()
