"""The record of a calibration, and the page of it: what it says in words, tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sobofem.coupling.calibration.estimate import Estimate
from sobofem.coupling.calibration.study import Calibration
from sobofem.coupling.calibration.task import Objective
from sobofem.coupling.contract import Array
from sobofem.coupling.report.page import Cell, Number, Page, Part, Picture, Points, Section, Table, short

Record = Mapping[str, Any]


def task(objective: Objective, units: Mapping[str, str], fixed: Mapping[str, float]) -> dict[str, Any]:
    """What a record says of what was asked.

    Args:
        objective: The task on the surrogate.
        units: Unit of each parameter and response that has one.
        fixed: Parameters that are known, by name.
    """
    asked, model = objective.task, objective.model
    return {
        "bounds": _by(tuple(model.parameters), model.bounds),
        "priors": {name: str(asked.priors.get(name, "uniform")) for name in model.parameters},
        "fixed": dict(fixed),
        "units": dict(units),
        "noise": asked.noise,
        "measurements": len(asked.measurements),
    }


def record(found: Calibration) -> dict[str, Any]:
    """All numbers of a calibration as plain values, by name."""
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
            "sd": _by(names, found.laplace.standard_deviation),
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
            "sd": _by(names, found.posterior.standard_deviation),
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
        "trustworthy": found.trustworthy,
        "measurements": _measurements(best),
        "verdicts": {
            "fit": best.goodness.verdict(),
            "identifiability": found.identifiability.verdict(),
            "model_posterior": "" if found.accepted is None else found.accepted.verdict(),
        },
        "warnings": list(found.warnings),
    }


def _accepted(found: Calibration) -> dict[str, Any] | None:
    if found.accepted is None:
        return None
    names, accepted = found.estimate.parameters, found.accepted
    return {
        "mean": _by(names, accepted.mean),
        "sd": _by(names, accepted.standard_deviation),
        "interval_95": _by(names, accepted.interval()),
        "effective_draws": accepted.effective,
        "accepted": accepted.accepted,
        "failures": accepted.failures,
    }


def _measurements(best: Estimate) -> list[dict[str, Any]]:
    """Each measurement, and what the model answers at the estimate."""
    data = best.task.measurements
    answers, deviations = best.point.y[best.objective.rows].tolist(), (data.standard_deviation * best.noise).tolist()
    rows = zip(data.responses, data.values.tolist(), deviations, answers, strict=True)
    return [{"response": name, "measured": value, "sd": sd, "model": y} for name, value, sd, y in rows]


def _by(names: tuple[str, ...], values: Array) -> dict[str, Any]:
    return dict(zip(names, np.asarray(values).tolist(), strict=True))


def page(record: Record, name: str, pictures: Mapping[str, Picture]) -> Page:
    """The page of a record.

    Args:
        record: Of a calibration, with `task`; or of a task alone.
        name: What is calibrated.
        pictures: `fit`, `posterior` and `identifiability`.
    """
    title = f"Calibration of {short(name)}" if name else "Calibration"
    asked = Section("Task", list(_task(record["task"])))
    if "estimate" not in record:
        return Page(title, "open", "Unfinished", record["message"], [asked])
    certified = record["certified"]
    headline = "By the surrogate alone" if certified is None else "Certified" if certified else "Not certified"
    sure = record["trustworthy"] and certified and not record["warnings"]
    return Page(
        title,
        "good" if sure else "open" if record["trustworthy"] else "bad",
        headline if record["fit"]["explained"] else "Measurements not explained",
        _sentence(record["verdicts"]["fit"]),
        [
            asked,
            Section("Parameters", [_parameters(record)]),
            Section("Fit", [_fit(record), *_outliers(record), pictures["fit"]]),
            Section(
                "What the measurements determine", [record["verdicts"]["identifiability"], pictures["identifiability"]]
            ),
            Section("Posterior", [*_posterior(record), pictures["posterior"]]),
            Section("Measurements", [_compared(record)], folded=True),
        ],
        [_sentence(warning) for warning in record["warnings"][not record["fit"]["explained"] :]],
        {"model, or surrogate": name} if name else {},
    )


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:].rstrip('.')}."


def _task(asked: Record) -> Iterator[Part]:
    noise = "of unknown size, which is learned" if asked["noise"] == "unknown" else "of known size"
    known = f"{asked['measurements']} measurements, with noise {noise}"
    yield f"{known}, are to be explained by {len(asked['bounds'])} parameters."
    units = asked["units"]
    rows = [[name, units.get(name, ""), *ends, asked["priors"][name]] for name, ends in asked["bounds"].items()]
    yield Table(
        ["parameter", "unit", "from", "to", "prior"], rows, "Parameters, their bounds, and what is known of them"
    )
    if asked["fixed"]:
        held = [[name, units.get(name, ""), value] for name, value in asked["fixed"].items()]
        yield Table(["known parameter", "unit", "value"], held)


def _parameters(record: Record) -> Table:
    heading = ["parameter", "unit", "estimate", "± sd (Laplace)", "mean of draws", "95 % from", "to"]
    drawn, accepted = record["surrogate_posterior"], record["model_posterior"]
    heading += ["left of prior"] if accepted is None else ["by the model, from", "to", "left of prior"]
    rows: list[list[Cell]] = []
    for name, value in record["estimate"].items():
        row: list[Cell] = [name, record["task"]["units"].get(name, ""), value, record["laplace"]["sd"][name]]
        row += [drawn["mean"][name], *drawn["interval_95"][name]]
        row += [] if accepted is None else accepted["interval_95"][name]
        left = record["identifiability"]["left_of_prior"][name]
        rows.append([*row, Number(left, f"{left:.1%}")])
    bound = f"; at a bound: {', '.join(record['at_bound'])}" if record["at_bound"] else ""
    return Table(heading, rows, f"Most probable values, and how sure they are{bound}")


def _fit(record: Record) -> Table:
    rows: list[list[Cell]] = [
        ["chi² of the residuals, in standard deviations", record["chi2"]],
        ["degrees of freedom", record["degrees_of_freedom"]],
        ["probability of a larger chi²", record["misfit_probability"]],
        ["size of the noise, over the given deviations", record["noise_factor"]],
    ]
    if record["certified"] is not None:
        rows.append(
            ["step that the model would still take [standard deviations]", record["step_in_standard_deviations"]]
        )
        rows.append(["solves of the model for that", record["solves"]["to_certify"]])
    return Table(["", "found"], rows)


def _outliers(record: Record) -> Iterator[Part]:
    rows = [
        [
            f"{each['response']} (measurement {each['number']})",
            *(each[key] for key in ("measured", "model", "deviations")),
        ]
        for each in record["fit"]["off_by_more_than_chance"]
    ]
    if rows:
        yield Table(["", "measured", "by the model", "standard deviations"], rows, "Off by more than chance allows")


def _posterior(record: Record) -> Iterator[Part]:
    drawn = record["surrogate_posterior"]
    rows = [[name, drawn["sd"][name], drawn["rhat"][name], drawn["effective_draws"][name]] for name in drawn["mean"]]
    yield Table(["parameter", "standard deviation", "R-hat", "effective draws"], rows, "Draws on the surrogate")
    if record["verdicts"]["model_posterior"]:
        yield Points([_sentence(record["verdicts"]["model_posterior"])])


def _compared(record: Record) -> Table:
    rows = [[each["response"], *(each[key] for key in ("measured", "sd", "model"))] for each in record["measurements"]]
    return Table(["response", "measured", "standard deviation", "by the model"], rows)
