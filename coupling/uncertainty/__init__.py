"""What uncertain inputs do to a response, sampled on a surrogate and checked by the model behind it.

`inputs` says how a model's inputs are distributed. `propagate` gives means, variances, quantiles and densities;
`sobol_indices` and `derivative_measures` which inputs matter; `form` and `failure_probability` how probable it is that
a limit is passed; `quantify` does all of these. Each has error bars that hold the surrogate's own error, and each takes
the trusted model as `model=`, whose few solves correct it. `Robust` and `Reliable` are models of a design whose other
inputs are uncertain, for `sobofem.coupling.optimize` to minimize.
"""

from sobofem.coupling.models.corrected import Corrected, corrected_at
from sobofem.coupling.uncertainty.design import Reliable, Robust
from sobofem.coupling.uncertainty.estimate import Estimate
from sobofem.coupling.uncertainty.form import DesignPoint, NoDesignPoint, form
from sobofem.coupling.uncertainty.inputs import Inputs, inputs
from sobofem.coupling.uncertainty.limits import Limit
from sobofem.coupling.uncertainty.measures import DerivativeMeasures, derivative_measures, measures_of_samples
from sobofem.coupling.uncertainty.propagation import Propagation, propagate
from sobofem.coupling.uncertainty.reliability import FailureProbability, failure_probability
from sobofem.coupling.uncertainty.sobol import SobolIndices, sobol_indices
from sobofem.coupling.uncertainty.study import Study, quantify

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
    "Study",
    "corrected_at",
    "derivative_measures",
    "failure_probability",
    "form",
    "inputs",
    "measures_of_samples",
    "propagate",
    "quantify",
    "sobol_indices",
]
