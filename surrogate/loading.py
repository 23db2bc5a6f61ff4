"""Read any surrogate, whatever it maps from and to."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

from sobofem.surrogate import files
from sobofem.surrogate.device import undisturbed
from sobofem.surrogate.export import open_exported
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.online import checkpoint
from sobofem.surrogate.operators.reduced import ReducedOperator
from sobofem.surrogate.operators.surrogate import OperatorSurrogate
from sobofem.surrogate.reduction.cases import CasesSurrogate
from sobofem.surrogate.reduction.field_surrogate import FieldSurrogate
from sobofem.surrogate.reduction.magnitude import RelativeSurrogate
from sobofem.surrogate.reduction.process import GradientProcess
from sobofem.surrogate.reduction.projected import ProjectedSurrogate

type Loaded = (
    Surrogate
    | FieldSurrogate
    | ProjectedSurrogate
    | RelativeSurrogate
    | CasesSurrogate
    | GradientProcess
    | OperatorSurrogate
    | ReducedOperator
)


@undisturbed()
def load(path: str | PathLike[str]) -> Loaded:
    """Read a surrogate of responses, of a field, of many inputs or between fields, by what the file says that it is.

    All that it holds is compared with its checksum first. A file from before there were any is read with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or of a newer version, or needs a network that is not registered
            here.
    """
    found: Loaded = files.unpack(files.read(path))
    return found


@undisturbed()
def verified(path: str | PathLike[str]) -> bool:
    """Whether a surrogate, a checkpoint or an exported program has a checksum, which it fits; it can be read, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is ONNX and ONNX Runtime is not installed.
        ValueError: If it is damaged.
    """
    if Path(path).suffix != ".safetensors":
        return open_exported(path).checked
    stored = files.read(path)
    if stored.kind != checkpoint.KIND:
        files.unpack(stored)
    return stored.checked
