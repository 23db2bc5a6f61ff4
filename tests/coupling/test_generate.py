"""Ensembles in this process: resuming, growing, refusing, failing."""

import asyncio
from dataclasses import replace
import os
import signal
import subprocess
import sys
import time

from launching import environment
import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.dataset.journal import read_journal
from sobofem.coupling.dataset.open_files import locked
from sobofem.coupling.models.loading import find
from sobofem.coupling.solving.diagnosis import TooManyFailures

DESIGN = Design("sobol", 24, 3)


class Crash(KeyboardInterrupt):
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


class DyingCurved(toys.Curved):
    """Dies at its k-th product."""

    def __init__(self, k):
        super().__init__()
        self.left = k

    def hvp(self, x, weights, directions):
        self.left -= 1
        if self.left < 0:
            raise Crash
        return super().hvp(x, weights, directions)


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


@pytest.mark.slow
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


@pytest.mark.slow
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


def test_hessian_actions_are_the_slopes_of_the_jacobian_and_survive_deaths(tmp_path):
    model = toys.Curved()
    with pytest.raises(Crash):
        generate(DyingCurved(9), DESIGN, tmp_path / "a.h5", hessian_actions=True)
    data = generate(model, DESIGN, tmp_path / "a.h5", hessian_actions=True)
    np.testing.assert_array_equal(Dataset.open(tmp_path / "a.h5").hessian_actions, data.hessian_actions)
    for x, v, actions in zip(data.x, data.directions, data.hessian_actions, strict=True):
        ahead, behind = (model.evaluate(x + step * v)[1] for step in (1e-5, -1e-5))
        np.testing.assert_allclose(actions, (ahead - behind) / 2e-5, rtol=1e-5, atol=1e-6 * abs(actions).max())
    spread = data.directions / np.ptp(model.bounds, axis=1)
    np.testing.assert_allclose(np.linalg.norm(spread, axis=1), 1.0)
    assert np.linalg.matrix_rank(spread) == 3


def test_second_derivatives_that_are_not_to_be_had_are_refused_at_once(tmp_path):
    with pytest.raises(TypeError, match=r"Smooth has no hvp\(x, weights, directions\)"):
        generate(toys.Smooth(), DESIGN, tmp_path / "a.h5", hessian_actions=True)
    with pytest.raises(ValueError, match="learned beside Jacobians"):
        generate(toys.Curved(), DESIGN, tmp_path / "a.h5", hessian_actions=True, jacobian=False)
    generate(toys.Curved(), DESIGN, tmp_path / "a.h5")
    with pytest.raises(ValueError, match="Hessian actions was left out, now stored"):
        generate(toys.Curved(), DESIGN, tmp_path / "a.h5", hessian_actions=True)


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
    with pytest.raises(ValueError, match="belongs to another problem definition"):
        generate(toys.smooth, DESIGN, tmp_path / "a.h5")
    counting = Counting()
    assert len(generate(counting, DESIGN, tmp_path / "a.h5").design) == 24
    assert len(counting.points) == 24 - 5


class Odd(toys.Smooth):
    """Answers in its own way, by default in its fifth sample alone."""

    def __init__(self, answer, only=5):
        super().__init__()
        self.answer, self.only, self.count = answer, only, 0

    def evaluate(self, x, *, jacobian=True):
        self.count += 1
        y, dy = super().evaluate(x, jacobian=jacobian)
        return self.answer(x, y, dy) if self.only in (0, self.count) else (y, dy)


