"""Jobs that share a dataset, as far as one process can play several."""

import contextlib

import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset
from sobofem.coupling.contract import Description, describe
from sobofem.coupling.dataset import columns, hdf5, rows, unfinished
from sobofem.coupling.dataset.columns import Columns, Gathered
from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.open_files import locked
from sobofem.coupling.dataset.presence import lives
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.solving import campaign, jobs
from sobofem.coupling.solving.ledger import Ledger, join


@contextlib.contextmanager
def job(path):
    with jobs.shared_state(path):
        run = jobs.next_run(path)
        living = jobs.alive(path, run)
        living.__enter__()
    try:
        yield run
    finally:
        living.__exit__(None, None, None)


def finish(path, run, rows, work=None):
    """Write answers of a run."""
    header = work.header if work else Header("f", 1, 1)
    writer = JournalWriter(unfinished.folder(path) / f"run-{run:06d}-group-000000.journal", header)
    for row in rows:
        writer.failure(Failure(int(row), work.points[row] if work else np.zeros(1), "no", 0.0))
    writer.close()


def sampled(path, work, rows):
    """Write samples of a run, as a group does."""
    writer = JournalWriter(unfinished.folder(path) / f"run-{work.run:06d}-group-000001.journal", work.header)
    for row in rows:
        x = work.points[row]
        writer.attempt(row)
        writer.sample(Sample(row, x, np.ones(work.header.responses), np.ones((work.header.responses, len(x))), 0.1))
    writer.close()


def test_a_lock_is_held_as_long_as_it_is_held(tmp_path):
    assert not lives(tmp_path / "lock")
    with locked(tmp_path / "lock"):
        assert lives(tmp_path / "lock")
        with pytest.raises(BlockingIOError, match="has held it"), locked(tmp_path / "lock", patience=0.05):
            pass
    assert not lives(tmp_path / "lock")


def test_jobs_never_claim_the_same_row(tmp_path):
    path, missing, taken = tmp_path / "a.h5", np.arange(100), [[], []]
    with job(path) as first, job(path) as second:
        assert {first, second} == jobs.living(path) == {1, 2}
        claims = [jobs.Claims(path, run, missing) for run in (first, second)]
        turn = 0
        while len(rows := claims[turn % 2].claim(4)):
            taken[turn % 2] += rows.tolist()
            turn += 1
    assert sorted(taken[0] + taken[1]) == list(range(100))
    assert min(map(len, taken)) > 25


def test_what_a_dead_job_claimed_and_did_not_finish_is_free_again(tmp_path):
    path, missing = tmp_path / "a.h5", np.arange(40)
    with job(path) as second:
        with job(path) as first:
            dead = jobs.Claims(path, first, missing).claim(16)
            finish(path, first, dead[:5])
        mine = jobs.Claims(path, second, missing).claim(100)
    assert len(dead) == 16 and sorted(mine) == sorted(set(range(40)) - set(dead[:5].tolist()))


def test_a_claim_that_was_half_written_is_passed_over(tmp_path):
    path = tmp_path / "a.h5"
    with job(path) as run:
        jobs.Claims(path, run, np.arange(8)).claim(4)
        with (unfinished.folder(path) / "claims").open("a") as file:
            file.write(f"\n{run + 1} 4-")
        assert jobs.Claims(path, run, np.arange(8)).claim(8).tolist() == [4, 5, 6, 7]


def test_rows_need_not_follow_each_other(tmp_path):
    path, missing = tmp_path / "a.h5", np.array([9, 8, 2, 3, 4, 0])
    with job(path) as run:
        claims = jobs.Claims(path, run, missing)
        assert [claims.claim(2).tolist() for _ in range(4)] == [[9, 8, 2], [3, 4], [0], []]


def test_the_last_job_leaves_nothing_behind_unless_there_are_journals(tmp_path):
    path = tmp_path / "a.h5"
    with job(path) as first:
        with job(path):
            pass
        assert unfinished.folder(path).is_dir()
        jobs.Claims(path, first, np.arange(3)).claim(3)
    assert list(tmp_path.iterdir()) == []
    with job(path) as run:
        finish(path, run, [0])
    assert unfinished.runs(path) == {1}


