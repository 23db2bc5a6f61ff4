"""Draws from the posterior on a surrogate, by the no-U-turn sampler of nutpie (Hoffman and Gelman 2014)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
import warnings

import numpy as np

from sobofem.coupling.calibration.beyond_bounds import Continued
from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.calibration.posterior import Posterior, diagnosed
from sobofem.coupling.contract import Array, ProgressCallback

TARGET = 0.9
"""Share of trajectories to accept: 0.8 is usual, but goes astray where a thin ridge meets a wall."""


class _Stray(Exception):
    """Tells nutpie that a point has no density."""

    is_recoverable = True


class _Density:
    """The density as nutpie calls it, from a thread of its own; an error is kept, and raised in ours."""

    def __init__(self, target: Continued) -> None:
        self.target = target
        self.error: BaseException | None = None

    def __call__(self, w: Array) -> tuple[float, Array]:
        if self.error is not None:
            raise _Stray
        try:
            value, gradient = self.target.density(w)
        except BaseException as error:
            self.error = error
            raise _Stray from error
        if not np.isfinite(value):
            raise _Stray
        return value, gradient


def sample(
    found: Estimate,
    *,
    draws: int = 1000,
    tune: int = 300,
    chains: int = 4,
    seed: int = 0,
    progress: ProgressCallback | None = None,
) -> Posterior:
    """Draw from the posterior of the model that an estimate was made with: some 50,000 of its evaluations.

    Chains start about the estimate and its rivals. They run one after the other, so that a model need not be safe to
    call from several threads; the same seed gives the same draws.

    Args:
        found: What `estimate` found on a surrogate, or on one that `Certificate.corrected` made.
        draws: Draws a chain, once it is warm. Those beyond the bounds are dropped; fewer remain where bounds cut the
            posterior.
        tune: Draws a chain that warm it up.
        chains: Number of chains; more than one, or nothing tells whether they mixed.
        seed: Seed of all that is drawn.
        progress: Called with draws done, of how many, and in words, from another thread.

    Raises:
        ModuleNotFoundError: If nutpie is not installed.
        ValueError: If a number is too small.
        ArithmeticError: If no chain could be begun.
    """
    if draws < 10 or tune < 10 or chains < 2:
        raise ValueError(f"draws {draws}, tune {tune}, chains {chains}; expected at least 10, 10 and 2")
    target = Continued.about(found)
    before, density = found.objective.evaluations, _Density(target)
    trace = _run(
        density, _starts(found, target, seed), draws=draws, tune=tune, chains=chains, seed=seed, progress=progress
    )
    u = _within(target.u(np.asarray(trace.posterior["w"].values, dtype=np.float64)))
    coordinates = found.objective.coordinates
    return diagnosed(
        found.task,
        found.parameters,
        coordinates.bounds,
        coordinates.x(u),
        divergences=int(np.asarray(trace.sample_stats["diverging"].values).sum()),
        evaluations=found.objective.evaluations - before,
        estimate=found.x,
    )


def _within(u: Array) -> Array:
    """The draws (C, N, n) that lie in the box, as many of each chain as the poorest chain has."""
    kept = ((u >= 0.0) & (u <= 1.0)).all(axis=-1)
    count = int(kept.sum(axis=1).min())
    if count < 4:
        raise ArithmeticError(f"a chain has only {count} draws within the bounds: draw more, or widen the bounds")
    return np.stack([chain[inside][:count] for chain, inside in zip(u, kept, strict=True)])


def _starts(found: Estimate, target: Continued, seed: int) -> Callable[[int], Array]:
    """Points to begin a chain at: about the estimate or one of its rivals.

    Never at the optimum itself: the sampler's first metric divides by the gradient there.
    """
    optima = [found.point.u, *map(found.objective.coordinates.u, found.rivals)]

    def start(number: int) -> Array:
        rng = np.random.default_rng((seed, number))
        optimum = optima[int(rng.integers(len(optima)))]
        return target.w(optimum) + rng.standard_normal(len(optimum))

    return start


def _run(
    density: _Density,
    start: Callable[[int], Array],
    *,
    draws: int,
    tune: int,
    chains: int,
    seed: int,
    progress: ProgressCallback | None,
) -> Any:
    import nutpie
    from nutpie.compiled_pyfunc import from_pyfunc

    size = len(density.target.centre)
    model = from_pyfunc(
        size,
        lambda: density,
        lambda *_: lambda w: {"w": w},
        [np.dtype(np.float64)],
        [(size,)],
        ["w"],
        make_initial_point_fn=start,
    )

    def report(states: list[Any]) -> None:
        if progress is not None:
            done, total = sum(s.finished_draws for s in states), sum(s.total_draws for s in states)
            progress(done, total, f"{done} of {total} draws")

    try:
        with warnings.catch_warnings():
            # nutpie warns where chains are not longer than there are of them, which is no mistake here
            warnings.filterwarnings("ignore", "Found chain dimension to be longer", UserWarning)
            trace = nutpie.sample(
                model,
                draws=draws,
                tune=tune,
                chains=chains,
                # one chain at a time, as the density need not be safe to call from several threads
                cores=1,
                adaptation="low_rank",
                target_accept=TARGET,
                seed=seed,
                progress_bar=False,
                save_warmup=False,
                progress_callback=report,
            )
    except RuntimeError as error:
        if density.error is None:
            raise ArithmeticError(f"no chain could be begun: {str(error).splitlines()[0]}") from error
        trace = None
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of Rust, which is no Exception to Python
            raise
        if density.error is None:
            raise ArithmeticError(f"the sampler failed: {str(error).splitlines()[0]}") from error
        trace = None
    if density.error is not None:
        raise density.error
    if np.asarray(trace.posterior["w"].values).shape[:2] != (chains, draws):
        raise KeyboardInterrupt  # nutpie keeps it to itself, and returns what there is
    return trace
