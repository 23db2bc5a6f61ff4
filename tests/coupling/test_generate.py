"""Ensembles in this process: resuming, growing, refusing, failing."""

from dataclasses import replace
import subprocess
import sys

from launching import environment
import numpy as np
import pytest
import toys

from coupling import Dataset, Design, generate
from coupling.journal import read_journal
from coupling.loading import find
from coupling.lock import locked

DESIGN = Design("sobol", 24, 3)


class Crash(BaseException):
    """A death of the process, as far as one process can play it."""


class Dying(toys.Fragile):
    """Dies at its k-th evaluation."""

    def __init__(self, k):
        super().__init__()
        self.left = k

    def evaluate(self, x, *, jacobian=True):
        self.left -= 1
        if self.left < 0:
            raise Crash
        return super().evaluate(x, jacobian=jacobian)


class Counting(toys.Fragile):
    """Remembers where it was evaluated."""

    def __init__(self):
        super().__init__()
        self.points = []

    def evaluate(self, x, *, jacobian=True):
        self.points.append(tuple(x))
        return super().evaluate(x, jacobian=jacobian)


def assert_same(a, b):
    for name in ("x", "y", "jacobian", "rows", "design"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    assert [(f.row, f.reason, f.load_factor) for f in a.failures] == [
        (f.row, f.reason, f.load_factor) for f in b.failures
    ]


def test_a_complete_run_leaves_one_file(tmp_path):
    generate(toys.fragile, DESIGN, tmp_path / "a.h5")
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_after_any_number_of_deaths_each_sample_was_computed_once(tmp_path):
    whole = generate(toys.fragile, DESIGN, tmp_path / "whole.h5")
    computed = 0
    for k in (0, 5, 1, 7, 0):
        with pytest.raises(Crash):
            generate(Dying(k), DESIGN, tmp_path / "a.h5")
        computed += k
        partial = Dataset.open(tmp_path / "a.h5")
        assert len(partial) + len(partial.failures) == computed
    last = Counting()
    assert_same(generate(last, DESIGN, tmp_path / "a.h5"), whole)
    assert len(set(last.points)) == len(last.points) == 24 - computed


def test_a_torn_journal_costs_only_what_was_torn(tmp_path):
    whole = generate(toys.fragile, DESIGN, tmp_path / "whole.h5")
    for cut in (1, 60, 200, 700, 10_000):
        path = tmp_path / f"cut{cut}.h5"
        with pytest.raises(Crash):
            generate(Dying(12), DESIGN, path)
        (journal,) = (tmp_path / f"{path.name}.parts").glob("*.journal")
        data = journal.read_bytes()
        journal.write_bytes(data[: max(0, len(data) - cut)])
        kept = len(read_journal(journal).records)
        partial = Dataset.open(path)
        assert len(partial) + len(partial.failures) == kept <= 12
        assert kept < 12 or cut < 200
        assert all("cut off at byte" in damage for damage in partial.damage)
        last = Counting()
        assert_same(generate(last, DESIGN, path), whole)
        assert len(last.points) == 24 - kept


def test_folding_twice_doubles_nothing(tmp_path):
    """A kill between writing the file and removing the journals leaves samples in both."""
    with pytest.raises(Crash):
        generate(Dying(12), DESIGN, tmp_path / "a.h5")
    partial = Dataset.open(tmp_path / "a.h5")
    partial.save(tmp_path / "a.h5")
    assert_same(Dataset.open(tmp_path / "a.h5"), partial)


@pytest.mark.parametrize("kind", ["sobol", "halton"])
def test_a_sequence_grows_by_the_new_rows_alone(tmp_path, kind):
    old = generate(toys.fragile, Design(kind, 10, 3), tmp_path / "a.h5")
    counting = Counting()
    new = generate(counting, Design(kind, 25, 3), tmp_path / "a.h5")
    assert len(counting.points) == 15
    assert_same(new.head(10), old)


def test_failures_are_kept_and_tried_again_only_on_demand(tmp_path):
    old = generate(toys.fragile, DESIGN, tmp_path / "a.h5")
    counting = Counting()
    generate(counting, DESIGN, tmp_path / "a.h5")
    assert counting.points == []
    again = generate(counting, DESIGN, tmp_path / "a.h5", retry_failed=True)
    assert len(counting.points) == len(old.failures) > 0
    assert_same(again, old)
    mended = toys.Smooth()
    mended.digest = toys.fragile.digest
    data = generate(mended, DESIGN, tmp_path / "a.h5", retry_failed=True)
    assert len(data) == 24 and data.failures == ()


def test_own_points_are_a_design_too(tmp_path):
    points = toys.smooth.bounds.mean(axis=1) + np.outer([0.0, 0.1], [1e5, 1.0, 1.0])
    data = generate(toys.smooth, points, tmp_path / "a.h5")
    np.testing.assert_array_equal(data.x, points)
    with pytest.raises(ValueError, match="other points in its design, first in row 1"):
        generate(toys.smooth, points * [[1.0], [1.001]], tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"row 1 has t = .* outside its bounds"):
        generate(toys.smooth, points * [[1.0, 1.0, 1.0], [1.0, 2.0, 1.0]], tmp_path / "b.h5")


class Narrower(toys.Fragile):
    bounds = toys.Smooth.bounds * [[1.0, 1.0], [1.0, 0.9], [1.0, 1.0]]


class Renamed(toys.Fragile):
    responses = ("energy", "mass", "sway")


@pytest.mark.parametrize(
    ("model", "design", "options", "difference"),
    [
        (toys.smooth, DESIGN, {}, r"problem definition \(digest\) was fragile-1, now smooth-1"),
        (Narrower(), DESIGN, {}, r"bounds of t was \(0\.5, 2\.0\), now \(0\.5, 1\.8\)"),
        (Renamed(), DESIGN, {}, r"responses was \('energy', 'weight', 'sway'\), now \('energy', 'mass', 'sway'\)"),
        (toys.fragile, replace(DESIGN, seed=4), {}, "seed was 3, now 4"),
        (toys.fragile, replace(DESIGN, kind="halton"), {}, "design was sobol, now halton"),
        (toys.fragile, DESIGN, {"jacobian": False}, "Jacobians was stored, now left out"),
    ],
)
def test_another_problem_is_refused_with_the_difference_named(tmp_path, model, design, options, difference):
    generate(toys.fragile, DESIGN, tmp_path / "a.h5")
    before = (tmp_path / "a.h5").read_bytes()
    with pytest.raises(ValueError, match=difference):
        generate(model, design, tmp_path / "a.h5", **options)
    assert (tmp_path / "a.h5").read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.h5"]


def test_the_beginning_of_what_is_planned_may_be_asked_for(tmp_path):
    """As by a job that was submitted before another one made the design longer."""
    with pytest.raises(Crash):
        generate(Dying(4), DESIGN, tmp_path / "a.h5")
    counting = Counting()
    data = generate(counting, replace(DESIGN, samples=8), tmp_path / "a.h5")
    assert len(counting.points) == 4 and len(data.design) == 24
    assert len(data) + len(data.failures) == 8


def test_a_latin_hypercube_is_not_grown(tmp_path):
    generate(toys.smooth, Design("latin_hypercube", 8, 3), tmp_path / "a.h5")
    generate(toys.smooth, Design("latin_hypercube", 8, 3), tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"latin hypercube of 8 samples, which can't become one of 9.*halton, sobol"):
        generate(toys.smooth, Design("latin_hypercube", 9, 3), tmp_path / "a.h5")


def test_journals_of_another_problem_are_refused(tmp_path):
    with pytest.raises(Crash):
        generate(Dying(5), DESIGN, tmp_path / "a.h5")
    generate(toys.smooth, DESIGN, tmp_path / "b.h5").save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="belongs to another problem definition"):
        Dataset.open(tmp_path / "a.h5")
    (tmp_path / "a.h5").unlink()
    with pytest.raises(ValueError, match="journals of a dataset that is gone"):
        generate(toys.fragile, DESIGN, tmp_path / "a.h5")


