"""How wrong a structure's responses are that was solved with a learned law, by solving the cell at some of its points.

With δN the cell's energy less the law's, responses change to first order in it by

    δy = Σ_p ε_p,   ε_p = ∂y/∂N₀ δN + ∂y/∂N₁ · ∂δN/∂z

over the quadrature points p, with derivatives that one adjoint solve gives (`fem.influence`). Of that sum a sample is
taken: points are drawn with probabilities q_p, larger where more depends on the law and where it is in doubt, and

    δy ≈ mean of ε_p / q_p,

without bias whatever the q_p are (Hansen & Hurwitz 1943), with the standard error of a mean.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student

from sobofem.coupling.contract import Array
from sobofem.coupling.materials.learned_energy import LawFunction, LearnedEnergy
from sobofem.coupling.materials.parts import SlopeAtRest
from sobofem.coupling.materials.reference_state import measured
from sobofem.fem.influence import Influence, Influences
from sobofem.fem.problem import Problem

LEVEL = 0.95
"""Of error bars."""

EVERYWHERE = 0.2
"""Share of the draws that goes to all points alike, whatever is thought of them."""

PLACES = ((0, 0), (1, 1), (0, 1))
"""Entries of the displacement gradient that a cell's first parameters are."""


@dataclass(frozen=True, eq=False)
class Visit:
    """A structure's state with a learned law, and what its m responses make of the law at the k points that matter.

    Attributes:
        law: The law.
        x: The structure's parameters (n,).
        y: Its responses (m,).
        z: What the law was asked for (k, c): measures and parameters.
        energy: The law's energy (k,), and
        slope: its derivatives (k, c), before stresses at rest are taken off.
        by_energy: Derivatives (m, k) of the responses by these energies.
        by_slope: Derivatives (m, k, c) of the responses by these derivatives.
        at_rest: Part of the responses (m,) that comes of taking off stresses at rest, which the cell has not.
    """

    law: LearnedEnergy
    x: Array
    y: Array
    z: Array
    energy: Array
    slope: Array
    by_energy: Array
    by_slope: Array
    at_rest: Array

    @property
    def outside(self) -> NDArray[np.bool_]:
        """Which points (k,) are outside of what the law was learned from."""
        return self.law.is_outside(self.z)

    def probabilities(self, doubt: Array) -> Array:
        """How to draw points (k,), by the law's doubt in its derivatives there (k, c); none outside of its bounds.

        Raises:
            ValueError: If all points are outside.
        """
        if (outside := self.outside).all():
            raise ValueError(
                "all points of the structure are outside of what the law was learned from; widen the cell's bounds, or "
                "load the structure less"
            )
        inside = ~outside / (~outside).sum()
        size = np.maximum(np.abs(self.y), np.finfo(float).tiny)
        effect = (np.linalg.norm(self.by_slope * doubt, axis=2) / size[:, None]).max(axis=0) * ~outside
        if not effect.sum():
            return np.asarray(inside)
        return np.asarray((1.0 - EVERYWHERE) * effect / effect.sum() + EVERYWHERE * inside)


def visit(problem: Problem, influences: Influences, x: Array) -> Visit:
    """Solve a structure at x (n,), and find what depends on its law. Collective.

    Raises:
        NotConverged: If it has no equilibrium there.
        ValueError: If there is no learned law in it, or several.
    """
    y, _ = problem.evaluate(x, jacobian=False)
    every = influences.at(x)
    found = [(each.function, each) for each in every if isinstance(each.function, LawFunction)]
    laws = {function.law for function, _ in found}
    if len(laws) != 1:
        raise ValueError(f"there are {len(laws)} learned laws in the structure, expected one")
    (law,) = laws
    at_rest = np.zeros(len(y))
    places: list[Influence] = []
    for function, each in found:
        if isinstance(function.part, SlopeAtRest):
            at_rest += each.by_value @ each.values
        else:
            _add(places, each)
    energy, z, slope = (np.concatenate([getattr(p, name) for p in places]) for name in ("values", "z", "gradients"))
    by_energy, by_slope = (np.concatenate([getattr(p, name) for p in places], axis=1) for name in _BY)
    matters = (by_energy != 0.0).any(axis=0) | (by_slope != 0.0).any(axis=(0, 2))
    return Visit(
        law, np.asarray(x), y, z[matters], energy[matters], slope[matters], by_energy[:, matters], by_slope[:, matters],
        at_rest,
    )  # fmt: skip


_BY = ("by_value", "by_gradient")


def _add(places: list[Influence], new: Influence) -> None:
    """Join what a law is used for at the same points, as in an energy and in a stress."""
    for k, known in enumerate(places):
        if np.array_equal(known.z, new.z):
            places[k] = known._replace(**{name: getattr(known, name) + getattr(new, name) for name in _BY})
            return
    places.append(new)


