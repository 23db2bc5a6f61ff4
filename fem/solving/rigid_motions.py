"""Motions that cost no energy: those that multigrid must know to coarsen well, and those that a support forgot."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import dolfinx
import numpy as np
from petsc4py import PETSc

from sobofem.fem.assembly.stacking import owned_size
from sobofem.fem.geometry import rigid_displacements


def rigid_motions(space: dolfinx.fem.FunctionSpace) -> PETSc.NullSpace | None:
    """The translations and rotations of a displacement space, orthonormal, as a PETSc near-nullspace.

    Returns:
        None where the space holds no displacements: its functions have other than one component per dimension.
    """
    gdim = space.mesh.geometry.dim
    if space.value_shape != (gdim,) or space.dofmap.index_map_bs != gdim:
        return None
    points, _, length = _centered(space.mesh, space.tabulate_dof_coordinates()[:, :gdim])
    motions = rigid_displacements(points / length)
    modes = [dolfinx.la.vector(space.dofmap.index_map, gdim) for _ in range(motions.shape[2])]
    for k, mode in enumerate(modes):
        mode.array.reshape(-1, gdim)[:] = motions[:, :, k]
    dolfinx.la.orthonormalize(modes)
    owned = owned_size(space)
    vectors = [PETSc.Vec().createWithArray(np.array(mode.array[:owned]), comm=space.mesh.comm) for mode in modes]
    return PETSc.NullSpace().create(vectors=vectors, comm=space.mesh.comm)


@dataclass(frozen=True, eq=False)
class Family:
    """Candidates for null vectors, of one part of the mesh and one function of it.

    Attributes:
        names: Of the function, and of each of its components.
        part: Which part of the mesh it is, in words; empty where there is but one.
        columns: The vectors, (owned, k): translations and rotations, or constants of each component.
        center: Point about which rotations turn, (gdim,).
        length: Distance from it at which they move by one.
        rigid: Whether there are rotations.
    """

    names: tuple[str, ...]
    part: str
    columns: np.ndarray
    center: np.ndarray
    length: float
    rigid: bool

    @property
    def fix(self) -> str:
        """What to do about such a null vector."""
        if self.part:
            return "join the parts, or hold each of them by boundary conditions"
        if self.rigid:
            return "hold the body by another boundary condition"
        return "fix the value at one point by a boundary condition, or add what decides it"

    def named(self, coefficients: np.ndarray) -> list[str]:
        """Combinations (k, j) of the columns, in words."""
        where = f" of {self.part}" if self.part else ""
        if not self.rigid:
            own = [name for name, size in zip(self.names[1:], _shares(coefficients), strict=True) if size > 1e-6]
            return [f"a constant in {', '.join(own)}{where}, such as a pressure that is known only up to a constant"]
        gdim, count = len(self.center), coefficients.shape[1]
        if count == len(coefficients):
            return [f"every rigid motion of {self.names[0]}{where}"]
        turning = coefficients[gdim:]
        _, sizes, mix = np.linalg.svd(turning)
        turns = int(np.count_nonzero(sizes > 1e-6 * np.abs(coefficients).max()))
        moves = [f"a translation of {self.names[0]} {way}" for way in _directions(coefficients[:gdim] @ mix[turns:].T)]
        return [f"{what}{where}" for what in [*moves, *map(self._turn, (coefficients @ mix[:turns].T).T)]]

    def _turn(self, motion: np.ndarray) -> str:
        """A rotation, with the point or the axis that stays in place."""
        gdim = len(self.center)
        shift, turn = motion[:gdim], motion[gdim:]
        if gdim == 2:
            fixed = self.center + self.length / turn[0] * np.array([-shift[1], shift[0]])
            return f"a rotation of {self.names[0]} about {in_words(fixed, self.length)}"
        axis = np.array([turn[2], -turn[1], turn[0]])
        fixed = self.center + self.length * np.cross(axis, shift) / (axis @ axis)
        axis *= np.sign(axis[np.argmax(np.abs(axis))]) / np.linalg.norm(axis)
        axis_in_words = f"through {in_words(fixed, self.length)} along {in_words(axis)}"
        return f"a rotation of {self.names[0]} about the axis {axis_in_words}"


@dataclass(frozen=True, eq=False)
class Component:
    """A scalar part of the unknown.

    Attributes:
        name: Such as `displacement[1]`.
        dofs: This rank's degrees of freedom, ghosts included, as the unknown numbers them.
        points: Where they are, (dofs, gdim).
    """

    name: str
    dofs: np.ndarray
    points: np.ndarray


@dataclass(frozen=True, eq=False)
class Leaf:
    """A function that the unknown consists of: displacements, a pressure.

    Attributes:
        name: Such as `displacement`.
        components: Its parts.
        cells: Nodes of each cell that this rank knows of, (cells, nodes), counted as in the components.
        inner: Columns of `cells` with nodes inside of cells, which no two share: all of a discontinuous function.
        nodal: Whether the function is given by its values at nodes.
        space: Its own, with nodes numbered as in the components.
    """

    name: str
    components: tuple[Component, ...]
    cells: np.ndarray
    inner: np.ndarray
    nodal: bool
    space: dolfinx.fem.FunctionSpace


def leaves(unknown: dolfinx.fem.Function) -> list[Leaf]:
    """The functions that an unknown consists of. Collective."""
    return list(_leaves(unknown.function_space, unknown.name, np.arange(len(unknown.x.array))))


def _leaves(space: dolfinx.fem.FunctionSpace, name: str, dofs: np.ndarray) -> Iterator[Leaf]:
    size = space.dofmap.index_map_bs
    if size == 1 and space.num_sub_spaces:
        for k in range(space.num_sub_spaces):
            part, chosen = space.sub(k).collapse()
            yield from _leaves(part, f"{name}.sub({k})", dofs[np.ravel(chosen)])
        return
    points, numbers = points_of(space), np.arange(size)
    labels = [f"{name}[{k}]" for k in numbers] if size > 1 else [name]
    components = tuple(Component(label, dofs[k::size], points) for k, label in zip(numbers, labels, strict=True))
    inner = np.array(space.dofmap.dof_layout.entity_dofs(space.mesh.topology.dim, 0), dtype=np.int32)
    yield Leaf(name, components, space.dofmap.list, inner, bool(space.element.interpolation_ident), space)


def points_of(space: dolfinx.fem.FunctionSpace) -> np.ndarray:
    """Where the nodes of a space are; of one whose functions are not given by values there, middles of cells."""
    mesh, gdim = space.mesh, space.mesh.geometry.dim
    try:
        return np.asarray(space.tabulate_dof_coordinates()[:, :gdim])
    except RuntimeError:
        middles = mesh.geometry.x[mesh.geometry.dofmaps[0]].mean(axis=1)[:, :gdim]
        index_map = space.dofmap.index_map
        points = np.zeros((index_map.size_local + index_map.num_ghosts, gdim))
        points[space.dofmap.list] = middles[:, None, :]
        return points


def families(unknown: dolfinx.fem.Function) -> list[Family]:
    """Rigid motions of each part of the mesh and constants of each function: what most null vectors are. Collective."""
    mesh = unknown.function_space.mesh
    count, parts = _parts(mesh)
    every = []
    for leaf in leaves(unknown):
        for number in range(min(count, BODIES)):
            chosen = np.zeros(len(leaf.components[0].dofs), dtype=bool)
            chosen[leaf.cells[parts == number].ravel()] = True
            every.append(_family(unknown, leaf, chosen, count))
    return every


BODIES = 8
"""Unconnected parts of a mesh that are looked at one by one."""


def _family(unknown: dolfinx.fem.Function, leaf: Leaf, chosen: np.ndarray, parts: int) -> Family:
    space = unknown.function_space
    gdim, owned = space.mesh.geometry.dim, owned_size(space)
    rigid = len(leaf.components) == gdim
    points, center, length = _centered(space.mesh, leaf.components[0].points, chosen)
    motions = (
        rigid_displacements(points / length)
        if rigid
        else np.eye(len(leaf.components))[None].repeat(len(points), axis=0)
    )
    columns = np.zeros((len(unknown.x.array), motions.shape[2]))
    for k, component in enumerate(leaf.components):
        columns[component.dofs[chosen]] = motions[chosen, k]
    where = (
        f"the part of the mesh around {in_words(center)}, one of {parts} that are not connected" if parts > 1 else ""
    )
    names = (leaf.name, *(component.name for component in leaf.components))
    return Family(names, where, columns[:owned], center, length, rigid)


def _centered(
    mesh: dolfinx.mesh.Mesh, points: np.ndarray, chosen: np.ndarray | slice = slice(None)
) -> tuple[np.ndarray, np.ndarray, float]:
    """Points from the middle of the box around the chosen ones, that middle, and half the box's size. Collective."""
    some = points[chosen]
    low = np.min(mesh.comm.allgather(some.min(axis=0, initial=np.inf)), axis=0)
    high = np.max(mesh.comm.allgather(some.max(axis=0, initial=-np.inf)), axis=0)
    center = 0.5 * (low + high)
    return points - center, center, float(0.5 * (high - low).max()) or 1.0


