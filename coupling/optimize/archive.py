"""All samples that a search knows of: a dataset that grows by every solve, in memory and on disk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import replace
from pathlib import Path

import numpy as np

from coupling import campaign, jobs, leftovers
from coupling.contract import Description
from coupling.dataset import Dataset
from coupling.ensemble import check_place
from coupling.identity import differences, identity
from coupling.samples import Failure, Sample

DESIGN = "optimization"
"""What a dataset that a search made says of its design."""


def empty(description: Description) -> Dataset:
    """A dataset of a model without samples."""
    n, m = len(description.parameters), len(description.responses)
    return Dataset(
        x=np.zeros((0, n)),
        y=np.zeros((0, m)),
        jacobian=np.zeros((0, m, n)),
        rows=np.zeros(0, dtype=np.int64),
        seconds=np.zeros(0),
        description=description,
        design=np.zeros((0, n)),
        provenance={"design": DESIGN, "seed": None, "versions": campaign.versions()},
    )


def grown(data: Dataset, records: Sequence[Sample | Failure]) -> Dataset:
    """The dataset with new rows at the end of its design, in the order of the records."""
    first = len(data.design)
    numbered = [replace(record, row=first + k) for k, record in enumerate(records)]
    samples = [record for record in numbered if isinstance(record, Sample)]
    failures = [record for record in numbered if isinstance(record, Failure)]
    assert data.jacobian is not None
    return replace(
        data,
        x=np.array([*data.x, *(s.x for s in samples)]).reshape(-1, len(data.parameters)),
        y=np.array([*data.y, *(s.y for s in samples)]).reshape(-1, len(data.responses)),
        jacobian=np.concatenate([data.jacobian, *(np.asarray(s.jacobian)[None] for s in samples)]),
        rows=np.array([*data.rows, *(s.row for s in samples)], dtype=np.int64),
        seconds=np.array([*data.seconds, *(s.seconds for s in samples)]),
        design=np.vstack([data.design, *(record.x for record in numbered)]),
        failures=(*data.failures, *failures),
    )


def usable(data: Dataset, description: Description) -> Dataset:
    """The dataset, if it holds samples of this model with their Jacobians.

    Raises:
        ValueError: If it is another model's, the message names the difference, or has no Jacobians.
    """
    if data.jacobian is None:
        raise ValueError("the samples given to start from have no Jacobians; generate them with, or train a surrogate")
    if found := differences(identity(data), identity(replace(empty(description), provenance=data.provenance))):
        raise ValueError(f"the samples given to start from are of another model: {'; '.join(found)}")
    return data


def joined(first: Dataset, second: Dataset) -> Dataset:
    """All samples of both; those of the second at a point of the first are left out."""
    known = {x.tobytes() for x in first.x}
    assert second.jacobian is not None
    samples = [
        Sample(0, second.x[i], second.y[i], second.jacobian[i], float(second.seconds[i]))
        for i in range(len(second))
        if second.x[i].tobytes() not in known
    ]
    return grown(first, samples) if samples else first


class Archive:
    """The samples of a search, on disk where a path is given: each solve is there before the next begins.

    Args:
        data: What is known.
        path: HDF5 dataset to write to, or None.
    """

    def __init__(self, data: Dataset, path: Path | None) -> None:
        self.data, self._path = data, path
        if path is not None:
            data.save(path)

    def add(self, records: Sequence[Sample | Failure]) -> None:
        """Append answers."""
        self.data = grown(self.data, records)
        if self._path is not None:
            self.data.save(self._path)


@contextlib.contextmanager
def opened(path: Path | None, description: Description, given: Dataset | None) -> Iterator[Archive]:
    """The archive of a search: what is at `path` and what was given. While entered no other job may write there.

    Raises:
        ValueError: If either holds samples of another model, or an interrupted generation left its journals.
        BlockingIOError: If another job is at work on the file.
    """
    start = empty(description) if given is None else usable(given, description)
    if path is None:
        yield Archive(start, None)
        return
    check_place(path)
    with contextlib.ExitStack() as held:
        with jobs.shared_state(path):
            if jobs.living(path):
                raise BlockingIOError(f"another job is at work on {path}; wait for it, or name another file")
            if leftovers.files(path):
                raise ValueError(f"{path} is of an interrupted generation; finish it by the same command first")
            held.enter_context(jobs.alive(path, jobs.next_run(path)))
        stored = usable(Dataset.open(path), description) if path.exists() else empty(description)
        yield Archive(joined(stored, start), path)
