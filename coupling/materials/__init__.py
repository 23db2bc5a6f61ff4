"""Surrogates as constitutive laws of finite-element problems."""

from sobofem.coupling.materials.learned_energy import LearnedEnergy
from sobofem.coupling.materials.weights import LawWeights

__all__ = ["LawWeights", "LearnedEnergy"]
