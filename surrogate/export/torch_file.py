"""Programs as `torch.export` archives, and PyTorch to run them."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import torch
from torch.export import ExportedProgram

from sobofem.surrogate.export.about import KEY
from sobofem.surrogate.export.program import Program
from sobofem.surrogate.export.tracing import first_line, quietly
from sobofem.surrogate.files.container import PLACEHOLDER

_RECORD = f"{KEY}.json"
_END = b"PK\x05\x06"


def to_bytes(traced: ExportedProgram, program: Program, about: str) -> bytes:
    """The content of a `.pt2` file."""
    archive = BytesIO()
    with quietly():
        torch.export.save(traced, archive, extra_files={_RECORD: about})
    return _with_comment(archive.getvalue(), PLACEHOLDER)


def _with_comment(archive: bytes, comment: bytes) -> bytes:
    """A zip archive with a comment, which follows its last record; those of PyTorch have none."""
    assert archive[-22:-18] == _END and archive[-2:] == bytes(2)  # else there is one already
    return archive[:-2] + len(comment).to_bytes(2, "little") + comment


class TorchRuntime:
    """A `.pt2` file, ready to run on the CPU.

    Raises:
        ValueError: If the content is no such archive.
    """

    def __init__(self, content: bytes, name: object) -> None:
        extra = {_RECORD: ""}
        try:
            with quietly():
                self._module = torch.export.load(BytesIO(content), extra_files=extra).module()
        except Exception as error:  # an archive cut short fails in PyTorch's reader, in many ways
            raise ValueError(f"{name} is no whole .pt2 file ({first_line(error)}); export it again") from error
        self.about = extra[_RECORD]

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        with torch.no_grad():
            outputs = self._module(*(torch.from_numpy(array) for array in inputs.values()))
        return {name: tensor.numpy() for name, tensor in outputs.items()}
