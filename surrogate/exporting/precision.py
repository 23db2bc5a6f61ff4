"""A module in single precision, but for the parts of it that need double."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy

import torch
from torch import Tensor, nn

Pair = Callable[[Tensor], tuple[Tensor, Tensor]]


class InDouble(nn.Module):
    """A module that computes in double precision, among others that don't: what goes in and comes out is single.

    It offers what the module offers of `value_and_jacobian`, `disagreement` and `standard_deviation`.

    Args:
        module: What computes, in double precision.
        dtype: Of its outputs.
    """

    def __init__(self, module: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.module, self.dtype = module, dtype

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.module(x.double())
        return y.to(self.dtype)

    @property
    def value_and_jacobian(self) -> Pair:
        """The module's own, if it has one."""
        return self._rounded(self.module.value_and_jacobian)  # type: ignore[arg-type]

    @property
    def disagreement(self) -> Pair:
        """The module's own, if it has one."""
        return self._rounded(self.module.disagreement)  # type: ignore[arg-type]

    @property
    def standard_deviation(self) -> Pair:
        """The module's own, if it has one."""
        return self._rounded(self.module.standard_deviation)  # type: ignore[arg-type]

    def _rounded(self, function: Pair) -> Pair:
        def rounded(x: Tensor) -> tuple[Tensor, Tensor]:
            y, slopes = function(x.double())
            return y.to(self.dtype), slopes.to(self.dtype)

        return rounded


def in_precision(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU that takes and gives numbers of this type.

    Parts with a true attribute `needs_double` compute in double precision all the same.
    """
    copy = deepcopy(module).to("cpu", dtype)
    if dtype == torch.float64:
        return copy
    outermost: list[str] = []
    for name, part in module.named_modules(remove_duplicate=False):
        if not getattr(part, "needs_double", False) or any(name.startswith(f"{other}.") for other in outermost):
            continue
        double = InDouble(deepcopy(part).to("cpu", torch.float64), dtype)
        if not name:
            return double
        copy.set_submodule(name, double)
        outermost.append(name)
    return copy


def doubled(module: nn.Module) -> tuple[str, ...]:
    """Kinds of the parts of a module that compute in double precision beside others that don't."""
    return tuple(sorted({type(part.module).__name__ for part in module.modules() if isinstance(part, InDouble)}))
