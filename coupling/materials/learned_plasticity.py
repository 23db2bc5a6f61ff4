"""Metals as generalized standard materials whose potentials are convex networks.

With elastic strain εₑ, plastic strain ε_p, its equivalent p and ṗ² = 2/3 ε̇_p : ε̇_p, the free energy and the dissipation
potential per volume are

    ψ = ½ εₑ : ℂ εₑ + C/3 ε_p : ε_p + h(p),      φ = σ₀ ṗ + v(ṗ),

where h and v are convex networks less their tangents at zero, and so nowhere negative. A load step makes ψ + Δt φ
least (implicit Euler): it is the return mapping of `fem.materials.plasticity`, with yield stress σ₀ + h'(p) and
overstress v'(ṗ). It dissipates φ'(ṗ) ṗ ≥ φ(ṗ) ≥ 0, whatever the weights are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from os import PathLike
from typing import Any, NamedTuple

import dolfinx
import numpy as np
from numpy.typing import ArrayLike
import torch

from sobofem.coupling.materials.bar import Bar, Slope
from sobofem.fem import ExternalFunction
from sobofem.fem.materials.plasticity import Memory, Step, return_mapping
from sobofem.fem.solving.history import quadrature_degree
from sobofem.surrogate import Convex, Surrogate, files
from sobofem.surrogate.device import neutral
from sobofem.surrogate.model.derivatives import derivatives, digest

KIND = "sobofem-plasticity"
CONSTANTS = ("young", "kinematic", "yield_stress")


class Followed(NamedTuple):
    """What bars answer along their paths, each (N, T).

    Attributes:
        stress: In the unit of Young's modulus.
        plastic: Plastic strain.
        accumulated: Equivalent plastic strain.
        energy: Free energy per volume.
        dissipated: Energy per volume dissipated in each step.
    """

    stress: np.ndarray
    plastic: np.ndarray
    accumulated: np.ndarray
    energy: np.ndarray
    dissipated: np.ndarray


@dataclass(frozen=True, eq=False)
class LearnedPlasticity:
    """J2 plasticity with learned hardening and viscosity, from `train_plasticity`.

        after = law(plasticity.strain(u), before, poisson=0.3)

    Attributes:
        young: Young's modulus E.
        kinematic: Modulus C of linear kinematic hardening, not negative.
        yield_stress: σ₀, in the unit of Young's modulus, not negative.
        stored: N of h(p) = N(p) − N(0) − N'(0) p, convex; energy per volume stored by hardening.
        viscous: The same of v(ṗ); None for a material without a rate.

    Raises:
        ValueError: If a constant is negative, or a surrogate is not convex or has more than one parameter or response.
    """

    young: float
    kinematic: float
    yield_stress: float
    stored: Surrogate
    viscous: Surrogate | None = None

    def __post_init__(self) -> None:
        for name in CONSTANTS:
            if not getattr(self, name) >= 0.0:
                raise ValueError(f"{name} is {getattr(self, name)!r}, expected a number that is not negative")
        for model in filter(None, (self.stored, self.viscous)):
            if (len(model.parameters), len(model.responses)) != (1, 1):
                raise ValueError(f"a potential has {model.parameters} and {model.responses}, expected one of each")
            if not isinstance(model.network, Convex):
                raise ValueError(f"a potential is a {type(model.network).__name__}, expected a surrogate.Convex")

    def __call__(self, epsilon: Any, before: Memory, *, poisson: Any, step: Any = None) -> Step:
        """One load step of the material in UFL, for the residual of a problem as `return_mapping`'s.

        Args:
            epsilon: Strain at its end, (3, 3).
            before: Internal variables at its start, of `plasticity.memory`.
            poisson: Poisson's ratio, which no bar knows.
            step: The time that it takes, such as that of a load path; not needed without viscosity.

        Raises:
            ValueError: If there is viscosity and no time.
        """
        space = before.accumulated.function_space
        degree = quadrature_degree(space.ufl_element(), space.mesh)
        rate = {"overstress": _overstress(self.viscous, step, space.mesh, degree)} if self.viscous else {}
        hardening = _external("hardening", self.stored, space.mesh, degree)
        return return_mapping(
            epsilon,
            before,
            young=self.young,
            poisson=poisson,
            hardening=lambda p: self.yield_stress + hardening(p),
            kinematic=self.kinematic,
            **rate,
        )

    @neutral()
    def follow(self, strains: ArrayLike, times: ArrayLike | None = None) -> Followed:
        """Strain bars that are at rest at first, under uniaxial stress.

        Args:
            strains: At each point of a path (N, T), which is passed in straight steps.
            times: Time at each point (T,), from zero on; not needed without viscosity.

        Raises:
            ValueError: If times are missing, or shapes don't fit together.
        """
        paths = np.asarray(strains, dtype=np.float64)
        if paths.ndim != 2:
            raise ValueError(f"strains have shape {paths.shape}, expected (N, T), one row a path")
        steps = steps_of(times, paths.shape[1], viscous=self.viscous is not None)
        with torch.no_grad():
            course = self._bar().follow(torch.from_numpy(paths), torch.from_numpy(steps))
        stress, plastic, p = (each.numpy() for each in (course.stress, course.plastic, course.accumulated))
        growth = np.diff(p, axis=1, prepend=0.0)
        force = np.full_like(growth, self.yield_stress)
        if self.viscous is not None:
            overstress = _slopes(self.viscous, (growth / steps).ravel(), 0)[0].reshape(growth.shape)
            force += np.maximum(overstress, 0.0)  # which rounding may make negative, at rates of nearly zero
        elastic = 0.5 * self.young * (paths - plastic) ** 2
        energy = elastic + 0.5 * self.kinematic * plastic**2 + _potential(self.stored, p)
        return Followed(stress, plastic, p, energy, force * growth)

    def _bar(self) -> Bar:
        young, kinematic, yield_stress = torch.tensor([getattr(self, name) for name in CONSTANTS], dtype=torch.float64)
        overstress = _slope_of(self.viscous) if self.viscous else None
        return Bar(young, kinematic, yield_stress, _slope_of(self.stored), overstress)

    @neutral()
    def save(self, path: str | PathLike[str]) -> None:
        """Write to a safetensors file, whole or not at all."""
        models = {"stored": self.stored, "viscous": self.viscous}
        tensors = {name: files.to_bytes_tensor(model) for name, model in models.items() if model is not None}
        files.write(path, tensors, {name: getattr(self, name) for name in CONSTANTS}, kind=KIND)

    @classmethod
    @neutral()
    def load(cls, path: str | PathLike[str]) -> LearnedPlasticity:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If it is damaged, or of another kind.
        """
        stored = files.read(path, "law")
        files.check_kind(stored, KIND)
        with files.understanding(path):
            models = [files.from_bytes_tensor(stored, name) for name in ("stored", "viscous") if name in stored.tensors]
            return cls(*(files.entry(stored.record, name, float) for name in CONSTANTS), *models)


