"""Figures on the benchmarks page are those of the files of results."""

import re

import pytest
from rich.table import Table

from benchmarks.__main__ import LONG, NAMES
from benchmarks.page import FIGURES, PAGE, Figures, filled, kept
from benchmarks.weighting_tables import Row, case_table

BLOCK = "before\n<!-- figures: small -->\nstale\n<!-- end of figures -->\nafter\n"


def test_every_figure_on_the_page_is_that_of_its_file():
    assert filled(PAGE.read_text(), kept()) == PAGE.read_text()


def test_every_file_of_figures_is_on_the_page_and_names_a_benchmark_a_machine_and_versions():
    shown = re.findall(r"<!-- figures: (\w+) -->", PAGE.read_text())
    assert sorted(shown) == sorted(kept()) and set(shown) <= {*NAMES, *LONG}
    for name, figures in kept().items():
        assert figures.command == f"python -m benchmarks {name}" and figures.machine and "numpy" in figures.versions


def test_a_table_comes_back_from_its_file_and_replaces_what_stood_there(tmp_path):
    table = Table("what", "ratio", caption="one rank")
    table.add_row("[bold]ours[/]", "1.1")
    figures = Figures.open(Figures.of("small", table).save(tmp_path))
    assert figures == Figures.of("small", table)
    page = filled(BLOCK, {"small": figures})
    assert page.startswith("before") and page.endswith("after\n") and "stale" not in page
    assert "| what | ratio |\n| --- | --- |\n| ours | 1.1 |\n\none rank. `python -m benchmarks small`" in page
    assert filled(page, {"small": figures}) == page


def test_a_figure_without_a_file_is_named_with_the_command_that_makes_it():
    with pytest.raises(ValueError, match="python -m benchmarks small --keep"):
        filled(BLOCK, {})


def test_files_of_figures_are_as_they_were_written(tmp_path):
    for path in FIGURES.glob("*.json"):
        assert Figures.open(path).save(tmp_path).read_bytes() == path.read_bytes()


def test_the_study_of_weightings_shows_medians_over_those_of_per_channel_by_labels_and_mechanics():
    rows = [
        Row(task, 16, seed, arm, factor * size, 2.0 * factor * size, 1.0)
        for task, factor in (("plate, exact", 1.0), ("block, exact", 3.0))
        for arm, sizes in (("per channel", (1.0, 2.0, 4.0)), ("evidence", (1.0, 1.0, 1.0)))
        for seed, size in enumerate(sizes)
    ]
    shown = Figures.of("small", case_table(rows))
    assert shown.columns == ["weighting", "n", "plate, exact", "block, exact", "spread"]
    assert shown.rows[0] == ["per channel", "16", "1.00 / 1.00", "1.00 / 1.00", "2.00 / 2.00"]
    assert shown.rows[1] == ["evidence", "16", "0.50 / 0.50", "0.50 / 0.50", "1.00 / 1.00"]
