"""Responses that are the same in all samples: learned as that constant, and no hindrance to the others."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
import warnings

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor, nn

from surrogate.jacobian import value_and_jacobian
from surrogate.model import Surrogate
from surrogate.monitor import History
from surrogate.registry import Network, register
from surrogate.samples import Samples
from surrogate.scaling import Scaling, constant_over

Array = NDArray[np.float64]
Pair = Callable[[Tensor], tuple[Tensor, Tensor]]

SLOPE = 1e-6
"""Largest derivative of a constant, times the width of its input, as a share of its size."""
CONSTANT = "constant"
"""Entry of the provenance: the constant responses, by name."""


@register
@dataclass(frozen=True)
class WithConstants:
    """A network of some responses, and zero for the others, which the scaling shifts to their constants.

    Attributes:
        network: The network of the responses that vary; None where none does.
        varying: Their numbers.
        whole: Whether the network has outputs for the others, too, which are dropped: it was trained before it was
            known which they are.
    """

    network: Network | None
    varying: tuple[int, ...]
    whole: bool = False

    def build(self, n: int, m: int, generator: torch.Generator) -> WithConstantsModule:
        """A network from n inputs to m outputs, in float64."""
        outputs = m if self.whole else len(self.varying)
        inner = None if self.network is None else self.network.build(n, outputs, generator)
        return self.around(inner, n, m)

    def around(self, inner: nn.Module | None, n: int, m: int) -> WithConstantsModule:
        """A trained network, with zero for the responses that don't vary."""
        rows = torch.tensor(self.varying if self.whole else range(len(self.varying)), dtype=torch.int64)
        place = torch.zeros(m if self.whole else len(self.varying), m, dtype=torch.float64)
        place[rows, list(self.varying)] = 1.0
        return WithConstantsModule(inner, place, n)


class WithConstantsModule(nn.Module):
    """What `WithConstants` builds.

    Args:
        inner: From (N, n) to k responses; None where none varies.
        place: Which of the m responses each of them is (k, m), 0 or 1.
        n: Number of inputs.
    """

    place: Tensor

    def __init__(self, inner: nn.Module | None, place: Tensor, n: int) -> None:
        super().__init__()
        self.inner, self.n = inner, n
        self.register_buffer("place", place)

    def forward(self, x: Tensor) -> Tensor:
        """Outputs (N, m) at inputs (N, n)."""
        return x @ x.new_zeros(self.n, self.place.shape[1]) if self.inner is None else self.inner(x) @ self.place

    def value_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs (N, m) and their Jacobian (N, m, n) at inputs (N, n), both differentiable."""
        return self._placed(lambda z: value_and_jacobian(self.inner, z), x)  # type: ignore[arg-type]

    @property
    def standard_deviation(self) -> Pair:
        """That of the network inside, if it has one; none about constants."""
        own: Any = None if self.inner is None else self.inner.standard_deviation
        return lambda x: self._placed(own, x)

    def _placed(self, function: Pair, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, m) and slopes (N, m, n) of a function of the responses that vary, zero for the others."""
        if self.inner is None:
            y = self(x)
            return y, y.unsqueeze(2) * x.unsqueeze(1)
        y, slopes = function(x)
        return y @ self.place, torch.einsum("Nkn,km->Nmn", slopes, self.place)


def learned_apart(samples: Samples, learn: Callable[[Samples], Surrogate]) -> Surrogate | None:
    """The surrogate of samples among whose responses some are constant; None where none is.

    Warns of them, once. Their derivatives and standard deviations are zero.

    Args:
        samples: Samples.
        learn: Learns those of the responses that vary.

    Raises:
        ValueError: If a response is the same in all samples, and its derivatives say that it varies.
    """
    constant = constant_over(samples.y)
    if not constant.any():
        return None
    _check_slopes(samples, constant)
    known = named(samples.responses, samples.y)
    tell(known, len(samples.x), stacklevel=5)
    varying = np.flatnonzero(~constant)
    inner = learn(_some(samples, varying)) if len(varying) else None
    return _around(inner, samples, varying, known)


def named(responses: tuple[str, ...], y: Array) -> dict[str, float]:
    """The constants among responses (N, m), by name."""
    constant = constant_over(y)
    return {name: float(c) for name, c, flat in zip(responses, y[0], constant, strict=True) if flat}


def tell(known: dict[str, float], samples: int, *, stacklevel: int) -> None:
    """Warn that these responses are learned as constants."""
    words = ", ".join(f"{name!r} is {value:.6g}" for name, value in known.items())
    warnings.warn(
        f"{words} in all {samples} samples: learned as constant, with derivatives of zero", stacklevel=stacklevel
    )


def _around(inner: Surrogate | None, samples: Samples, varying: NDArray[np.intp], known: dict[str, float]) -> Surrogate:
    """The surrogate of all responses."""
    n, m = len(samples.parameters), len(samples.responses)
    scaling = Scaling.from_data(samples.bounds, samples.y, samples.responses, constants=True)
    history = _NONE if inner is None else inner.history
    weights = np.zeros((len(history.step), m, history.weights.shape[2] if inner else 1 + n))
    if inner is not None:
        weights[:, varying] = history.weights
        scaling.y_center[varying], scaling.y_scale[varying] = inner.scaling.y_center, inner.scaling.y_scale
    network = WithConstants(None if inner is None else inner.network, tuple(varying.tolist()))
    return Surrogate(
        module=network.around(None if inner is None else inner.module, n, m).eval(),
        network=network,
        scaling=scaling,
        parameters=samples.parameters,
        responses=samples.responses,
        bounds=samples.bounds,
        units=samples.units,
        provenance={
            **samples.provenance,
            "samples": len(samples.x),
            **(inner.provenance if inner else {}),
            CONSTANT: known,
        },
        history=replace(history, weights=weights),
    )


_NONE = History(np.zeros(1), np.zeros(1), np.full(1, np.nan), np.zeros((1, 0, 0)), (("constant", 0),), 0)
"""Of a training that had nothing to do."""


def _some(samples: Samples, responses: NDArray[np.intp]) -> Samples:
    """The samples of these responses."""
    labels: dict[str, Any] = {
        name: None if array is None else array[:, responses]
        for name, array in (("jacobian", samples.jacobian), ("hessian_actions", samples.hessian_actions))
    }
    if labels["jacobian"] is not None and np.isnan(labels["jacobian"]).all():
        labels = dict.fromkeys(labels)
    directions = samples.directions if labels["hessian_actions"] is not None else None
    names = tuple(samples.responses[k] for k in responses)
    return replace(samples, y=samples.y[:, responses], responses=names, directions=directions, **labels)


def _check_slopes(samples: Samples, constant: NDArray[np.bool_]) -> None:
    if samples.jacobian is None:
        return
    changes = np.nan_to_num(np.abs(samples.jacobian * np.ptp(samples.bounds, axis=1))).max(axis=(0, 2))
    wrong = constant & (changes > SLOPE * np.abs(samples.y).max(axis=0))
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{samples.responses[k]!r} is {samples.y[0, k]:.6g} in all {len(samples.y)} samples, but its derivatives "
            f"have it change by up to {changes[k]:.3g} over the box; check them, or compute samples at which it differs"
        )
