"""What a network is, and what the module that it builds may be able to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import is_dataclass, replace
from functools import cache
from typing import Any, Protocol, runtime_checkable
import warnings

import torch
from torch import Tensor, nn
from torch._C._functorch import peek_interpreter_stack
from torch.func import functional_call, jacrev, jvp, vjp, vmap

from sobofem.surrogate.files.registry import settings_of
from sobofem.surrogate.networks.layers import repeatedly_differentiated
from sobofem.surrogate.samples.scaling import Scaling

FEW_OUTPUTS = 4
"""Outputs up to which a backward pass for each is fastest; more are pulled back at once, which costs some overhead."""

SAMPLES_AT_ONCE = 64
"""Samples whose outputs are differentiated by the parameters at once."""


@runtime_checkable
class Network(Protocol):
    """What a network is before it is built: a frozen dataclass of plain values with one method.

    One of your own, decorated by `surrogate.register`, is found when a surrogate that holds it is read. With a setting
    for each response it is `PerResponse`, too.
    """

    def build(self, n: int, m: int, generator: torch.Generator) -> nn.Module:
        """A module that maps (N, n) to (N, m) in float64, its parameters drawn from `generator`.

        It treats the rows of a batch independently (no batch normalization). Any `torch.nn.Module` will do; one that
        derives from `NetworkModule` can do more.
        """


@runtime_checkable
class PerResponse(Protocol):
    """A network, weighting or family of which some settings are given for each response."""

    def of_responses(self, chosen: Sequence[int], m: int) -> Any:
        """Itself for those of m responses with these numbers; the others are learned apart, as constants."""


def of_responses(spec: Any, chosen: Sequence[int], m: int) -> Any:
    """Settings, or a tuple of them, for some of m responses, as are the settings that they hold.

    Args:
        spec: What may have a setting for each response; it comes back as it is where it has none.
        chosen: Numbers of the responses.
        m: Number of all responses.
    """
    if isinstance(spec, PerResponse):
        return spec.of_responses(chosen, m)
    if isinstance(spec, tuple):
        each = tuple(of_responses(part, chosen, m) for part in spec)
        return spec if all(a is b for a, b in zip(spec, each, strict=True)) else each
    if not is_dataclass(spec) or isinstance(spec, type):
        return spec
    parts = settings_of(spec)
    changed = {name: of_responses(part, chosen, m) for name, part in parts.items()}
    changed = {name: part for name, part in changed.items() if part is not parts[name]}
    return replace(spec, **changed) if changed else spec


class NetworkModule(nn.Module):
    """A module whose abilities training, predictions and exports make use of.

    Only `forward` is needed. What is overridden besides is used; for the rest, and for plain modules of PyTorch, there
    are the defaults here.

    Attributes:
        needs_double: Whether it computes in double precision even within an export in single precision.
    """

    needs_double = False

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n); by default by automatic differentiation."""
        return differentiated(self, x)

    @property
    def differentiates_itself(self) -> bool:
        """Whether the Jacobian has a form of its own."""
        return type(self).value_and_jacobian is not NetworkModule.value_and_jacobian

    def derivatives(self, x: Tensor, order: int) -> list[Tensor]:
        """Outputs (N, m) and their derivatives by the inputs up to an order; by default by automatic differentiation.

        Args:
            x: Inputs (N, n).
            order: 2 or 3.

        Returns:
            (N, m), (N, m, n), (N, m, n, n) and, of order 3, (N, m, n, n, n); detached.
        """
        return repeatedly_differentiated(self, x, order)

    def by_parameters(self, x: Tensor, *, slopes: bool) -> Tensor:
        """Derivatives of outputs and, if wanted, slopes by the parameters that are free, for least squares.

        By default by automatic differentiation, a sample and an output at a time.

        Args:
            x: Inputs (N, n).
            slopes: Whether the Jacobian is wanted, too.

        Returns:
            (N, m, T, P), detached: T is 1 + n with the value first, or 1.
        """
        return parameter_jacobian(self, x, slopes=slopes)

    @property
    def exported(self) -> nn.Module:
        """What files for other programs hold; by default the module itself."""
        return self

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """How far values (N, m) and Jacobian (N, m, n) may be off at inputs (N, n).

        Raises:
            TypeError: By default, as a network doesn't know.
        """
        raise TypeError(f"{type(self).__name__} has no standard deviation")

    @property
    def has_standard_deviation(self) -> bool:
        """Whether it knows its standard deviations."""
        return type(self).standard_deviation is not NetworkModule.standard_deviation

    def disagreement(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `standard_deviation`, before any calibration; by default the same."""
        return self.standard_deviation(x)

    @property
    def has_disagreement(self) -> bool:
        """Whether it knows where it is doubtful."""
        return self.has_standard_deviation or type(self).disagreement is not NetworkModule.disagreement

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Make the outputs factor times what they were, plus shift, both (m,), the factor positive.

        Online training then follows the scale of the responses as samples come in, and keeps to that of the first
        samples otherwise.

        Raises:
            TypeError: By default, as it can't be done to any network.
        """
        raise TypeError(f"{type(self).__name__} can't follow a change of scale")

    @property
    def scalable(self) -> bool:
        """Whether it can be rescaled."""
        return type(self).rescale is not NetworkModule.rescale

    def set_scaling(self, scaling: Scaling) -> None:
        """Called once before training with the scaling around it; by default it doesn't matter.

        What was given in physical units, as limits are, becomes part of the module's state in scaled ones.
        """

    def penalty(self) -> Tensor:
        """What the decay multiplies; by default the sum of squared weight matrices."""
        squares = [W.square().sum() for W in self.parameters() if W.ndim > 1 and W.requires_grad]
        return torch.stack(squares).sum() if squares else torch.zeros((), dtype=torch.float64)

    @property
    def decays_squares(self) -> bool:
        """Whether the penalty is the sum of squared weight matrices, as least squares need it."""
        return type(self).penalty is NetworkModule.penalty


class Composite(NetworkModule):
    """A module made of others, which has the abilities that all of them have."""

    @property
    def wrapped(self) -> Iterable[nn.Module]:
        """The modules in it: the one called `inner`, by default."""
        return (self.inner,)  # type: ignore[return-value]

    @property
    def _parts(self) -> list[NetworkModule]:
        return [as_network_module(part) for part in self.wrapped]

    @property
    def scalable(self) -> bool:
        """Whether all parts are."""
        return all(part.scalable for part in self._parts)

    def rescale(self, factor: Tensor, shift: Tensor) -> None:
        """Make the outputs of all parts factor times what they were, plus shift, both (m,)."""
        for part in self._parts:
            part.rescale(factor, shift)

    @property
    def decays_squares(self) -> bool:
        """Whether the penalties of all parts are sums of squares."""
        return all(part.decays_squares for part in self._parts)

    def penalty(self) -> Tensor:
        """The sum of the parts' penalties."""
        if self.decays_squares:
            return super().penalty()
        return torch.stack([part.penalty() for part in self._parts]).sum()

    def set_scaling(self, scaling: Scaling) -> None:
        """Pass the scaling on to all parts."""
        for part in self._parts:
            part.set_scaling(scaling)


class _Plain(NetworkModule):
    """A plain module of PyTorch, with the defaults for its abilities."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        y: Tensor = self.module(x)
        return y

    @property
    def exported(self) -> nn.Module:
        """The plain module."""
        return self.module


def as_network_module(module: nn.Module) -> NetworkModule:
    """The module itself if it is a `NetworkModule`; around a plain one, the defaults for what that can do."""
    return module if isinstance(module, NetworkModule) else _Plain(module)


def value_and_jacobian(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, m) and their Jacobian (N, m, n) of any module at inputs (N, n), both differentiable."""
    return as_network_module(module).value_and_jacobian(x)


def differentiated(module: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), by reverse mode: rows don't see each other."""
    if torch.is_grad_enabled() and not (peek_interpreter_stack() or torch.compiler.is_compiling()):
        inputs = x if x.requires_grad else x.detach().requires_grad_()
        y = module(inputs)
        if y.shape[1] <= FEW_OUTPUTS and y.requires_grad:
            unit = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
            return y, torch.stack([_pulled(row.expand_as(y), y, inputs) for row in unit], 1)
    y, pull = vjp(module, x)  # type: ignore[misc]
    unit = torch.eye(y.shape[1], dtype=y.dtype, device=y.device)
    jacobian = vmap(lambda row: pull(row.expand_as(y))[0])(unit)
    return y, jacobian.transpose(0, 1)


def _pulled(rows: Tensor, y: Tensor, inputs: Tensor) -> Tensor:
    """Sum of the outputs y (N, m) with weights (N, m), differentiated by the inputs (N, n); differentiable again."""
    (found,) = torch.autograd.grad(y, inputs, rows, create_graph=True, allow_unused=True, materialize_grads=True)
    return found


def value_jacobian_and_action(module: nn.Module, x: Tensor, directions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Outputs, Jacobian, and the Hessian of every output times a direction, all differentiable by the parameters.

    The Jacobian is differentiated along the directions in forward mode (Pearlmutter 1994, *Fast exact
    multiplication by the Hessian*), the directions of all samples at once: rows of a batch don't see each other.

    Args:
        module: Maps inputs (N, n) to outputs (N, m).
        x: Inputs (N, n).
        directions: One vector for each input (N, n).

    Returns:
        Outputs (N, m), Jacobian (N, m, n), and actions (N, m, n): entry (i, j) is Σ_k ∂²y_i/∂x_j∂x_k v_k.
    """
    load_forward_mode()
    primals, tangents = jvp(lambda points: value_and_jacobian(module, points), (x,), (directions,))[:2]
    return *primals, tangents[1]


def parameter_jacobian(module: nn.Module, x: Tensor, *, slopes: bool, directions: Tensor | None = None) -> Tensor:
    """Derivatives of the outputs of any module, and of theirs, by the parameters that are free (N, m, T, P), detached.

    Args:
        module: Maps inputs (N, n) to outputs (N, m).
        x: Inputs.
        slopes: Whether the Jacobian is wanted, too.
        directions: Directions (N, n), where the Hessians' actions are wanted as well.

    Returns:
        T is 1, 1 + n or 1 + 2n: the value, its slopes, the entries of its Hessian's action.
    """
    outputs = _Outputs(module, slopes)
    values = {f"module.{name}": p.detach() for name, p in module.named_parameters() if p.requires_grad}

    def single(values: dict[str, Tensor], point: Tensor, direction: Tensor | None) -> Tensor:
        return functional_call(outputs, values, (point, direction))  # type: ignore[no-any-return]

    where = (None, 0, None if directions is None else 0)
    pieces = vmap(jacrev(single), in_dims=where, chunk_size=SAMPLES_AT_ONCE)(values, x, directions)
    return torch.cat([piece.flatten(3) for piece in pieces.values()], dim=3).detach()


class _Outputs(nn.Module):
    """The outputs of a module at one point: values, Jacobian and Hessian's action side by side (m, T)."""

    def __init__(self, module: nn.Module, slopes: bool) -> None:
        super().__init__()
        self.module, self.slopes = module, slopes

    def forward(self, x: Tensor, direction: Tensor | None) -> Tensor:
        """Outputs (m, T) at x (n,)."""
        points = x.unsqueeze(0)
        if not self.slopes:
            return self.module(points).squeeze(0).unsqueeze(1)  # type: ignore[no-any-return]
        if direction is None:
            y, *slopes = value_and_jacobian(self.module, points)
        else:
            y, *slopes = value_jacobian_and_action(self.module, points, direction.unsqueeze(0))
        return torch.cat((y.unsqueeze(2), *slopes), dim=2).squeeze(0)


@cache
def load_forward_mode() -> None:
    """Have torch load its rules of forward mode, in whose files it warns of a function of its own."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".torch.jit.script. is deprecated", category=FutureWarning)
        jvp(torch.square, (torch.zeros(1),), (torch.ones(1),))


_ABILITIES = tuple(name for name in vars(NetworkModule) if not name.startswith("_"))


def check_module(module: nn.Module) -> None:
    """Check that abilities that a module defines will be used.

    Raises:
        TypeError: If it defines one without deriving from `NetworkModule`.
    """
    defined = [name for name in _ABILITIES if name in dir(type(module))]
    if defined and not isinstance(module, NetworkModule):
        raise TypeError(
            f"{type(module).__name__} defines {defined[0]}, which is not looked for in a plain torch.nn.Module; "
            "derive it from surrogate.NetworkModule"
        )
