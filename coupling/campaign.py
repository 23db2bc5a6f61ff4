"""A dataset under way: what is planned, what is missing, and whether a new run may continue an old one."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
import importlib.metadata
from pathlib import Path
import platform

import numpy as np
from numpy.typing import ArrayLike, NDArray

from coupling import leftovers
from coupling.contract import Array, Description
from coupling.dataset import Dataset
from coupling.design import PREFIX_STABLE, Recipe
from coupling.identity import differences, identity
from coupling.journal import Header


@dataclass(frozen=True, eq=False)
class Work:
    """What a run has to do, the same on every rank.

    Attributes:
        points: All planned points, (D, n).
        missing: Design rows to compute.
        before: Number of rows that earlier runs left computed or failed.
        header: First record of this run's journals.
        folder: Where the journals go.
        run: Number of this run, one more than that of any journal left.
    """

    points: Array
    missing: NDArray[np.int64]
    before: int
    header: Header
    folder: Path
    run: int

    def journal(self, rank: int) -> Path:
        """The file that a rank appends to in this run."""
        return self.folder / f"run-{self.run:06d}-rank-{rank:06d}.journal"


def plan(design: Recipe | ArrayLike, description: Description, *, jacobian: bool, model: str) -> Dataset:
    """The dataset that is to be: all points planned, none computed.

    Args:
        design: A recipe, or the points themselves, (N, n), inside the bounds.
        description: What identifies the model.
        jacobian: Whether samples carry their Jacobian.
        model: Specification that the model was loaded from, for the record.
    """
    n, m = len(description.parameters), len(description.responses)
    if isinstance(design, Recipe):
        kind, seed, marginals = design.kind, design.seed, getattr(design, "marginals", {})
        points = design.points(description.bounds, description.parameters)
    else:
        kind, seed, marginals, points = "given points", None, {}, np.array(design, dtype=np.float64)
    checked = Dataset.from_arrays(points, np.zeros((len(points), m)), description=description)
    return replace(
        checked.select(np.zeros(len(points), dtype=np.bool_)),
        jacobian=np.zeros((0, m, n)) if jacobian else None,
        provenance={
            "design": kind,
            "seed": seed,
            "inputs": {name: str(marginal) for name, marginal in marginals.items()},
            "model": model,
            "versions": versions(),
        },
    )


def begin(path: Path, planned: Dataset, *, retry_failed: bool) -> Work:
    """Open or make the dataset, fold in what interrupted runs left, and find what is missing. Hold its lock.

    Raises:
        ValueError: If the dataset at `path` belongs to another problem, design or seed; the message names it.
    """
    if path.exists():
        data = _continued(Dataset.open(path), planned, path)
    elif leftovers.files(path):
        raise ValueError(f"{leftovers.folder(path)} holds journals of a dataset that is gone; remove the folder")
    else:
        data = planned
    data.save(path)
    journals = leftovers.files(path)
    run = max((int(file.name.split("-")[1]) for file in journals), default=0) + 1
    for file in journals:
        file.unlink()
    failed = [] if retry_failed else [failure.row for failure in data.failures]
    settled = np.union1d(data.rows, np.array(failed, dtype=np.int64))
    return Work(
        points=data.design,
        missing=np.setdiff1d(np.arange(len(data.design)), settled),
        before=len(settled),
        header=Header(leftovers.fingerprint(data), len(data.parameters), len(data.responses)),
        folder=leftovers.folder(path),
        run=run,
    )


def complete(path: Path) -> Dataset:
    """Fold all journals into the file. Hold the dataset's lock."""
    data = Dataset.open(path)
    data.save(path)
    for file in leftovers.files(path):
        file.unlink()
    return data


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that make samples, as far as they are installed."""
    found = {"python": platform.python_version()}
    for name in ("sobofem", "numpy", "fenics-dolfinx", "dolfinx-solver-real", "petsc4py"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _continued(old: Dataset, planned: Dataset, path: Path) -> Dataset:
    """The old dataset with the new, equal or longer, design."""
    if found := differences(identity(old), identity(planned)):
        raise ValueError(f"{path} was made differently: {'; '.join(found)}; write to another file")
    kind, before, now = old.provenance["design"], len(old.design), len(planned.design)
    if now < before:
        raise ValueError(f"{path} plans {before} samples, {now} were asked for; a part is had by Dataset.head({now})")
    if now > before and kind not in (*PREFIX_STABLE, "given points"):
        raise ValueError(
            f"{path} is a {kind.replace('_', ' ')} of {before} samples, which can't grow to {now}: its first rows "
            f"would change; write to another file, or use one of {', '.join(sorted(PREFIX_STABLE))}"
        )
    moved = np.flatnonzero((old.design != planned.design[:before]).any(axis=1))
    if len(moved):
        raise ValueError(f"{path} has other points in its design, first in row {moved[0]}; write to another file")
    return replace(old, design=planned.design, damage=())
