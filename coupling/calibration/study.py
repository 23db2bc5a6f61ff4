"""A calibration from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
import contextlib
from dataclasses import dataclass, replace
import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from sobofem.coupling.calibration.certificate import Certificate, certify
from sobofem.coupling.calibration.delayed_acceptance import Accepted, accept
from sobofem.coupling.calibration.estimate import Estimate, estimate
from sobofem.coupling.calibration.hamiltonian import sample
from sobofem.coupling.calibration.identifiability import Identifiability, identifiability
from sobofem.coupling.calibration.laplace import Laplace, laplace
from sobofem.coupling.calibration.posterior import Posterior
from sobofem.coupling.calibration.task import Task
from sobofem.coupling.contract import KnowsStandardDeviation, Model, ProgressCallback
from sobofem.coupling.parallel.world import on_root, world

DRAWS = 64
"""Draws from Laplace's approximation over which the surrogate's errors are averaged."""


def with_surrogate_error(found: Estimate, surrogate: Any, *, seed: int = 0) -> Task:
    """The task with the surrogate's own standard deviations near an estimate added to those of the measurements.

    They are taken as independent, root mean squares over draws from Laplace's approximation, or at the estimate alone
    where hardly any draw lies within the bounds, as where the measurements want parameters far beyond them. Errors of a
    surrogate go together along a curve: this is a first guess, and `accept` with the trusted model is better.

    Args:
        found: An estimate on the surrogate.
        surrogate: A model with `standard_deviation`.
        seed: Of the draws.

    Raises:
        TypeError: If the surrogate offers no standard deviations.
        ValueError: If the noise is unknown.
    """
    x = found.x[None]
    with contextlib.suppress(ArithmeticError):
        x = np.vstack([x, laplace(found).draw(DRAWS, seed=seed)])
    deviations, _ = surrogate.standard_deviation(x)
    return found.task.with_added_noise(np.sqrt(np.mean(deviations**2, axis=0))[found.objective.rows])


@dataclass(frozen=True)
class Settings:
    """How much is spent on a calibration.

    Attributes:
        starts: Starting points of the least squares on the surrogate.
        certify_solves: Solves of the model, at most, that confirm or correct the estimate.
        solves: Solves of the model that accept or reject draws; 0 for none.
        draws: Draws a chain on the surrogate.
        tune: Draws a chain that warm it up.
        chains: Number of chains.
        seed: Of all that is drawn.
        surrogate_error: Whether, without a model, the surrogate's own standard deviations are added to those of the
            measurements.
        ranks_per_solve: Ranks that solve the model at one draw together.
    """

    starts: int = 16
    certify_solves: int = 8
    solves: int = 32
    draws: int = 1000
    tune: int = 300
    chains: int = 4
    seed: int = 0
    surrogate_error: bool = True
    ranks_per_solve: int = 1


@dataclass(frozen=True, eq=False)
class Calibration:
    """The result of a calibration.

    Attributes:
        predicted: The estimate by the surrogate.
        certificate: The model's certificate of it; None without a model.
        estimate: The most probable parameters: by the model if there is one, else by the surrogate.
        identifiability: What the measurements determine.
        laplace: The posterior as a normal distribution about the estimate.
        proposer: The model that was sampled: the surrogate, corrected by the model if there is one.
        posterior: Draws on it.
        accepted: These draws weighted by the model; None without solves.
    """

    predicted: Estimate
    certificate: Certificate | None
    estimate: Estimate
    identifiability: Identifiability
    laplace: Laplace
    proposer: Model
    posterior: Posterior
    accepted: Accepted | None

    @property
    def trustworthy(self) -> bool:
        """Whether the estimate explains the measurements and, where there is a model, this certifies it."""
        return not self.estimate.goodness.impossible and (self.certificate is None or self.certificate.certified)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings about the result, as sentences, a misfit first; empty if there are none."""
        words = [self.estimate.goodness.verdict()] if self.estimate.goodness.impossible else []
        if self.certificate is not None and not self.certificate.converged:
            words.append(
                f"not certified: the model would still move by {self.estimate.step:.2g} standard deviations; "
                "allow more solves, or train on more samples"
            )
        words += [*self.laplace.warnings, *self.posterior.warnings, *self.estimate.task.measurements.warnings]
        return tuple(words)


