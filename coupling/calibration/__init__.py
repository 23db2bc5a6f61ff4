"""Calibration: parameters from measurements, on a surrogate, confirmed by the model behind it.

`calibrate` does all of it. In steps: `estimate` fits by least squares, `certify` lets the trusted model confirm or
correct that, `identifiability` and `laplace` read the uncertainty off its Jacobian, `sample` draws from the posterior
on the surrogate, and `accept` makes of these draws ones from the trusted model's posterior.
"""

from coupling.calibration.acceptance import Accepted, accept, delayed_acceptance, weigh
from coupling.calibration.certificate import Certificate, certify
from coupling.calibration.estimate import Estimate, estimate
from coupling.calibration.fixed import Fixed
from coupling.calibration.hamiltonian import sample
from coupling.calibration.identifiability import Identifiability, identifiability
from coupling.calibration.laplace import Laplace, laplace
from coupling.calibration.measurements import Measurements, synthetic
from coupling.calibration.objective import Task
from coupling.calibration.posterior import Posterior
from coupling.calibration.study import Calibration, Settings, calibrate
from coupling.calibration.surrogate_error import widened

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
    "widened",
]
