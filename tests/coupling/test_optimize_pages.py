"""The page on optimization and its example keep what they promise."""

from pathlib import Path
import re
import sys

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "optimization.md"
SNIPPETS = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
SMALLER = {
    "cantilever()": "cantilever(cells=(8, 2, 1))",
    "generate(cantilever, ": "generate(lambda: cantilever(cells=(8, 2, 1)), ",
    "(16.0, 17.0, 15.0, 18.0, 14.0)": "(16.0, 17.0)",  # the example's test has all of them
    "surrogate.Kriging()": "surrogate.Kriging(starts=(-7.0,), iterations=40)",
}
"""What snippets are tried with: their meaning is the same."""


def smaller(text):
    for old, new in SMALLER.items():
        text = text.replace(old, new)
    return text


def test_what_makes_snippets_smaller_is_in_them():
    assert all(any(old in text for text in SNIPPETS) for old in SMALLER)


def test_linked_files_and_pictures_exist():
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE.read_text()):
        assert (PAGE.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.usefixtures("labels_believed")
@pytest.mark.parametrize("number", range(len(SNIPPETS)))
def test_snippets_run(number, tmp_path, monkeypatch, capsys):
    if "pareto" in SNIPPETS[number]:
        pytest.importorskip("pymoo")
    monkeypatch.chdir(tmp_path)
    exec(compile(smaller(SNIPPETS[number]), f"snippet {number}", "exec"), {})
    assert "False" not in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize(("limits", "share"), [(2, 2), pytest.param(5, 4, marks=pytest.mark.bench)])
def test_the_example_certifies_a_family_with_a_share_of_the_solves_of_slsqp(monkeypatch, limits, share):
    """A half for two of the limits; a quarter for all five, which share more."""
    monkeypatch.setattr(sys, "path", [str(ROOT / "examples"), *sys.path])
    import optimize

    monkeypatch.setattr(optimize, "LIMITS", optimize.LIMITS[:limits])
    model = optimize.random_block()
    solutions = optimize.family(model)
    assert all(solution.certified for solution in solutions)
    rivals = [optimize.rival(model, solution.optimum) for solution in solutions]
    assert share * sum(solution.solves for solution in solutions) <= sum(rivals)
