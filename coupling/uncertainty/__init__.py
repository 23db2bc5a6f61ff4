"""What uncertain inputs do to a response, sampled on a surrogate and checked by the model behind it.

`inputs` says how a model's inputs are distributed. `propagate` gives means, variances, quantiles and densities;
`sobol_indices` and `derivative_measures` which inputs matter; `form` and `failure_probability` how probable it is that
a limit is passed. Each has error bars that hold the surrogate's own error, and each takes the trusted model as `check`,
whose few solves correct it. `Robust` and `Reliable` are models of a design whose other inputs are uncertain, for
`coupling.optimize` to minimize.
"""

from coupling.corrected import Corrected, corrected_at
from coupling.uncertainty.estimate import Estimate
from coupling.uncertainty.form import DesignPoint, NoDesignPoint, form
from coupling.uncertainty.joint import Inputs, inputs
from coupling.uncertainty.limits import Limit
from coupling.uncertainty.measures import DerivativeMeasures, derivative_measures, measures_of_samples
from coupling.uncertainty.propagation import Propagation, propagate
from coupling.uncertainty.reliability import FailureProbability, failure_probability
from coupling.uncertainty.reliable import Reliable
from coupling.uncertainty.robust import Robust
from coupling.uncertainty.sobol import SobolIndices, sobol_indices

__all__ = [
    "Corrected",
    "DerivativeMeasures",
    "DesignPoint",
    "Estimate",
    "FailureProbability",
    "Inputs",
    "Limit",
    "NoDesignPoint",
    "Propagation",
    "Reliable",
    "Robust",
    "SobolIndices",
    "corrected_at",
    "derivative_measures",
    "failure_probability",
    "form",
    "inputs",
    "measures_of_samples",
    "propagate",
    "sobol_indices",
]
