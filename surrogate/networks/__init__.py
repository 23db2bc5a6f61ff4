"""Networks: each a registered frozen dataclass in its own file, behind `sobofem.surrogate.networks.base.Network`.

Some are made of others: `Separate` and `Fourier` take any network, `Bounded`, `Positive` and `Symmetric` constrain any,
`Monotone` constrains a perceptron.
"""

from sobofem.surrogate.networks.bounded import Bounded, Positive
from sobofem.surrogate.networks.factorized import Factorized
from sobofem.surrogate.networks.fourier import Fourier
from sobofem.surrogate.networks.kolmogorov_arnold import KolmogorovArnold
from sobofem.surrogate.networks.monotone import Monotone
from sobofem.surrogate.networks.perceptron import MLP, Perceptron, Siren
from sobofem.surrogate.networks.residual import Residual
from sobofem.surrogate.networks.separate import Separate
from sobofem.surrogate.networks.symmetric import Symmetric

__all__ = [
    "MLP",
    "Bounded",
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
