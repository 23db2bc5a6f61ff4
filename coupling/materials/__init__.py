"""Surrogates as constitutive laws of finite-element problems."""

from sobofem.coupling.materials.learned_energy import LearnedEnergy

__all__ = ["LearnedEnergy"]