def calibrate(
    surrogate: Any,
    task: Task,
    model: Model | None = None,
    settings: Settings = Settings(),
    *,
    factory: Callable[..., Model] | None = None,
    folder: str | Path | None = None,
    progress: ProgressCallback | None = None,
) -> Calibration:
    """Fit, certify, tell what is determined, sample on the surrogate, and let the model accept the draws.

    Once the model has certified an estimate, its last answer corrects the surrogate to first order, and the corrected
    one is sampled: it is right where the posterior is. Collective over all ranks of an MPI job.

    Args:
        surrogate: A `Surrogate`, or any cheap model.
        task: What to explain.
        model: The model to trust, with the same parameters and responses; without it the surrogate is believed.
        settings: How much to spend.
        factory: Makes the model for a part of the ranks, as `generate` takes it, so that draws are solved side by side.
        folder: Where to keep these solves, in a dataset that is named after the draws: the same calibration goes on
            where it was, and another one begins its own. Needed with a factory.
        progress: Called with what is done, of how much, and in words.

    Raises:
        ValueError: If task, surrogate and model don't fit each other, or the model has no answer at the estimate.
        ModuleNotFoundError: If nutpie is not installed.
    """
    if model is not None and settings.solves > settings.chains * settings.draws:
        raise ValueError(
            f"{settings.solves} solves at draws were asked for, of which there will be {settings.chains} chains of "
            f"{settings.draws}; ask for more draws, or for fewer solves"
        )
    report = progress or (lambda done, total, text: None)
    report(0, 1, f"least squares from {settings.starts} starts")
    predicted = estimate(surrogate, task, starts=settings.starts, seed=settings.seed)
    certificate, best, proposer, start = None, predicted, surrogate, predicted
    if model is not None:
        report(0, 1, "the model certifies the estimate")
        certificate = certify(predicted, surrogate, model, solves=settings.certify_solves)
        best, proposer = certificate.best, certificate.corrected(surrogate)
        start = estimate(proposer, task, starts=settings.starts, seed=settings.seed)
        best = replace(best, rivals=start.rivals)
    elif settings.surrogate_error and task.noise == "known" and _has_deviations(surrogate):
        task = with_surrogate_error(predicted, surrogate, seed=settings.seed)
        start = best = estimate(surrogate, task, starts=settings.starts, seed=settings.seed)
    posterior = replace(on_root(world(), lambda: _sampled(start, settings, report)), estimate=best.x)
    accepted = None
    if model is not None and settings.solves:
        accepted = accept(
            posterior,
            proposer,
            factory or model,
            solves=settings.solves,
            path=None if folder is None else Path(folder) / f"solves-{_digest(posterior)}.h5",
            seed=settings.seed,
            ranks_per_solve=settings.ranks_per_solve,
            progress=lambda p: report(
                p.done + p.failed, p.total, f"the model at {p.done + p.failed} of {p.total} draws"
            ),
        )
    return Calibration(
        predicted, certificate, best, identifiability(best), laplace(best), proposer, posterior, accepted
    )


def _sampled(start: Estimate, settings: Settings, report: ProgressCallback) -> Posterior:
    try:
        return sample(
            start,
            draws=settings.draws,
            tune=settings.tune,
            chains=settings.chains,
            seed=settings.seed,
            progress=report,
        )
    except ArithmeticError as error:
        if not start.goodness.impossible:
            raise
        raise ArithmeticError(f"{start.goodness.verdict()}; and the posterior was not drawn: {error}") from error


def _digest(posterior: Posterior) -> str:
    """A digest of the draws, by which their solves are found again."""
    return hashlib.sha256(posterior.x.tobytes()).hexdigest()[:8]


def _has_deviations(surrogate: Any) -> bool:
    """Whether a surrogate offers standard deviations: one that is asked, for its method alone promises nothing."""
    middle = np.asarray(surrogate.bounds, dtype=np.float64).mean(axis=1)[None]
    if not isinstance(surrogate, KnowsStandardDeviation):
        return False
    try:
        surrogate.standard_deviation(middle)
    except TypeError:
        return False
    return True
