"""What a law learns of a cell's samples: energies, stresses and tangents."""

from __future__ import annotations

import numpy as np

from sobofem.coupling.contract import Array
from sobofem.surrogate import Samples
from sobofem.surrogate.samples import Data

ENERGY = "energy"
"""The cell's response that is learned."""

SAME = 1e-6
"""How far stresses may be from the derivatives of the energy, relative to the largest."""


def energy_samples(data: Data, response: str = ENERGY, *, seed: int = 0) -> Samples:
    """Samples of the energy alone: values, gradients, and Hessians times a direction.

    Where other responses are derivatives of the energy, as mean stresses are (Hill & Mandel), their Jacobian holds rows
    of its Hessian, which is multiplied with a direction that is drawn for each sample.

    Args:
        data: Samples of a cell with Jacobians.
        response: Name of the energy.
        seed: Of the directions.

    Raises:
        ValueError: If there is no such response, or no Jacobian.
    """
    data = Samples.of(data)
    if response not in data.responses:
        raise ValueError(f"there is no response {response!r} in the samples; there are {', '.join(data.responses)}")
    if data.jacobian is None:
        raise ValueError("the samples have no Jacobian, which is the stress; generate them without --values-only")
    row = data.responses.index(response)
    x, y, slopes = data.x, data.y, data.jacobian
    found = _rows_of_hessian(row, y, slopes)
    labels = {}
    if found:
        width = np.ptp(data.bounds, axis=1)
        parts = np.random.default_rng(seed).normal(size=(len(x), len(found)))
        directions = np.zeros_like(x)
        directions[:, list(found)] = parts * width[list(found)]
        actions = np.einsum("ki,kij->kj", parts * width[list(found)], slopes[:, list(found.values())])
        labels = {"directions": directions, "hessian_actions": actions[:, None]}
    return Samples(x, y[:, [row]], slopes[:, [row]], data.parameters, (response,), bounds=data.bounds, **labels)


def _rows_of_hessian(energy: int, y: Array, slopes: Array) -> dict[int, int]:
    """By parameters: the response that is the energy's derivative by it, where there is one."""
    found = {}
    for i in range(slopes.shape[2]):
        size = np.abs(slopes[:, energy, i]).max()
        for j in range(y.shape[1]):
            if size and np.abs(y[:, j] - slopes[:, energy, i]).max() <= SAME * size:
                found[i] = j
    return found
