"""Optimizers: each a frozen dataclass in its own file, behind `Optimizer`; a tuple of them is a pipeline."""

from surrogate.optimizers.adam import Adam
from surrogate.optimizers.base import Optimizer
from surrogate.optimizers.lbfgs import LBFGS

__all__ = ["LBFGS", "Adam", "Optimizer"]
