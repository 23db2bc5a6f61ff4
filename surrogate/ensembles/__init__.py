"""Ensembles: several networks trained as one computation, whose disagreement is calibrated to their error."""

from surrogate.ensembles.module import Ensemble, EnsembleModule
from surrogate.ensembles.training import train_ensemble

__all__ = ["Ensemble", "EnsembleModule", "train_ensemble"]
