"""Hardening of the notched specimen: what the example keeps is the finite elements' own, and the truth is found."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import chi2

from sobofem import surrogate
from sobofem.coupling import Dataset
from sobofem.coupling.calibration import Measurements, Task, certify, estimate, identifiability

EXAMPLE = Path(__file__).parents[1] / "examples" / "hardening.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("hardening", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def fitted(example):
    """The kept surrogate and its estimate from the kept curve."""
    network = surrogate.load(example.FOLDER / "hardening.safetensors")
    curve = Measurements.read(example.FOLDER / "curve.csv")
    return network, estimate(network, Task(curve, example.PRIORS), starts=4)


def test_what_the_curve_was_made_with_lies_in_the_95_percent_region(example, fitted):
    _, found = fitted
    objective = found.objective
    truth = objective.at(objective.coordinates.u(np.array(list(example.TRUTH.values()))))
    assert 2.0 * (found.log_posterior - objective.log_posterior(truth)[0]) < chi2.ppf(0.95, 4)


def test_the_curve_determines_all_but_one_combination(fitted):
    known = identifiability(fitted[1])
    assert known.determined == 3
    assert {"rate", "saturation"} == {name for name in known.parameters if name in known.combination(3)}


@pytest.mark.slow
def test_finite_elements_certify_it_in_few_solves_and_gave_the_answers_that_are_kept(example, fitted):
    network, found = fitted
    model = example.hardening()
    certificate = certify(found, network, model, solves=4)
    assert certificate.certified
    kept = Dataset.open(example.FOLDER / "solves.h5")
    answer, _ = model.evaluate(kept.x[7], jacobian=False)
    assert np.allclose(answer, kept.y[7], rtol=1e-8)
