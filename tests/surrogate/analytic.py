"""Closed-form functions with automatic gradients, sampled as training data."""

from dataclasses import replace
from math import pi

import numpy as np
import torch

from sobofem.surrogate import Samples

BOREHOLE = {
    "radius": (0.05, 0.15, "m"),
    "influence": (100.0, 50000.0, "m"),
    "upper_transmissivity": (63070.0, 115600.0, "m^2/yr"),
    "upper_head": (990.0, 1110.0, "m"),
    "lower_transmissivity": (63.1, 116.0, "m^2/yr"),
    "lower_head": (700.0, 820.0, "m"),
    "length": (1120.0, 1680.0, "m"),
    "conductivity": (9855.0, 12045.0, "m/yr"),
}


def borehole(x):
    """Water flow through a borehole (Harper & Gupta 1983), the standard test of surrogates, [m^3/yr]."""
    rw, r, Tu, Hu, Tl, Hl, L, Kw = x
    log = torch.log(r / rw)
    flow = 2.0 * pi * Tu * (Hu - Hl) / (log * (1.0 + 2.0 * L * Tu / (log * rw**2 * Kw) + Tu / Tl))
    return torch.stack([flow])


def five(x):
    """Five responses of unlike smoothness and scale in six inputs, some of which some responses ignore."""
    a, b, c, d, e, f = x
    return torch.stack(
        [
            torch.exp(0.5 * a * b) + c,
            1e3 / (2.0 + a + 0.5 * d) + 50.0 * e * f,
            torch.sin(2.0 * a + b) * torch.cos(c) + 0.1 * d**3,
            1e-3 * (1.0 + a * a) * (1.0 + 0.3 * b) / (1.5 + f),
            a + 2.0 * b + 0.3 * c * d,
        ]
    )


def sample(function, bounds, N, *, seed, units=None, parameters=None):
    """N uniform samples of a torch function of (n,) with its Jacobian."""
    bounds = np.asarray(bounds, dtype=np.float64)
    x = np.random.default_rng(seed).uniform(*bounds.T, size=(N, len(bounds)))
    points = torch.from_numpy(x)
    y = torch.func.vmap(function)(points).numpy()
    jacobian = torch.func.vmap(torch.func.jacrev(function))(points).numpy()
    parameters = parameters or tuple(f"p{j}" for j in range(len(bounds)))
    responses = tuple(f"q{i}" for i in range(y.shape[1]))
    return Samples(x, y, jacobian, parameters, responses, bounds, units or {})


def borehole_samples(N, *, seed):
    """Samples of the borehole function, with its names and units."""
    bounds = [row[:2] for row in BOREHOLE.values()]
    units = {name: row[2] for name, row in BOREHOLE.items()} | {"q0": "m^3/yr"}
    return sample(borehole, bounds, N, seed=seed, units=units, parameters=tuple(BOREHOLE))


def five_samples(N, *, seed):
    """Samples of `five` on [-1, 1]^6."""
    return sample(five, [[-1.0, 1.0]] * 6, N, seed=seed)


def two_of_five(N, *, seed):
    """Samples of two of these responses, the least smooth among them."""
    five = five_samples(N, seed=seed)
    return replace(five, y=five.y[:, 2:4], jacobian=five.jacobian[:, 2:4], responses=("q2", "q3"))


def value_error(surrogate, data):
    """Root mean square error over the standard deviation, averaged over responses."""
    y, _ = surrogate.predict(data.x, jacobian=False)
    return float(np.mean(np.sqrt(np.mean((y - data.y) ** 2, axis=0)) / data.y.std(axis=0)))


def derivative_error(surrogate, data):
    """Root mean square error of the Jacobian over its root mean square, median over entries that vary."""
    _, jacobian = surrogate.predict(data.x)
    size = np.sqrt(np.mean(data.jacobian**2, axis=0))
    error = np.sqrt(np.mean((jacobian - data.jacobian) ** 2, axis=0))
    return float(np.median(error[size > 0] / size[size > 0]))
