"""Networks trained on responses and their exact derivatives, and what they become: models.

`fit(data)` turns samples into a `Surrogate`, which evaluates, predicts in batches, saves and is read back by
`load`. What `fit` does is decided by small frozen dataclasses: a network, a weighting of the loss terms, a
sequence of optimizers. `OnlineTraining` trains while the samples arrive. Nothing here knows finite elements.
"""

from surrogate.choice import fit
from surrogate.model import Surrogate, load
from surrogate.monitor import History, Progress
from surrogate.network import MLP
from surrogate.online import OnlineTraining
from surrogate.online_settings import OnlineSettings
from surrogate.optimizers import LBFGS, Adam
from surrogate.registry import register
from surrogate.reservoir import Reservoir
from surrogate.samples import Samples
from surrogate.stream import Stream
from surrogate.training import train
from surrogate.weighting import Fixed, InverseDirichlet, PerChannel, ValuesOnly

__all__ = [
    "LBFGS",
    "MLP",
    "Adam",
    "Fixed",
    "History",
    "InverseDirichlet",
    "OnlineSettings",
    "OnlineTraining",
    "PerChannel",
    "Progress",
    "Reservoir",
    "Samples",
    "Stream",
    "Surrogate",
    "ValuesOnly",
    "fit",
    "load",
    "register",
    "train",
]