def _parts(mesh: dolfinx.mesh.Mesh) -> tuple[int, np.ndarray]:
    """How many parts without common nodes a mesh has, and which one each cell of this rank is in. Collective."""
    index_map, cells = mesh.geometry.index_map(), mesh.geometry.dofmaps[0]
    count = index_map.size_local + index_map.num_ghosts
    own, nodes = np.repeat(np.arange(len(cells)), cells.shape[1]), cells.ravel()
    _, labels = _components(len(cells) + count, own, len(cells) + nodes)
    shared = np.unique(np.concatenate(mesh.comm.allgather(index_map.ghosts)))
    everywhere = index_map.local_to_global(np.arange(count, dtype=np.int32))
    here = np.isin(everywhere, shared)
    pairs = np.searchsorted(shared, everywhere[here]), labels[len(cells) :][here]
    gathered = mesh.comm.allgather((int(labels.max(initial=-1)) + 1, *pairs))
    starts = np.cumsum([0, *(size for size, *_ in gathered)])
    first = np.concatenate([start + found for start, (_, _, found) in zip(starts, gathered, strict=False)])
    second = starts[-1] + np.concatenate([numbers for _, numbers, _ in gathered])
    _, joined = _components(starts[-1] + len(shared), first, second)
    used, which = np.unique(joined, return_inverse=True)
    return len(used), which[starts[mesh.comm.rank] + labels[: len(cells)]]


