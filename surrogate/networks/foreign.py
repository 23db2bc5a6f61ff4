"""Modules of PyTorch that somebody else wrote: what can be learned with them, and how files describe them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
import inspect
from typing import Any, Self
import warnings

import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import Storable, module_class, register
from sobofem.surrogate.networks.base import value_and_jacobian

_MIXING = (nn.modules.batchnorm._BatchNorm,)
_DRAWING = (nn.modules.dropout._DropoutNd, nn.RReLU)
_KINKED = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.Threshold)
SAME = 1e-9
"""Largest difference of outputs, relative to their size, that counts as round-off."""
PROBES = 8
"""Points at which a module is tried that was made again from its description."""
STEP = 1e-6
"""Step of differences that slopes are compared with, in units of scaled inputs."""
OFF = 1e-3
"""Largest difference of a slope and its difference quotient, relative to the largest slope: of order STEP if right."""
_CUT_OFF = "take no tensor out of automatic differentiation (detach, no_grad, numpy)"
_PLAIN = (bool, int, float, str, type(None))


@register
@dataclass(frozen=True)
class Foreign(Storable):
    """A module by its class and what it was made with; of a sequence, by what is in it.

    Attributes:
        layer: Name of a class of `torch.nn`, or of one that `surrogate.register` was told of.
        arguments: What it is made with.
        inner: What stands in a sequence.
        fault: Why it can't be described, and so not be saved; empty where it can.
    """

    kind = "network"
    layer: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    inner: tuple[Foreign, ...] = ()
    fault: str = ""

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """The description of a module."""
        name = type(module).__name__
        if type(module) is nn.Sequential:  # a class that derives from it may do something else
            inner = tuple(cls.of(part) for part in module)
            fault = next((part.fault for part in inner if part.fault), "")
            return cls("Sequential", {}, inner, fault)
        if module_class(name) is not type(module):
            fault = (
                f"{name} can't be saved, as nobody could load it: decorate the class by surrogate.register, and keep "
                "what it is made with under the names of its arguments (self.width = width)"
            )
            return cls(name, fault=fault)
        arguments = _arguments(module)
        lost = [key for key, value in arguments.items() if not _is_plain(value)]
        if not lost:
            return cls(name, arguments)
        fault = f"{name} can't be saved: its argument {lost[0]!r} is not kept as a plain value; write self.{lost[0]} = "
        return cls(name, fault=f"{fault}{lost[0]} in its __init__")

    def __str__(self) -> str:
        inside = [f"{key}={value}" for key, value in self.arguments.items()] or [str(part) for part in self.inner]
        return f"{self.layer}({', '.join(inside)})"

    def check_storable(self) -> None:
        """Check that it can be described.

        Raises:
            ValueError: If it can't; the message says why.
        """
        if self.fault:
            raise ValueError(self.fault)

    def check_rebuilt(self, module: nn.Module, n: int) -> None:
        """Check that a module made from this description, with the same numbers, is the same function of n inputs.

        Hooks, methods that were replaced and attributes that are no arguments are in no description.

        Raises:
            ValueError: If it is another, so that a file would give it back changed.
        """
        name = self.layer
        try:
            again = self._made().double().eval()
            again.load_state_dict(module.state_dict())
        except (RuntimeError, TypeError, ValueError) as error:
            raise ValueError(f"{name} can't be saved: made again it differs ({str(error).splitlines()[0]})") from error
        x = torch.randn(PROBES, n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            before, after = module(x), again(x)
        if not torch.allclose(before, after, rtol=SAME, atol=SAME * float(before.abs().max()), equal_nan=True):
            raise ValueError(
                f"{name} can't be saved: made again from its arguments and numbers it gives {float(after[0, 0]):g} in "
                f"place of {float(before[0, 0]):g}; do without hooks and replaced methods, and keep what it is made "
                "with under the names of its arguments (self.width = width)"
            )

    def build(self, n: int, m: int, generator: torch.Generator) -> nn.Module:
        """A module of that description in float64, its numbers those that its class draws."""
        return self._made().double()

    def _made(self) -> nn.Module:
        if self.layer == "Sequential":
            return nn.Sequential(*(part._made() for part in self.inner))
        found = module_class(self.layer)
        if found is None:
            raise ValueError(f"module {self.layer!r} is unknown; import what registers it, first")
        arguments = {key: tuple(v) if isinstance(v, list) else v for key, v in self.arguments.items()}
        made: nn.Module = found(**arguments)
        return made


def _arguments(module: nn.Module) -> dict[str, Any]:
    """What a module was made with, as its attributes say; a part of it (a bias) counts as whether it is there."""
    found = {}
    for key, parameter in inspect.signature(type(module).__init__).parameters.items():
        if key in ("self", "device", "dtype") or parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        value = getattr(module, key, parameter.default)
        if isinstance(value, Tensor) or (value is None and isinstance(parameter.default, bool)):
            value = value is not None
        found[key] = list(value) if isinstance(value, tuple) else value
    return found


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, list) and all(isinstance(each, _PLAIN) for each in value))


def owned(module: nn.Module, m: int, x: Tensor) -> nn.Module:
    """A copy of somebody's module that can be learned with.

    Args:
        module: Maps inputs (N, n) to outputs (N, m).
        m: Number of outputs.
        x: Scaled inputs to try it at (N, n).

    Raises:
        TypeError: If its numbers are not in double precision.
        ValueError: If a layer mixes samples, or draws; or outputs have another shape.
    """
    _check_layers(module)
    _check_dtypes(module)
    copy = deepcopy(module)
    _check_outputs(copy, m, x[:4])
    return copy


def check_unmixed(module: nn.Module) -> None:
    """Check that no layer mixes the samples of a batch.

    Raises:
        ValueError: If one does; the message has its name and what to do.
    """
    for named, layer in _active(module, _MIXING):
        if not layer.track_running_stats:
            raise ValueError(f"layer {named} mixes the samples of a batch, switched off or not; take LayerNorm")
        remedy = "a slope of one sample by its own inputs means nothing then; take LayerNorm, or freeze it: "
        raise ValueError(f"layer {named} mixes the samples of a batch: {remedy}module.get_submodule(name).eval()")


def check_shapes(module: nn.Module, m: int, x: Tensor) -> Tensor:
    """Outputs (N, m) of a module at inputs (N, n).

    Raises:
        ValueError: If it does not take such inputs, or its outputs have another shape.
    """
    try:
        y = module(x)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise ValueError(
            f"{type(module).__name__} does not take inputs {tuple(x.shape)}, (N, n) for {x.shape[1]} parameters: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if not isinstance(y, Tensor) or y.shape != (len(x), m):
        shape = tuple(y.shape) if isinstance(y, Tensor) else type(y).__name__
        raise ValueError(f"{type(module).__name__} gives {shape} for {len(x)} points; expected (N, m) = {(len(x), m)}")
    return y


def check_differentiable(module: nn.Module, m: int, x: Tensor) -> None:
    """Check that outputs (N, m) depend on inputs (N, n) by automatic differentiation.

    Raises:
        ValueError: If they don't, or have another shape.
    """
    with torch.enable_grad():
        inputs = x.detach().clone().requires_grad_()
        y = check_shapes(module, m, inputs)
        found = torch.autograd.grad(y.sum(), inputs, allow_unused=True)[0] if y.requires_grad else None
    if found is None and bool((y != y[0]).any()):
        raise ValueError(f"{type(module).__name__} can't be differentiated by its inputs; {_CUT_OFF}")


def _check_layers(module: nn.Module) -> None:
    check_unmixed(module)
    kinked = list(_active(module, _KINKED))
    for named, layer in _active(module, _DRAWING):
        if getattr(layer, "p", 1.0):
            raise ValueError(
                f"layer {named} draws at random, so that values and slopes don't belong together; leave it out (decay "
                "regularizes), or switch it off: module.get_submodule(name).eval()"
            )
    if kinked:
        warnings.warn(
            f"layer {kinked[0][0]} has kinks, at which derivatives jump; Softplus, SiLU, GELU or Tanh are smooth",
            stacklevel=4,
        )


def _active(module: nn.Module, kinds: tuple[type[nn.Module], ...]) -> Iterator[tuple[str, nn.Module]]:
    """Layers of some kinds that are not switched off, with what messages call them."""
    for name, layer in module.named_modules():
        untracked = isinstance(layer, _MIXING) and not layer.track_running_stats  # mixes in any mode
        if isinstance(layer, kinds) and (layer.training or untracked):
            yield f"{name!r} ({type(layer).__name__})" if name else type(layer).__name__, layer


def _check_dtypes(module: nn.Module) -> None:
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_complex() or (tensor.is_floating_point() and tensor.dtype != torch.float64):
            raise TypeError(
                f"{name!r} of {type(module).__name__} is of {tensor.dtype}; derivatives are learned in double "
                "precision: module.double()"
            )


def _check_outputs(module: nn.Module, m: int, x: Tensor) -> None:
    """Try a module at some points: shapes, and whether each row is answered alone, and twice alike."""
    with torch.no_grad():
        y = check_shapes(module, m, x)
        kept = x.clone()
        again, alone = module(x), torch.cat([module(row[None]) for row in x])
    name = type(module).__name__
    if not torch.equal(kept, x):
        raise ValueError(f"{name} changes its inputs in place; write x = 2 * x in place of x.mul_(2)")
    if y.is_complex():
        raise ValueError(f"{name} gives complex numbers; expected real outputs: take real and imaginary parts")
    if not bool(torch.isfinite(y).all()):
        raise ValueError(f"{name} gives NaN or infinity inside of the box; inputs are scaled, and may be negative")
    size = SAME * y.abs().max().clamp(min=1.0)
    for other, what in ((again, "answers the same point otherwise each time"), (alone, "mixes the samples of a batch")):
        if not bool(((y - other).abs() <= size).all()):
            raise ValueError(f"{name} {what}; each row is to depend on its own inputs alone")
    _check_slopes(module, x)


def _check_slopes(module: nn.Module, x: Tensor) -> None:
    """Compare slopes with differences, which know nothing of tensors that are cut off from automatic differentiation.

    Single points may lie at kinks; where most are off, the slopes are wrong.
    """
    name = type(module).__name__
    try:
        with torch.enable_grad():
            jacobian = value_and_jacobian(module, x)[1].detach()
    except (RuntimeError, NotImplementedError) as error:
        raise ValueError(f"{name} can't be differentiated by its inputs: {str(error).splitlines()[0]}") from error
    steps = STEP * torch.eye(x.shape[1], dtype=x.dtype)
    with torch.no_grad():
        differences = torch.stack([(module(x + step) - module(x - step)) / (2.0 * STEP) for step in steps], 2)
        round_off = STEP * float(module(x).abs().max())  # far more than differences of doubles lose
    size = torch.maximum(jacobian.abs(), differences.abs()).max()
    off = ((jacobian - differences).abs() > OFF * size + round_off).flatten(1).any(1)
    if float(off.double().mean()) > 0.5:
        raise ValueError(f"{name} has slopes that its values contradict; {_CUT_OFF}")
