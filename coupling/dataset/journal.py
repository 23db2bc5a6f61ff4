"""Journals: append-only files of checksummed records, which survive the death of their writer.

A journal is a sequence of records (`frames`), the first of which says what the others belong to. A record goes to
the operating system in one write, so that a killed process leaves whole records and at most one incomplete one at the
end. Before a sample is begun a record says so: one that kills its process is known by that, and by the answer that
never came.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
import functools
import json
import os
from pathlib import Path
import struct
import time
import warnings

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.dataset.columns import Columns, Found, fits
from sobofem.coupling.dataset.frames import SIZE, framed, next_record, pairs, record_at
from sobofem.coupling.dataset.open_files import OpenFile, beside, created, is_at, write
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.dataset.sample_bytes import as_bytes, left_in, packed, unpacked

VERSION = 5
HEADER, SAMPLE, FAILURE, ATTEMPT = range(4)
_LARGEST = 1 << 30  # bytes to read at once
_FAILURE = struct.Struct("<qdd")
_ROW = struct.Struct("<q")


@dataclass(frozen=True)
class Header:
    """What the records of a journal belong to: the fingerprint of their dataset, their sizes, and whether of fields."""

    fingerprint: str
    parameters: int
    responses: int
    of_fields: bool = False


@dataclass(frozen=True)
class Journal:
    """What could be read of a journal.

    Attributes:
        path: The file.
        header: None where the file ends before it.
        records: Samples and failures, in the order of writing; samples as columns, if so asked, are not among them.
        columns: These samples.
        size: Bytes of the file when it was read.
        attempts: Rows that were begun and have no answer here.
        damage: Where and how records are damaged or missing; empty if the file is whole.
        growing: Whether its writer was at work when it was read, so that it may end in half a record.
    """

    path: Path
    header: Header | None
    records: tuple[Sample | Failure, ...] = ()
    attempts: tuple[int, ...] = ()
    damage: str = ""
    growing: bool = False
    columns: tuple[Columns, ...] = ()
    size: int = 0

    @property
    def answered(self) -> NDArray[np.int64]:
        """Rows that have a sample or a failure here."""
        return np.concatenate([self.sampled, np.array([f.row for f in self.failures], dtype=np.int64)])

    @property
    def sampled(self) -> NDArray[np.int64]:
        """Rows that have a sample here."""
        records = [record.row for record in self.records if isinstance(record, Sample)]
        return np.concatenate([np.array(records, dtype=np.int64), *(each.rows for each in self.columns)])

    @property
    def failures(self) -> list[Failure]:
        """Rows that have no answer here."""
        return [record for record in self.records if isinstance(record, Failure)]


@dataclass
class JournalWriter:
    """Appends records to a new file; one writer a file.

    Attributes:
        path: The file; it must not exist yet.
        header: What the records belong to.
        sync_interval: Longest time that a record waits for the disk while others follow [s]. A killed process
            loses nothing either way; this is for a machine that loses power.
    """

    path: Path
    header: Header
    sync_interval: float = 1.0
    _file: int = field(init=False)
    _size: int = field(init=False, default=0)
    _synced: float = field(init=False, default=0.0)

    def __post_init__(self) -> None:
        self._file = created(self.path)
        self._put(_head(self.header))

    def attempt(self, row: int) -> None:
        """Note that a row is begun."""
        self._append(ATTEMPT, _ROW.pack(row))

    def sample(self, sample: Sample) -> None:
        """Append a sample. `OSError` if the disk refuses; what was complete stays readable."""
        self._append(SAMPLE, packed(sample))

    def failure(self, failure: Failure) -> None:
        """Append a failure. `OSError` if the disk refuses; what was complete stays readable."""
        head = _FAILURE.pack(failure.row, failure.seconds, failure.load_factor)
        self._append(FAILURE, head + as_bytes(failure.x) + failure.reason.encode(errors="replace"))

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        try:
            self._stay()
            self._sync()
        finally:
            os.close(self._file)

    def _append(self, kind: int, payload: bytes) -> None:
        self._stay()
        self._put(framed(kind, payload))

    def _put(self, record: bytes) -> None:
        try:
            write(self._file, record)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise _refusal(error, self.path, "everything before is safe") from error
        self._size += len(record)
        if time.monotonic() - self._synced > self.sync_interval:
            self._sync()

    def _sync(self) -> None:
        """Bring what was written to the disk, which may find only now that it has no room."""
        try:
            os.fsync(self._file)
        except OSError as error:
            raise _refusal(error, self.path, "all but its last records are safe") from error
        self._synced = time.monotonic()

    def _stay(self) -> None:
        """Write all records again beside the others of the run if somebody removed, moved or replaced the file.

        What was written to it would be lost else as soon as it is closed.
        """
        if is_at(self._file, self.path):
            return
        if not self.path.parent.parent.is_dir() and os.fstat(self._file).st_nlink:
            return  # all was moved, and this file with it
        try:
            content = self._written()
            path, file = beside(self.path)
            write(file, content)
            os.fsync(file)
        except OSError as error:
            raise _refusal(error, self.path, "it was removed, and its records could not be written again") from error
        os.close(self._file)
        self.path, self._file, self._size = path, file, len(content)

    def _written(self) -> bytes:
        """All that was written, as far as the open file still gives it."""
        content = bytearray()
        try:
            while part := os.pread(self._file, _LARGEST, len(content)):
                content += part
            return bytes(content)
        except OSError as error:  # the server of a network file system removed it for all
            warnings.warn(
                f"{self.path} was removed, and {self._size} bytes of records with it ({error.strerror}): their samples "
                "are computed again",
                RuntimeWarning,
                stacklevel=2,
            )
            return _head(self.header)


def _head(header: Header) -> bytes:
    """The first records, twice: nothing can be read without them."""
    return 2 * framed(HEADER, json.dumps({"version": VERSION, **vars(header)}).encode())


def _refusal(error: OSError, path: Path, rest: str) -> OSError:
    why = f"could not append to the journal; {rest}: make room and repeat the same command"
    return OSError(error.errno, f"{os.strerror(error.errno or 0)}: {why}", str(path))


def read_journal(path: Path, *, in_memory: bool = True, in_columns: bool = False) -> Journal:
    """Read every whole record; what is damaged or cut off in between is passed over, and named.

    Args:
        path: The file.
        in_memory: Whether samples are kept in memory; else the larger arrays of fields stay in the file, as `Stored`.
        in_columns: Whether samples come as columns, but those of fields; else each as a record.

    Raises:
        ValueError: If a newer version of sobofem wrote it.
        OSError: If the file can't be read at all.
    """
    with path.open("rb") as file:
        stays = OpenFile(file)
        kind, payload, _ = record_at(stays, 0)
        first = _header(path, payload) if kind == HEADER else None
        of_fields = first is not None and first.of_fields
        return _read(path, stays if of_fields and not in_memory else file.read(), in_columns=in_columns)


def _read(path: Path, data: bytes | OpenFile, *, in_columns: bool) -> Journal:
    header: Header | None = None
    records: list[Sample | Failure] = []
    begun: dict[int, None] = {}
    plain = Found()
    damage, at = [], 0
    while at < len(data):
        if in_columns and header is not None and not header.of_fields and isinstance(data, bytes):
            if taken := _columns(data, at, header, plain, begun):
                at += taken
                continue
        kind, payload, problem = record_at(data, at)
        if problem:
            # a torn or overwritten stretch costs its own records alone: reading goes on at the next whole one
            damage.append(f"{problem} at byte {at} of {len(data)}")
            at = next_record(data, at + 1)
            continue
        start, at = at, at + SIZE + len(payload)
        if kind == HEADER:
            header = header or _header(path, payload)
            continue
        if header is None:
            return Journal(path, None, damage=f"{path}: no header, so {len(data)} bytes can't be read", size=len(data))
        try:
            record = _parsed(kind, payload, header)
            if isinstance(data, OpenFile) and isinstance(record, Sample):
                record = left_in(data, record, at)
        except (struct.error, ValueError) as error:
            damage.append(f"record that its header does not allow ({error}) at byte {start} of {len(data)}")
            continue
        if isinstance(record, int):
            begun[record] = None
        else:
            records.append(record)
            # what stays in `begun` was being computed when the process ended
            begun.pop(record.row, None)
    found = plain.columns(path, header.parameters, header.responses) if header is not None else ()
    text = f"{path}: {'; '.join(damage)}" if damage else ""
    return Journal(path, header, tuple(records), tuple(begun), text, columns=found, size=len(data))


def _columns(data: bytes, at: int, header: Header, plain: Found, begun: dict[int, None]) -> int:
    """Note the samples from a byte on that can be columns, as long as each follows an attempt; how many bytes.

    Args:
        data: Of the journal.
        at: Where a record begins.
        header: The journal's.
        plain: Takes the samples.
        begun: Rows that have no answer so far.
    """
    attempts, samples = pairs(data, at, (ATTEMPT, SAMPLE))
    length = samples.shape[1]
    if not len(samples) or attempts.shape[1] != _ROW.size or not fits(samples, header.parameters, header.responses):
        return 0
    step = 2 * SIZE + _ROW.size + length
    rows = plain.add(samples, at + 2 * SIZE + _ROW.size + step * np.arange(len(samples)))
    tried = attempts.copy().view("<i8")[:, 0]
    if begun or (tried != rows).any():
        for row, answered in zip(tried.tolist(), rows.tolist(), strict=True):
            begun[row] = None
            begun.pop(answered, None)
    return step * len(samples)


def _header(path: Path, payload: bytes) -> Header | None:
    """The header that a record holds; None if it is not one."""
    version, header = _header_of(payload)
    if version > VERSION:
        raise ValueError(f"{path} has journal format {version}, this sobofem reads {VERSION}; use the newer one")
    return header


@functools.lru_cache(maxsize=8)
def _header_of(payload: bytes) -> tuple[int, Header | None]:
    """Version and header that some bytes hold, which are those of all journals of a dataset."""
    try:
        content = dict(json.loads(payload))
        version, header = content.pop("version"), Header(**content)
    except (ValueError, TypeError, KeyError):
        return 0, None
    sizes = (version, header.parameters, header.responses)
    if not isinstance(header.fingerprint, str) or not all(isinstance(size, int) and size >= 0 for size in sizes):
        return 0, None
    return version, header


def _parsed(kind: int, payload: bytes, header: Header) -> Sample | Failure | int:
    """A sample, a failure, or the row of an attempt. `struct.error` or `ValueError` if it is of another size."""
    if kind == SAMPLE:
        return unpacked(payload, header.parameters, header.responses)
    if kind == FAILURE:
        return _failure(payload, header)
    if kind != ATTEMPT:
        raise ValueError(f"kind {kind}")
    return int(_ROW.unpack(payload)[0])


def _failure(payload: bytes, header: Header) -> Failure:
    row, seconds, load_factor = _FAILURE.unpack_from(payload)
    end = _FAILURE.size + 8 * header.parameters
    x = np.frombuffer(payload[_FAILURE.size : end], "<f8").astype(np.float64)
    return Failure(row, x, payload[end:].decode(), load_factor, seconds)
