"""One network of an online training, with its loss and its optimizers."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn

from sobofem.surrogate.loss import Targets
from sobofem.surrogate.networks.base import as_network_module
from sobofem.surrogate.samples.scaling import Scaling
from sobofem.surrogate.training.objective import Objective
from sobofem.surrogate.training.optimizers import LBFGS
from sobofem.surrogate.training.optimizers.torch_optimizers import forget_last_step, iterations_of
from sobofem.surrogate.weighting import Weighting, Weights


class Member:
    """A network whose samples change while it trains.

    Small sets of samples are learned by L-BFGS in rounds of few iterations: its model of the curvature outlives
    the arrival of a sample, but for the one pair of step and gradient change that would mix two losses.

    Attributes:
        module: The network.
        objective: Its loss; None until `measure` was called.
        updates: Updates by Adam since it took over.
    """

    def __init__(self, module: nn.Module, weighting: Weighting, *, decay: float, generator: torch.Generator) -> None:
        self.module = module
        self.objective: Objective | None = None
        self._weighting, self._decay, self._generator = weighting, decay, generator
        self._adam: torch.optim.Adam | None = None
        self._quasi: torch.optim.LBFGS | None = None
        self.updates = 0

    @property
    def scalable(self) -> bool:
        """Whether the network can follow a change of scale."""
        return as_network_module(self.module).scalable

    @property
    def weights(self) -> Weights:
        """Of the terms of its loss."""
        return self._measured().weights

    def loss(self, targets: Targets) -> float:
        """Its loss on these samples."""
        with torch.no_grad():
            return float(self._measured().of(targets))

    def twin(self, generator: torch.Generator) -> Member:
        """A copy that trains on its own, with optimizers that start over."""
        twin = Member(deepcopy(self.module), self._weighting, decay=self._decay, generator=generator)
        twin.objective = self.objective
        return twin

    def measure(self, targets: Targets, before: Scaling | None = None, after: Scaling | None = None) -> Objective:
        """Take the measures of the loss (mean squares, weights, decay) from these samples from now on.

        Where the scale of the responses has changed, the network changes with it: its outputs in physical units stay
        what they were. Weights that adapt are kept and change so that the weighted losses don't, and losses that they
        remember change with the scale.

        Args:
            targets: All samples held, scaled.
            before: The scaling until now.
            after: The scaling of the targets.

        Returns:
            The new `objective`.
        """
        old = self.objective
        factor = torch.ones_like(targets.y[0])
        if before is not None and after is not None and before is not after:
            factor, shift = _change(before, after, targets.y.device)
            as_network_module(self.module).rescale(factor, shift)
        self.objective = Objective(
            self.module,
            targets,
            self._weighting,
            decay=self._decay,
            generator=self._generator,
            updated=0 if old is None else old.updated,
        )
        if old is not None and self._weighting.interval:
            self.objective.weights = self._kept(old, self.objective, factor.square().unsqueeze(1))
        self._quasi = None
        return self.objective

    def _kept(self, old: Objective, new: Objective, square: Tensor) -> Weights:
        """The weights of the old objective for the new one, whose losses are `square` (m, 1) times what they were."""
        weights, reference = old.weights, old.weights.reference
        weights = replace(
            weights, values=weights.values / square, reference=None if reference is None else reference * square
        )
        after = new.terms(old.updated, new.targets)
        before = replace(after, losses=after.losses / square, mean_squares=old.mean_squares)
        return self._weighting.rescaled(weights, before, after)

    def shrink(self, share: float, fresh: nn.Module) -> None:
        """Keep this share of all weights and take the rest from a fresh start of the same network."""
        with torch.no_grad():
            for parameter, other in zip(self.module.parameters(), fresh.parameters(), strict=True):
                parameter.mul_(share).add_(other, alpha=1.0 - share)

    def first_order(self, targets: Targets, rate: float) -> float:
        """One update by Adam; returns the loss before it.

        Raises:
            ArithmeticError: If the loss is not finite; nothing was changed then.
        """
        objective = self._measured()
        if self._adam is None:
            self._adam, self._quasi, self.updates = torch.optim.Adam(objective.parameters), None, 0
        self._adam.param_groups[0]["lr"] = rate
        self._adam.zero_grad()
        loss = objective.of(targets)
        value = _finite(float(loss.detach()))
        loss.backward()
        self._adam.step()
        self.updates += 1
        return value

    def second_order(self, targets: Targets, settings: LBFGS, *, changed: bool) -> float:
        """One round of L-BFGS; returns the loss before it.

        Args:
            targets: All samples held, scaled.
            settings: Iterations in the round, and pairs remembered.
            changed: Whether samples have come or gone since the round before.

        Raises:
            ArithmeticError: If the loss is not finite; nothing was changed then.
        """
        objective = self._measured()
        kept = [p.detach().clone() for p in objective.parameters]
        quasi = self._curvature(settings, changed)

        def closure() -> Tensor:
            quasi.zero_grad()
            loss = objective.of(targets)
            loss.backward()
            return loss

        before = iterations_of(quasi)
        value = float(quasi.step(closure).detach())  # type: ignore[no-untyped-call]
        sound = isfinite(value) and all(bool(torch.isfinite(p).all()) for p in objective.parameters)
        if not sound:
            with torch.no_grad():
                for parameter, old in zip(objective.parameters, kept, strict=True):
                    parameter.copy_(old)
        if not sound or iterations_of(quasi) - before < settings.round:
            self._quasi = None
        return _finite(value)

    def reweigh(self, step: int, targets: Targets) -> None:
        """Let the weighting update its weights if that is due after `step` steps."""
        if self._measured().reweigh(step, targets):
            self._quasi = None

    def state(self) -> dict[str, Any]:
        """All that changes in training, as tensors, numbers and containers of them."""
        objective = self.objective
        return {
            "module": dict(self.module.state_dict()),
            "adam": None if self._adam is None else self._adam.state_dict(),
            "quasi": None if self._quasi is None else _lean(self._quasi.state_dict()),
            "updates": self.updates,
            "loss": None
            if objective is None
            else {
                "values": objective.weights.values,
                "memory": objective.weights.memory,
                "reference": objective.weights.reference,
                "mean_squares": objective.mean_squares,
                "decay": objective.decay,
                "updated": objective.updated,
            },
        }

    def restore(self, state: dict[str, Any], targets: Targets | None, settings: LBFGS) -> None:
        """Continue as another member would have, given its state and, if it had measured, any scaled samples."""
        self.module.load_state_dict(state["module"])
        if state["loss"] is not None and targets is not None:
            loss = state["loss"]
            self.measure(targets)
            objective, device = self._measured(), targets.x.device
            kept = {name: _to(loss[name], device) for name in ("values", "memory", "reference")}
            objective.weights = Weights(**kept)
            objective.mean_squares, objective.decay = loss["mean_squares"].to(device), loss["decay"]
            objective.updated = loss["updated"]
        parameters = [p for p in self.module.parameters() if p.requires_grad]
        if state["adam"] is not None:
            self._adam = torch.optim.Adam(parameters)
            self._adam.load_state_dict(state["adam"])
        if state["quasi"] is not None:
            self._quasi = settings.fresh(parameters)
            self._quasi.load_state_dict(state["quasi"])
        self.updates = state["updates"]

    def _curvature(self, settings: LBFGS, changed: bool) -> torch.optim.LBFGS:
        self._adam = None
        if self._quasi is None:
            self._quasi = settings.fresh(self._measured().parameters)
        if changed:
            forget_last_step(self._quasi)
        return self._quasi

    def _measured(self) -> Objective:
        if self.objective is None:
            raise ValueError("the loss has no measures yet; call measure first")
        return self.objective


def _change(old: Scaling, new: Scaling, device: torch.device) -> tuple[Tensor, Tensor]:
    """Factor and shift (m,) that take responses from one scale to another."""
    factor, shift = old.y_scale / new.y_scale, (old.y_center - new.y_center) / new.y_scale
    return torch.as_tensor(factor, device=device), torch.as_tensor(shift, device=device)


def _finite(loss: float) -> float:
    if not isfinite(loss):
        raise ArithmeticError(f"the loss is {loss}; lower the learning rate, or look for outliers in the samples")
    return loss


def _lean(state: dict[str, Any]) -> dict[str, Any]:
    """L-BFGS's state without its scratch pad."""
    slim = {key: {k: v for k, v in value.items() if k != "al"} for key, value in state["state"].items()}
    return {"state": slim, "param_groups": state["param_groups"]}


def _to(value: Any, device: torch.device) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {key: _to(item, device) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_to(item, device) for item in value)
    return value
