"""Optimizers: each a frozen dataclass behind `Optimizer`; a tuple of them is a pipeline."""

from sobofem.surrogate.training.optimizers.base import Optimizer
from sobofem.surrogate.training.optimizers.decay_path import DecayPath
from sobofem.surrogate.training.optimizers.levenberg_marquardt import LevenbergMarquardt
from sobofem.surrogate.training.optimizers.torch_optimizers import LBFGS, Adam

__all__ = ["LBFGS", "Adam", "DecayPath", "LevenbergMarquardt", "Optimizer"]
