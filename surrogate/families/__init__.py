"""Families of surrogates that `fit` chooses from: each a frozen dataclass in its own file, behind `Family`."""

from surrogate.families.base import Family, Learned, Watch
from surrogate.families.descent import Descent
from surrogate.families.kriging import Kriging
from surrogate.families.logarithmic import Logarithmic
from surrogate.families.solved import Solved

FAMILIES: tuple[Family, ...] = (
    Solved(),
    Kriging(),
    Descent(),
    Logarithmic(Solved()),
    Logarithmic(Kriging()),
)

__all__ = ["FAMILIES", "Descent", "Family", "Kriging", "Learned", "Logarithmic", "Solved", "Watch"]
