"""Uncertain inputs of the plate by a surrogate of 32 solves, by that and 32 solves more, and by thousands of solves.

python -m benchmarks uncertainty_check
"""

from __future__ import annotations

from mpi4py import MPI
import numpy as np
from rich.table import Table

from sobofem import surrogate
from sobofem.coupling import Design, Model
from sobofem.coupling.contract import describe
from sobofem.coupling.solving.cached_model import CachedModel
from sobofem.coupling.solving.solver import SequentialSolver
from sobofem.coupling.uncertainty import Estimate, Inputs, failure_probability, inputs, propagate
from sobofem.coupling.uncertainty.estimate import shown
from sobofem.fem.library.plate_with_hole import plate_with_hole

UNCERTAIN = {
    "young": "normal:70e3,2e3",
    "poisson": "normal:0.33,0.01",
    "traction_x": "normal:100,8",
    "traction_y": "normal:60,8",
    "radius_x": "normal:20,1",
    "radius_y": "normal:20,1",
}
RESPONSES = ("compliance", "stress_concentration")
LIMIT = "stress_concentration > 2.9"
QUANTILES = (0.05, 0.95)


def learned(model: Model, solves: int) -> surrogate.Surrogate:
    """The default surrogate of the plate over its whole box."""
    x = Design("sobol", solves, seed=0).points(model.bounds)
    y, jacobian = (np.array(part) for part in zip(*map(model.evaluate, x), strict=True))
    bounds = np.array(model.bounds)
    return surrogate.fit(surrogate.Samples(x, y, jacobian, tuple(model.parameters), tuple(model.responses), bounds, {}))


def brute_force(model: Model, given: Inputs, solves: int, seed: int) -> dict[str, tuple[float, float]]:
    """Statistics by independent solves of the model alone, with their standard errors."""
    x = given.at(np.random.default_rng(seed).standard_normal((solves, len(given.uncertain))))
    y = np.array([model.evaluate(point, jacobian=False)[0] for point in x])
    found = {}
    for name in RESPONSES:
        values = y[:, model.responses.index(name)]
        centred = values - values.mean()
        std = centred.std()
        found[f"mean of {name}"] = (values.mean(), std / np.sqrt(solves))
        found[f"std of {name}"] = (std, float(np.std(centred**2)) / (2.0 * std * np.sqrt(solves)))
        for p in QUANTILES:
            half = np.sqrt(p * (1.0 - p) / solves)
            low, quantile, high = np.quantile(values, [p - half, p, p + half])
            found[f"{100 * p:g} % of {name}"] = (quantile, 0.5 * (high - low))
    failed = np.mean(y[:, model.responses.index("stress_concentration")] > 2.9)
    found[f"P({LIMIT})"] = (float(failed), float(np.sqrt(failed * (1.0 - failed) / solves)))
    return found


def by_surrogate(
    network: Model, given: Inputs, check: Model | None, solves: int, seed: int
) -> dict[str, tuple[float, float]]:
    """The same statistics by a surrogate, and by solves that correct it."""
    spread = propagate(network, given, model=check, solves=solves, seed=seed, probabilities=QUANTILES)
    failure = failure_probability(network, given, LIMIT, model=check, solves=solves, seed=seed)
    found = {}
    for name in RESPONSES:
        i = spread.responses.index(name)
        found[f"mean of {name}"] = _pair(spread.mean[i])
        found[f"std of {name}"] = _pair(spread.standard_deviation[i])
        for q, p in enumerate(QUANTILES):
            found[f"{100 * p:g} % of {name}"] = _pair(spread.quantiles[i, q])
    found[f"P({LIMIT})"] = (failure.value, failure.error)
    return found


def _pair(estimate: Estimate) -> tuple[float, float]:
    return float(estimate.value), float(estimate.error)


def results(solves: int = 6000, learn_from: int = 32, check: int = 32, seed: int = 0) -> dict[str, dict]:
    """Statistics by each way, and how many solves of the model it took."""
    model = plate_with_hole(MPI.COMM_SELF)
    network = learned(model, learn_from)
    given = inputs(network, UNCERTAIN)
    remembered = CachedModel(SequentialSolver(model, describe(model), MPI.COMM_SELF))
    corrected = by_surrogate(network, given, remembered, check, seed)
    return {
        f"{solves} solves": brute_force(model, given, solves, seed),
        f"surrogate of {learn_from}": by_surrogate(network, given, None, check, seed),
        f"and {remembered.solves} solves more": corrected,
    }


def table(**settings: int) -> Table:
    """The comparison, with 95 % error bars; in brackets how far off, in standard errors of both together."""
    found = results(**settings)
    truth = next(iter(found.values()))
    made = Table("quantity", *found, title="Uncertain inputs of the plate, with 95 % error bars")
    for name, (value, error) in truth.items():
        cells = [shown(value, error)]
        for other in list(found.values())[1:]:
            off = (other[name][0] - value) / np.hypot(other[name][1], error)
            cells.append(f"{shown(*other[name])} ({off:+.1f})")
        made.add_row(name, *cells)
    return made
