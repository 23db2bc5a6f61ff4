"""Surrogates, and cells, as constitutive laws of finite-element problems."""

from sobofem.coupling.materials.cell_energy import CellEnergy
from sobofem.coupling.materials.learned_energy import LearnedEnergy
from sobofem.coupling.materials.learned_plasticity import LearnedPlasticity
from sobofem.coupling.materials.plasticity_training import train_plasticity
from sobofem.coupling.materials.weights import LawWeights

__all__ = ["CellEnergy", "LawWeights", "LearnedEnergy", "LearnedPlasticity", "train_plasticity"]