def test_of_two_jobs_that_end_at_the_same_time_one_leaves_the_whole_dataset_and_nothing_beside_it(tmp_path):
    path, model = tmp_path / "a.h5", toys.smooth
    described = describe(model, name="smooth", source=None)
    planned = campaign.plan(model.bounds.T, described, order=0, model="smooth")
    with contextlib.ExitStack() as held:
        both = [join(path, planned, retry_failed=False, held=held) for _ in range(2)]
        ledgers = [Ledger(path, work, member, 0.5, None) for work, member in both]
        for row, (work, _) in enumerate(both):
            finish(path, work.run, [row], work)
        for ledger in ledgers:
            ledger.conclude()
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert [failure.row for failure in Dataset.open(path).failures] == [0, 1]


def test_a_job_that_joins_or_leaves_others_neither_writes_the_dataset_nor_reads_samples(tmp_path, monkeypatch):
    path, model = tmp_path / "a.h5", toys.smooth
    points = np.linspace(*model.bounds.T, 6)
    planned = campaign.plan(points, describe(model, name="smooth", source=None), order=1, model="smooth")
    with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
        work, member = join(path, planned, retry_failed=False, held=first)
        sampled(path, work, (0, 3))
        before = path.stat().st_ino
        monkeypatch.setattr(Columns, "read", None)  # what reads them
        other, _ = join(path, planned, retry_failed=False, held=second)
        assert other.missing.tolist() == [1, 2, 4, 5] and other.before == 2
        monkeypatch.undo()

        def read(path):
            with locked(unfinished.folder(path) / "lock", patience=0.0):  # nobody waits for it
                return campaign.Dataset.open(path)

        monkeypatch.setattr(campaign, "so_far", read)
        assert Ledger(path, work, member, 0.5, None).conclude().rows.tolist() == [0, 3]
        assert path.stat().st_ino == before


D, N, M = 60, 3, 2
"""Design rows, parameters and responses of what is folded."""


def truth():
    """All samples of a design, as arrays by name; those of odd rows know their pivots."""
    rng = np.random.default_rng(4)
    arrays = {"x": rng.uniform(size=(D, N)), "y": rng.normal(size=(D, M)), "jacobian": rng.normal(size=(D, M, N))}
    return arrays | {"seconds": rng.uniform(size=D), "negative_pivots": np.where(np.arange(D) % 2, np.arange(D), -1)}


def begun(path):
    """A run on the dataset of these samples."""
    bounds = np.tile([0.0, 1.0], (N, 1))
    description = Description("folded", tuple("abc"), tuple("uv"), bounds, digest="1")
    planned = campaign.plan(truth()["x"], description, order=1, model="folded")
    work = campaign.begin(path, planned, retry_failed=False)
    unfinished.folder(path).mkdir(exist_ok=True)
    return work


def written(path, work, group, chosen, **other):
    """A journal of a group with these samples; other arrays may replace theirs."""
    writer = JournalWriter(unfinished.folder(path) / f"run-{work.run:06d}-group-{group:06d}.journal", work.header)
    arrays = truth() | other
    for row in chosen:
        x, y, dy, seconds, pivots = (values[row] for values in arrays.values())
        writer.attempt(row)
        writer.sample(Sample(row, x, y, dy, seconds, None if pivots < 0 else pivots))
    writer.close()


@pytest.mark.parametrize("near", [100, 1 << 16], ids=["far apart", "read together"])
def test_journals_are_folded_a_few_rows_at_a_time_and_no_number_is_lost(tmp_path, monkeypatch, near):
    path, rng, read, exact = tmp_path / "a.h5", np.random.default_rng(1), [], Gathered._read
    monkeypatch.setattr(rows, "BLOCK", 7 * 8 * (N + M + N * M))
    monkeypatch.setattr(hdf5, "_PLAIN", 3 * 8 * (N + M + N * M))
    monkeypatch.setattr(columns, "_NEAR", near)
    monkeypatch.setattr(columns, "_MANY", 2)
    monkeypatch.setattr(Gathered, "_read", lambda self, a, b: (read.append(b - a), exact(self, a, b))[1])
    order = rng.permutation(np.arange(D - 5))  # the others have no sample yet
    for part in np.split(order, [25]):
        work = begun(path)
        for group, chosen in enumerate(np.array_split(part, 4)):
            written(path, work, group, chosen)
        written(path, work, 9, part[:6], y=np.zeros((D, M)))  # again, by a slower group
        opened = Dataset.open(path)
        assert type(opened.jacobian) is np.ndarray
        data = campaign.complete(path)
        assert unfinished.files(path) == [] and max(read) <= 7 and isinstance(data.y, rows.Rows)
        computed = np.sort(order[: len(data)])
        for found in (opened, data.in_memory(), Dataset.open(path)):
            assert found.rows.tolist() == computed.tolist()
            for name, values in truth().items():
                np.testing.assert_array_equal(getattr(found, name), values[computed])


