"""Loss weightings: each a frozen dataclass in its own file, behind `Weighting`."""

from sobofem.surrogate.weighting.base import Terms, Weighting, Weights
from sobofem.surrogate.weighting.by_gradient import Annealing, GradNorm, InverseDirichlet, NeuralTangent
from sobofem.surrogate.weighting.by_held_out import Hypergradient
from sobofem.surrogate.weighting.by_likelihood import BY_DEFAULT, Evidence, LearnedLikelihood, ProfiledLikelihood
from sobofem.surrogate.weighting.by_loss import PowerMean, ReLoBRaLo, SelfAdaptive, SoftAdapt
from sobofem.surrogate.weighting.fixed import Balanced, EpsilonOptimal, Fixed, PerChannel, Schedule, ValuesOnly
from sobofem.surrogate.weighting.gradient_combination import MGDA, ConFIG, DualBalanced, PCGrad
from sobofem.surrogate.weighting.groups import Grouped, Grouping
from sobofem.surrogate.weighting.guarded import Guarded, Important, Until, by_variance

__all__ = [
    "BY_DEFAULT",
    "MGDA",
    "Annealing",
    "Balanced",
    "ConFIG",
    "DualBalanced",
    "EpsilonOptimal",
    "Evidence",
    "Fixed",
    "GradNorm",
    "Grouped",
    "Grouping",
    "Guarded",
    "Hypergradient",
    "Important",
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
    "by_variance",
]
