"""Responses that are the same in all samples: learned as that constant, and no hindrance to the others."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
import warnings

import numpy as np
from numpy.typing import NDArray
import torch
from torch import Tensor, nn

from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import History
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.networks.base import Network, NetworkModule, as_network_module, of_responses, value_and_jacobian
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.samples.scaling import Scaling, constant_over, first_known

Array = NDArray[np.float64]
Pair = Callable[[Tensor], tuple[Tensor, Tensor]]

SLOPE = 1e-6
"""Largest derivative of a constant, times the width of its input, as a share of its size."""
ROUND_OFF = 1e-10
"""The same for zero, as a share of the changes of all responses or of one: zero has no size of its own."""
DIGITS = 8.0
"""Variation in last digits of single precision up to which a response that is stored so says little but rounding."""
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


class WithConstantsModule(NetworkModule):
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
    def has_standard_deviation(self) -> bool:
        """Whether the network inside has; constants are certain."""
        return self.inner is None or as_network_module(self.inner).has_standard_deviation

    def standard_deviation(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """That of the network inside (N, m) and (N, m, n) at inputs (N, n); zero for constants."""
        return self._placed(lambda z: as_network_module(self.inner).standard_deviation(z), x)  # type: ignore[arg-type]

    def _placed(self, function: Pair, x: Tensor) -> tuple[Tensor, Tensor]:
        """Values (N, m) and slopes (N, m, n) of a function of the responses that vary, zero for the others."""
        if self.inner is None:
            y = self(x)
            return y, y.unsqueeze(2) * x.unsqueeze(1)
        y, slopes = function(x)
        return y @ self.place, torch.einsum("Nkn,km->Nmn", slopes, self.place)


def learned_apart(
    samples: Samples, learn: Callable[..., Surrogate], settings: Mapping[str, Any] | None = None
) -> Surrogate | None:
    """The surrogate of samples among whose responses some are constant; None where none is.

    Warns of them, once. Their derivatives and standard deviations are zero. Warns, too, of those that vary in the last
    digits of single precision alone.

    Args:
        samples: Samples.
        learn: Learns those of the responses that vary.
        settings: More for `learn`, of which some may have a part for each response.

    Raises:
        ValueError: If a response is the same in all samples, and its derivatives say that it varies.
    """
    constant = constant_over(samples.y)
    if not constant.any():
        for sentence in _barely_varying(samples):
            warnings.warn(sentence, stacklevel=4)
        return None
    changes = _check_slopes(samples, constant)
    known = named(samples.responses, samples.y)
    warn_of_constants(known, len(samples.x), changes=changes[constant], stacklevel=5)
    varying = np.flatnonzero(~constant)
    if not len(varying):
        return _around(None, samples, varying, known)
    own = {name: of_responses(value, varying.tolist(), len(constant)) for name, value in (settings or {}).items()}
    return _around(learn(_some(samples, varying), **own), samples, varying, known)


def named(responses: tuple[str, ...], y: Array) -> dict[str, float]:
    """The constants among responses (N, m), by name."""
    constant = constant_over(y)
    return {name: float(c) for name, c, flat in zip(responses, first_known(y), constant, strict=True) if flat}


def warn_of_constants(known: dict[str, float], samples: int, *, changes: Array | None = None, stacklevel: int) -> None:
    """Warn that these responses are learned as constants.

    Args:
        known: The constants, by name.
        samples: Number of samples.
        changes: How far derivatives would have each change over the box; not looked at where None.
        stacklevel: Of the warning.
    """
    words = ", ".join(f"{name!r} is {value:.9g}" for name, value in known.items())
    largest = 0.0 if changes is None else float(changes.max())
    lost = f" (those given, which would change it by up to {largest:.2g} over the box, are not)" if largest else ""
    warnings.warn(
        f"{words} in all {samples} samples: learned as constant, with derivatives of zero{lost}", stacklevel=stacklevel
    )


def _barely_varying(samples: Samples) -> list[str]:
    """Warnings of responses in single precision that vary in its last digits alone."""
    with np.errstate(over="ignore"):  # what single precision can't hold becomes infinity, which is no such number
        single = (np.isnan(samples.y) | (samples.y == samples.y.astype(np.float32))).all(axis=0)
    size, change = np.nanmax(np.abs(samples.y), axis=0), np.nanmax(samples.y, axis=0) - np.nanmin(samples.y, axis=0)
    digit = np.spacing(np.where(single, size, 1.0).astype(np.float32)).astype(np.float64)
    return [
        f"{name!r} is {size[k]:.9g} but for its last digits: it is stored in single precision and varies by "
        f"{change[k] / digit[k]:.0f} of the last one, {digit[k]:.2g}, so that much of what is learned is rounding; "
        "store it in double precision, or its difference from a reference value"
        for k, name in enumerate(samples.responses)
        if single[k] and change[k] <= DIGITS * digit[k]
    ]


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
    module = network.around(None if inner is None else inner.module, n, m)
    more = {**(inner.provenance if inner else {}), CONSTANT: known}
    return Surrogate.of(samples, module, network, scaling, replace(history, weights=weights), more)


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


def _check_slopes(samples: Samples, constant: NDArray[np.bool_]) -> Array:
    """How far derivatives have each response change over the box (m,).

    Raises:
        ValueError: If that is more than round-off for one that is constant.
    """
    changes, wrong = implied_changes(samples, constant)
    if wrong.any():
        k = int(np.argmax(wrong))
        raise ValueError(
            f"{samples.responses[k]!r} is {first_known(samples.y)[k]:.9g} in all {len(samples.y)} samples, but its "
            f"derivatives have it change by up to {changes[k]:.3g} over the box; check them, or compute "
            "samples at which it differs"
        )
    return changes


def implied_changes(samples: Samples, constant: NDArray[np.bool_]) -> tuple[Array, NDArray[np.bool_]]:
    """How far derivatives have each response change over the box, and which constants by more than round-off (m,)."""
    if samples.jacobian is None:
        return np.zeros(len(constant)), np.zeros(len(constant), dtype=bool)
    changes: Array = np.nan_to_num(np.abs(samples.jacobian * np.ptp(samples.bounds, axis=1))).max(axis=(0, 2))
    size = np.nanmax(np.abs(samples.y), axis=0)
    return changes, constant & (changes > np.where(size > 0.0, SLOPE * size, ROUND_OFF * max(1.0, changes.max())))
