"""Coupling: generate samples of a model, store them, check their derivatives, and optimize with a surrogate.

Importing it needs NumPy, SciPy and h5py; MPI, FEniCSx and PyTorch are imported where they are used.
"""

from coupling.contract import Description, Model, SampleFailure, describe
from coupling.dataset import Dataset
from coupling.design import Design, Grid, halton, latin_hypercube, make_design, sobol
from coupling.ensemble import generate
from coupling.interruption import Interrupted
from coupling.loading import load_model
from coupling.marginals import Marginal
from coupling.merging import merge
from coupling.points import PointsFile
from coupling.progress import Progress
from coupling.samples import Failure
from coupling.verify import TaylorReport, taylor_test

__all__ = [
    "Dataset",
    "Description",
    "Design",
    "Failure",
    "Grid",
    "Interrupted",
    "Marginal",
    "Model",
    "PointsFile",
    "Progress",
    "SampleFailure",
    "TaylorReport",
    "describe",
    "generate",
    "halton",
    "latin_hypercube",
    "load_model",
    "make_design",
    "merge",
    "sobol",
    "taylor_test",
]
