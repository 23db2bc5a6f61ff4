"""Finite-element problems with exact sensitivities, on FEniCSx.

Built once, evaluated many times::

    problem = Problem(energy, u, bcs=bcs, parameters=[Scalar("young", E, (60e3, 80e3))], responses=[...])
    response, jacobian = problem.evaluate(x)
"""

from mpi4py import MPI  # isort: skip  # noqa: F401  (before dolfinx: the wheel finds its MPI through it)

from sobofem.fem.definition.digest import number_with_equal_digits
from sobofem.fem.errors import NotConverged
from sobofem.fem.limit_load import ControlledPath, LimitLoad
from sobofem.fem.load_path import LoadPath, held
from sobofem.fem.modes import Buckling, Vibration
from sobofem.fem.parameters import DensityFilter, Field, HelmholtzFilter, OwnValues, Scalar, Shape
from sobofem.fem.problem import Problem
from sobofem.fem.reading import read_mesh
from sobofem.fem.responses import Response, average, p_norm
from sobofem.fem.solving.bonded import Bonded
from sobofem.fem.solving.external_function import ExternalFunction
from sobofem.fem.solving.history import LocalUnknown, internal_variable
from sobofem.fem.solving.linear_solver import DIRECT, MULTIGRID, SYMMETRIC
from sobofem.fem.solving.newton import Newton
from sobofem.fem.solving.periodic import Periodic
from sobofem.fem.solving.rigid_link import Rigid
from sobofem.fem.solving.roller import Roller
from sobofem.fem.solving.stability import Stability
from sobofem.fem.solving.zero_mean import ZeroMean

__all__ = [
    "DIRECT",
    "MULTIGRID",
    "SYMMETRIC",
    "Bonded",
    "Buckling",
    "ControlledPath",
    "DensityFilter",
    "ExternalFunction",
    "Field",
    "HelmholtzFilter",
    "LimitLoad",
    "LoadPath",
    "LocalUnknown",
    "Newton",
    "NotConverged",
    "OwnValues",
    "Periodic",
    "Problem",
    "Response",
    "Rigid",
    "Roller",
    "Scalar",
    "Shape",
    "Stability",
    "Vibration",
    "ZeroMean",
    "average",
    "held",
    "internal_variable",
    "p_norm",
    "read_mesh",
]

number_with_equal_digits()