@pytest.mark.parametrize(
    ("name", "value", "message"), [("y", np.nan, "holds NaN or infinity in y of row 4"), ("x", 0.5, "has row 4 at")]
)
def test_what_no_sample_can_be_is_folded_into_no_dataset(tmp_path, name, value, message):
    path = tmp_path / "a.h5"
    work = begun(path)
    written(path, work, 0, [1, 2])
    written(path, work, 1, [3, 4], **{name: np.where(np.arange(D)[:, None] == 4, value, truth()[name])})
    before = path.read_bytes()
    for fold in (campaign.complete, Dataset.open):
        with pytest.raises(ValueError, match=rf"group-000001.*{message}"):
            fold(path)
    assert path.read_bytes() == before and len(unfinished.files(path)) == 2
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "a.h5.parts"]


@pytest.mark.parametrize("ends", [True, False], ids=["which ends first", "which goes on"])
def test_a_job_that_begins_while_another_folds_does_not_wait_and_loses_nothing(tmp_path, monkeypatch, ends):
    path, write, waits = tmp_path / "a.h5", hdf5.write, []
    bounds = np.tile([0.0, 1.0], (N, 1))
    description = Description("folded", tuple("abc"), tuple("uv"), bounds, digest="1")
    plans = [campaign.plan(truth()["x"][:k], description, order=1, model="folded") for k in (D // 2, D)]
    with contextlib.ExitStack() as held:

        def begins(target, data):
            monkeypatch.setattr(hdf5, "write", write)
            with locked(unfinished.folder(path) / "lock", patience=0.0):
                waits.append(False)
            work, member = join(path, plans[1], retry_failed=False, held=held)
            assert work.missing.tolist() == list(range(4, D))
            written(path, work, 0, [8, 9])
            later.append(Ledger(path, work, member, 0.5, None))
            if ends:
                later.pop().conclude()
            write(target, data)

        later = []
        work, member = join(path, plans[0], retry_failed=False, held=held)
        written(path, work, 0, range(4))
        monkeypatch.setattr(hdf5, "write", begins)
        data = Ledger(path, work, member, 0.5, None).conclude()
        assert waits == [False] and data.rows.tolist() == [0, 1, 2, 3, 8, 9] and len(data.design) == D
        for ledger in later:
            ledger.conclude()
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]
    assert Dataset.open(path).rows.tolist() == [0, 1, 2, 3, 8, 9]


def test_a_row_that_kills_another_job_while_one_folds_is_counted(tmp_path):
    path = tmp_path / "a.h5"
    work = begun(path)
    with contextlib.ExitStack() as held:
        with (
            job(path) as run,
            contextlib.closing(
                JournalWriter(unfinished.folder(path) / f"run-{run:06d}-group-000000.journal", work.header)
            ) as writer,
        ):
            writer.attempt(7)
            put = held.enter_context(campaign.folded(path))
        with jobs.shared_state(path):
            assert put() is None
            assert campaign.complete(path).attempts == {7: 1}


def test_files_that_are_no_run_s_disturb_nobody(tmp_path):
    path = tmp_path / "a.h5"
    unfinished.folder(path).mkdir()
    for name in ("run-notes.txt", "my.journal", "run-1-x.lock"):
        (unfinished.folder(path) / name).touch()
    with job(path) as run:
        assert run == 1 and jobs.living(path) == {1}
    assert unfinished.files(path) == []


@pytest.mark.parametrize("name", ["lock", "claims"])
def test_a_link_among_the_locks_leads_to_no_file_of_others(tmp_path, name):
    path = tmp_path / "a.h5"
    unfinished.folder(path).mkdir()
    (tmp_path / "precious").write_text("data")
    (unfinished.folder(path) / name).symlink_to(tmp_path / "precious")
    with pytest.raises(OSError, match=f"{name}"):
        jobs.Claims(path, 1, np.arange(4)).claim(2)
    assert (tmp_path / "precious").read_text() == "data"
