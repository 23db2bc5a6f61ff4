"""Networks trained on responses and their exact derivatives, and what they become: models.

`fit(data)` chooses between families of surrogates by cross-validation and needs no settings. `train` trains one
network by descent, as small frozen dataclasses say: a network, a weighting of the loss terms (`surrogate.weighting`), a
sequence of optimizers. `train_ensemble` trains many at once, `OnlineTraining` while the samples arrive. Each gives a
`Surrogate`, which evaluates, predicts in batches, saves and is read back by `load`. Nothing here knows finite elements.
"""

from surrogate.choice import fit
from surrogate.consistency import DerivativeReport, Finding, check_derivatives
from surrogate.ensembles import Ensemble, train_ensemble
from surrogate.export import ExportedModel, export_model, open_exported
from surrogate.families import Descent, Family, Kriging, Logarithmic, Solved
from surrogate.model import Surrogate
from surrogate.monitor import History, Progress
from surrogate.networks import (
    MLP,
    Bounded,
    Factorized,
    Fourier,
    KolmogorovArnold,
    Monotone,
    Positive,
    Residual,
    Separate,
    Siren,
    Symmetric,
)
from surrogate.online import OnlineTraining
from surrogate.online_settings import OnlineSettings
from surrogate.optimizers import LBFGS, Adam, LevenbergMarquardt
from surrogate.reduction import (
    FieldSamples,
    FieldSurrogate,
    Important,
    ProjectedSurrogate,
    active_subspace,
    by_variance,
    linear_subspace,
    principal_inputs,
    reduced_basis,
)
from surrogate.reduction.loading import load
from surrogate.registry import register
from surrogate.reservoir import Reservoir
from surrogate.samples import Samples
from surrogate.stream import Stream
from surrogate.training import train
from surrogate.tuning import restarted, tuned
from surrogate.weighting import Fixed, InverseDirichlet, PerChannel, ValuesOnly

__all__ = [
    "LBFGS",
    "MLP",
    "Adam",
    "Bounded",
    "DerivativeReport",
    "Descent",
    "Ensemble",
    "ExportedModel",
    "Factorized",
    "Family",
    "FieldSamples",
    "FieldSurrogate",
    "Finding",
    "Fixed",
    "Fourier",
    "History",
    "Important",
    "InverseDirichlet",
    "KolmogorovArnold",
    "Kriging",
    "LevenbergMarquardt",
    "Logarithmic",
    "Monotone",
    "OnlineSettings",
    "OnlineTraining",
    "PerChannel",
    "Positive",
    "Progress",
    "ProjectedSurrogate",
    "Reservoir",
    "Residual",
    "Samples",
    "Separate",
    "Siren",
    "Solved",
    "Stream",
    "Surrogate",
    "Symmetric",
    "ValuesOnly",
    "active_subspace",
    "by_variance",
    "check_derivatives",
    "export_model",
    "fit",
    "linear_subspace",
    "load",
    "open_exported",
    "principal_inputs",
    "reduced_basis",
    "register",
    "restarted",
    "train",
    "train_ensemble",
    "tuned",
]
