"""What a problem is parameterized with: constants, fields and shapes.

Each kind knows how to take a value, and how to differentiate a form by it; a new kind needs nothing else.
A parameter object describes; binding it to a problem's mesh and boundary conditions makes it act.
"""

from sobofem.fem.parameters.base import Binding, Parameter
from sobofem.fem.parameters.field import Field
from sobofem.fem.parameters.own_values import DensityFilter, HelmholtzFilter, OwnValues
from sobofem.fem.parameters.scalar import Scalar
from sobofem.fem.parameters.shape import Shape, Velocity

__all__ = [
    "Binding",
    "DensityFilter",
    "Field",
    "HelmholtzFilter",
    "OwnValues",
    "Parameter",
    "Scalar",
    "Shape",
    "Velocity",
]
