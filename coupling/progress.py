"""How far a generation is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """How far a generation is.

    Attributes:
        done: Samples computed in this run.
        failed: Samples in this run that have no answer.
        total: Samples that were missing when this run began; other jobs may take a part of them.
        before: Samples and failures that earlier runs left.
        seconds: Wall time since the first sample began [s].
    """

    done: int
    failed: int
    total: int
    before: int
    seconds: float
