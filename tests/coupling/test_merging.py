import dataclasses
import importlib
import os
import shutil

import numpy as np
import pytest
import toys

from sobofem.coupling import Dataset, Design, generate, merge
from sobofem.coupling.dataset import unfinished
from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.records import Sample

status = importlib.import_module("sobofem.coupling.commands.status")


def made(path, design=Design("sobol", 24, 3), model=toys.fragile, **options):  # noqa: B008  (frozen)
    return generate(model, design, path, **options)


def assert_same(first, second):
    for name in ("rows", "x", "y", "jacobian", "design"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    assert [f.row for f in first.failures] == [f.row for f in second.failures]


def test_parts_of_one_design_are_the_whole(tmp_path):
    whole = made(tmp_path / "a.h5")
    odd = whole.rows % 2 == 1
    first = dataclasses.replace(whole.select(odd), failures=whole.failures[:1])
    second = dataclasses.replace(whole.select(~odd), failures=whole.failures[1:])
    merged = merge([first, second])
    assert_same(merged, whole)
    assert merged.provenance["design"] == "sobol"


def test_a_longer_design_takes_in_its_beginning_and_may_still_grow(tmp_path):
    short = made(tmp_path / "a.h5", Design("sobol", 8, 3))
    long = made(tmp_path / "b.h5")
    merged = merge([short, long, short])
    assert_same(merged, long)
    merged.save(tmp_path / "c.h5")
    assert len(made(tmp_path / "c.h5", Design("sobol", 40, 3)).design) == 40


def test_other_designs_are_put_behind_and_no_point_comes_twice(tmp_path):
    first, second = made(tmp_path / "a.h5"), made(tmp_path / "b.h5", Design("halton", 10, 1))
    merged = merge([first, second, first])
    assert len(merged) == len(first) + len(second) and len(merged.design) == 34
    np.testing.assert_array_equal(merged.x, merged.design[merged.rows])
    np.testing.assert_array_equal(merged.select(merged.rows >= 24).y, second.y)
    assert len(merged.failures) == len(first.failures) + len(second.failures) > 0
    assert all((failure.x == merged.design[failure.row]).all() for failure in merged.failures)
    assert merged.provenance["design"] == "merged"


def test_a_sample_wins_over_another_s_failure(tmp_path):
    failing = made(tmp_path / "a.h5")
    mended = toys.Smooth()
    mended.digest = toys.fragile.digest
    assert_same(merge([failing, whole := made(tmp_path / "b.h5", model=mended)]), whole)


def test_what_does_not_belong_together_is_refused(tmp_path):
    first = made(tmp_path / "a.h5")
    with pytest.raises(ValueError, match="dataset 2 is of another problem than the first: problem definition"):
        merge([first, made(tmp_path / "b.h5", model=toys.smooth)])
    with pytest.raises(ValueError, match=r"differ in weight at .*made by the same code"):
        merge([first, dataclasses.replace(first, y=first.y * [1.0, 1.001, 1.0])])
    with pytest.raises(ValueError, match="nothing to merge"):
        merge([])


@pytest.mark.slow
def test_derivatives_that_only_some_have_are_missing_in_the_others(tmp_path):
    model = toys.Curved()
    values = made(tmp_path / "a.h5", Design("sobol", 8, 1), model, jacobian=False)
    slopes = made(tmp_path / "b.h5", Design("sobol", 12, 1), model)
    curved = made(tmp_path / "c.h5", Design("halton", 6, 1), model, hessian_actions=True)
    whole = merge([values, slopes, curved])
    assert whole.missing and len(whole) == 18
    np.testing.assert_array_equal(whole.jacobian[:12], slopes.jacobian)
    assert np.isnan(whole.hessian_actions[:12]).all()
    np.testing.assert_array_equal(whole.select(np.arange(12, 18)).hessian_actions, curved.hessian_actions)
    whole.save(tmp_path / "d.h5")
    np.testing.assert_array_equal(Dataset.open(tmp_path / "d.h5").hessian_actions, whole.hessian_actions)
    assert "energy: Hessian actions 66.7 %" in whole.summary()
    filled = merge([slopes, made(tmp_path / "e.h5", Design("sobol", 12, 1), model, hessian_actions=True)])
    assert not np.isnan(filled.hessian_actions).any()


def test_merge_and_verify_by_command(here, tmp_path):
    whole = made(tmp_path / "a.h5")
    made(tmp_path / "b.h5", Design("sobol", 30, 3))
    out = tmp_path / "c.h5"
    code, said, _ = here("merge", tmp_path / "a.h5", tmp_path / "b.h5", "--out", out)
    assert code == 0 and "of 30 planned" in said
    assert_same(Dataset.open(out).head(24), whole)
    assert here("merge", tmp_path / "a.h5", "--out", out)[0] == 2
    code, said, _ = here("verify", tmp_path / "a.h5", out)
    assert code == 0 and said.count("intact") == 2


def interrupted(path, rows):
    """A dataset whose generation was killed, with the journal of one rank."""
    whole = made(path)
    dataclasses.replace(whole.select(np.zeros(len(whole), dtype=bool)), failures=()).save(path)
    folder = path.with_name(path.name + ".parts")
    folder.mkdir()
    header = Header(unfinished.fingerprint(whole), len(whole.parameters), len(whole.responses))
    writer = JournalWriter(folder / "run-000001-rank-000002.journal", header)
    for k in range(rows):
        writer.sample(Sample(int(whole.rows[k]), whole.x[k], whole.y[k], whole.jacobian[k], 0.25))
    writer.close()
    return writer.path


def test_verify_names_what_is_cut_off_and_counts_what_is_intact(here, tmp_path):
    journal = interrupted(tmp_path / "a.h5", 5)
    journal.write_bytes(journal.read_bytes()[:-7])
    code, said, _ = here("verify", tmp_path / "a.h5")
    assert code == 1
    assert "4 samples and 0 failures intact" in said and str(journal) in said and "record cut off" in said
    (tmp_path / "b.h5").write_bytes((tmp_path / "a.h5").read_bytes()[:999])
    code, said, _ = here("verify", tmp_path / "b.h5", tmp_path / "none.h5")
    assert code == 1 and "b.h5 is" in said and "none.h5" in said


def test_status_counts_what_is_done_and_estimates_the_rest(here, tmp_path):
    interrupted(tmp_path / "a.h5", 5)
    code, said, _ = here("status", tmp_path / "a.h5")
    assert code == 0
    assert "5 done, 0 failed, 19 remaining of 24" in said
    assert "4 samples a second" in said and "takes 4.8 s" in said
    made(tmp_path / "b.h5")
    assert "0 remaining" in here("status", tmp_path / "b.h5")[1]


def test_status_lists_the_groups_that_were_silent_for_longest(here, tmp_path, monkeypatch):
    first = interrupted(tmp_path / "a.h5", 5)
    for group in range(10, 15):
        shutil.copy(first, first.with_name(f"run-000001-group-{group:06d}.journal"))
        os.utime(first.with_name(f"run-000001-group-{group:06d}.journal"), (0, group))
    assert here("status", tmp_path / "a.h5")[1].count("│\n") == 6
    monkeypatch.setattr(status, "SHOWN", 2)
    said = here("status", tmp_path / "a.h5")[1]
    assert "2 of 6 groups" in said and [line.split()[1] for line in said.splitlines() if "│ " in line] == ["10", "11"]
