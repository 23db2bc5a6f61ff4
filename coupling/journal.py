"""Journals: append-only files of checksummed records, which survive the death of their writer.

A journal is a sequence of records, the first of which says what the others belong to:

    b"SBFJ"  kind: u8, 3 bytes of zero  length: u32  crc: u32  payload of that length     (little-endian)

The checksum (CRC32) covers kind, length and payload. A record goes to the operating system in one write, so
that a killed process leaves whole records and at most one incomplete one at the end. Before a sample is begun a
record says so: one that kills its process is known by that, and by the answer that never came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
import json
import os
from pathlib import Path
import struct
import time
import zlib

import numpy as np

from coupling.contract import Array
from coupling.samples import Failure, Sample

VERSION = 2
HEADER, SAMPLE, FAILURE, ATTEMPT = range(4)
_MARK = b"SBFJ"
_FRAME = struct.Struct("<4sBxxxII")
_COVERED = struct.Struct("<BI")
_SAMPLE = struct.Struct("<qdB")
_FAILURE = struct.Struct("<qdd")
_ROW = struct.Struct("<q")


@dataclass(frozen=True)
class Header:
    """What the records of a journal belong to: the fingerprint of their dataset, and their sizes."""

    fingerprint: str
    parameters: int
    responses: int


@dataclass(frozen=True)
class Journal:
    """What could be read of a journal.

    Attributes:
        path: The file.
        header: None where the file ends before it.
        records: Samples and failures, in the order of writing.
        attempts: Rows that were begun and have no answer here.
        damage: Where and how records are damaged or missing; empty if the file is whole.
    """

    path: Path
    header: Header | None
    records: tuple[Sample | Failure, ...] = ()
    attempts: tuple[int, ...] = ()
    damage: str = ""


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
        self._file = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o644)
        content = {"version": VERSION, **vars(self.header)}
        for _ in range(2):  # nothing can be read without it
            self._append(HEADER, json.dumps(content).encode())

    def attempt(self, row: int) -> None:
        """Note that a row is begun."""
        self._append(ATTEMPT, _ROW.pack(row))

    def sample(self, sample: Sample) -> None:
        """Append a sample. `OSError` if the disk refuses; what was complete stays readable."""
        parts = [_SAMPLE.pack(sample.row, sample.seconds, sample.jacobian is not None), _bytes(sample.x)]
        parts.append(_bytes(sample.y))
        if sample.jacobian is not None:
            parts.append(_bytes(sample.jacobian))
        self._append(SAMPLE, b"".join(parts))

    def failure(self, failure: Failure) -> None:
        """Append a failure. `OSError` if the disk refuses; what was complete stays readable."""
        head = _FAILURE.pack(failure.row, failure.seconds, failure.load_factor)
        self._append(FAILURE, head + _bytes(failure.x) + failure.reason.encode(errors="replace"))

    def close(self) -> None:
        """Bring everything to the disk and close the file."""
        os.fsync(self._file)
        os.close(self._file)

    def _append(self, kind: int, payload: bytes) -> None:
        record = _FRAME.pack(_MARK, kind, len(payload), _checksum(kind, payload)) + payload
        written = 0
        try:
            while written < len(record):
                written += os.write(self._file, record[written:])
            if time.monotonic() - self._synced > self.sync_interval:
                os.fsync(self._file)
                self._synced = time.monotonic()
        except OSError as error:
            os.ftruncate(self._file, self._size)
            raise OSError(
                error.errno,
                f"{os.strerror(error.errno or 0)}: could not append to the journal; everything before is safe: "
                "make room and repeat the same command",
                str(self.path),
            ) from error
        self._size += written


def read_journal(path: Path) -> Journal:
    """Read every whole record; what is damaged or cut off in between is passed over, and named.

    Raises:
        ValueError: If a newer version of sobofem wrote it.
        OSError: If the file can't be read at all.
    """
    data = path.read_bytes()
    header: Header | None = None
    records: list[Sample | Failure] = []
    begun: dict[int, None] = {}
    damage, at = [], 0
    while at < len(data):
        kind, payload, problem = _record(data, at)
        if problem:
            damage.append(f"{problem} at byte {at} of {len(data)}")
            at = _next_record(data, at + 1)
            continue
        at += _FRAME.size + len(payload)
        if kind == HEADER:
            header = _header(path, payload)
        elif header is None:
            return Journal(path, None, damage=f"{path}: no header, so {len(data)} bytes can't be read")
        elif kind == ATTEMPT:
            begun[_ROW.unpack(payload)[0]] = None
        else:
            records.append(_sample(payload, header) if kind == SAMPLE else _failure(payload, header))
            begun.pop(records[-1].row, None)
    text = f"{path}: {'; '.join(damage)}" if damage else ""
    return Journal(path, header, tuple(records), tuple(begun), text)


def _next_record(data: bytes, at: int) -> int:
    """First byte from `at` on where a whole record begins; the end if none does."""
    while (at := data.find(_MARK, at)) >= 0:
        if not _record(data, at)[2]:
            return at
        at += 1
    return len(data)


def _record(data: bytes, at: int) -> tuple[int, bytes, str]:
    """Kind and payload of the record at a byte, and what is wrong with it (empty if nothing)."""
    if at + _FRAME.size > len(data):
        return 0, b"", "record cut off"
    mark, kind, length, checksum = _FRAME.unpack_from(data, at)
    if mark != _MARK:
        return 0, b"", "no record begins"
    payload = data[at + _FRAME.size : at + _FRAME.size + length]
    if len(payload) < length:
        return 0, b"", "record cut off"
    if _checksum(kind, payload) != checksum:
        return 0, b"", "checksum does not fit its record"
    return kind, payload, ""


def _header(path: Path, payload: bytes) -> Header:
    content = json.loads(payload)
    version = content.pop("version", 0)
    if version > VERSION:
        raise ValueError(f"{path} has journal format {version}, this sobofem reads {VERSION}; use the newer one")
    return Header(**content)


def _sample(payload: bytes, header: Header) -> Sample:
    n, m = header.parameters, header.responses
    row, seconds, has_jacobian = _SAMPLE.unpack_from(payload)
    numbers = np.frombuffer(payload, "<f8", offset=_SAMPLE.size).astype(np.float64)
    jacobian = numbers[n + m :].reshape(m, n) if has_jacobian else None
    return Sample(row, numbers[:n], numbers[n : n + m], jacobian, seconds)


def _failure(payload: bytes, header: Header) -> Failure:
    row, seconds, load_factor = _FAILURE.unpack_from(payload)
    end = _FAILURE.size + 8 * header.parameters
    x = np.frombuffer(payload[_FAILURE.size : end], "<f8").astype(np.float64)
    return Failure(row, x, payload[end:].decode(), load_factor, seconds)


def _checksum(kind: int, payload: bytes) -> int:
    return zlib.crc32(payload, zlib.crc32(_COVERED.pack(kind, len(payload))))


def _bytes(array: Array) -> bytes:
    return np.ascontiguousarray(array, dtype="<f8").tobytes()
