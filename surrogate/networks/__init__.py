"""Networks: each a registered frozen dataclass in its own file, behind `surrogate.registry.Network`.

Some are made of others: `Separate` and `Fourier` take any network, `Bounded`, `Positive` and `Symmetric` constrain any,
`Monotone` constrains a perceptron.
"""

from surrogate.networks.bounded import Bounded, Positive
from surrogate.networks.factorized import Factorized
from surrogate.networks.fourier import Fourier
from surrogate.networks.kolmogorov_arnold import KolmogorovArnold
from surrogate.networks.monotone import Monotone
from surrogate.networks.perceptron import MLP, Perceptron
from surrogate.networks.residual import Residual
from surrogate.networks.separate import Separate
from surrogate.networks.sine import Siren
from surrogate.networks.symmetric import Symmetric

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
