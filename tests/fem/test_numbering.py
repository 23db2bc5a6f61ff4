"""A problem is the same problem however many were built before it."""

from mpi4py import MPI
import dolfinx
import numpy as np
import pytest
import ufl

from sobofem import fem


def spring():
    """A string on three foundations, in a sum whose order UFL chooses."""
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 2)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1))
    u = dolfinx.fem.Function(space)
    a, b, c = (dolfinx.fem.Constant(mesh, value) for value in (1.0, 2.0, 3.0))
    energy = 0.5 * (ufl.inner(ufl.grad(u), ufl.grad(u)) + (a + b + c) * u**2 - a * b * c * u) * ufl.dx
    return fem.Problem(
        energy,
        u,
        bcs=[],
        parameters=[fem.Scalar("c", c, (1.0, 2.0))],
        responses=[fem.Response("mean", u * ufl.dx)],
    )


@pytest.mark.slow
def test_a_problem_that_is_built_again_has_the_same_digest():
    """Forty constants pass several numbers at which the count of digits could change."""
    digests = set()
    for _ in range(14):
        problem = spring()
        digests.add(problem.digest)
        problem.close()
    assert len(digests) == 1


def test_constants_have_numbers_of_equally_many_digits():
    mesh = dolfinx.mesh.create_unit_interval(MPI.COMM_SELF, 1)
    assert len(str(dolfinx.fem.Constant(mesh, np.float64(1.0)).count())) == 10
