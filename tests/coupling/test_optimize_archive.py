"""Every solve is kept: in memory for the next search, and on disk where a path is given."""

from dataclasses import replace
import io
import shutil

import numpy as np
from optimize_cases import beam, minimize, valley
import pytest
from rich.console import Console

from sobofem.coupling import Dataset, Description
from sobofem.coupling.optimize import Task
from sobofem.coupling.optimize.report import show
from sobofem.coupling.solving import jobs

LIMITED = Task("weight", at_most={"stress": 1.0, "slenderness": 4.0})


@pytest.mark.slow
def test_every_solve_is_on_disk_before_the_next_begins(tmp_path):
    path, seen = tmp_path / "beam.h5", []
    minimize(
        beam(), LIMITED, path=path, progress=lambda _: seen.append(len(Dataset.open(path))), predictors="quasi-newton"
    )
    assert seen == list(range(1, len(seen) + 1))


@pytest.mark.slow
def test_a_search_that_dies_goes_on_from_its_solves(tmp_path):
    path, dying, whole = tmp_path / "beam.h5", beam(), beam()

    def killed(x):
        if len(dying.calls) > 4:
            raise KeyboardInterrupt  # an error of the code would be a failed point
        return False

    dying.fails = killed
    with pytest.raises(KeyboardInterrupt):
        minimize(dying, LIMITED, path=path)
    assert len(Dataset.open(path)) == 4
    minimize(whole, LIMITED)
    again = beam()
    solution = minimize(again, LIMITED, path=path)
    assert solution.certified
    assert len(again.calls) <= len(whole.calls) - 2
    assert len(Dataset.open(path)) == 4 + len(again.calls) == len(solution.archive)


def test_a_file_that_is_replaced_under_a_search_is_left_alone_and_its_samples_are_kept_beside(tmp_path):
    path = tmp_path / "beam.h5"

    def replaced(step):
        path.unlink()
        path.write_text("of another")

    with pytest.raises(OSError, match=r"beam\.h5 was replaced .* is kept in .*beam\.kept\.h5"):
        minimize(beam(), LIMITED, path=path, progress=replaced)
    assert path.read_text() == "of another" and len(Dataset.open(tmp_path / "beam.kept.h5")) == 2


@pytest.mark.slow
def test_a_search_whose_folder_vanishes_keeps_its_samples_and_stops(tmp_path, monkeypatch):
    path = tmp_path / "beam.h5"
    monkeypatch.setattr(jobs, "_INTERVAL", 0.0)
    with pytest.raises(OSError, match=r"beam\.h5\.parts was removed"):
        minimize(beam(), LIMITED, path=path, progress=lambda step: shutil.rmtree(tmp_path / "beam.h5.parts"))
    assert len(Dataset.open(path)) == 2
    path.unlink()
    solution = minimize(beam(), LIMITED, path=path, progress=lambda step: path.unlink())
    assert solution.certified and len(Dataset.open(path)) == len(solution.archive)


def test_failures_are_kept_with_their_reason(tmp_path):
    path = tmp_path / "beam.h5"
    minimize(beam(fails=lambda x: x[0] > 1.0), LIMITED, start=[1.9, 1.0, 0.5], path=path, predictors="quasi-newton")
    data = Dataset.open(path)
    assert {failure.reason for failure in data.failures} == {"no equilibrium"}
    assert data.failures[0].x == pytest.approx([1.9, 1.0, 0.5])
    assert len(data.design) == len(data) + len(data.failures)


@pytest.mark.slow
def test_given_samples_and_those_on_disk_are_joined(tmp_path):
    first, second = beam(), beam()
    given = minimize(first, Task("weight", {"stress": 1.0})).archive
    path = tmp_path / "beam.h5"
    stored = minimize(second, Task("weight", {"stress": 2.0}), path=path).archive
    joined = minimize(beam(), LIMITED, path=path, archive=given).archive
    points = {x.tobytes() for x in joined.x}
    assert {x.tobytes() for x in given.x} | {x.tobytes() for x in stored.x} <= points
    assert len(points) == len(joined)


