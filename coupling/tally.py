"""How far all ranks are, and whether to stop: small messages that no rank waits for while it computes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
import time
from typing import TYPE_CHECKING

from coupling.interruption import StopRequest
from coupling.world import Comm, Serial

if TYPE_CHECKING:
    from mpi4py import MPI

_REPORT, _STOP, _END = 71, 72, 73
_PAUSE = 1e-3  # between two looks for a message [s]: a blocking receive would take a core from a solver


@dataclass(frozen=True)
class Progress:
    """How far a generation is.

    Attributes:
        done: Samples computed in this run.
        failed: Samples in this run that have no answer.
        total: Samples that were missing when this run began.
        before: Samples and failures that earlier runs left.
        seconds: Wall time since the first sample began [s].
    """

    done: int
    failed: int
    total: int
    before: int
    seconds: float


@dataclass(frozen=True)
class Report:
    """What a rank tells rank 0."""

    done: int
    failed: int
    signal: int
    final: bool


class Tally:
    """Counts of this rank; on rank 0, of all ranks. Every rank makes one, updates it and finishes it.

    Args:
        comm: The ranks that share the work.
        stop: This rank's signals.
        show: Called on rank 0 with the sums, after each of its own samples and while it waits for the others.
        interval: Shortest time between two reports of a rank [s].
    """

    def __init__(
        self, comm: Comm, stop: StopRequest, show: Callable[[int, int], None], *, interval: float = 0.2
    ) -> None:
        self._comm = comm
        self._stop = stop
        self._show = show
        self._interval = interval
        self._reports = {0: Report(0, 0, 0, False)}
        self._request: MPI.Request | None = None
        self._sent = time.monotonic()
        self._told = False

    def update(self, done: int, failed: int) -> bool:
        """Note this rank's counts after a sample, exchange what is due, and say whether to stop."""
        report = Report(done, failed, self._stop.signal, False)
        if isinstance(self._comm, Serial) or self._comm.rank == 0:
            self._reports[0] = report
            self._gather()
        else:
            self._send(report)
            self._receive(self._comm)
        return bool(self._stop.signal)

    def finish(self, done: int, failed: int) -> int:
        """Wait, without using the core, until every rank is done; the signal that stopped them, or 0. Collective."""
        report = Report(done, failed, self._stop.signal, True)
        if isinstance(self._comm, Serial):
            self._reports[0] = report
            self._gather()
            return self._stop.signal
        return self._close(report) if self._comm.rank == 0 else self._leave(self._comm, report)

    @property
    def sums(self) -> tuple[int, int]:
        """Samples computed and failed, as far as rank 0 knows; complete there after `finish`."""
        reports = self._reports.values()
        return sum(report.done for report in reports), sum(report.failed for report in reports)

    def _close(self, report: Report) -> int:
        """Rank 0: until all final reports are in; then let the others go."""
        assert not isinstance(self._comm, Serial)
        self._reports[0] = report
        self._gather()
        while sum(r.final for r in self._reports.values()) < self._comm.size:
            time.sleep(_PAUSE)
            self._gather()
        for rank in range(1, self._comm.size):
            self._comm.send(self._stop.signal, rank, _END)
        return self._stop.signal

    def _leave(self, comm: MPI.Comm, report: Report) -> int:
        """Another rank: send the final report and wait to be let go, passing over orders to stop."""
        if self._request is not None:
            self._request.wait()
        comm.send(report, 0, _REPORT)
        while not comm.iprobe(0, _END):
            time.sleep(_PAUSE)
        signal = comm.recv(source=0, tag=_END)
        self._receive(comm)
        return int(signal)

    def _gather(self) -> None:
        """Rank 0: take the reports that have come, pass a signal on once, and show the sums."""
        if not isinstance(self._comm, Serial):
            self._drain(self._comm)
        self._show(*self.sums)

    def _drain(self, comm: MPI.Comm) -> None:
        from mpi4py import MPI

        status = MPI.Status()
        while comm.iprobe(MPI.ANY_SOURCE, _REPORT, status):
            report = comm.recv(source=status.Get_source(), tag=_REPORT)
            self._reports[status.Get_source()] = report
            self._stop.signal = self._stop.signal or report.signal
        if self._stop.signal and not self._told:
            self._told = True
            for rank in range(1, comm.size):
                comm.send(self._stop.signal, rank, _STOP)

    def _send(self, report: Report) -> None:
        """Report to rank 0, if the last report has left and its time has come, or at once upon a signal."""
        assert not isinstance(self._comm, Serial)
        due = time.monotonic() - self._sent > self._interval or report.signal
        if not due or (self._request is not None and not self._request.test()[0]):
            return
        self._request = self._comm.isend(report, 0, _REPORT)
        self._sent = time.monotonic()

    def _receive(self, comm: MPI.Comm) -> None:
        if comm.iprobe(0, _STOP):
            self._stop.signal = self._stop.signal or comm.recv(source=0, tag=_STOP)