def steps_of(times: ArrayLike | None, count: int, *, viscous: bool) -> np.ndarray:
    """The time that each of so many steps takes; of a material without a rate, any.

    Raises:
        ValueError: If there is a viscosity and no times, or they don't increase from zero on.
    """
    if not viscous:
        return np.ones(count)
    given = np.asarray(() if times is None else times, dtype=np.float64)
    found = np.diff(given, prepend=0.0)
    if found.shape != (count,) or not (found > 0.0).all():
        raise ValueError(
            f"times are {given.tolist()}, expected {count} that increase from zero on, one for each point of a path"
        )
    return found


def _overstress(model: Surrogate, step: Any, mesh: dolfinx.mesh.Mesh, degree: int) -> Callable[[Any], Any]:
    if step is None:
        raise ValueError(
            "the law has a viscosity; give step=Constant(mesh, 0.0), and the load path its times and that step"
        )
    overstress = _external("overstress", model, mesh, degree)
    return lambda growth: overstress(growth / step)


def _external(name: str, model: Surrogate, mesh: dolfinx.mesh.Mesh, degree: int) -> ExternalFunction:
    """The slope of a potential as a function in forms."""
    most = model.bounds[0, 1]

    def evaluate(z: np.ndarray, order: int) -> list[np.ndarray]:
        own = _slopes(model, np.where(np.isfinite(z), z, 0.0)[:, 0], order)
        return [np.where(np.isfinite(z[:, 0]), each, np.nan).reshape(-1, *k * (1,)) for k, each in enumerate(own)]

    return ExternalFunction(
        mesh,
        evaluate,
        quadrature_degree=degree,
        digest=f"{name} {digest(model)}",
        name=name,
        orders=2,
        outside=lambda z: z[:, 0] > most,
    )


def _slope_of(model: Surrogate) -> Slope:
    scaling = model.scaling
    return Slope(model.module, *(float(each[0]) for each in (scaling.x_scale, scaling.y_scale, scaling.x_center)))


def _slopes(model: Surrogate, x: np.ndarray, order: int) -> list[np.ndarray]:
    """N'(x) − N'(0) at x (k,), with its derivatives up to the second."""
    found = [each.reshape(-1) for each in derivatives(model, np.append(0.0, x)[:, None], max(order + 1, 2))]
    return [found[1][1:] - found[1][0], *(each[1:] for each in found[2 : order + 2])]


def _potential(model: Surrogate, x: np.ndarray) -> np.ndarray:
    """N(x) − N(0) − N'(0) x, at x of any shape."""
    value, slope, _ = (each.reshape(-1) for each in derivatives(model, np.append(0.0, x)[:, None], 2))
    return np.asarray((value[1:] - value[0]).reshape(x.shape) - slope[0] * x)
