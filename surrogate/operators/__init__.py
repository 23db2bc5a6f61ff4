"""Networks from fields to fields on meshes: nodal inputs to nodal outputs, trained on values, J v and Jᵀ w."""

from sobofem.surrogate.operators.base import FieldModule, FieldNetwork
from sobofem.surrogate.operators.errors import FieldErrors, field_errors
from sobofem.surrogate.operators.grid_networks import FourierOperator, GridUNet, MgNO
from sobofem.surrogate.operators.mesh import Mesh
from sobofem.surrogate.operators.mesh_networks import DeepONet, GraphUNet, PerceiverIO
from sobofem.surrogate.operators.reduced import ReducedOperator
from sobofem.surrogate.operators.samples import OperatorData, OperatorSamples
from sobofem.surrogate.operators.surrogate import OperatorSurrogate
from sobofem.surrogate.operators.training import choose, train_operator

__all__ = [
    "DeepONet",
    "FieldErrors",
    "FieldModule",
    "FieldNetwork",
    "FourierOperator",
    "GraphUNet",
    "GridUNet",
    "Mesh",
    "MgNO",
    "OperatorData",
    "OperatorSamples",
    "OperatorSurrogate",
    "PerceiverIO",
    "ReducedOperator",
    "choose",
    "field_errors",
    "train_operator",
]
