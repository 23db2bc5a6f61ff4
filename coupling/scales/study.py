"""A structure on two scales: learn a law of the cell, solve, certify, learn what the structure visits, and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from sobofem.coupling.contract import Array, Model, ProgressCallback
from sobofem.coupling.dataset.dataset import Dataset
from sobofem.coupling.dataset.records import Failure, Sample
from sobofem.coupling.design import sobol
from sobofem.coupling.models.matching import require_same_names
from sobofem.coupling.parallel.world import Comm, Serial, on_root, world
from sobofem.coupling.scales.certificate import Certificate, Visit, judge, visit
from sobofem.coupling.scales.samples import ENERGY, energy_samples
from sobofem.coupling.solving.cached_model import CachedModel, cached_on_disk
from sobofem.fem import Problem
from sobofem.fem.influence import Influences
from sobofem.surrogate import LBFGS, MLP, Samples, Surrogate, load, train

type Part = Callable[..., Problem]
"""Makes a structure of a law: called with `law=`, a `Surrogate`, and `comm=`."""


@dataclass(frozen=True)
class TwoScaleSettings:
    """How much is spent on a law.

    Attributes:
        tolerance: Relative error that the structure's responses may have.
        states: At how many points of the structure's box it is certified: the middle, and others spread over it.
        points: Quadrature points that are drawn for a certificate at each of these, with a cell to solve for each.
        rounds: Trainings, at most.
        width: Units of a hidden layer.
        depth: Number of hidden layers.
        iterations: Of L-BFGS, for each of the two networks of a round.
        seed: Of all that is drawn.
    """

    tolerance: float = 0.01
    states: int = 4
    points: int = 24
    rounds: int = 5
    width: int = 24
    depth: int = 2
    iterations: int = 1000
    seed: int = 0


@dataclass(frozen=True, eq=False)
class TwoScales:
    """The result.

    Attributes:
        law: The last law.
        parameters: Names of the structure's parameters.
        responses: Names of its responses.
        rounds: Certificates of each round, one for each state.
        samples: How many of the cell each law was learned from.
        tolerance: Relative error that was asked for.
        solves: Cells that were solved for certificates, in this run and earlier ones.
    """

    law: Surrogate
    parameters: tuple[str, ...]
    responses: tuple[str, ...]
    rounds: Sequence[Sequence[Certificate]]
    samples: Sequence[int]
    tolerance: float
    solves: int

    @property
    def certified(self) -> bool:
        """Whether the last law's certificates hold at all states."""
        return all(certificate.holds(self.tolerance) for certificate in self.rounds[-1])

    @property
    def warnings(self) -> tuple[str, ...]:
        """Why it is not certified, as sentences; empty where it is."""
        words, last = [], self.rounds[-1]
        if worst := max(c.outside for c in last):
            words.append(
                f"up to {worst:.1%} of the structure's points are outside of the cell's bounds: widen these, or load "
                "the structure less"
            )
        if unanswered := sum(c.unanswered for c in last):
            words.append(f"at {unanswered} of the points drawn the cell has no answer")
        worst = max(float(c.errors.max()) for c in last)
        if worst > self.tolerance:
            words.append(
                f"responses are certain to {worst:.2%}, of {self.tolerance:.2%}: allow more rounds, or draw more points"
            )
        return tuple(words)

    def record(self) -> dict[str, Any]:
        """As plain values, for JSON."""
        return {
            "certified": self.certified,
            "tolerance": self.tolerance,
            "solves": self.solves,
            "warnings": list(self.warnings),
            "rounds": [
                {"samples": count, "states": [self._state(each) for each in certificates]}
                for count, certificates in zip(self.samples, self.rounds, strict=True)
            ],
        }

    def _state(self, certificate: Certificate) -> dict[str, Any]:
        """One certificate as plain values."""
        each = zip(self.responses, certificate.y, certificate.correction, certificate.bars, strict=True)
        return {
            "at": dict(zip(self.parameters, certificate.x.tolist(), strict=True)),
            "responses": {name: {"law": float(y), "correction": float(c), "bar": float(b)} for name, y, c, b in each},
            "certain to": float(certificate.errors.max()),
            "stress error": certificate.stress_error,
            "stress bar": certificate.stress_bar,
            "share outside": certificate.outside,
            "cells": certificate.points,
        }


