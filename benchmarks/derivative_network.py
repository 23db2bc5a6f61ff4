"""The published recipe of derivative-informed operators, in plain torch: their network, losses and schedule.

Several starts are trained side by side, each on batches of its own, in single precision as published.
Source: Qiu, Bridges and Chen, NeurIPS 2024 (DINO as compared there), except that labels are those at u and not at its
projection.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import elu

WIDTH, STEPS, BATCH = 128, 32_768, 8
RATE, HALVED_EVERY = 5e-3, 50
"""Learning rate, and the epochs after which it is halved."""
REBALANCED_EVERY, KEPT = 100, 0.9
"""Steps between two updates of the losses' weights, and the share of the old ones that stays."""

type Prediction = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""From coordinates (T, k) to coefficients (T, r) and their derivatives (T, r, k)."""


def train(
    z: np.ndarray, y: np.ndarray, slopes: np.ndarray | None, *, seeds: int, steps: int = STEPS
) -> list[Prediction]:
    """Train on coordinates z (N, k), coefficients y (N, r) and, if any, derivatives (N, r, k): one network a seed."""
    center, spread, middle, size = z.mean(axis=0), z.std(axis=0), y.mean(axis=0), y.std()
    inputs, labels = (torch.tensor(a, dtype=torch.float32) for a in ((z - center) / spread, (y - middle) / size))
    derivatives = None if slopes is None else torch.tensor(slopes * (spread / size), dtype=torch.float32)
    generator = torch.Generator().manual_seed(0)
    weights = _start(seeds, z.shape[1], y.shape[1], generator)
    optimizer = torch.optim.AdamW(weights, lr=RATE)
    batch = min(BATCH, len(z))
    epoch = max(1, len(z) // batch)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, HALVED_EVERY * epoch, 0.5)
    balance = torch.ones(seeds, 2)
    order = torch.empty(seeds, 0, dtype=torch.long)
    for step in range(steps):
        if order.shape[1] < batch:
            order = torch.stack([torch.randperm(len(z), generator=generator) for _ in range(seeds)])
        rows, order = order[:, :batch], order[:, batch:]
        found, along = _forward(weights, inputs[rows], slopes=derivatives is not None)
        losses = [_relative(found, labels[rows], 1)]
        if derivatives is not None:
            losses.append(_relative(along, derivatives[rows], 2))
            if step % REBALANCED_EVERY == 0:
                balance = _rebalanced(balance, losses, weights)
        optimizer.zero_grad()
        sum((balance[:, k] * loss).sum() for k, loss in enumerate(losses)).backward()
        optimizer.step()
        schedule.step()

    def prediction(seed: int) -> Prediction:
        own = [weight.detach()[seed : seed + 1].double() for weight in weights]

        def predict(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found, along = _forward(own, torch.tensor((points - center) / spread)[None], slopes=True)
            return middle + size * found[0].numpy(), along[0].numpy() * (size / spread)

        return predict

    return [prediction(seed) for seed in range(seeds)]


def _start(seeds: int, inputs: int, outputs: int, generator: torch.Generator) -> list[Tensor]:
    """Matrices and biases (seeds, out, in), (seeds, 1, out) of four layers, drawn as torch's linear layers are."""
    weights = []
    for fan_out, fan_in in ((WIDTH, inputs), (WIDTH, WIDTH), (WIDTH, WIDTH), (outputs, WIDTH)):
        for shape in ((seeds, fan_out, fan_in), (seeds, 1, fan_out)):
            drawn = (2.0 * torch.rand(shape, generator=generator) - 1.0) / fan_in**0.5
            weights.append(drawn.requires_grad_())
    return weights


def _forward(weights: list[Tensor], x: Tensor, *, slopes: bool) -> tuple[Tensor, Tensor]:
    """Outputs (seeds, N, r) and their Jacobians (seeds, N, r, k) of a perceptron with one residual block."""
    W1, b1, W2, b2, W3, b3, W4, b4 = weights

    def linear(W: Tensor, h: Tensor) -> Tensor:
        return h @ W.mT

    first = linear(W1, x) + b1
    h = elu(first)
    second = linear(W2, h) + b2
    third = linear(W3, elu(second)) + b3 + h
    y = linear(W4, elu(third)) + b4
    if not slopes:
        return y, y
    steep = [torch.where(v > 0, 1.0, v.exp()).unsqueeze(2) for v in (first, second, third)]

    def tangents(W: Tensor, t: Tensor) -> Tensor:
        return (t.flatten(1, 2) @ W.mT).unflatten(1, t.shape[1:3])

    t = steep[0] * W1.mT.unsqueeze(1)  # (seeds, N, k, width)
    inner = steep[1] * tangents(W2, t)
    return y, tangents(W4, steep[2] * (tangents(W3, inner) + t)).mT


def _relative(found: Tensor, label: Tensor, dims: int) -> Tensor:
    """Mean over each seed's batch of the error's norm over the label's (seeds,)."""
    over = tuple(range(2, 2 + dims))
    return ((found - label).square().sum(over).sqrt() / label.square().sum(over).sqrt()).mean(1)


def _rebalanced(balance: Tensor, losses: list[Tensor], weights: list[Tensor]) -> Tensor:
    """w_k <- 0.9 w_k + 0.1 (sum of weighted gradient norms) / (norm of k), for each seed."""
    norms = []
    for loss in losses:
        gradients = torch.autograd.grad(loss.sum(), weights, retain_graph=True, allow_unused=True)
        norms.append(sum(g.square().sum((1, 2)) for g in gradients if g is not None).sqrt())
    norm = torch.stack(norms, 1)
    total = (balance * norm).sum(1, keepdim=True)
    return KEPT * balance + (1.0 - KEPT) * total / norm
