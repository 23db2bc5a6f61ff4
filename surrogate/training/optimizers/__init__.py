"""Optimizers: each a frozen dataclass in its own file, behind `Optimizer`; a tuple of them is a pipeline."""

from sobofem.surrogate.training.optimizers.adam import Adam
from sobofem.surrogate.training.optimizers.base import Optimizer
from sobofem.surrogate.training.optimizers.decay_path import DecayPath
from sobofem.surrogate.training.optimizers.lbfgs import LBFGS
from sobofem.surrogate.training.optimizers.levenberg_marquardt import LevenbergMarquardt

__all__ = ["LBFGS", "Adam", "DecayPath", "LevenbergMarquardt", "Optimizer"]