def two_scales(
    cell: Model | Callable[..., Model] | str,
    part: Part,
    data: Dataset,
    folder: str | Path,
    settings: TwoScaleSettings = TwoScaleSettings(),
    *,
    ranks_per_solve: int = 1,
    progress: ProgressCallback | None = None,
) -> TwoScales:
    """Learn a law of a cell until a structure that is solved with it is certified. Collective over all ranks.

    In each round two networks learn energies, stresses and tangents. The structure is solved with the first; points
    are drawn among its quadrature points, where its responses depend on the law and the networks disagree; and cells
    are solved there. They say how wrong the responses are, and are learned in the next round: a certificate is always
    by points that its law has not seen.

    Args:
        cell: The cell, as `generate` takes a model: its first parameters are those of `triangular_stretch`, one of its
            responses is the `energy`.
        part: Makes the structure.
        data: First samples of the cell.
        folder: Where laws and solved cells are kept; the same call goes on there, or finds the end.
        settings: How much to spend.
        ranks_per_solve: Ranks that solve a cell together.
        progress: Called with what is done, of how much, and in words.

    Raises:
        ValueError: If cell, samples and structure don't fit each other, or the folder holds cells of another model.
        NotConverged: If the structure has no equilibrium at one of the states.
    """
    folder, ranks = Path(folder), world()
    tell = progress or (lambda done, total, text: None)
    rounds: list[list[Certificate]] = []
    counts: list[int] = []
    with cached_on_disk(cell, folder / "cells", ranks_per_solve=ranks_per_solve) as cells:
        require_same_names("the samples", data, cells)
        known, asked = Samples.of(data), _Cells(cells, ranks)
        for number in range(settings.rounds):
            tell(number, settings.rounds, f"law {number + 1} of at most {settings.rounds}: {len(known.x)} samples")
            learned = energy_samples(known)
            first, second = (_law(learned, settings, folder, k, ranks) for k in (0, 1))
            tell(number, settings.rounds, f"law {number + 1}: the structure, and {settings.points} cells of it a state")
            certificates, names = _certified(part, first, second, asked, settings, number, ranks)
            rounds.append(certificates)
            counts.append(len(known.x))
            solves = on_root(ranks, lambda: cells.points)  # which rank 0 counts
            result = TwoScales(first, *names, rounds, counts, settings.tolerance, solves)
            if result.certified:
                break
            known = asked.added_to(known)
    on_root(ranks, lambda: first.save(folder / "law.safetensors"))
    return result


def _law(known: Samples, settings: TwoScaleSettings, folder: Path, number: int, ranks: Comm) -> Surrogate:
    """One of the two networks that learn the same samples, from its file if that is there."""
    how = f"{settings.width} {settings.depth} {settings.iterations} {settings.seed} {number}"
    digest = hashlib.sha256(how.encode() + known.x.tobytes() + known.y.tobytes()).hexdigest()[:12]
    path = folder / f"network-{digest}.safetensors"

    def learn() -> None:
        if path.exists():
            return
        network, seed = MLP(settings.width, settings.depth), 2 * settings.seed + number
        train(known, network=network, optimizers=(LBFGS(settings.iterations),), seed=seed).save(path)

    on_root(ranks, learn)
    found = load(path)
    assert isinstance(found, Surrogate)
    return found


def _certified(
    part: Part, law: Surrogate, second: Surrogate, cells: _Cells, settings: TwoScaleSettings, number: int, ranks: Comm
) -> tuple[list[Certificate], tuple[tuple[str, ...], tuple[str, ...]]]:
    """Certificates at all states, and names of the structure's parameters and responses."""
    problem = part(law=law) if isinstance(ranks, Serial) else part(law=law, comm=ranks)
    influences = Influences(problem)
    low, high = problem.bounds.T
    states = sobol(problem.bounds, settings.states, seed=settings.seed)
    states[0] = 0.5 * (low + high)
    seen = [visit(problem, influences, x) for x in states]
    found = []
    for k, at in enumerate(seen):
        probabilities = at.probabilities(_doubt(law, second, at))
        rng = np.random.default_rng((settings.seed, number, k))
        drawn = rng.choice(len(probabilities), settings.points, p=probabilities)
        found.append(judge(at, drawn, probabilities, cells))
    influences.close()
    problem.close()
    return found, (problem.parameters, problem.responses)


def _doubt(law: Surrogate, second: Surrogate, at: Visit) -> Array:
    """By how much two networks disagree in the derivatives of the energy (k, c)."""
    one, other = (model.predict(at.z, extrapolate=True)[1] for model in (law, second))
    assert one is not None and other is not None
    return np.asarray(np.abs(one - other)[:, 0])


class _Cells:
    """Solves cells where a certificate wants them, and keeps what they say to be learned.

    Args:
        cells: Remembers what was solved.
        ranks: All ranks.
    """

    def __init__(self, cells: CachedModel, ranks: Comm) -> None:
        self._cells, self._ranks = cells, ranks
        self._energy = tuple(cells.responses).index(ENERGY)
        self._new: dict[bytes, Sample] = {}

    def __call__(self, z: Array) -> tuple[Array, Array]:
        """Energies (k,) and their derivatives (k, c); collective, the same on every rank."""
        records = self._cells.run_on_root(lambda: self._cells.answers(z))
        if not isinstance(self._ranks, Serial):
            records = self._ranks.bcast(records)
        assert records is not None
        energy, slope = np.full(len(z), np.nan), np.full(z.shape, np.nan)
        for k, record in enumerate(records):
            if not isinstance(record, Failure):
                assert record.jacobian is not None
                energy[k], slope[k] = record.y[self._energy], record.jacobian[self._energy]
                self._new[record.x.tobytes()] = record
        return energy, slope

    def added_to(self, known: Samples) -> Samples:
        """Samples with all that was solved since."""
        new = [record for key, record in self._new.items() if key not in {x.tobytes() for x in known.x}]
        self._new.clear()
        if not new:
            return known
        assert known.jacobian is not None
        x, y, slopes = (
            np.concatenate([old, [getattr(record, name) for record in new]])
            for name, old in (("x", known.x), ("y", known.y), ("jacobian", known.jacobian))
        )
        return replace(known, x=x, y=y, jacobian=slopes)
