"""Finite-element problems with exact sensitivities, on FEniCSx.

problem = Problem(energy, u, bcs=bcs, parameters=[Scalar("young", E, (60e3, 80e3))], responses=[...])
response, jacobian = problem.evaluate(x)
"""

from mpi4py import MPI  # isort: skip  # noqa: F401  (before dolfinx: the wheel finds its MPI through it)

from fem.errors import NotConverged
from fem.history import LocalUnknown, internal_variable
from fem.linear_solver import DIRECT, MULTIGRID, SYMMETRIC
from fem.load_path import LoadPath, held
from fem.mesh_files import read_mesh
from fem.newton import Newton
from fem.numbering import number_with_equal_digits
from fem.parameters import Field, Scalar, Shape
from fem.problem import Problem
from fem.responses import Response, average, p_norm
from fem.stability import Stability

__all__ = [
    "DIRECT",
    "MULTIGRID",
    "SYMMETRIC",
    "Field",
    "LoadPath",
    "LocalUnknown",
    "Newton",
    "NotConverged",
    "Problem",
    "Response",
    "Scalar",
    "Shape",
    "Stability",
    "average",
    "held",
    "internal_variable",
    "p_norm",
    "read_mesh",
]

number_with_equal_digits()
