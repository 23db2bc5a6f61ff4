"""Loss weightings: each a frozen dataclass in its own file, behind `Weighting`."""

from surrogate.weighting.annealing import Annealing
from surrogate.weighting.balanced import Balanced
from surrogate.weighting.base import Terms, Weighting, Weights
from surrogate.weighting.conflict_free import ConFIG
from surrogate.weighting.dual_balanced import DualBalanced
from surrogate.weighting.epsilon_optimal import EpsilonOptimal
from surrogate.weighting.fixed import Fixed
from surrogate.weighting.grad_norm import GradNorm
from surrogate.weighting.grouping import Grouping
from surrogate.weighting.guarded import Guarded
from surrogate.weighting.inverse_dirichlet import InverseDirichlet
from surrogate.weighting.learned_likelihood import LearnedLikelihood
from surrogate.weighting.mgda import MGDA
from surrogate.weighting.neural_tangent import NeuralTangent
from surrogate.weighting.pc_grad import PCGrad
from surrogate.weighting.per_channel import PerChannel
from surrogate.weighting.power_mean import PowerMean
from surrogate.weighting.profiled_likelihood import ProfiledLikelihood
from surrogate.weighting.relobralo import ReLoBRaLo
from surrogate.weighting.schedule import Schedule
from surrogate.weighting.self_adaptive import SelfAdaptive
from surrogate.weighting.soft_adapt import SoftAdapt
from surrogate.weighting.until import Until
from surrogate.weighting.values_only import ValuesOnly

__all__ = [
    "MGDA",
    "Annealing",
    "Balanced",
    "ConFIG",
    "DualBalanced",
    "EpsilonOptimal",
    "Fixed",
    "GradNorm",
    "Grouping",
    "Guarded",
    "InverseDirichlet",
    "LearnedLikelihood",
    "NeuralTangent",
    "PCGrad",
    "PerChannel",
    "PowerMean",
    "ProfiledLikelihood",
    "ReLoBRaLo",
    "Schedule",
    "SelfAdaptive",
    "SoftAdapt",
    "Terms",
    "Until",
    "ValuesOnly",
    "Weighting",
    "Weights",
]
