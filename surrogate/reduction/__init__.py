"""Fields as outputs and many inputs: reduce them, train on what is left, expand the answer.

    basis = reduced_basis(samples)                     # M values of a field -> r coefficients
    coefficients = basis.reduce(samples)
    model = FieldSurrogate(basis, train(coefficients))

    subspace = active_subspace(data)                   # n inputs -> k coordinates
    model = ProjectedSurrogate(subspace, train(subspace.reduce(data)))

Both together train on Jacobians (r, k), whatever M and n are.
"""

from sobofem.surrogate.reduction.basis import FieldSamples, ReducedBasis, Truncation, reduced_basis
from sobofem.surrogate.reduction.cases import CasesSurrogate
from sobofem.surrogate.reduction.field_surrogate import AroundSurrogate, FieldSurrogate, RelativeSurrogate, relative
from sobofem.surrogate.reduction.projected import ProjectedSurrogate, active_subspace, principal_inputs
from sobofem.surrogate.reduction.subspace import Subspace, linear_subspace
from sobofem.surrogate.weighting.guarded import Important, by_variance

__all__ = [
    "AroundSurrogate",
    "CasesSurrogate",
    "FieldSamples",
    "FieldSurrogate",
    "Important",
    "ProjectedSurrogate",
    "ReducedBasis",
    "RelativeSurrogate",
    "Subspace",
    "Truncation",
    "active_subspace",
    "by_variance",
    "linear_subspace",
    "principal_inputs",
    "reduced_basis",
    "relative",
]
