"""Fields as outputs and many inputs: reduce them, train on what is left, expand the answer.

    basis = reduced_basis(samples)                     # M values of a field -> r coefficients
    coefficients = basis.reduce(samples)
    model = FieldSurrogate(basis, train(coefficients))

    subspace = active_subspace(data)                   # n inputs -> k coordinates
    model = ProjectedSurrogate(subspace, train(subspace.reduce(data)))

Both together train on Jacobians (r, k), whatever M and n are.
"""

from surrogate.reduction.basis import ReducedBasis, Truncation, reduced_basis
from surrogate.reduction.directions import active_subspace, principal_inputs
from surrogate.reduction.field_samples import FieldSamples
from surrogate.reduction.field_surrogate import FieldSurrogate
from surrogate.reduction.importance import Important, by_variance
from surrogate.reduction.projected import ProjectedSurrogate
from surrogate.reduction.subspace import Subspace, linear_subspace

__all__ = [
    "FieldSamples",
    "FieldSurrogate",
    "Important",
    "ProjectedSurrogate",
    "ReducedBasis",
    "Subspace",
    "Truncation",
    "active_subspace",
    "by_variance",
    "linear_subspace",
    "principal_inputs",
    "reduced_basis",
]
