"""Optimizers: each a frozen dataclass in its own file, behind `Optimizer`; a tuple of them is a pipeline."""

from surrogate.optimizers.adam import Adam
from surrogate.optimizers.base import Optimizer
from surrogate.optimizers.lbfgs import LBFGS
from surrogate.optimizers.levenberg_marquardt import LevenbergMarquardt

__all__ = ["LBFGS", "Adam", "LevenbergMarquardt", "Optimizer"]
