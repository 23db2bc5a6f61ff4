"""The mesh itself: watching it while shape parameters move it, and measures of how it moved."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np
from petsc4py import PETSc
import ufl

from sobofem.fem.assembly.compilation import compile_expression
from sobofem.fem.assembly.forms import with_quadrature_degrees
from sobofem.fem.assembly.kernels import Kernels
from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.errors import NotConverged, agree, together
from sobofem.fem.parameters.shape import Shape, coordinate_function, nodal_velocity

HELD = 1e-9
"""Least eigenvalue over trace, of products of rigid motions at prescribed nodes, from which on these hold a mesh."""

REAL = 0.03
"""Imaginary part of an eigenvalue, over its size, up to which it counts as real: round-off makes pairs of those that
repeat, as in a shear, and a cell whose volume falls to the square of that, a thousandth, is as good as flat."""


class Orientation:
    """Watches that no cell turns inside out as the mesh moves.

    Args:
        mesh: The mesh, in its sound initial state.
    """

    def __init__(self, mesh: dolfinx.mesh.Mesh) -> None:
        element = mesh.ufl_domain().ufl_coordinate_element()
        points = np.unique(np.round(element.basix_element.points, 12), axis=0)
        self._mesh = mesh
        self._cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        self._determinant = compile_expression(ufl.JacobianDeterminant(mesh), points, mesh.comm)
        self._signs = np.sign(self._evaluate())

    def _evaluate(self) -> np.ndarray:
        return np.asarray(self._determinant.eval(self._mesh, self._cells))

    def check(self) -> None:
        """Compare with the initial state. Collective.

        Raises:
            NotConverged: If a cell is turned inside out or flat at one of its nodes.
        """
        flipped = np.any(self._evaluate() * self._signs <= 0.0)
        if agree(self._mesh.comm, "flipped" if flipped else None):
            raise NotConverged(
                "the shape parameters turn a cell of the mesh inside out; narrow their bounds or refine the velocity",
                reason="mesh inverted",
            )


def reference_area_ratio(mesh: dolfinx.mesh.Mesh) -> Any:
    """Area on the boundary of the mesh as loaded per area of the moved mesh [-], by Nanson's formula.

    A traction times this ratio keeps its total force while shape parameters change the face it acts on.

    Returns:
        UFL scalar for integrands over the exterior facets of `mesh`; one as long as no shape has moved.
    """
    inverse = ufl.grad(coordinates_as_loaded(mesh))  # of the deformation from the mesh as loaded to the moved one
    normal = ufl.det(inverse) * ufl.dot(ufl.inv(inverse).T, ufl.FacetNormal(mesh))
    return ufl.sqrt(ufl.inner(normal, normal))


def coordinates_as_loaded(mesh: dolfinx.mesh.Mesh) -> dolfinx.fem.Function:
    """Where points are before shape parameters move them, on the coordinate element."""
    element = mesh.ufl_domain().ufl_coordinate_element()
    reference = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, element))
    gdim = mesh.geometry.dim
    nodes = mesh.geometry.x[mesh.geometry.dofmaps[0], :gdim]
    reference.x.array.reshape(-1, gdim)[reference.function_space.dofmap.list] = nodes
    return reference


def extension(mesh: dolfinx.mesh.Mesh, motion: Callable[[np.ndarray], np.ndarray]) -> dolfinx.fem.Function:
    """A mesh velocity with a given motion of the boundary, for `Shape`: nodes within follow as an elastic body would.

    The body is as much stiffer as cells are smaller, so that large cells take the deformation (Stein, Tezduyar & Benney
    2003, *Mesh moving techniques for fluid-structure interactions with large displacements*). Collective.

    Args:
        mesh: As loaded.
        motion: Maps points (gdim, N) of the boundary to velocities (gdim, N), NaN for each component that is free: on a
            straight edge nodes slide where the one along it is.

    Returns:
        On the mesh's coordinate element.

    Raises:
        ValueError: If the motion has another shape, is infinite, or leaves the mesh free to move as a whole.
    """
    velocity = coordinate_function(mesh, np.zeros((len(mesh.geometry.x), mesh.geometry.dim)))
    rows, values = _prescribed(velocity, motion)
    space = velocity.function_space
    test, trial = ufl.TestFunction(space), ufl.TrialFunction(space)
    strain = ufl.sym(ufl.grad(trial))
    stress = 2 * strain + ufl.div(trial) * ufl.Identity(mesh.geometry.dim)
    stiffness = ufl.inner(stress, ufl.grad(test)) / abs(ufl.JacobianDeterminant(mesh)) * ufl.dx(degree=4)
    kernels = Kernels(with_quadrature_degrees(stiffness), mesh.comm)
    matrix, solver = kernels.create_matrix(), PETSc.KSP().create(mesh.comm)
    kernels.fill(matrix)
    solution, right = matrix.createVecs()
    solution.setValues(rows, values)
    solution.assemble()
    matrix.zeroRowsColumns(rows, 1.0, solution, right)
    solver.setOperators(matrix)
    solver.setType("preonly")
    solver.getPC().setType("lu")
    solver.getPC().setFactorSolverType("mumps")
    solver.getPC().setFactorSetUpSolverType()
    factor = solver.getPC().getFactorMatrix()
    factor.setMumpsIcntl(24, 1)  # find null pivots instead of dividing by them
    solver.solve(right, solution)
    found, free = solution.array_r.copy(), int(factor.getMumpsInfog(28))
    for thing in (matrix, solver, solution, right):
        thing.destroy()
    if free:
        raise ValueError("the motion of the boundary leaves a part of the mesh free to move or turn as a whole")
    velocity.x.array[: len(found)] = found
    velocity.x.scatter_forward()
    return velocity


def _prescribed(
    velocity: dolfinx.fem.Function, motion: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Degrees of freedom of this rank, in global numbers, that a motion of the boundary prescribes, and its values."""
    space, mesh = velocity.function_space, velocity.function_space.mesh
    gdim, fdim = mesh.geometry.dim, mesh.topology.dim - 1
    mesh.topology.create_connectivity(fdim, mesh.topology.dim)
    facets = dolfinx.mesh.exterior_facet_indices(mesh.topology)
    nodes = dolfinx.fem.locate_dofs_topological(space, fdim, facets)
    nodes = nodes[nodes < owned_size(space) // gdim]
    points = space.tabulate_dof_coordinates()[nodes, :gdim]

    def asked() -> np.ndarray:
        values = np.asarray(motion(points.T.copy()), dtype=float)
        if values.shape != points.T.shape or np.isinf(values).any():
            raise ValueError(
                f"motion of the boundary gives {values.shape}, expected {points.T.shape}: finite velocities at the "
                "points that it is given, NaN where they are free"
            )
        return values.T

    values = together(mesh.comm, asked)
    given = ~np.isnan(values)
    _check_held(mesh, points, given)
    start = space.dofmap.index_map.local_range[0] * gdim
    rows = start + nodes[:, None] * gdim + np.arange(gdim)
    return rows[given].astype(np.int32), values[given]


def _check_held(mesh: dolfinx.mesh.Mesh, points: np.ndarray, given: np.ndarray) -> None:
    """Refuse prescribed components (N, gdim) at points that leave a rigid motion free. Collective."""
    ends = np.stack([points.min(axis=0, initial=np.inf), -points.max(axis=0, initial=-np.inf)])
    mesh.comm.Allreduce(MPI.IN_PLACE, ends, op=MPI.MIN)
    middle, size = (ends[0] - ends[1]) / 2, float((-ends[1] - ends[0]).max())
    rigid = rigid_displacements((points - middle) / size)[given]
    gram = mesh.comm.allreduce(rigid.T @ rigid, op=MPI.SUM)
    if not np.linalg.eigvalsh(gram)[0] > HELD * np.trace(gram):
        raise ValueError("the motion of the boundary leaves the mesh free to move or turn as a whole")


def reach(mesh: dolfinx.mesh.Mesh, shapes: Sequence[Shape]) -> dict[str, tuple[float, float]]:
    """How far each shape parameter may go, the others at their reference, until a cell has hardly any volume somewhere.

    Along a motion X + t v the volume changes by det(1 + t grad v), whose roots are -1 over the eigenvalues of grad v.
    They are taken at the nodes of each cell, where `Problem` looks as well. Collective.

    Args:
        mesh: As loaded.
        shapes: Parameters; their bounds don't matter.

    Returns:
        Interval of each parameter, by name, open at both ends; infinite where nothing inverts.
    """
    element = mesh.ufl_domain().ufl_coordinate_element()
    points = np.unique(np.round(element.basix_element.points, 12), axis=0)
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    gdim, found = mesh.geometry.dim, {}
    for shape in shapes:
        velocity = coordinate_function(mesh, nodal_velocity(shape, mesh))
        gradients = compile_expression(ufl.grad(velocity), points, mesh.comm).eval(mesh, cells)
        roots = np.linalg.eigvals(np.reshape(gradients, (-1, gdim, gdim))).ravel()
        real = roots.real[np.abs(roots.imag) <= REAL * np.abs(roots)]
        ends = np.array([-real.max(initial=0.0), real.min(initial=0.0)])  # 1 + t root > 0
        mesh.comm.Allreduce(MPI.IN_PLACE, ends, op=MPI.MIN)
        low, high = (-np.inf if ends[0] == 0.0 else 1.0 / ends[0], np.inf if ends[1] == 0.0 else -1.0 / ends[1])
        found[shape.name] = (float(shape.reference + low), float(shape.reference + high))
    return found


def rigid_displacements(points: np.ndarray) -> np.ndarray:
    """Displacements (points, gdim, modes) of the translations and rotations about the origin."""
    count, gdim = points.shape
    planes = [(i, j) for i in range(gdim) for j in range(i + 1, gdim)]
    motions = np.zeros((count, gdim, gdim + len(planes)))
    motions[:, range(gdim), range(gdim)] = 1.0
    for k, (i, j) in enumerate(planes, start=gdim):
        motions[:, i, k], motions[:, j, k] = -points[:, j], points[:, i]
    return motions


def largest_cell(mesh: dolfinx.mesh.Mesh) -> float:
    """Largest diameter of a cell on any rank. Collective."""
    cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
    return float(mesh.comm.allreduce(mesh.h(mesh.topology.dim, cells).max(initial=0.0), op=MPI.MAX))
