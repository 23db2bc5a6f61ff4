"""From a program to a graph of plain operators, for any number of points."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
import logging
import warnings

import torch
from torch import fx
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx

from surrogate.exporting.folding import fold, lift_numbers
from surrogate.exporting.operators import portable
from surrogate.exporting.program import INPUTS, Program

_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "torch._guards", "onnxscript", "onnx_ir")
_WHERE_FROM = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def trace(program: Program) -> ExportedProgram:
    """The program as a graph of operators that PyTorch and, as far as they have them, other runtimes know.

    Raises:
        ValueError: If the module of the program can't be traced; the message has PyTorch's reason.
    """
    N, name = _points(program), type(program.module).__name__
    x = ((program.low + program.high) / 2).repeat(N, 1)
    inputs = (x, x - program.low) if program.hessian else (x,)
    any_number = Dim("N")
    try:
        with torch.no_grad(), quietly():
            graph = make_fx(
                lambda *given: program(*given),
                decomposition_table=portable(),
                tracing_mode="symbolic",
                _allow_non_fake_inputs=True,
            )(*inputs)
            _check_open(graph, N)
            traced = torch.export.export(
                _named(lift_numbers(fold(graph))), inputs, dynamic_shapes=tuple({0: any_number} for _ in inputs)
            )
    except Exception as error:  # whatever PyTorch's tracer meets in a module that is not ours
        raise ValueError(
            f"{name} can't be exported: {first_line(error)} ({type(error).__name__}); a module that can takes any "
            "number of points, treats all alike without a branch on their values, and keeps its tensors as parameters "
            "or buffers"
        ) from error
    return _anonymous(traced)


def _check_open(graph: fx.GraphModule, N: int) -> None:
    """Check that no line of the module has settled on the number of points that it was traced with.

    Raises:
        ValueError: If one has; the message names it.
    """
    for guard in graph.shape_env.guards:  # type: ignore[union-attr]
        if N in guard.expr.args:
            place = str(guard.sloc).strip("()")
            raise ValueError(f"its number of points is fixed in {place}: take x.shape[0] in place of len(x)")


def _points(program: Program) -> int:
    """A number of points that no other size equals: a tracer takes equal sizes for the same."""
    sizes = {size for tensor in program.state_dict().values() for size in tensor.shape}
    return next(N for N in count(29) if N not in sizes)


def _named(graph: fx.GraphModule) -> fx.GraphModule:
    """With the names of the inputs."""
    for node, name in zip(graph.graph.find_nodes(op="placeholder"), INPUTS, strict=False):
        node.target = name
        node.name = name
    graph.recompile()
    return graph


@contextmanager
def quietly() -> Iterator[None]:
    """Without PyTorch's warnings about itself and the notes of its exporters, which no caller can act on."""
    loggers = [logging.getLogger(name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def first_line(error: BaseException) -> str:
    """The beginning of what an error says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason given"


def _anonymous(traced: ExportedProgram) -> ExportedProgram:
    """Without the files and lines of this machine that every node remembers."""
    for node in traced.graph.nodes:
        for key in _WHERE_FROM:
            node.meta.pop(key, None)
    return traced
