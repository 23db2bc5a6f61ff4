"""Finite-element models, their exact sensitivities, and the surrogates trained on both.

The everyday names are here; each is imported when it is first used, so that FEniCSx, MPI and PyTorch are needed by
those alone who use them. `sobofem.fem` states and solves problems, `sobofem.surrogate` learns, `sobofem.coupling`
generates, optimizes, propagates and calibrates, `sobofem.meshes` has meshes to try it on.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sobofem import coupling, fem, meshes, surrogate
    from sobofem.coupling import Dataset, Description, Design, Grid, describe, generate, load_model, merge, taylor_test
    from sobofem.coupling.calibration import calibrate
    from sobofem.coupling.optimize.pareto import pareto
    from sobofem.coupling.optimize.study import minimize
    from sobofem.coupling.study import Study
    from sobofem.coupling.uncertainty import failure_probability, propagate, sobol_indices
    from sobofem.fem import (
        Field,
        LoadPath,
        Newton,
        NotConverged,
        Problem,
        Response,
        Scalar,
        Shape,
        average,
        p_norm,
        read_mesh,
    )
    from sobofem.surrogate import Samples, Surrogate, check_derivatives, fit, load, train

__all__ = [
    "Dataset",
    "Description",
    "Design",
    "Field",
    "Grid",
    "LoadPath",
    "Newton",
    "NotConverged",
    "Problem",
    "Response",
    "Samples",
    "Scalar",
    "Shape",
    "Study",
    "Surrogate",
    "average",
    "calibrate",
    "check_derivatives",
    "coupling",
    "describe",
    "failure_probability",
    "fem",
    "fit",
    "generate",
    "load",
    "load_model",
    "merge",
    "meshes",
    "minimize",
    "p_norm",
    "pareto",
    "propagate",
    "read_mesh",
    "sobol_indices",
    "surrogate",
    "taylor_test",
    "train",
]

_HOMES = {
    "Dataset": "sobofem.coupling",
    "Description": "sobofem.coupling",
    "Design": "sobofem.coupling",
    "Field": "sobofem.fem",
    "Grid": "sobofem.coupling",
    "LoadPath": "sobofem.fem",
    "Newton": "sobofem.fem",
    "NotConverged": "sobofem.fem",
    "Problem": "sobofem.fem",
    "Response": "sobofem.fem",
    "Samples": "sobofem.surrogate",
    "Scalar": "sobofem.fem",
    "Shape": "sobofem.fem",
    "Study": "sobofem.coupling.study",
    "Surrogate": "sobofem.surrogate",
    "average": "sobofem.fem",
    "calibrate": "sobofem.coupling.calibration",
    "check_derivatives": "sobofem.surrogate",
    "describe": "sobofem.coupling",
    "failure_probability": "sobofem.coupling.uncertainty",
    "fit": "sobofem.surrogate",
    "generate": "sobofem.coupling",
    "load": "sobofem.surrogate",
    "load_model": "sobofem.coupling",
    "merge": "sobofem.coupling",
    "minimize": "sobofem.coupling.optimize",
    "p_norm": "sobofem.fem",
    "pareto": "sobofem.coupling.optimize",
    "propagate": "sobofem.coupling.uncertainty",
    "read_mesh": "sobofem.fem",
    "sobol_indices": "sobofem.coupling.uncertainty",
    "taylor_test": "sobofem.coupling",
    "train": "sobofem.surrogate",
}


def __getattr__(name: str) -> Any:
    """A package, or a public name from its home."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _HOMES:
        return importlib.import_module(f"{__name__}.{name}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
