"""Calibration: parameters from measurements, on a surrogate, confirmed by the model behind it.

`calibrate` does all of it. In steps: `estimate` fits by least squares, `certify` lets the trusted model confirm or
correct that, `identifiability` and `laplace` read the uncertainty off its Jacobian, `sample` draws from the posterior
on the surrogate, and `accept` makes of these draws ones from the trusted model's posterior.
"""

from sobofem.coupling.calibration.certificate import Certificate, certify
from sobofem.coupling.calibration.delayed_acceptance import Accepted, accept, delayed_acceptance, weigh
from sobofem.coupling.calibration.estimate import Estimate, estimate
from sobofem.coupling.calibration.hamiltonian import sample
from sobofem.coupling.calibration.identifiability import Identifiability, identifiability
from sobofem.coupling.calibration.laplace import Laplace, laplace
from sobofem.coupling.calibration.measurements import Measurements, synthetic
from sobofem.coupling.calibration.posterior import Posterior
from sobofem.coupling.calibration.study import Calibration, Settings, calibrate, with_surrogate_error
from sobofem.coupling.calibration.task import Task
from sobofem.coupling.models.fixed import Fixed

__all__ = [
    "Accepted",
    "Calibration",
    "Certificate",
    "Estimate",
    "Fixed",
    "Identifiability",
    "Laplace",
    "Measurements",
    "Posterior",
    "Settings",
    "Task",
    "accept",
    "calibrate",
    "certify",
    "delayed_acceptance",
    "estimate",
    "identifiability",
    "laplace",
    "sample",
    "synthetic",
    "weigh",
    "with_surrogate_error",
]
