"""Programs as files, ONNX or `torch.export`: what they say of themselves, as JSON inside them, and what runs them."""

from __future__ import annotations

from importlib import import_module
from io import BytesIO
import json
import platform
import re
from typing import TYPE_CHECKING, Any
import warnings

import numpy as np
import torch
from torch.export import ExportedProgram

from sobofem.surrogate.export.program import INPUTS, MEANING, Program, doubled
from sobofem.surrogate.export.tracing import first_line, quietly
from sobofem.surrogate.files.container import PLACEHOLDER

if TYPE_CHECKING:
    from sobofem.surrogate.export.fields import FieldProgram
    from sobofem.surrogate.model import Surrogate

FORMAT = "sobofem-program"
VERSION = 2
"""Of the record; from 2 on files carry a checksum."""
KEY = "sobofem"
"""Where the JSON is: a key of ONNX's `metadata_props`; with `.json`, an extra file of a `.pt2`."""
_KINDS = {
    "parameters": list,
    "responses": list,
    "bounds": list,
    "units": dict,
    "provenance": dict,
    "inputs": list,
    "precision": str,
}
_SILENT = 4
_LARGEST = 2**31  # bytes that protobuf can hold
_OPERATOR = re.compile(r"torch\.ops\.(\w+\.\w+)")
_NO_KERNEL = re.compile(r"implementation for (\w+)")
_RECORD = f"{KEY}.json"
_END = b"PK\x05\x06"


def describe(surrogate: Surrogate, program: Program) -> str:
    """Names, units, bounds, inputs and outputs, provenance and versions as JSON."""
    record = {
        "format": FORMAT,
        "version": VERSION,
        "parameters": surrogate.parameters,
        "responses": surrogate.responses,
        "units": dict(surrogate.units),
        "bounds": surrogate.bounds.tolist(),
        "precision": str(program.x_scale.dtype).removeprefix("torch."),
        "in_double": doubled(program.module),
        "inputs": INPUTS[: 1 + program.hessian],
        "outputs": {name: MEANING[name] for name in program.outputs},
        "network": str(surrogate.network),
        "provenance": dict(surrogate.provenance),
        "versions": versions(),
    }
    return json.dumps(record, default=str)


def versions() -> dict[str, str]:
    """Of Python and of the packages that made the program."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "numpy": np.__version__}


def understand(path: object, text: str | bytes | None, *, sealed: bool) -> dict[str, Any]:
    """The record in a file's JSON.

    Args:
        path: The file, for messages.
        text: The JSON.
        sealed: Whether the file has a checksum, which it fits.

    Raises:
        ValueError: If there is none, a damaged one, or a newer one than this sobofem knows.
    """
    try:
        record = json.loads(text) if text else {}
    except (ValueError, RecursionError):
        record = {}
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise ValueError(f"{path} was not exported by sobofem: it lacks the record {KEY!r}; name one that was")
    version = record.get("version")
    if type(version) is int and version > VERSION:
        raise ValueError(
            f"{path} has format version {version}, and this sobofem reads up to {VERSION}; upgrade sobofem"
        )
    whole = all(type(record.get(key)) is kind for key, kind in _KINDS.items())
    if type(version) is not int or version < 1 or not whole:
        raise ValueError(f"{path} is damaged: its record {KEY!r} lacks what sobofem writes; export it again")
    if version == VERSION and not sealed:
        raise ValueError(f"{path} is damaged: it has lost its checksum; copy it again, or export it again")
    if not sealed:
        warnings.warn(
            f"{path} was exported by an older sobofem, without a checksum: damage can't be noticed; export it again "
            "to add one",
            stacklevel=4,
        )
    return record


def onnx_bytes(traced: ExportedProgram, program: Program | FieldProgram, about: str) -> bytes:
    """The content of an ONNX file.

    Raises:
        ValueError: If an operator has no translation.
    """
    try:
        with quietly():
            exported = torch.onnx.export(
                traced,
                dynamo=True,
                verbose=False,
                input_names=INPUTS[: 1 + program.hessian],
                output_names=program.outputs,
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        operators = _OPERATOR.findall(str(error))
        reason = f"ONNX has no {operators[-1]}" if operators else first_line(error)
        name = type(program.module).__name__
        raise ValueError(f"{name} can't be exported to ONNX: {reason}; export it to a .pt2 file") from error
    share_alike = import_module("onnx_ir.passes.common").DeduplicateInitializersPass(size_limit=_LARGEST)
    share_alike(exported.model)  # type: ignore[union-attr]
    return _tidy(exported.model_proto, about)  # type: ignore[union-attr]


def _tidy(model: Any, about: str) -> bytes:
    """With names and meanings, without what the exporter remembers of this machine's files."""
    graph = model.graph
    for item in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
        value.doc_string = MEANING.get(value.name, "in physical units (N, n)")
    graph.name = "surrogate"
    for key, value in ((KEY, about), (f"{KEY}.checksum", PLACEHOLDER.decode())):
        record = model.metadata_props.add()
        record.key, record.value = key, value
    content: bytes = model.SerializeToString(deterministic=True)
    return content


class OnnxRuntime:
    """An ONNX file, ready to run on the CPU.

    Raises:
        ModuleNotFoundError: If ONNX Runtime is missing.
        ValueError: If the content is no ONNX model, or needs an operator that ONNX Runtime lacks.
    """

    def __init__(self, content: bytes, name: object) -> None:
        runtime = require("onnxruntime")
        options = runtime.SessionOptions()
        options.log_severity_level = _SILENT
        try:
            self._session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the runtime's own classes, which derive from nothing more special
            lacking = _NO_KERNEL.search(str(error))
            if lacking:
                raise ValueError(
                    f"ONNX Runtime has no {lacking[1]} in the precision of {name}; "
                    "export in the other precision, or to a .pt2 file"
                ) from error
            raise ValueError(f"{name} is no whole ONNX file ({first_line(error)}); export it again") from error
        self.about: str | None = self._session.get_modelmeta().custom_metadata_map.get(KEY)

    def __call__(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """All outputs by name."""
        names = [output.name for output in self._session.get_outputs()]
        return dict(zip(names, self._session.run(names, inputs), strict=True))


def require(*packages: str) -> Any:
    """The first of these packages, all of them there.

    Raises:
        ModuleNotFoundError: If one is missing; the message says how to install it.
    """
    try:
        first, *_ = [import_module(package) for package in packages]
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            f'ONNX files need {", ".join(packages)} ({error}): pip install "sobofem[onnx]", or take a .pt2 file'
        ) from error
    return first


def torch_bytes(traced: ExportedProgram, program: Program | FieldProgram, about: str) -> bytes:
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
