"""Loss weightings: each a frozen dataclass in its own file, behind `Weighting`."""

from surrogate.weighting.base import Terms, Weighting, Weights
from surrogate.weighting.fixed import Fixed
from surrogate.weighting.inverse_dirichlet import InverseDirichlet
from surrogate.weighting.per_channel import PerChannel
from surrogate.weighting.values_only import ValuesOnly

__all__ = ["Fixed", "InverseDirichlet", "PerChannel", "Terms", "ValuesOnly", "Weighting", "Weights"]
