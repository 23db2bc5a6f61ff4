"""Networks: each a registered frozen dataclass, behind `sobofem.surrogate.networks.base.Network`.

Some are made of others: `Separate` and `Fourier` take any network, `Bounded`, `Positive` and `Symmetric` constrain any,
`Monotone` and `Convex` constrain a perceptron.
"""

from sobofem.surrogate.networks.bounded import Bounded, Positive, Symmetric
from sobofem.surrogate.networks.composed import Fourier, Separate
from sobofem.surrogate.networks.kolmogorov_arnold import KolmogorovArnold
from sobofem.surrogate.networks.monotone import Convex, Monotone
from sobofem.surrogate.networks.perceptron import MLP, Factorized, Perceptron, Residual, Siren

__all__ = [
    "MLP",
    "Bounded",
    "Convex",
    "Factorized",
    "Fourier",
    "KolmogorovArnold",
    "Monotone",
    "Perceptron",
    "Positive",
    "Residual",
    "Separate",
    "Siren",
    "Symmetric",
]