def _components(count: int, first: np.ndarray, second: np.ndarray) -> tuple[int, np.ndarray]:
    import scipy

    links = scipy.sparse.coo_array((np.ones(len(first)), (first, second)), shape=(count, count))
    found: tuple[int, np.ndarray] = scipy.sparse.csgraph.connected_components(links, directed=False)
    return found


def _shares(coefficients: np.ndarray) -> np.ndarray:
    """How much of each direction lies in the space that columns (k, j) span, (k,)."""
    base, sizes, _ = np.linalg.svd(coefficients, full_matrices=False)
    return np.asarray((base[:, sizes > 1e-9 * sizes.max(initial=0.0)] ** 2).sum(axis=1))


def _directions(coefficients: np.ndarray) -> list[str]:
    """Directions that translations (gdim, j) span: axes as far as they do, others as vectors."""
    along = np.flatnonzero(_shares(coefficients) > 1.0 - 1e-6)
    rest = np.array(coefficients)
    rest[along] = 0.0
    base, _, _ = np.linalg.svd(rest, full_matrices=False)
    others = base[:, : coefficients.shape[1] - len(along)].T
    return [f"along {'xyz'[k]}" for k in along] + [f"along {in_words(vector)}" for vector in others]


def in_words(point: np.ndarray, length: float = 0.0) -> str:
    """A point or direction as (1.5, 0); what is small compared to a length or the largest entry counts as zero."""
    clean = np.where(np.abs(point) > 1e-9 * max(length, np.abs(point).max(initial=0.0)), point, 0.0)
    return "(" + ", ".join(f"{x:.4g}" for x in clean) + ")"
