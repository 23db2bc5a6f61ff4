"""Which network to take where nobody says: what fits mesh, number of samples and kind of input, and why."""

from __future__ import annotations

import numpy as np

from sobofem.surrogate.operators.base import FieldNetwork
from sobofem.surrogate.operators.deeponet import DeepONet
from sobofem.surrogate.operators.graph_unet import GraphUNet
from sobofem.surrogate.operators.grid_unet import GridUNet
from sobofem.surrogate.operators.perceiver import PerceiverIO
from sobofem.surrogate.operators.samples import OperatorSamples

FEW_SAMPLES = 200
"""Samples up to which a network on reduced coordinates has the lower errors."""
FEW_COMPONENTS = 64
"""Components up to which an input field is but a few numbers."""
CAPTURED = 0.999
"""Share of the variance of the input fields that components must hold."""
LOOKED_AT = 512
"""Samples by which the input is judged."""
MAX_GRAPH_NODES = 5000
"""Nodes up to which a matrix for each pair of neighbours is affordable."""


def choose(samples: OperatorSamples) -> tuple[FieldNetwork, str]:
    """The network for these samples, and the reason in a sentence."""
    N, P = len(samples), len(samples.mesh)
    if N <= FEW_SAMPLES:
        return DeepONet(), (
            f"DeepONet: {N} samples are few for a network of the whole field; compare with a reduced basis "
            "(surrogate.reduction)"
        )
    components = _components(samples)
    if components <= FEW_COMPONENTS:
        return DeepONet(), (
            f"DeepONet: the input fields are a few numbers, as {components} components hold {100 * CAPTURED:g} % of "
            "their variance"
        )
    if samples.mesh.grid is not None:
        return GridUNet(), f"GridUNet: the {P} nodes stand on a grid, {' x '.join(map(str, samples.mesh.grid.shape))}"
    if P <= MAX_GRAPH_NODES:
        return GraphUNet(), f"GraphUNet: the {P} nodes stand on no grid, and are few enough for weights of each pair"
    return PerceiverIO(), f"PerceiverIO: {P} nodes on no grid are too many for weights of each pair"


def _components(samples: OperatorSamples) -> int:
    """Principal components that hold nearly all variance of the input fields, as far as some samples tell."""
    rows = np.unique(np.linspace(0, len(samples) - 1, min(len(samples), LOOKED_AT)).astype(np.int64))
    fields = samples.read("inputs", rows).reshape(len(rows), -1)
    deviations = np.linalg.svd(fields - fields.mean(axis=0), compute_uv=False) ** 2
    shares = np.cumsum(deviations) / max(float(deviations.sum()), np.finfo(float).tiny)
    return int(np.searchsorted(shares, CAPTURED) + 1)