def test_an_ordinary_error_surfaces_and_keeps_what_was_computed(tmp_path):
    class Buggy(toys.Smooth):
        left = 5

        def evaluate(self, x, *, jacobian=True):
            self.left -= 1
            y, dy = super().evaluate(x, jacobian=jacobian)
            return (y, dy) if self.left else (y[:2], dy)

    with pytest.raises(ValueError, match=r"responses of shape \(2,\), expected \(3,\)"):
        generate(Buggy(), DESIGN, tmp_path / "a.h5")
    assert len(Dataset.open(tmp_path / "a.h5")) == 4


def test_a_lock_that_is_stuck_is_named(tmp_path, monkeypatch):
    (tmp_path / "a.h5.parts").mkdir()
    monkeypatch.setattr(locked.__wrapped__, "__kwdefaults__", {"patience": 0.1})
    with (
        locked(tmp_path / "a.h5.parts" / "lock"),
        pytest.raises(BlockingIOError, match=r"process \d+ on .* has held it for 0\.1 s"),
    ):
        generate(toys.smooth, DESIGN, tmp_path / "a.h5")
    generate(toys.smooth, DESIGN, tmp_path / "a.h5")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        generate(toys.smooth, DESIGN, tmp_path / "none" / "a.h5")


def test_progress_counts_to_the_end(tmp_path):
    seen = []
    generate(toys.fragile, DESIGN, tmp_path / "a.h5", progress=seen.append)
    counts = [p.done + p.failed for p in seen]
    assert counts == sorted(counts) and set(counts) == set(range(25))
    assert (seen[-1].done + seen[-1].failed, seen[-1].total, seen[-1].before) == (24, 24, 0)
    generate(toys.fragile, Design("sobol", 30, 3), tmp_path / "a.h5", progress=seen.append)
    assert (seen[-1].total, seen[-1].before) == (6, 24)


