"""Ensembles: several networks trained as one computation, whose disagreement is calibrated to their error."""

from sobofem.surrogate.ensembles.module import Ensemble, EnsembleModule
from sobofem.surrogate.ensembles.train import train_ensemble

__all__ = ["Ensemble", "EnsembleModule", "train_ensemble"]
