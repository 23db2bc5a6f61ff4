"""Coupling: generate samples of a model, store them, check their derivatives, and optimize with a surrogate.

Importing it needs NumPy, SciPy and h5py; MPI, FEniCSx and PyTorch are imported where they are used.
All of it is imported when it is first asked for: the program `sobofem` must listen to signals before that.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sobofem.coupling.contract import Description, Model, SampleFailure, describe
    from sobofem.coupling.dataset.dataset import Dataset
    from sobofem.coupling.dataset.field_data import FieldData
    from sobofem.coupling.dataset.merging import merge
    from sobofem.coupling.dataset.mesh_files import read_fields, write_fields
    from sobofem.coupling.dataset.records import Failure
    from sobofem.coupling.design import Design, Grid, halton, latin_hypercube, make_design, sobol
    from sobofem.coupling.design.marginals import Marginal
    from sobofem.coupling.design.own import OwnDesign
    from sobofem.coupling.design.points import PointsFile
    from sobofem.coupling.materials.cell_energy import CellEnergy
    from sobofem.coupling.materials.learned_energy import LearnedEnergy
    from sobofem.coupling.materials.learned_plasticity import LearnedPlasticity
    from sobofem.coupling.materials.plasticity_training import train_plasticity
    from sobofem.coupling.materials.weights import LawWeights
    from sobofem.coupling.models.loading import load_model
    from sobofem.coupling.models.taylor import TaylorReport, taylor_test
    from sobofem.coupling.parallel.interruption import Interrupted
    from sobofem.coupling.solving.generate import generate
    from sobofem.coupling.solving.ledger import Progress

__all__ = [
    "CellEnergy",
    "Dataset",
    "Description",
    "Design",
    "Failure",
    "FieldData",
    "Grid",
    "Interrupted",
    "LawWeights",
    "LearnedEnergy",
    "LearnedPlasticity",
    "Marginal",
    "Model",
    "OwnDesign",
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
    "read_fields",
    "sobol",
    "taylor_test",
    "train_plasticity",
    "write_fields",
]

_HOMES = {
    "CellEnergy": "sobofem.coupling.materials.cell_energy",
    "Dataset": "sobofem.coupling.dataset.dataset",
    "Description": "sobofem.coupling.contract",
    "Design": "sobofem.coupling.design",
    "Failure": "sobofem.coupling.dataset.records",
    "FieldData": "sobofem.coupling.dataset.field_data",
    "Grid": "sobofem.coupling.design",
    "Interrupted": "sobofem.coupling.parallel.interruption",
    "LawWeights": "sobofem.coupling.materials.weights",
    "LearnedEnergy": "sobofem.coupling.materials.learned_energy",
    "LearnedPlasticity": "sobofem.coupling.materials.learned_plasticity",
    "Marginal": "sobofem.coupling.design.marginals",
    "Model": "sobofem.coupling.contract",
    "OwnDesign": "sobofem.coupling.design.own",
    "PointsFile": "sobofem.coupling.design.points",
    "Progress": "sobofem.coupling.solving.ledger",
    "SampleFailure": "sobofem.coupling.contract",
    "TaylorReport": "sobofem.coupling.models.taylor",
    "describe": "sobofem.coupling.contract",
    "generate": "sobofem.coupling.solving.generate",
    "halton": "sobofem.coupling.design",
    "latin_hypercube": "sobofem.coupling.design",
    "load_model": "sobofem.coupling.models.loading",
    "make_design": "sobofem.coupling.design",
    "merge": "sobofem.coupling.dataset.merging",
    "read_fields": "sobofem.coupling.dataset.mesh_files",
    "sobol": "sobofem.coupling.design",
    "taylor_test": "sobofem.coupling.models.taylor",
    "train_plasticity": "sobofem.coupling.materials.plasticity_training",
    "write_fields": "sobofem.coupling.dataset.mesh_files",
}


def __getattr__(name: str) -> Any:
    """The public names, each from its module."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
