"""Constants of a traced program: computed once, and held in full precision."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

_RANDOM = torch.Tag.nondeterministic_seeded
_aten = torch.ops.aten
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
