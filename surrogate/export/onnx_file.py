"""Programs as ONNX files, and ONNX Runtime to run them."""

from __future__ import annotations

from importlib import import_module
import re
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from sobofem.surrogate.export.about import KEY
from sobofem.surrogate.export.program import INPUTS, MEANING, Program
from sobofem.surrogate.export.tracing import first_line, quietly
from sobofem.surrogate.files.container import PLACEHOLDER

_SILENT = 4
_LARGEST = 2**31  # bytes that protobuf can hold
_OPERATOR = re.compile(r"torch\.ops\.(\w+\.\w+)")
_NO_KERNEL = re.compile(r"implementation for (\w+)")


def to_bytes(traced: ExportedProgram, program: Program, about: str) -> bytes:
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