def raising(error):
    def answer(x, y, dy):
        raise error

    return answer


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (raising(ValueError("no licence")), "ValueError: no licence (test_generate.py, line"),
        (raising(MemoryError()), "MemoryError (test_generate.py"),
        (raising(StopIteration(3)), "StopIteration: 3"),
        (raising(OSError("no license:\n  server is  down\n")), "OSError: no license: server is down (test_generate.py"),
        (raising(SystemExit(0)), "called sys.exit(0); a model says that it has no answer by an ordinary exception"),
        (raising(asyncio.CancelledError("gone")), "raised CancelledError: gone; a model says that it has no answer by"),
        (lambda x, y, dy: os._exit(0), "called os._exit(0)"),
        (lambda x, y, dy: (y[:2], dy), "responses of shape (2,), expected (3,)"),
        (lambda x, y, dy: (y * np.nan, dy), "NaN or infinity at {'E': "),
        (lambda x, y, dy: (y, dy * [1.0, np.inf, 1.0]), "the derivative of energy by t is -inf"),
        (lambda x, y, dy: (y + 0j, dy), "responses of complex numbers, whose imaginary part would be lost"),
        (lambda x, y, dy: (y, (dy * (1 + 1e-30j)).tolist()), "a Jacobian of complex numbers"),
        (lambda x, y, dy: ([str(v) for v in y], dy), "responses of type <U"),
        (lambda x, y, dy: (np.ma.masked_less(y, np.inf), dy), "responses with masked entries"),
        (lambda x, y, dy: ([y, 1.0, "a"], dy), "responses that make no array of numbers"),
        (lambda x, y, dy: y, "evaluate returned ndarray, expected the pair"),
    ],
)
def test_a_sample_that_goes_wrong_is_a_failure_and_stops_no_other(tmp_path, capfd, answer, reason):
    data = generate(Odd(answer), DESIGN, tmp_path / "a.h5")
    whole = generate(toys.smooth, DESIGN, tmp_path / "whole.h5")
    (failure,) = data.failures
    assert failure.row == 4 and reason in failure.reason
    np.testing.assert_array_equal(data.y, np.delete(whole.y, 4, axis=0))
    shown = capfd.readouterr().err
    assert shown.count("Traceback (most recent call last)") >= 1 and shown.count("row 4 failed: ") == 1


def test_only_the_first_failure_is_shown(tmp_path, capfd):
    generate(Odd(lambda x, y, dy: (y / (x[2] > 3.0), dy), only=0), DESIGN, tmp_path / "a.h5", max_failures=0.9)
    assert capfd.readouterr().err.count(" failed: ") == 1


@pytest.mark.parametrize(("limit", "most"), [(0.5, 7), (0.1, 3), (0.9, 20)])
def test_an_error_in_all_samples_ends_the_job_quickly(tmp_path, limit, most):
    with pytest.raises(TooManyFailures, match=rf"{most} of {most} samples failed, .* division by zero"):
        generate(
            Odd(raising(ZeroDivisionError("division by zero")), only=0), DESIGN, tmp_path / "a.h5", max_failures=limit
        )


def test_no_sample_at_all_is_never_success(tmp_path):
    for _ in range(2):
        with pytest.raises(TooManyFailures, match="2 of 2 samples failed"):
            generate(Odd(raising(ValueError()), only=0), Design("sobol", 2, 3), tmp_path / "a.h5")


def _overwritten():
    buffer = np.zeros(3)

    def answer(x, y, dy):
        buffer[:] = y
        return buffer, dy

    return answer


def _moving(x, y, dy):
    os.chdir("/")
    return y, dy


def _changing_all(x, y, dy):
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    np.seterr(all="raise")
    np.random.seed(0)  # noqa: NPY002
    x[:] = np.nan
    if os.fork() == 0:
        return y, dy  # a copy that does not end itself
    return y, dy


