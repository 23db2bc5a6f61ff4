"""Operators that ONNX or its runtime lacks in double precision, in terms of others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._decomp import core_aten_decompositions, get_decompositions

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
