"""A module in single precision, but for the parts of it that need double."""

from __future__ import annotations

from copy import deepcopy

import torch
from torch import Tensor, nn

from sobofem.surrogate.networks.base import NetworkModule, as_network_module, value_and_jacobian


class InDouble(NetworkModule):
    """A module that computes in double precision, among others that don't: what goes in and comes out is single.

    It can do what the module can.

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
    def differentiates_itself(self) -> bool:
        """As the module does."""
        return as_network_module(self.module).differentiates_itself

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded: (N, m) and (N, m, n) at inputs (N, n)."""
        return self._rounded(value_and_jacobian(self.module, x.double()))

    @property
    def has_disagreement(self) -> bool:
        """As the module has."""
        return as_network_module(self.module).has_disagreement

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded."""
        return self._rounded(as_network_module(self.module).disagreement(x.double()))

    @property
    def has_standard_deviation(self) -> bool:
        """As the module has."""
        return as_network_module(self.module).has_standard_deviation

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The module's, rounded."""
        return self._rounded(as_network_module(self.module).standard_deviation(x.double()))

    def _rounded(self, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        y, slopes = pair
        return y.to(self.dtype), slopes.to(self.dtype)


def in_precision(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy on the CPU that takes and gives numbers of this type.

    Parts with a true attribute `needs_double` compute in double precision all the same.
    """
    copy = deepcopy(module).to("cpu", dtype)
    if dtype == torch.float64:
        return copy
    outermost: list[str] = []
    for name, part in module.named_modules(remove_duplicate=False):
        if not (isinstance(part, NetworkModule) and part.needs_double) or any(
            name.startswith(f"{other}.") for other in outermost
        ):
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
