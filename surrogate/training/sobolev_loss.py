"""The loss on values and slopes for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sobofem.surrogate.loss import Targets, term_losses
from sobofem.surrogate.networks.foreign import check_differentiable, check_unmixed
from sobofem.surrogate.samples import Data, Samples
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.train import scaled_targets, training_targets
from sobofem.surrogate.weighting import PerChannel, ValuesOnly, Weighting, Weights


class SobolevLoss(nn.Module):
    """The weighted loss of a module on values and, where there are any, on slopes: 1 if it predicts zero.

    The module maps scaled inputs (N, n) to scaled responses (N, m): standardized, both of them. Batches are in physical
    units, as `Samples` and `Stream` give them; the scaling is the loss's own. Each call in training mode counts as a
    step for weightings that adapt; closures of L-BFGS, which call several times a step, take `eval()`.

    Attributes:
        scaling: Between physical units and what the module maps.
        terms: The mean squared error of each term at the last call, by name: `stress`, `d(stress)/d(E)`.
        steps: Calls in training mode so far.

    Args:
        data: Samples by which responses are scaled, and weights start.
        weighting: How terms weigh; by default `PerChannel()` with Jacobians, `ValuesOnly()` without.
        seed: Of what a weighting draws.

    Raises:
        ValueError: If the weighting needs Jacobians and there are none, or weighs single samples.
    """

    def __init__(self, data: Data, weighting: Weighting | None = None, *, seed: int = 0) -> None:
        super().__init__()
        samples = Samples.of(data)
        self.weighting = weighting or (ValuesOnly() if samples.jacobian is None else PerChannel())
        if self.weighting.uses_jacobian and samples.jacobian is None:
            raise ValueError(f"{self.weighting} weighs sensitivities, but there are no Jacobians; use ValuesOnly()")
        if self.weighting.weighs_samples:
            raise ValueError(f"{self.weighting} weighs single samples, which batches don't know; take another")
        self.scaling = Scaling.from_data(samples.bounds, samples.y, samples.responses, constants=True)
        self.terms: dict[str, Tensor] = {}
        self.steps = 0
        self._names = _names(samples)
        self._targets = training_targets(self.scaling, samples, derivatives=self.weighting.uses_jacobian, device="cpu")
        self._generator = torch.Generator().manual_seed(int(seed))
        self._objective: Objective | None = None
        self._restored: dict[str, Any] = {}

    def forward(self, module: nn.Module, batch: Mapping[str, Any]) -> Tensor:
        """The loss of a module on a batch: `x` (B, n), `y` (B, m), `jacobian` (B, m, n), NaN where one is missing.

        Raises:
            ValueError: If shapes don't fit, a layer mixes samples, or outputs can't be differentiated by the inputs.
        """
        if next(module.parameters(), None) is None:
            raise ValueError(f"{type(module).__name__} has no parameters; expected some to learn")
        targets = self._scaled(module, batch)
        if self.weighting.uses_jacobian:
            check_unmixed(module)
        if self._objective is None or self._objective.module is not module:
            check_differentiable(module, targets.y.shape[1], targets.x[:4])
        objective = self._of(module)
        if self.training:
            objective.reweigh(self.steps, targets)
            self.steps += 1
        losses = term_losses(module, targets, jacobian=self.weighting.uses_jacobian)
        self.terms = dict(zip(self._names, losses.detach().flatten(), strict=False))
        return objective.of_losses(losses)

    def get_extra_state(self) -> dict[str, Any]:
        """The weights, and what their strategy remembers."""
        state: dict[str, Any] = {"steps": self.steps, "generator": self._generator.get_state()}
        if self._objective is None:
            return state | self._restored
        weights = self._objective.weights
        parts = {"values": weights.values, "memory": weights.memory, "reference": weights.reference}
        return state | parts | {"updated": self._objective.updated}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Go on with these weights."""
        self.steps, self._objective = state["steps"], None
        self._generator.set_state(state["generator"].cpu())
        self._restored = {key: value for key, value in state.items() if key not in ("steps", "generator")}

    def _of(self, module: nn.Module) -> Objective:
        """What weighs the terms, for this module."""
        if self._objective is None:
            weight = next(module.parameters())
            self._objective = Objective(
                module,
                self._targets.to(weight),
                self.weighting,
                decay=0.0,
                generator=self._generator,
                updated=self._restored.get("updated", 0),
            )
            if "values" in self._restored:
                kept = {key: self._restored[key] for key in ("values", "memory", "reference")}
                self._objective.weights = Weights(**kept)
        elif self._objective.module is not module:
            self._objective.module = module
            self._objective.parameters = [p for p in module.parameters() if p.requires_grad]
        return self._objective

    def _scaled(self, module: nn.Module, batch: Mapping[str, Any]) -> Targets:
        if not isinstance(batch, Mapping):
            raise ValueError(f"the batch is a {type(batch).__name__}; expected x, y and, for slopes, jacobian by name")
        parts = {name: _array(batch.get(name)) for name in ("x", "y", "jacobian", "directions", "hessian_actions")}
        if parts["x"] is None or parts["y"] is None:
            raise ValueError(f"the batch has {', '.join(batch)}; expected x, y and, for slopes, jacobian")
        if self.weighting.uses_jacobian and parts["jacobian"] is None:
            raise ValueError(f"{self.weighting} weighs sensitivities, but the batch has no jacobian")
        self._check_shapes(parts["x"], parts["y"], parts["jacobian"])
        curved = self._targets.directions is not None
        targets = scaled_targets(
            self.scaling,
            parts["x"],
            parts["y"],
            parts["jacobian"] if self.weighting.uses_jacobian else None,
            directions=parts["directions"] if curved else None,
            actions=parts["hessian_actions"] if curved else None,
            device="cpu",
        )
        return targets.to(next(module.parameters()))

    def _check_shapes(self, x: Any, y: Any, jacobian: Any) -> None:
        (n, m), B = (self._targets.x.shape[1], self._targets.y.shape[1]), len(x)
        expected = {"x": (x, (B, n)), "y": (y, (B, m)), "jacobian": (jacobian, (B, m, n))}
        for name, (array, shape) in expected.items():
            if array is not None and np.shape(array) != shape:
                raise ValueError(f"the batch has {name} of shape {np.shape(array)}, expected {shape}")
        if not B:
            raise ValueError("the batch is empty; expected a sample at least")


def _array(values: Any) -> Any:
    return values.detach().double().cpu().numpy() if isinstance(values, Tensor) else values


def _names(samples: Samples) -> list[str]:
    """Names of the terms, in the order of the flattened losses."""
    names = []
    for response in samples.responses:
        names += [response, *(f"d({response})/d({parameter})" for parameter in samples.parameters)]
        if samples.hessian_actions is not None:
            names += [f"hessian({response})·v/d({parameter})" for parameter in samples.parameters]
    return names
