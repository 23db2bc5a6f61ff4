"""`sobofem status`."""

from __future__ import annotations

import json
from pathlib import Path
import time
from typing import Annotated

import numpy as np
from rich.table import Table
import typer

from sobofem.coupling.commands import command
from sobofem.coupling.dataset import store, unfinished
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.journal import Journal
from sobofem.coupling.display import duration, report_console
from sobofem.coupling.solving import jobs

COUNTS = ("done", "failed", "remaining", "wanted", "jobs", "deaths")
"""What --json counts."""


SHOWN = 32
"""Groups of ranks that are listed at most."""


@command(needs_mpi=False)
def status(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Dataset, growing or not.", show_default=False)],
    as_json: Annotated[
        bool, typer.Option("--json", help="One line for scripts: a JSON object of counts, null where unknown.")
    ] = False,
) -> None:
    """Say how far a generation is: samples done, failed and remaining, their rate, and what each group has done.

    Safe at any time, from any machine that sees the files: it only reads. Scripts ask it, not exit codes, whether
    anything is left: `remaining` of --json counts the samples that have no answer and are not recorded as failed,
    `jobs` the jobs at work, and `deaths` how often a process died while it computed a sample.

    Example: sobofem status plate.h5
    """
    if as_json and not file.exists():
        typer.echo(json.dumps(dict.fromkeys(COUNTS, 0) | {"remaining": None, "wanted": None}))
        return
    journals = unfinished.read(file, in_memory=False)
    data = Dataset(**store.read(file, unread=True))
    became = unfinished.answers(data, journals)
    done, failed = len(became.rows), len(became.failures)
    # A design that the trainer chooses from has more rows than are solved: its budget counts.
    wanted = min(data.provenance.get("budget", len(data.design)), len(data.design))
    remaining = max(wanted - done - failed, 0)
    if as_json:
        counts = (done, failed, remaining, wanted, len(jobs.living(file)), sum(became.attempts.values()))
        typer.echo(json.dumps(dict(zip(COUNTS, counts, strict=True))))
        return
    typer.echo(f"{file}: {done} done, {failed} failed, {remaining} remaining of {wanted}")
    if running := jobs.living(file):
        typer.echo(f"{len(running)} {'jobs are' if len(running) > 1 else 'job is'} at work on it")
    latest = _latest_run(journals)
    if remaining and latest:
        rate = sum(1.0 / seconds for seconds in map(_mean_seconds, latest) if seconds)
        if rate:
            typer.echo(f"{rate:.3g} samples a second while it runs; the rest takes {duration(remaining / rate)}")
    if latest:
        report_console().print(_table(latest))
    for line in became.damage:
        typer.echo(f"damaged: {line}")


def _latest_run(journals: list[Journal]) -> list[Journal]:
    """The journals of the last run that left any."""
    last = max((unfinished.run_of(journal.path) for journal in journals), default=0)
    return [journal for journal in journals if unfinished.run_of(journal.path) == last]


def _mean_seconds(journal: Journal) -> float:
    spent = [record.seconds for record in journal.records]
    both = np.concatenate([spent, *(columns.seconds for columns in journal.columns)])
    return float(both.mean()) if len(both) else 0.0


def _table(journals: list[Journal]) -> Table:
    """What each group of ranks of a run has done; of many, those that were silent for longest, which may hang."""
    title = "groups of ranks in the last run"
    wrote = {journal.path: journal.path.stat().st_mtime for journal in journals}
    if len(journals) > SHOWN:
        title = f"{SHOWN} of {len(journals)} groups of ranks in the last run, silent for longest"
        silent = sorted(journals, key=lambda journal: wrote[journal.path])[:SHOWN]
        journals = sorted(silent, key=lambda journal: journal.path)
    table = Table("group", "done", "failed", "seconds a sample", "last wrote", title=title)
    for journal in journals:
        done, failed = len(journal.sampled), len(journal.failures)
        group = int(journal.path.stem.split("-")[-1])
        age = time.time() - wrote[journal.path]
        table.add_row(str(group), str(done), str(failed), f"{_mean_seconds(journal):.3g}", f"{duration(age)} ago")
    return table