@dataclass(frozen=True, eq=False)
class Certificate:
    """What cells at some points say of a structure that was solved with a law.

    Attributes:
        x: The structure's parameters (n,).
        y: Its m responses with the law.
        correction: What the cell would change them by, (m,), to first order.
        bars: Half widths (m,) of the 95 % intervals of these.
        stress_error: Error of the law's stress over the size of the cell's, both in root mean squares over all points.
        stress_bar: Half width of its 95 % interval.
        outside: Share of the points that are outside of what the law was learned from.
        points: How many cells were solved for it.
        unanswered: How many of the points drawn have no answer.
    """

    x: Array
    y: Array
    correction: Array
    bars: Array
    stress_error: float
    stress_bar: float
    outside: float
    points: int
    unanswered: int

    @property
    def corrected(self) -> Array:
        """Responses (m,) as the cell would have them, to first order."""
        return self.y + self.correction

    @property
    def errors(self) -> Array:
        """Relative errors (m,) that the responses have at most, but for one case in twenty."""
        return np.asarray((np.abs(self.correction) + self.bars) / np.maximum(np.abs(self.corrected), 1e-300))

    def holds(self, tolerance: float) -> bool:
        """Whether all responses are right to a relative tolerance, and no point is beyond what is known."""
        return bool(self.outside == 0.0 and not self.unanswered and (self.errors <= tolerance).all())


type Answers = Callable[[Array], tuple[Array, Array]]
"""The cell's energies (k,) and their derivatives (k, c) at points (k, c); NaN where it has no answer."""


def judge(seen: Visit, drawn: NDArray[np.int64], probabilities: Array, cell: Answers) -> Certificate:
    """The certificate of a state by points that were drawn.

    Args:
        seen: The state.
        drawn: Numbers of the points, drawn independently with the probabilities, repeats among them.
        probabilities: Of all points (k,).
        cell: Solves cells.

    Raises:
        ValueError: If the law's measures are not the parameters of the cell, or that has no answer at all.
    """
    z = seen.z[drawn]
    energy, slope = cell(z)
    known = np.isfinite(energy)
    if not known.any():
        raise ValueError("the cell has no answer at any of the points that were drawn; see why with `sobofem check`")
    unanswered = int((~known).sum())
    drawn, z, energy, slope = drawn[known], z[known], energy[known], slope[known]
    weights = 1.0 / probabilities[drawn]
    effects = seen.by_energy[:, drawn] * (energy - seen.energy[drawn]) + np.einsum(
        "mkc,kc->mk", seen.by_slope[:, drawn], slope - seen.slope[drawn]
    )
    correction, bars = _mean(effects * weights)
    stress = slope[:, : len(PLACES)]
    wrong, size = (
        np.sum(part**2, axis=1) * weights for part in (_stress(seen.law, z, seen.slope[drawn]) - stress, stress)
    )
    ratio = wrong.sum() / size.sum()
    # of a ratio of means: the error of its linearization
    _, bar = _mean((wrong - ratio * size) / size.mean())
    error = float(np.sqrt(ratio))
    return Certificate(
        x=seen.x,
        y=seen.y,
        correction=correction - seen.at_rest,
        bars=bars,
        stress_error=error,
        stress_bar=float(np.sqrt(ratio + bar)) - error,
        outside=float(seen.outside.mean()),
        points=len(np.unique(drawn)),
        unanswered=unanswered,
    )


def _mean(values: Array) -> tuple[Array, Array]:
    """Mean over the last axis, and half of its 95 % interval."""
    count = values.shape[-1]
    if count < 2:
        return values.mean(axis=-1), np.full(values.shape[:-1], np.inf)
    quantile = student.ppf(0.5 + LEVEL / 2, count - 1)
    return values.mean(axis=-1), quantile * values.std(axis=-1, ddof=1) / np.sqrt(count)


def _stress(law: LearnedEnergy, z: Array, slope: Array) -> Array:
    """The law's stress (k, s) in the frame of the cell, whose displacement gradient is upper triangular.

    The stress at rest T is taken off by the energy T : E of Green's strain E, whose stress is F T.
    """
    F = np.tile(np.eye(3), (len(z), 1, 1))
    for k, (i, j) in enumerate(PLACES):
        F[:, i, j] += z[:, k]
    if not np.allclose(measured(law.measures, F[0])[: len(PLACES)], z[0, : len(PLACES)], rtol=0.0, atol=1e-9):
        raise ValueError(
            "the law's measures are not the cell's parameters: take fem.materials.hyperelasticity.triangular_stretch, "
            "and as first parameters of the cell entries 11, 22, 12 of its displacement gradient"
        )
    off = F @ law.stress_at_rest(z[:, len(PLACES) :])
    return np.stack([slope[:, k] - off[:, i, j] for k, (i, j) in enumerate(PLACES)], axis=1)