def _as_tensors(x, y, dy):
    torch = pytest.importorskip("torch")
    return torch.tensor(y, requires_grad=True), torch.tensor(dy)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize(
    "answer",
    [_overwritten(), _moving, _changing_all, _as_tensors, lambda x, y, dy: (tuple(y), dy.tolist())],
)
def test_what_a_model_does_to_its_surroundings_does_no_harm(tmp_path, monkeypatch, answer):
    monkeypatch.chdir(tmp_path)
    before = np.geterr(), signal.getsignal(signal.SIGTERM)
    data = generate(Odd(answer, only=0), DESIGN, "a.h5")
    whole = generate(toys.smooth, DESIGN, tmp_path / "whole.h5")
    assert (np.geterr(), signal.getsignal(signal.SIGTERM)) == before
    np.testing.assert_array_equal(data.y, whole.y)
    np.testing.assert_array_equal(data.jacobian, whole.jacobian)
    np.testing.assert_array_equal(data.x, whole.x)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5", "whole.h5"]


def test_a_sample_that_hangs_is_a_failure_after_its_time(tmp_path):
    before = signal.getsignal(signal.SIGALRM)
    data = generate(Odd(lambda x, y, dy: time.sleep(60.0)), DESIGN, tmp_path / "a.h5", sample_timeout=0.3)
    (failure,) = data.failures
    assert failure.row == 4 and "took longer than the 0.3 s that a sample may" in failure.reason
    assert 0.3 <= failure.seconds < 30.0
    assert signal.getsignal(signal.SIGALRM) == before and signal.getitimer(signal.ITIMER_REAL)[0] == 0.0


@pytest.mark.slow
def test_a_death_after_a_signal_is_never_a_failure(tmp_path):
    """Preemption: SIGTERM, and SIGKILL a little later, as often as the scheduler likes."""
    for _ in range(5):
        model = Odd(raising(Crash()), only=1)
        model.answer = lambda x, y, dy: (signal.raise_signal(signal.SIGTERM), raising(Crash())(x, y, dy))
        with pytest.raises(Crash):
            generate(model, DESIGN, tmp_path / "a.h5")
        for file in (tmp_path / "a.h5.parts").glob("*.error"):
            file.unlink()  # which a process that is killed does not write
    data = generate(toys.smooth, DESIGN, tmp_path / "a.h5")
    assert len(data) == len(DESIGN.points(toys.smooth.bounds, toys.smooth.parameters)) and not data.failures


def test_deaths_without_a_signal_are(tmp_path):
    for _ in range(3):
        with pytest.raises(Crash):
            generate(Odd(raising(Crash()), only=1), Design("sobol", 1, 3), tmp_path / "a.h5")
        for file in (tmp_path / "a.h5.parts").glob("*.error"):
            file.unlink()
    with pytest.raises(TooManyFailures, match="its process died 3 times"):
        generate(toys.smooth, Design("sobol", 1, 3), tmp_path / "a.h5")


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

    with pytest.raises(TooManyFailures, match=r"NaN or infinity at \{'E': 200000.0, 't': 1.0, 'p': 1.0\}"):
        generate(Infinite(), [[2e5, 1.0, 1.0]], tmp_path / "a.h5")


def test_a_folder_is_no_dataset(tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name a file in it"):
        generate(toys.smooth, DESIGN, tmp_path)


@pytest.mark.slow
def test_jobs_that_come_and_go_do_not_disturb_each_other(tmp_path):
    code = """
import sys
from pathlib import Path
from sobofem.coupling.solving.jobs import alive, living, next_run, shared_state
path = Path(sys.argv[1])
for _ in range(30):
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


class Warming(Counting):
    """Can find answers from those before."""

    warmed = 0

    def warm_start(self):
        self.warmed += 1


@pytest.mark.slow
def test_a_warm_start_is_asked_for_once_and_continues_what_was_begun_without(tmp_path):
    model, path = Warming(), tmp_path / "a.h5"
    generate(model, replace(DESIGN, samples=8), path)
    assert not model.warmed
    assert_same(generate(model, DESIGN, path, warm_start=True), generate(toys.fragile, DESIGN, tmp_path / "b.h5"))
    assert model.warmed == 1 and len(model.points) == 24
    generate(toys.fragile, DESIGN, tmp_path / "c.h5", warm_start=True)
