"""Forms compiled so that no kernel integrates by two quadrature rules, and assembled as one.

FFCx 0.11 keeps what it finds constant over the points of one rule for all rules of a kernel. With a one-point rule that
is every coefficient; with others it may be any that happens to be: ∫u dx(degree 1) + ∫u² dx(degree 2) in one form takes
the square of u at the centre of a cell. Two rules whose names in the C code agree (default degrees 15 and 26 of
triangles) don't compile. So each rule gets a form of its own, for as long as the installed FFCx needs it.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from mpi4py import MPI
import basix.ufl
import dolfinx
import dolfinx.fem.petsc
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.assembly.forms import as_evaluated, by_tags


class Kernels:
    """A form, compiled as one or several whose sum it is. Collective on `comm`, as are all methods.

    Args:
        form: With an explicit quadrature degree in each integral.
        comm: Communicator of its mesh.

    Attributes:
        forms: The compiled forms.
    """

    def __init__(self, form: ufl.Form, comm: MPI.Intracomm) -> None:
        self.forms = []
        form = as_evaluated(form)
        # a form may hold several sets of mesh tags; for DOLFINx these are several forms
        for part in by_tags([ufl.Form([integral]) for integral in form.integrals()]) or [form]:
            pieces = by_rule(part)
            if len(pieces) > 1 and not comm.bcast(_mixes_rules_rightly() if comm.rank == 0 else None):
                self.forms += [compile_form(piece, comm) for piece in pieces]
            else:
                self.forms.append(compile_form(part, comm))

    @property
    def space(self) -> Any:
        """DOLFINx's space of the test function."""
        return self.forms[0].function_spaces[0]

    def add_to(self, array: np.ndarray) -> None:
        """Add a form of rank 1 to a vector's entries, those of ghosts among them."""
        for form in self.forms:
            dolfinx.fem.assemble_vector(array, form)

    def lift(self, array: np.ndarray, bcs: Sequence[dolfinx.fem.DirichletBC], at: np.ndarray) -> None:
        """Add to a vector a form of rank 2 times prescribed values less `at`."""
        count = len(self.forms)
        dolfinx.fem.apply_lifting(array, self.forms, [bcs] * count, x0=[at] * count, alpha=-1.0)

    def create_matrix(self) -> PETSc.Mat:
        """A matrix for a form of rank 2."""
        pattern = dolfinx.fem.create_sparsity_pattern(self.forms[0])
        for form in self.forms[1:]:
            dolfinx.fem.build_sparsity_pattern(pattern, form)
        test, trial = self.forms[0].function_spaces
        if test is trial:
            # prescribed values may be where a form has no integral, as a mass at the tip alone has not
            pattern.insert_diagonal(np.arange(pattern.index_map(0).size_local, dtype=np.int32))
        pattern.finalize()
        return dolfinx.cpp.la.petsc.create_matrix(self.forms[0].mesh.comm, pattern, None)

    def fill(self, matrix: PETSc.Mat, bcs: Sequence[dolfinx.fem.DirichletBC] = (), *, diagonal: float = 1.0) -> None:
        """Assemble a form of rank 2; rows and columns of prescribed values become those of `diagonal` times one."""
        matrix.zeroEntries()
        *others, last = self.forms
        for form in others:
            dolfinx.fem.petsc.assemble_matrix(matrix, form, bcs=bcs, diag=0.0)
            matrix.assemble(PETSc.Mat.AssemblyType.FLUSH)  # from inserting zeros on the diagonal to adding again
        dolfinx.fem.petsc.assemble_matrix(matrix, last, bcs=bcs, diag=diagonal)
        matrix.assemble()


def by_rule(form: ufl.Form) -> list[ufl.Form]:
    """Parts of a form, in each of which all integrals over one kind of entity have one quadrature rule."""
    numbers: dict[tuple[Any, str], list[Any]] = {}
    parts: list[list[Any]] = []
    for integral in form.integrals():
        rules = numbers.setdefault((integral.ufl_domain(), integral.integral_type()), [])
        rule = _rule(integral)
        if rule not in rules or rule == ALONE:
            rules.append(rule)
        number = len(rules) - 1 if rule == ALONE else rules.index(rule)
        if number == len(parts):
            parts.append([])
        parts[number].append(integral)
    return [ufl.Form(part) for part in parts]


ALONE = ("vertices of facets",)
"""The rule of which FFCx 0.11 understands only the first integral in a form: it looks for facets of facets then."""


def _rule(integral: Any) -> tuple[Any, ...]:
    """What decides the points and weights of an integral."""
    kind, metadata = integral.integral_type(), integral.metadata()
    if kind == "vertex":  # one point, whatever the degree
        return ()
    if "facet" in kind and metadata.get("quadrature_rule") == "vertex":
        return ALONE
    given = (np.asarray(metadata.get(key, 0.0)).tobytes() for key in ("quadrature_points", "quadrature_weights"))
    return (metadata["quadrature_degree"], metadata.get("quadrature_rule", "default"), *given)


@cache
def _mixes_rules_rightly() -> bool:
    """Whether the installed FFCx integrates a form of several rules as it should; looked at once, on one cell."""
    mesh = dolfinx.mesh.create_unit_square(MPI.COMM_SELF, 1, 1)
    u, bubble = (
        dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
        for element in (("Lagrange", 1), basix.ufl.element("Bubble", "triangle", 3))
    )
    u.interpolate(lambda x: x[0])
    bubble.x.array[:] = 1.0

    def integral(integrand: Any, degree: int) -> ufl.Form:
        return integrand * ufl.dx(mesh, metadata={"quadrature_degree": degree})

    parts = [integral(u, 1), integral(u**2, 2), integral(bubble, 2), integral(bubble**2, 6)]
    apart = sum(dolfinx.fem.assemble_scalar(compile_form(part, MPI.COMM_SELF)) for part in parts)
    whole = ufl.Form([i for part in parts for i in part.integrals()])
    together = dolfinx.fem.assemble_scalar(compile_form(whole, MPI.COMM_SELF))
    return bool(np.isclose(together, apart, rtol=1e-10, atol=0.0))