@pytest.mark.slow
def test_samples_of_another_model_are_refused_by_name(tmp_path):
    path = tmp_path / "valley.h5"
    minimize(valley(), Task("height"), solves=2, path=path)
    with pytest.raises(ValueError, match="of another model: parameters was"):
        minimize(beam(), LIMITED, path=path)
    other = beam()
    other.digest = "changed"
    archive = minimize(beam(), LIMITED).archive
    with pytest.raises(ValueError, match="problem definition"):
        minimize(other, LIMITED, archive=archive)


def test_samples_without_jacobians_are_refused():
    x = np.random.default_rng(0).uniform(0.5, 1.0, (4, 3))
    model = beam()
    description = Description("Counted", model.parameters, model.responses, model.bounds, {}, model.digest)
    data = Dataset.from_arrays(x, np.array([model.evaluate(point)[0] for point in x]), description=description)
    with pytest.raises(ValueError, match="have no Jacobians"):
        minimize(model, LIMITED, archive=data)


@pytest.mark.slow
@pytest.mark.parametrize("in_file", [False, True])
def test_samples_with_hessian_actions_are_started_from_and_keep_them(in_file, tmp_path):
    known = minimize(beam(), LIMITED, solves=3).archive
    actions = np.ones(known.jacobian.shape)
    known = replace(known, directions=np.ones(known.x.shape), hessian_actions=actions)
    path = tmp_path / "beam.h5" if in_file else None
    if in_file:
        known.save(path)
    found = minimize(beam(), LIMITED, path=path, archive=None if in_file else known, predictors="quasi-newton")
    kept = Dataset.open(path) if in_file else found.archive
    assert found.certified and len(kept) == 3 + found.solves
    assert np.array_equal(kept.hessian_actions[:3], actions) and np.isnan(kept.hessian_actions[3:]).all()


def test_samples_that_lack_some_jacobians_are_refused_by_their_number():
    known = minimize(beam(), LIMITED, solves=3).archive
    jacobian = known.jacobian.copy()
    jacobian[1] = np.nan
    with pytest.raises(ValueError, match=r"1 of 3 samples .* lack responses or Jacobians"):
        minimize(beam(), LIMITED, archive=replace(known, jacobian=jacobian, missing=True))


def test_a_path_in_no_folder_is_refused_before_any_solve(tmp_path):
    model = beam()
    with pytest.raises(FileNotFoundError, match="make it first"):
        minimize(model, LIMITED, path=tmp_path / "nowhere" / "beam.h5")
    assert not model.calls


@pytest.mark.slow
def test_a_dataset_that_another_job_works_on_is_left_alone(tmp_path):
    path = tmp_path / "beam.h5"
    with jobs.shared_state(path):
        job = jobs.alive(path, 1)
        job.__enter__()
    with pytest.raises(BlockingIOError, match="another job is at work"):
        minimize(beam(), LIMITED, path=path)
    job.__exit__(None, None, None)
    assert minimize(beam(), LIMITED, path=path).certified
    assert not path.with_name("beam.h5.parts").exists()


@pytest.mark.slow
def test_a_grown_dataset_trains_a_surrogate(tmp_path):
    surrogate = pytest.importorskip("sobofem.surrogate")
    data = minimize(beam(), LIMITED, starts=6, predictors="quasi-newton").archive
    fitted = surrogate.train(data, optimizers=(surrogate.LBFGS(iterations=20),))
    assert fitted.parameters == data.parameters


@pytest.mark.parametrize(("pivots", "words"), [(0, "a minimum of its energy"), (2, "2 negative pivots"), (None, "")])
def test_a_solution_says_whether_its_state_is_stable(pivots, words):
    model = beam()
    if pivots is not None:
        model.negative_pivots = pivots
    found = minimize(model, Task("weight", {"stress": 1.0}, fixed={"height": 1.5}))
    assert found.negative_pivots == pivots == found.record().get("negative_pivots")
    console = Console(record=True, width=120, file=io.StringIO())
    show(found, {}, console)
    assert words in console.export_text()
