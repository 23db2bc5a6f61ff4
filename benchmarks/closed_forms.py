"""Closed-form functions of the surrogate literature, with automatic gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import pi

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Function:
    """One smooth response of several inputs.

    Attributes:
        of: Maps a point (n,) to the response, a scalar, by torch operations.
        inputs: Lower end, upper end and unit of each input, by name.
        response: Name of the response.
        unit: Its unit.
    """

    of: Callable[[Tensor], Tensor]
    inputs: Mapping[str, tuple[float, float, str]]
    response: str
    unit: str

    @property
    def bounds(self) -> np.ndarray:
        """The box of the inputs (n, 2)."""
        return np.array([(low, high) for low, high, _ in self.inputs.values()])

    @property
    def units(self) -> dict[str, str]:
        """Unit of each input and of the response, by name."""
        return {name: unit for name, (_, _, unit) in self.inputs.items()} | {self.response: self.unit}

    def evaluate(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Responses (N, 1) and their Jacobians (N, 1, n) at points (N, n)."""
        points = torch.from_numpy(np.ascontiguousarray(x, dtype=np.float64))
        gradient, value = torch.func.vmap(torch.func.grad_and_value(self.of))(points)
        return value.numpy()[:, None], gradient.numpy()[:, None]


def borehole(x: Tensor) -> Tensor:
    """Flow of water through a borehole between two aquifers (Harper & Gupta 1983)."""
    rw, r, Tu, Hu, Tl, Hl, L, Kw = x
    log = torch.log(r / rw)
    return 2.0 * pi * Tu * (Hu - Hl) / (log * (1.0 + 2.0 * L * Tu / (log * rw**2 * Kw) + Tu / Tl))


def wing(x: Tensor) -> Tensor:
    """Weight of a light aircraft's wing (Raymer; Forrester, Sóbester, Keane 2008)."""
    Sw, Wfw, A, sweep, q, taper, thickness, Nz, Wdg, Wp = x
    cos = torch.cos(torch.deg2rad(sweep))
    size = Sw**0.758 * Wfw**0.0035 * (A / cos**2) ** 0.6
    shape = q**0.006 * taper**0.04 * (100.0 * thickness / cos) ** -0.3
    return 0.036 * size * shape * (Nz * Wdg) ** 0.49 + Sw * Wp


def piston(x: Tensor) -> Tensor:
    """Cycle time of a piston on a gas spring (Kenett & Zacks 1998)."""
    M, S, V0, k, P0, Ta, T0 = x
    gas = P0 * V0 * Ta / T0
    A = P0 * S + 19.62 * M - k * V0 / S
    V = S / (2.0 * k) * (torch.sqrt(A**2 + 4.0 * k * gas) - A)
    return 2.0 * pi * torch.sqrt(M / (k + S**2 * gas / V**2))


def otl(x: Tensor) -> Tensor:
    """Midpoint voltage of an output-transformerless push-pull circuit (Ben-Ari & Steinberg 2007)."""
    Rb1, Rb2, Rf, Rc1, Rc2, beta = x
    Vb1 = 12.0 * Rb2 / (Rb1 + Rb2)
    load = beta * (Rc2 + 9.0)
    return ((Vb1 + 0.74) * load + 11.35 * Rf + 0.74 * Rf * load / Rc1) / (load + Rf)


FUNCTIONS = {
    "borehole": Function(
        borehole,
        {
            "radius": (0.05, 0.15, "m"),
            "influence": (100.0, 50000.0, "m"),
            "upper_transmissivity": (63070.0, 115600.0, "m^2/yr"),
            "upper_head": (990.0, 1110.0, "m"),
            "lower_transmissivity": (63.1, 116.0, "m^2/yr"),
            "lower_head": (700.0, 820.0, "m"),
            "length": (1120.0, 1680.0, "m"),
            "conductivity": (9855.0, 12045.0, "m/yr"),
        },
        "flow",
        "m^3/yr",
    ),
    "wing": Function(
        wing,
        {
            "area": (150.0, 200.0, "ft^2"),
            "fuel_weight": (220.0, 300.0, "lb"),
            "aspect_ratio": (6.0, 10.0, ""),
            "sweep": (-10.0, 10.0, "deg"),
            "dynamic_pressure": (16.0, 45.0, "lb/ft^2"),
            "taper": (0.5, 1.0, ""),
            "thickness_to_chord": (0.08, 0.18, ""),
            "load_factor": (2.5, 6.0, ""),
            "gross_weight": (1700.0, 2500.0, "lb"),
            "paint_weight": (0.025, 0.08, "lb/ft^2"),
        },
        "weight",
        "lb",
    ),
    "piston": Function(
        piston,
        {
            "mass": (30.0, 60.0, "kg"),
            "surface": (0.005, 0.020, "m^2"),
            "gas_volume": (0.002, 0.010, "m^3"),
            "spring": (1000.0, 5000.0, "N/m"),
            "pressure": (90000.0, 110000.0, "N/m^2"),
            "ambient_temperature": (290.0, 296.0, "K"),
            "gas_temperature": (340.0, 360.0, "K"),
        },
        "cycle_time",
        "s",
    ),
    "otl": Function(
        otl,
        {
            "resistance_b1": (50.0, 150.0, "kOhm"),
            "resistance_b2": (25.0, 70.0, "kOhm"),
            "resistance_f": (0.5, 3.0, "kOhm"),
            "resistance_c1": (1.2, 2.5, "kOhm"),
            "resistance_c2": (0.25, 1.2, "kOhm"),
            "gain": (50.0, 300.0, ""),
        },
        "voltage",
        "V",
    ),
}
