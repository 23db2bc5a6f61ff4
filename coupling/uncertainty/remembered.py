"""A model that remembers its answers on disk, so that an interrupted study asks for none of them twice."""

from __future__ import annotations

from pathlib import Path
import time
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from coupling.contract import Array, Model, SampleFailure, checked_evaluation, describe
from coupling.journal import Header, JournalWriter, read_journal
from coupling.samples import Failure, Sample
from coupling.world import Serial, on_root

if TYPE_CHECKING:
    from coupling.world import Comm


class NoAnswer(ArithmeticError):
    """A remembered failure, known as such by its attributes (`coupling.contract.SampleFailure`)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.reason, self.load_factor = failure.reason, failure.load_factor


class Remembered:
    """Wraps a model; itself a `Model`.

    Every answer goes to a journal before it is given, Jacobian included. A study draws the same points for the same
    seed, and finds again what it had asked for.

    Args:
        model: The model.
        folder: Where journals lie; made if need be. None to remember while the process lives.
        comm: The ranks that evaluate together; rank 0 reads and writes.

    Raises:
        ValueError: If the folder holds answers of another model.
        OSError: If it can't be read or written.
    """

    def __init__(self, model: Model, folder: Path | None = None, comm: Comm | None = None) -> None:
        self._model, self._comm = model, Serial() if comm is None else comm
        self.parameters, self.responses = tuple(model.parameters), tuple(model.responses)
        self.bounds = np.array(model.bounds, dtype=np.float64)
        self.units = dict(getattr(model, "units", {}))
        self.solves = 0
        self._known: dict[bytes, Sample | Failure] = {}
        self._journal: JournalWriter | None = None
        if folder is not None:
            self._known = on_root(self._comm, lambda: self._open(folder))

    def evaluate(self, x: ArrayLike, *, jacobian: bool = True) -> tuple[Array, Array | None]:
        """As the model's, by memory where it has been asked there before."""
        point = np.ascontiguousarray(x, dtype=np.float64)
        record = self._known.get(point.tobytes())
        if record is None:
            record = self._asked(point)
            self._known[point.tobytes()] = record
        if isinstance(record, Failure):
            raise NoAnswer(record)
        return record.y.copy(), record.jacobian.copy() if jacobian and record.jacobian is not None else None

    def close(self) -> None:
        """Bring everything to the disk."""
        if self._journal is not None:
            self._journal.close()
            self._journal = None

    def _open(self, folder: Path) -> dict[bytes, Sample | Failure]:
        """Begin a journal; what those before hold."""
        folder.mkdir(parents=True, exist_ok=True)
        header = Header(describe(self._model).digest, len(self.parameters), len(self.responses))
        paths, known = sorted(folder.glob("*.journal")), dict[bytes, Sample | Failure]()
        for path in paths:
            journal = read_journal(path)
            if journal.header is not None and journal.header != header:
                raise ValueError(
                    f"{folder} holds solves of another model, or of this one before it was changed; name another "
                    "folder, or remove that one"
                )
            known |= {record.x.tobytes(): record for record in journal.records}
        self._journal = JournalWriter(folder / f"{len(paths):04d}.journal", header)
        return known

    def _asked(self, point: Array) -> Sample | Failure:
        start = time.perf_counter()
        self.solves += 1
        row = len(self._known)
        record: Sample | Failure
        try:
            y, jacobian = checked_evaluation(self._model, point)
            record = Sample(row, point, y, jacobian, time.perf_counter() - start)
        except Exception as error:
            if not isinstance(error, SampleFailure):
                raise
            record = Failure.of(error, row, point, time.perf_counter() - start)
        if self._journal is not None:
            self._journal.sample(record) if isinstance(record, Sample) else self._journal.failure(record)
        return record