@pytest.mark.parametrize("design", [replace(DESIGN, seed=4), replace(DESIGN, kind="halton")])
def test_journals_of_another_design_are_refused(tmp_path, design):
    with pytest.raises(Crash):
        generate(Dying(5), DESIGN, tmp_path / "a.h5")
    generate(toys.fragile, design, tmp_path / "b.h5").save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"run-000001-group-000000.journal belongs to another .* design or seed"):
        Dataset.open(tmp_path / "a.h5")


def test_journals_without_the_jacobians_of_their_dataset_are_refused(tmp_path):
    with pytest.raises(Crash):
        generate(Dying(5), DESIGN, tmp_path / "a.h5", jacobian=False)
    generate(toys.fragile, DESIGN, tmp_path / "b.h5").save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"journal belongs to another"):
        Dataset.open(tmp_path / "a.h5")


def test_journals_of_other_points_are_refused(tmp_path):
    points = DESIGN.points(toys.fragile.bounds)
    with pytest.raises(Crash):
        generate(Dying(5), points, tmp_path / "a.h5")
    generate(toys.fragile, points[::-1], tmp_path / "b.h5").save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"run-000001-group-000000.journal has row 0 at .*, where its dataset plans"):
        Dataset.open(tmp_path / "a.h5")
    generate(toys.fragile, points[:2], tmp_path / "c.h5").save(tmp_path / "a.h5")
    with pytest.raises(ValueError, match=r"has row 2 at .* plans nothing"):
        Dataset.open(tmp_path / "a.h5")


def test_a_failure_that_says_little_is_recorded_all_the_same(tmp_path):
    class Mute(toys.Smooth):
        def evaluate(self, x, *, jacobian=True):
            raise toys.TooMuch(["no", "\udc80", "\0"] if x[2] > 1.0 else "cut \udc80 \0 off", None)

    generate(Mute(), DESIGN, tmp_path / "a.h5", max_failures=1.0)
    failures = Dataset.open(tmp_path / "a.h5").failures
    assert len(failures) == 24 and all(np.isnan(failure.load_factor) for failure in failures)
    assert {failure.reason for failure in failures} == {"cut ? ? off", str(["no", "\udc80", "\0"])}


def test_answers_that_are_not_finite_are_refused_in_plain_numbers(tmp_path):
    class Infinite(toys.Smooth):
        def evaluate(self, x, *, jacobian=True):
            return np.full(3, np.nan), np.zeros((3, 3))

    with pytest.raises(ValueError, match=r"NaN or infinity at \{'E': 200000.0, 't': 1.0, 'p': 1.0\}"):
        generate(Infinite(), [[2e5, 1.0, 1.0]], tmp_path / "a.h5")


def test_a_folder_is_no_dataset(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        generate(toys.smooth, DESIGN, tmp_path)


def test_jobs_that_come_and_go_do_not_disturb_each_other(tmp_path):
    code = """
import sys
from pathlib import Path
from coupling.jobs import alive, living, next_run, shared_state
path = Path(sys.argv[1])
for _ in range(150):
    with shared_state(path):
        run = next_run(path)
        assert run not in living(path)
        job = alive(path, run)
        job.__enter__()
    assert run in living(path)
    job.__exit__(None, None, None)
"""
    line = [sys.executable, "-c", code, str(tmp_path / "a.h5")]
    jobs = [subprocess.Popen(line, stderr=subprocess.PIPE, text=True, env=environment()) for _ in range(4)]
    said = [job.communicate(timeout=30)[1] for job in jobs]
    assert [job.returncode for job in jobs] == [0] * 4, said


FACTORY = """
from undigested import Plain

def model():
    return Plain(){comment}
"""


def test_editing_the_file_of_a_factory_refuses_the_old_dataset(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "undigested.py").write_text("import toys\n\nclass Plain(toys.Smooth):\n    digest = ''\n")
    (tmp_path / "plain.py").write_text(FACTORY.format(comment=""))
    spec = f"{tmp_path / 'plain.py'}:model"
    generate(spec, DESIGN, tmp_path / "a.h5")
    generate(find(spec), DESIGN, tmp_path / "a.h5")
    (tmp_path / "plain.py").write_text(FACTORY.format(comment="  # stiffer"))
    with pytest.raises(ValueError, match=r"problem definition \(digest\) was"):
        generate(spec, DESIGN, tmp_path / "a.h5")
