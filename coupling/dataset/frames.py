"""Records of journals as bytes, each behind a frame that says what it is and has its checksum.

    b"SBFJ"  kind: u8, 3 bytes of zero  length: u32  crc: u32  payload of that length     (little-endian)

The checksum (CRC32) covers kind, length and payload.
"""

from __future__ import annotations

import functools
import struct
import zlib

import numpy as np
from numpy.typing import NDArray

from sobofem.coupling.dataset.open_files import OpenFile

MARK = b"SBFJ"
_FRAME = struct.Struct("<4sB3sII")
_COVERED = struct.Struct("<BI")
_ALIKE = 12  # bytes of a frame before its checksum
_FEW, _MANY = 128, 8192  # pairs of records to look at together, at first and at most

SIZE = _FRAME.size
"""Bytes of a frame."""


def framed(kind: int, payload: bytes) -> bytes:
    """A record."""
    return _FRAME.pack(MARK, kind, bytes(3), len(payload), zlib.crc32(payload, _begun(kind, len(payload)))) + payload


def record_at(data: bytes | OpenFile, at: int) -> tuple[int, bytes, str]:
    """Kind and payload of the record at a byte, and what is wrong with it (empty if nothing)."""
    if (begin := at + SIZE) > len(data):
        return 0, b"", "record cut off"
    mark, kind, zeros, length, checksum = _FRAME.unpack(data[at:begin])
    if mark != MARK or any(zeros):
        return 0, b"", "no record begins"
    payload = data[begin : begin + length]
    if zlib.crc32(payload, _begun(kind, length)) == checksum:
        return kind, payload, ""
    return 0, b"", "record cut off" if len(payload) < length else "checksum does not fit its record"


def next_record(data: bytes | OpenFile, at: int) -> int:
    """First byte from `at` on where a whole record begins; the end if none does."""
    while (at := data.find(MARK, at)) >= 0:
        if not record_at(data, at)[2]:
            return at
        at += 1
    return len(data)


def pairs(data: bytes, at: int, kinds: tuple[int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Payloads of records of two kinds that take turns from a byte on, (k, l) and (k, L).

    As far as they are whole, and as long as the first of their kind: so most journals are, and nothing need be done for
    each record but its checksum.
    """
    lengths, begin = [], at
    for kind in kinds:
        head = _FRAME.unpack(data[begin : begin + SIZE]) if begin + SIZE <= len(data) else (b"", -1, b"", 0, 0)
        if head[:3] != (MARK, kind, bytes(3)):
            return np.zeros((0, 0), np.uint8), np.zeros((0, 0), np.uint8)
        lengths.append(head[3])
        begin += SIZE + head[3]
    step = begin - at
    table = np.frombuffer(data, np.uint8, (len(data) - at) // step * step, at).reshape(-1, step)
    starts = (0, SIZE + lengths[0])
    count, some = 0, _FEW
    while count < len(table):
        part = table[count : count + some]
        alike = [part[:, start : start + _ALIKE] == table[0, start : start + _ALIKE] for start in starts]
        part = part[: _leading((alike[0] & alike[1]).all(axis=1))]
        for start, kind, length in zip(starts, kinds, lengths, strict=True):
            seed, first = _begun(kind, length), at + count * step + start + SIZE
            view = memoryview(data)[first : first + len(part) * step]
            found = [zlib.crc32(view[k : k + length], seed) for k in range(0, len(part) * step, step)]
            part = part[: _leading(part[:, start + _ALIKE : start + SIZE].copy().view("<u4")[:, 0] == found)]
        count += len(part)
        if len(part) < some:
            break
        some = min(4 * some, _MANY)
    return table[:count, SIZE : starts[1]], table[:count, starts[1] + SIZE :]


def _leading(good: NDArray[np.bool_]) -> int:
    """How many are true before the first that is not."""
    return len(good) if good.all() else int(good.argmin())


@functools.lru_cache
def _begun(kind: int, length: int) -> int:
    """The checksum of what comes before the payload."""
    return zlib.crc32(_COVERED.pack(kind, length))
