"""Surrogates, and cells, as constitutive laws of finite-element problems."""

from sobofem.coupling.materials.cell_energy import CellEnergy
from sobofem.coupling.materials.learned_energy import LearnedEnergy
from sobofem.coupling.materials.weights import LawWeights

__all__ = ["CellEnergy", "LawWeights", "LearnedEnergy"]
