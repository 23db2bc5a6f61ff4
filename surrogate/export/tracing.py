"""From a program to a graph of plain operators, for any number of points."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
import logging
import operator
from typing import TYPE_CHECKING, Any
import warnings

import numpy as np
import torch
from torch import Tensor, fx
from torch._decomp import core_aten_decompositions, get_decompositions
from torch.export import Dim, ExportedProgram
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.node import map_arg

from sobofem.surrogate.export.program import INPUTS, Program

if TYPE_CHECKING:
    from sobofem.surrogate.export.fields import FieldProgram

_aten = torch.ops.aten

_BY_TORCH = (
    *(_aten.elu, _aten.elu_backward, _aten.silu, _aten.silu_backward, _aten.mish, _aten.mish_backward),
    *(_aten.softplus_backward, _aten.gelu_backward, _aten.sigmoid_backward, _aten.tanh_backward),
    *(_aten.native_layer_norm, _aten.native_layer_norm_backward),
    *(_aten.log_sigmoid_forward, _aten.log_sigmoid_backward),
)


def portable() -> dict[Any, Callable[..., Any]]:
    """Operators by what to compute instead of them, for `make_fx`."""
    return {
        **core_aten_decompositions(),
        **get_decompositions(_BY_TORCH),
        _aten.softplus.default: softplus,
        _aten.linalg_solve_triangular.default: solve_triangular,
        _aten.cholesky_solve.default: cholesky_solve,
        _aten.empty_permuted.default: empty_permuted,
    }


def softplus(z: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(βz)) / β without overflow; z itself beyond the threshold, as PyTorch has it."""
    t = z * beta
    smooth = torch.log1p(torch.exp(-t.abs())) + t.clamp_min(0.0)
    return torch.where(t > threshold, z, smooth / beta)


def solve_triangular(A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False) -> Tensor:
    """Solution of AX = B, or of XA = B, by the inverse of A: worth it where A is constant, so that it is folded."""
    A = A.transpose(-2, -1) if upper else A
    inverse = invert_lower(A, unitriangular=unitriangular)
    inverse = inverse.transpose(-2, -1) if upper else inverse
    return inverse @ B if left else B @ inverse


def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """Solution of L Lᵀ X = B, or of Lᵀ L X = B with an upper L, by the inverse of the factor."""
    inverse = invert_lower(L.transpose(-2, -1) if upper else L)
    return inverse.transpose(-2, -1) @ (inverse @ B)


def empty_permuted(size: Sequence[int], order: Sequence[int], dtype: torch.dtype | None = None, **_: Any) -> Tensor:
    """Room for numbers, with zeros in it."""
    return torch.zeros(size, dtype=dtype)


def invert_lower(L: Tensor, *, unitriangular: bool = False) -> Tensor:
    """Inverse of a lower triangular matrix (..., k, k), from blocks of size 1, 2, 4 and so on.

    [[A, 0], [C, D]]⁻¹ = [[A⁻¹, 0], [−D⁻¹ C A⁻¹, D⁻¹]]: as stable as substitution, in log₂ k steps.
    """
    k = L.shape[-1]
    place = torch.arange(k)
    diagonal = torch.ones_like(L[..., 0]) if unitriangular else torch.diagonal(L, dim1=-2, dim2=-1)
    X = torch.diag_embed(1.0 / diagonal)
    size = 1
    while size < k:
        block = place // size
        below = (block[:, None] == block[None, :] + 1) & (block[:, None] % 2 == 1)
        X = X - X @ torch.where(below, L, torch.zeros_like(L)) @ X
        size *= 2
    return X


_RANDOM = torch.Tag.nondeterministic_seeded

_WITH_A_NUMBER = {
    **{operator: operator for operator in (_aten.add.Tensor, _aten.sub.Tensor, _aten.mul.Tensor, _aten.div.Tensor)},
    _aten.pow.Tensor_Scalar: _aten.pow.Tensor_Tensor,
}
"""Operators whose second operand may be a number, by those whose second operand is a tensor."""


def fold(graph: fx.GraphModule) -> fx.GraphModule:
    """Replace everything that depends on constants alone by its value.

    So a matrix that a module inverts or factorizes in every call is inverted in the export, and the operators
    that do it need not exist where the program runs. Mere views of constants stay what they are.
    """
    values: dict[fx.Node, Any] = {}
    for node in graph.graph.nodes:
        if node.op == "get_attr":
            values[node] = _attribute(graph, node.target)
        elif node.op == "call_function" and _pure(node) and all(source in values for source in node.all_input_nodes):
            args, kwargs = (map_arg(part, lambda source: values[source]) for part in (node.args, node.kwargs))
            values[node] = node.target(*args, **kwargs)
    for node in reversed(values):
        if isinstance(values[node], Tensor) and node.op == "call_function" and node.users and not _view(node):
            _insert(graph, node, values[node])
        if not node.users:
            graph.graph.erase_node(node)
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def lift_numbers(graph: fx.GraphModule) -> fx.GraphModule:
    """Turn numbers that single precision can't hold into tensors: ONNX exporters round numbers to it.

    So an epsilon of 1e-5 stays one in double precision.
    """
    for node in list(graph.graph.nodes):
        if node.target in _WITH_A_NUMBER and len(node.args) == 2 and _needs_double(node.args[1]):
            name = f"number_{node.name}"
            graph.register_buffer(name, torch.tensor(node.args[1], dtype=node.meta["val"].dtype))
            with graph.graph.inserting_before(node):
                constant = graph.graph.get_attr(name)
            constant.meta["val"] = node.meta["val"].new_empty(())
            node.target, node.args = _WITH_A_NUMBER[node.target], (node.args[0], constant)
    graph.recompile()
    return graph


def _needs_double(value: Any) -> bool:
    return isinstance(value, float) and float(np.float32(value)) != value


def _pure(node: fx.Node) -> bool:
    """Whether a call gives the same at every time and changes nothing."""
    target = node.target
    if isinstance(target, torch._ops.OpOverload):
        return not target._schema.is_mutable and _RANDOM not in target.tags
    return target is operator.getitem


def _view(node: fx.Node) -> bool:
    """Whether a call only looks at its operand in another way."""
    return isinstance(node.target, torch._ops.OpOverload) and node.target.is_view


def _insert(graph: fx.GraphModule, node: fx.Node, value: Tensor) -> None:
    name = f"folded_{node.name}"
    graph.register_buffer(name, value.detach().clone(memory_format=torch.contiguous_format))
    with graph.graph.inserting_before(node):
        constant = graph.graph.get_attr(name)
    constant.meta.update(node.meta)
    node.replace_all_uses_with(constant)


def _attribute(owner: Any, path: str) -> Any:
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


_TALKATIVE = ("torch.onnx", "torch.export", "torch.fx", "torch._dynamo", "torch._guards", "onnxscript", "onnx_ir")
_WHERE_FROM = ("stack_trace", "nn_module_stack", "source_fn_stack", "torch_fn", "from_node")


def trace(program: Program | FieldProgram) -> ExportedProgram:
    """The program as a graph of operators that PyTorch and, as far as they have them, other runtimes know.

    Raises:
        ValueError: If the module of the program can't be traced; the message has PyTorch's reason.
    """
    N, name = _points(program), type(program.module).__name__
    x = ((program.low + program.high) / 2).repeat(N, *[1] * program.low.ndim)
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


def _points(program: Program | FieldProgram) -> int:
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
