"""What a safetensors file holds, believed only after comparison with its size and its checksum.

The format is a length (8 bytes), so many bytes of JSON, and the numbers. The JSON is read here, not by the library, so
that a claim can be checked before anything is allocated for it.
"""

from __future__ import annotations

from dataclasses import dataclass
import hashlib
import json
from typing import Any, BinaryIO

import safetensors
from safetensors.torch import load as from_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

CHECKSUM = "checksum"
"""Key of the metadata: SHA-256 over all else in it and over all tensors, sorted by name."""
LARGEST = 100_000_000
"""Bytes of JSON that a file may have, as the library allows."""
_OTHERS = {
    b"\x89HDF\r\n\x1a\n": "a dataset (HDF5)",
    b"PK\x03\x04": "a zip archive, such as PyTorch's .pt and .pt2",
    b"\x80": "a pickle",
}


@dataclass(frozen=True, eq=False)
class Container:
    """The content of a file.

    Attributes:
        metadata: Text by name.
        tensors: Their types, shapes and places, by name.
        content: All bytes.
        start: Where the numbers begin.
    """

    metadata: dict[str, str]
    tensors: dict[str, tuple[str, list[int], int, int]]
    content: bytes
    start: int

    @property
    def numbers(self) -> int:
        """Bytes of all tensors."""
        return len(self.content) - self.start

    @property
    def digest(self) -> str:
        """The checksum that it should have: that of its texts and tensors, wherever in the file they stand."""
        found = hashlib.sha256()
        for key in sorted(self.metadata.keys() - {CHECKSUM}):
            found.update(json.dumps([key, self.metadata[key]]).encode())
        view = memoryview(self.content)
        for name in sorted(self.tensors):
            dtype, shape, first, last = self.tensors[name]
            found.update(json.dumps([name, dtype, shape]).encode())
            found.update(view[self.start + first : self.start + last])
        return f"sha256:{found.hexdigest()}"

    def arrays(self) -> dict[str, Tensor]:
        """All tensors by name.

        Raises:
            ValueError: If a type is unknown, or a shape doesn't fit its place.
        """
        try:
            found: dict[str, Tensor] = from_bytes(self.content)
        except (safetensors.SafetensorError, AssertionError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"its tensors can't be read ({error})") from error
        for name, tensor in found.items():
            if tensor.is_complex():
                raise ValueError(f"its tensor {name[:40]!r} is complex")
        return found


def pack(tensors: dict[str, Tensor], metadata: dict[str, str]) -> bytes:
    """A file of these tensors and texts, with its checksum."""
    plain = {name: tensor.contiguous().clone() for name, tensor in tensors.items()}  # layers may share a tensor
    unsealed = to_bytes(plain, metadata=metadata)
    return to_bytes(plain, metadata=metadata | {CHECKSUM: unpack(unsealed).digest})


def unpack(content: bytes) -> Container:
    """The container in these bytes.

    Raises:
        ValueError: If there is none; the message says what is wrong.
    """
    length = _header_length(content[:8], len(content))
    return _container(content, 8 + length)


def read(file: BinaryIO, size: int) -> Container:
    """The container in an open file of so many bytes; no more is read of it than its header until that fits the size.

    Raises:
        ValueError: If there is none; the message says what is wrong.
    """
    head = file.read(8)
    length = _header_length(head, size)
    head += file.read(length)
    _container(head, 8 + length, size)
    return _container(head + file.read(size - len(head)), 8 + length)


def _header_length(head: bytes, size: int) -> int:
    if not size:
        raise ValueError("it is empty")
    length = int.from_bytes(head, "little")
    if len(head) < 8 or length > min(LARGEST, size - 8):
        others = [name for magic, name in _OTHERS.items() if head.startswith(magic)]
        raise ValueError(f"it is {others[0]}" if others else "its header is longer than the file or than any")
    return length


def _container(content: bytes, start: int, size: int | None = None) -> Container:
    """The container whose header ends at `start`, if that fits the size, by default that of the content."""
    try:
        header = json.loads(content[8:start])
    except (ValueError, RecursionError) as error:
        raise ValueError("its header is no JSON") from error
    if not isinstance(header, dict):
        raise ValueError("its header is no table of tensors")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError("its metadata are no texts")
    tensors = {name: _entry(name, value) for name, value in header.items()}
    end = max((last for *_, last in tensors.values()), default=0)
    if start + end != (len(content) if size is None else size):
        raise ValueError(
            f"its tensors end at byte {start + end}, and the file at {len(content) if size is None else size}"
        )
    return Container(metadata, tensors, content, start)


def _entry(name: str, value: Any) -> tuple[str, list[int], int, int]:
    """Type, shape and place of a tensor."""
    if isinstance(value, dict) and set(value) == {"dtype", "shape", "data_offsets"}:
        dtype, shape, place = value["dtype"], value["shape"], value["data_offsets"]
        if isinstance(dtype, str) and _whole(shape) and _whole(place) and len(place) == 2 and place[0] <= place[1]:
            return dtype, shape, place[0], place[1]
    raise ValueError(f"its header does not describe the tensor {name[:40]!r}")


def _whole(values: Any) -> bool:
    """Whether this is a list of whole numbers, none negative."""
    return isinstance(values, list) and all(type(value) is int and value >= 0 for value in values)


MARK = b"sobofem-sha256:"
PLACEHOLDER = MARK + b"0" * 64
"""What a file holds once, where others ignore it, until it is sealed."""


def seal(content: bytes) -> bytes:
    """The content with its checksum in place of the placeholder.

    Raises:
        ValueError: If there is not exactly one.
    """
    if content.count(MARK) != 1:
        raise ValueError(f"the content has {content.count(MARK)} places for a checksum; expected one")
    start = content.index(PLACEHOLDER) + len(MARK)
    return content[:start] + _digest(content) + content[start + 64 :]


def fits(content: bytes) -> bool | None:
    """Whether the content is what was sealed; None if it has no checksum."""
    if content.count(MARK) != 1:
        return None
    start = content.index(MARK) + len(MARK)
    blank = content[:start] + b"0" * 64 + content[start + 64 :]
    return content[start : start + 64] == _digest(blank)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
