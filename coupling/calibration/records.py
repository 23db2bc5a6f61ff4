"""What a calibration leaves on disk: numbers for scripts, draws, and pictures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import csv
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from coupling.calibration.study import Calibration
from coupling.contract import Array

FILES = ("calibration.json", "draws.csv", "posterior.png", "fit.png", "identifiability.png")


def write(found: Calibration, folder: str | Path, *, units: Mapping[str, str] | None = None, axis: str = "") -> None:
    """Write `FILES` to a folder, which is made if need be; with a model `solved_draws.csv`, too.

    Args:
        found: The calibration.
        folder: Where.
        units: Unit of each parameter and response that has one.
        axis: What `at` of the measurements is, for the picture of the fit.
    """
    from coupling.calibration.pictures import fit_figure, identifiability_figure, posterior_figure

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(_finite(record(found)), indent=2, allow_nan=False)
    (folder / "calibration.json").write_text(text + "\n", encoding="utf-8")
    _write_draws(found, folder)
    accepted = found.accepted
    pictures = {
        "posterior.png": posterior_figure(
            found.estimate.parameters,
            found.posterior.x,
            solved=None if accepted is None else (accepted.x, accepted.weights),
            bounds=found.posterior.bounds,
            points={"estimate": found.estimate.x},
            units=units,
            intervals=found.posterior.interval(),
        ),
        "fit.png": fit_figure(found.estimate, found.proposer, found.posterior.x, axis=axis, units=units),
        "identifiability.png": identifiability_figure(found.identifiability),
    }
    for name, figure in pictures.items():
        figure.savefig(folder / name, dpi=110)


def _write_draws(found: Calibration, folder: Path) -> None:
    """All draws on the surrogate, with the number of their chain; and those that were solved, with their weights."""
    chains = found.posterior.chains
    numbers = np.repeat(np.arange(len(chains)), chains.shape[1])
    names = found.estimate.parameters
    _write_table(folder / "draws.csv", ("chain", *names), zip(numbers, *found.posterior.x.T, strict=True))
    if found.accepted is not None:
        weighted = zip(found.accepted.weights, *found.accepted.x.T, strict=True)
        _write_table(folder / "solved_draws.csv", ("weight", *names), weighted)


def _write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows([[repr(value.item()) for value in row] for row in rows])


def record(found: Calibration) -> dict[str, Any]:
    """What a script reads, by name."""
    best, names = found.estimate, found.estimate.parameters
    certificate = found.certificate
    return {
        "fit": best.goodness.record(),
        "estimate": _by(names, best.x),
        "by_surrogate": _by(names, found.predicted.x),
        "certified": None if certificate is None else certificate.certified,
        "converged": None if certificate is None else certificate.converged,
        "step_in_standard_deviations": best.step,
        "at_bound": list(best.at_bound),
        "chi2": best.chi2,
        "degrees_of_freedom": best.freedom,
        "noise_factor": best.noise,
        "misfit_probability": None if np.isnan(best.misfit) else best.misfit,
        "laplace": {
            "sd": _by(names, found.laplace.sd),
            "interval_95": _by(names, found.laplace.interval()),
            "correlation": found.laplace.correlation.tolist(),
        },
        "identifiability": {
            "singular_values": found.identifiability.values.tolist(),
            "directions": found.identifiability.directions.tolist(),
            "left_of_prior": _by(names, found.identifiability.remaining_of_parameters),
        },
        "surrogate_posterior": {
            "mean": _by(names, found.posterior.mean),
            "sd": _by(names, found.posterior.sd),
            "interval_95": _by(names, found.posterior.interval()),
            "rhat": _by(names, found.posterior.rhat),
            "effective_draws": _by(names, found.posterior.effective),
            "divergences": found.posterior.divergences,
        },
        "model_posterior": _accepted(found),
        "solves": {
            "to_certify": 0 if found.certificate is None else found.certificate.solves,
            "to_accept": 0 if found.accepted is None else found.accepted.solves,
        },
        "warnings": list(found.warnings),
    }


def _accepted(found: Calibration) -> dict[str, Any] | None:
    if found.accepted is None:
        return None
    names, accepted = found.estimate.parameters, found.accepted
    return {
        "mean": _by(names, accepted.mean),
        "sd": _by(names, accepted.sd),
        "interval_95": _by(names, accepted.interval()),
        "effective_draws": accepted.effective,
        "accepted": accepted.accepted,
        "failures": accepted.failures,
    }


def _finite(value: Any) -> Any:
    """The same with null for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _by(names: tuple[str, ...], values: Array) -> dict[str, Any]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))
