"""Integrals by plain forms, each on its own: what the assembly of many at once must agree with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.forms import with_quadrature_degrees


class PlainIntegrals:
    """K integrals as they were given: neither expanded, nor stacked, nor with another in one form. Collective.

    Args:
        integrals: Forms of rank 0.
        comm: Communicator of their mesh.
    """

    def __init__(self, integrals: Sequence[ufl.Form], comm: MPI.Intracomm) -> None:
        self._comm = comm
        self._forms = [_compiled(with_quadrature_degrees(form), comm) for form in integrals]

    def assemble(self) -> np.ndarray:
        """Values and integrals of the absolute values, (2, K), the same on every rank. Collective."""
        pairs = [[sum(map(dolfinx.fem.assemble_scalar, forms)) for forms in both] for both in self._forms]
        return np.array(self._comm.allreduce(np.array(pairs), op=MPI.SUM).T)


def _compiled(form: ufl.Form, comm: MPI.Intracomm) -> tuple[list[Any], list[Any]]:
    """The integrals of a form one by one, and those of their absolute values."""
    parts = form.integrals()
    sizes = [part.reconstruct(integrand=abs(part.integrand())) for part in parts]
    values, absolute = ([compile_form(ufl.Form([part]), comm) for part in each] for each in (parts, sizes))
    return values, absolute
