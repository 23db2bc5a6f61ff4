"""A seal on whole files: a checksum of every byte, in a block at the beginning that HDF5 itself passes over.

    0      one block of 512 bytes (HDF5's user block): a line of text with the length and the checksum of the rest
    512    the HDF5 file

Damage is so found before the HDF5 library sees a byte of it: one flipped bit of its metadata can make it loop for ever,
crash, or read zeros. The block follows from the rest of the file, so that damage to the block is found as well.
`tail -c +513 FILE | b2sum -l 256` computes the same checksum.
"""

from __future__ import annotations

import hashlib
from typing import IO

LENGTH = 512
"""Bytes of the block: the smallest that HDF5 allows."""

_PART = 1 << 20
_MARK = b"sobofem dataset, sealed: "
_SIGNATURE = b"\x89HDF\r\n\x1a\n"


def sealed(image: memoryview) -> None:
    """Write the seal into the first bytes of a file's image."""
    digest = _hash()
    digest.update(image[LENGTH:])
    image[:LENGTH] = _block(len(image) - LENGTH, digest.hexdigest())


def seal_file(file: IO[bytes]) -> None:
    """Write the seal into the first bytes of a file that is open for reading and writing."""
    length, checksum = _rest(file)
    file.seek(0)
    file.write(_block(length, checksum))


def is_sealed(file: IO[bytes]) -> bool:
    """Whether a file begins like a sealed one."""
    file.seek(0)
    return file.read(len(_MARK)) == _MARK


def is_hdf5(file: IO[bytes]) -> bool:
    """Whether a file begins like an HDF5 file, with or without a block before it; HDF5 is not called."""
    for start in (0, LENGTH):
        file.seek(start)
        if file.read(len(_SIGNATURE)) == _SIGNATURE:
            return True
    return False


def broken(file: IO[bytes]) -> str:
    """What is wrong with a file that begins like a sealed one; empty if every byte is as it was written."""
    file.seek(0)
    block = file.read(LENGTH)
    length, checksum = _rest(file)
    if block == _block(length, checksum):
        return ""
    planned = block[len(_MARK) :].split(b" ", 1)[0]
    if planned.isdigit() and int(planned) != length:
        return f"it has {length} bytes after its seal, where {int(planned)} were written"
    return "its bytes do not give its checksum"


def _rest(file: IO[bytes]) -> tuple[int, str]:
    """Length and checksum of all that follows the block."""
    file.seek(LENGTH)
    digest = _hash()
    while part := file.read(_PART):
        digest.update(part)
    return file.tell() - LENGTH, digest.hexdigest()


def _hash() -> hashlib.blake2b:
    """BLAKE2b: a gigabyte a second without special instructions of the processor, and no collision by chance."""
    return hashlib.blake2b(digest_size=32)


def _block(length: int, checksum: str) -> bytes:
    text = _MARK + f"{length} bytes follow this block, BLAKE2b-256 {checksum}\n".encode()
    return text.ljust(LENGTH - 1) + b"\n"
