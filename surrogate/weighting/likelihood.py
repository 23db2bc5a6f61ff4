"""Noise levels of the labels, by maximum likelihood."""

from __future__ import annotations

import torch
from torch import Tensor

from surrogate.weighting.base import Terms, Weights
from surrogate.weighting.groups import Grouped, Groups


def noise_levels(strategy: Grouped, weights: Weights, terms: Terms) -> Tensor:
    """Standard deviations (m, T) of normal noise under which the labels are likeliest, the network given.

    One for each group of terms, measured as the strategy measures them: the root of its mean loss. NaN for terms
    without labels.
    """
    groups = Groups(strategy, weights, terms)
    levels = groups.give(groups.counts / groups.losses).values.rsqrt()
    return torch.where((terms.mean_squares > 0.0) | (terms.losses > 0.0), levels, torch.nan)
