"""Coupling: generate samples of a model, store them, check their derivatives, and optimize with a surrogate.

Importing it needs NumPy, SciPy and h5py; MPI, FEniCSx and PyTorch are imported where they are used.
All of it is imported when it is first asked for: the program `sobofem` must listen to signals before that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_HOMES = {
    "Dataset": "coupling.dataset",
    "Description": "coupling.contract",
    "Design": "coupling.design",
    "Failure": "coupling.samples",
    "Grid": "coupling.design",
    "Interrupted": "coupling.interruption",
    "Marginal": "coupling.marginals",
    "Model": "coupling.contract",
    "PointsFile": "coupling.points",
    "Progress": "coupling.progress",
    "SampleFailure": "coupling.contract",
    "TaylorReport": "coupling.verify",
    "describe": "coupling.contract",
    "generate": "coupling.ensemble",
    "halton": "coupling.design",
    "latin_hypercube": "coupling.design",
    "load_model": "coupling.loading",
    "make_design": "coupling.design",
    "merge": "coupling.merging",
    "sobol": "coupling.design",
    "taylor_test": "coupling.verify",
}


def __getattr__(name: str) -> Any:
    """The public names, each from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
