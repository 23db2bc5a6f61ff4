"""A checksum within the bytes of a file whose format is another's: all of it counts, but for the checksum itself."""

from __future__ import annotations

import hashlib

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
