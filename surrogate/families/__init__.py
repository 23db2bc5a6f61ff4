"""Families of surrogates that `fit` chooses from: each a frozen dataclass in its own file, behind `Family`."""

from sobofem.surrogate.families.base import Family, Learned, Training
from sobofem.surrogate.families.descent import Descent
from sobofem.surrogate.families.kriging import Kriging
from sobofem.surrogate.families.logarithmic import Logarithmic
from sobofem.surrogate.families.projected import Projected
from sobofem.surrogate.families.solved import Solved

FAMILIES: tuple[Family, ...] = (
    Solved(),
    Kriging(),
    Descent(),
    Logarithmic(Solved()),
    Logarithmic(Kriging()),
)
OF_MANY_INPUTS: tuple[Family, ...] = (*FAMILIES, Projected(Solved()), Projected(Kriging()))
"""What there is to choose from where inputs are many."""

__all__ = [
    "FAMILIES",
    "OF_MANY_INPUTS",
    "Descent",
    "Family",
    "Kriging",
    "Learned",
    "Logarithmic",
    "Projected",
    "Solved",
    "Training",
]
