"""Networks trained on responses and their exact derivatives, and what they become: models.

`fit(data)` chooses between families of surrogates by cross-validation and needs no settings. `train` trains one
network by descent, as small frozen dataclasses say: a network, a weighting of the loss terms
(`sobofem.surrogate.weighting`), a sequence of optimizers. `train_ensemble` trains many at once, `OnlineTraining` while
the samples arrive. Each gives a `Surrogate`, which evaluates, predicts in batches, saves and is read back by `load`.
Parts of your own derive from `Network`, `Weighting`, `Optimizer` or `Family`. Nothing here knows finite elements.
"""

from os import PathLike
from pathlib import Path

from sobofem.surrogate import files
from sobofem.surrogate.consistency import DerivativeReport, Finding, check_derivatives
from sobofem.surrogate.device import undisturbed
from sobofem.surrogate.ensembles import Ensemble, train_ensemble
from sobofem.surrogate.export import ExportedModel, export_model, open_exported
from sobofem.surrogate.families import Descent, Family, Kriging, Logarithmic, Projected, Solved
from sobofem.surrogate.files.registry import register
from sobofem.surrogate.history import History, Progress
from sobofem.surrogate.model import Surrogate
from sobofem.surrogate.networks import (
    MLP,
    Bounded,
    Convex,
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
from sobofem.surrogate.networks.base import Network, NetworkModule
from sobofem.surrogate.networks.layers import Activation, register_activation
from sobofem.surrogate.online import OnlineTraining, checkpoint
from sobofem.surrogate.online.checkpoint import OnlineSettings
from sobofem.surrogate.online.reservoir import Reservoir, Stream
from sobofem.surrogate.operators.reduced import ReducedOperator
from sobofem.surrogate.operators.surrogate import OperatorSurrogate
from sobofem.surrogate.reduction import (
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
from sobofem.surrogate.reduction.cases import CasesSurrogate
from sobofem.surrogate.reduction.field_surrogate import RelativeSurrogate
from sobofem.surrogate.reduction.process import GradientProcess
from sobofem.surrogate.samples import Samples
from sobofem.surrogate.selection.between_fields import fit_operator
from sobofem.surrogate.selection.field import fit_coefficients, fit_field
from sobofem.surrogate.selection.fit import fit
from sobofem.surrogate.selection.tuning import restarted, tuned
from sobofem.surrogate.training.optimizers import LBFGS, Adam, DecayPath, LevenbergMarquardt, Optimizer
from sobofem.surrogate.training.sobolev_loss import SobolevLoss
from sobofem.surrogate.training.train import train
from sobofem.surrogate.weighting import Fixed, InverseDirichlet, PerChannel, ValuesOnly, Weighting

__all__ = [
    "LBFGS",
    "MLP",
    "Activation",
    "Adam",
    "Bounded",
    "Convex",
    "DecayPath",
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
    "Network",
    "NetworkModule",
    "OnlineSettings",
    "OnlineTraining",
    "Optimizer",
    "PerChannel",
    "Positive",
    "Progress",
    "Projected",
    "ProjectedSurrogate",
    "Reservoir",
    "Residual",
    "Samples",
    "Separate",
    "Siren",
    "SobolevLoss",
    "Solved",
    "Stream",
    "Surrogate",
    "Symmetric",
    "ValuesOnly",
    "Weighting",
    "active_subspace",
    "by_variance",
    "check_derivatives",
    "export_model",
    "fit",
    "fit_coefficients",
    "fit_field",
    "fit_operator",
    "linear_subspace",
    "load",
    "open_exported",
    "principal_inputs",
    "reduced_basis",
    "register",
    "register_activation",
    "restarted",
    "train",
    "train_ensemble",
    "tuned",
]


type Loaded = (
    Surrogate
    | FieldSurrogate
    | ProjectedSurrogate
    | RelativeSurrogate
    | CasesSurrogate
    | GradientProcess
    | OperatorSurrogate
    | ReducedOperator
)


@undisturbed()
def load(path: str | PathLike[str]) -> Loaded:
    """Read a surrogate of responses, of a field, of many inputs or between fields, by what the file says that it is.

    All that it holds is compared with its checksum first. A file from before there were any is read with a warning.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is damaged, of another kind or of a newer version, or needs a network that is not registered
            here.
    """
    found: Loaded = files.unpack(files.read(path))
    return found


@undisturbed()
def verified(path: str | PathLike[str]) -> bool:
    """Whether a surrogate, a checkpoint or an exported program has a checksum, which it fits; it can be read, too.

    Raises:
        FileNotFoundError: If there is no such file.
        ModuleNotFoundError: If it is ONNX and ONNX Runtime is not installed.
        ValueError: If it is damaged.
    """
    if Path(path).suffix != ".safetensors":
        return open_exported(path).checked
    stored = files.read(path)
    if stored.kind != checkpoint.KIND:
        files.unpack(stored)
    return stored.checked
