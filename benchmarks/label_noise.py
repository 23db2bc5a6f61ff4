"""Labels with noise of unknown size: what training makes of them, and what it takes for their noise.

64 samples of the borehole function; normal noise of 5 % of the standard deviation of the values, and of 10 % of the
root mean square of each slope.

    python -m benchmarks.label_noise
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from benchmarks.closed_forms import FUNCTIONS
from sobofem import surrogate
from sobofem.surrogate import Descent, Kriging, Samples, Solved, Surrogate
from sobofem.surrogate.weighting import Evidence, LearnedLikelihood, ProfiledLikelihood, Until

SAMPLES, UNSEEN, SEEDS = 64, 1000, 3
OF_VALUES, OF_SLOPES = 0.05, 0.1
LEARNED, PROFILED, EACH = Until(LearnedLikelihood(), 1000), ProfiledLikelihood(), ProfiledLikelihood(groups="inputs")
FIXED = (surrogate.Adam(), surrogate.LBFGS())

ARMS: dict[str, Callable[[Samples, int], Surrogate]] = {
    "train": lambda data, seed: surrogate.train(data, seed=seed),
    "train, evidence": lambda data, seed: surrogate.train(data, weighting=Evidence(), seed=seed),
    "train, Adam and L-BFGS at one decay": lambda data, seed: surrogate.train(data, optimizers=FIXED, seed=seed),
    "train, validation=0.2": lambda data, seed: surrogate.train(data, validation=0.2, seed=seed),
    "the same, learned likelihood": lambda data, seed: surrogate.train(
        data, weighting=LEARNED, validation=0.2, seed=seed
    ),
    "the same, profiled likelihood": lambda data, seed: surrogate.train(
        data, weighting=PROFILED, validation=0.2, seed=seed
    ),
    "the same, profiled by input": lambda data, seed: surrogate.train(data, weighting=EACH, validation=0.2, seed=seed),
    "fit, without logarithms": lambda data, seed: surrogate.fit(
        data, families=(Solved(), Kriging(), Descent()), seed=seed
    ),
}


def sampled(N: int, seed: int) -> Samples:
    """Uniform samples of the borehole function."""
    function = FUNCTIONS["borehole"]
    x = np.random.default_rng(seed).uniform(*function.bounds.T, size=(N, len(function.bounds)))
    y, jacobian = function.evaluate(x)
    return Samples(x, y, jacobian, tuple(function.inputs), (function.response,), function.bounds, function.units)


def sizes(data: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Standard deviations of values (m,), root mean squares of slopes (m, n)."""
    assert data.jacobian is not None
    return data.y.std(axis=0), np.sqrt((data.jacobian**2).mean(axis=0))


def noisy(data: Samples, seed: int) -> Samples:
    """The samples with noise."""
    assert data.jacobian is not None
    (of_y, of_jacobian), rng = sizes(data), np.random.default_rng(1000 + seed)
    y = data.y + OF_VALUES * of_y * rng.standard_normal(data.y.shape)
    return replace(
        data, y=y, jacobian=data.jacobian + OF_SLOPES * of_jacobian * rng.standard_normal(data.jacobian.shape)
    )


def errors(model: Surrogate, truth: Samples) -> tuple[float, float]:
    """Normalized root mean square errors of values, and of all slopes times the ranges of their inputs."""
    (y, jacobian), width = model.predict(truth.x), np.ptp(truth.bounds, axis=1)
    assert jacobian is not None and truth.jacobian is not None
    of_slopes = np.square((jacobian - truth.jacobian) * width).mean() / np.square(truth.jacobian * width).mean()
    return float(np.sqrt(np.square(y - truth.y).mean()) / truth.y.std()), float(np.sqrt(of_slopes))


def estimates(model: Surrogate, clean: Samples) -> str:
    """Estimated over true noise: of the values, and range over the inputs whose slopes are no mere trifle."""
    if "noise" not in model.provenance:
        return ""
    noise, (response,) = model.provenance["noise"], clean.responses
    of_y, of_jacobian = sizes(clean)
    slopes = np.array(list(noise["slopes"][response].values())) / (OF_SLOPES * of_jacobian[0])
    effect = of_jacobian[0] * np.ptp(clean.bounds, axis=1)
    kept = slopes[effect > 0.1 * effect.max()]
    value = noise["values"][response] / (OF_VALUES * of_y[0])
    return f"{value:.2f}, slopes {kept.min():.2f} to {kept.max():.2f} ({len(kept)} inputs)"


def main() -> None:
    """Print the errors of each arm and seed, and their means."""
    truth = sampled(UNSEEN, 99)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    for seed in range(SEEDS):
        clean = sampled(SAMPLES, seed)
        data = noisy(clean, seed)
        for name, arm in ARMS.items():
            model = arm(data, seed)
            found[name].append(errors(model, truth))
            values, slopes = found[name][-1]
            print(f"{seed} {name}: {values:.4f} / {slopes:.4f}  {estimates(model, clean)}", flush=True)
    for name, rows in found.items():
        values, slopes = np.mean(rows, axis=0)
        print(f"mean {name}: {values:.4f} / {slopes:.4f}")


if __name__ == "__main__":
    main()
