"""Rollers on planes that are inclined to the axes, and on curved faces."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mpi4py import MPI
import dolfinx
import numpy as np
import ufl

from sobofem.fem.assembly.compilation import compile_form
from sobofem.fem.errors import agree, together
from sobofem.fem.solving.rigid_motions import Leaf
from sobofem.fem.solving.tie import Equation, Link, Nodes, Tie

SMOOTH = 0.9
"""Size of the mean of unit normals around a vertex below which two faces meet there: at some 50° for two facets."""

MARK = 2.0
"""Added to normals for a digest, so that a component of zero is a mark as well."""


@dataclass(frozen=True)
class Roller(Tie):
    """A face slides along itself, and does not leave it: u · n = 0.

    A node where several rollers or boundary conditions meet obeys all of them; a smooth face is one roller.

    Attributes:
        where: Marks the points (gdim, N) of the face, as (N,) of bool.
        normal: Its normal, of any length: (gdim,) for a plane, a function of points (gdim, N) with values (gdim, N); by
            default that of the mesh's boundary facets, averaged at vertices.
    """

    where: Callable[[np.ndarray], np.ndarray]
    normal: Sequence[float] | Callable[[np.ndarray], np.ndarray] | None = None

    def link(self, nodes: Nodes, number: int) -> Link:
        """The equations of its nodes; see `Tie`."""
        leaf = nodes.displacement(number)
        if self.normal is None:
            return _OnFacets(nodes, leaf, self.where, number)
        return _Sliding(nodes, leaf, nodes.marked(leaf, self.where, number), self._normals, number)

    def _normals(self, points: np.ndarray) -> np.ndarray:
        """Given normals at points (N, gdim)."""
        if callable(self.normal):
            return np.asarray(self.normal(points.T), dtype=float).T
        return np.broadcast_to(np.asarray(self.normal, dtype=float), points.shape)


class _Sliding(Link):
    """u · n = 0 at nodes whose normals are given; they stay as the mesh moves."""

    def __init__(
        self,
        nodes: Nodes,
        leaf: Leaf,
        chosen: np.ndarray,
        normals: Callable[[np.ndarray], np.ndarray],
        number: int,
    ) -> None:
        def find() -> np.ndarray:
            points = leaf.components[0].points[chosen]
            found = normals(points)
            sizes = np.linalg.norm(found, axis=-1, keepdims=True) if found.shape == points.shape else np.zeros(1)
            if not (np.isfinite(sizes).all() and (sizes > 0.0).all()):
                raise ValueError(
                    f"normal of tie {number} gives {found.shape[::-1]}; expected {points.shape[::-1]} finite numbers, "
                    "none of them a vector of zeros"
                )
            return np.asarray(found / sizes)

        self._dofs, self._normals = nodes.gathered(leaf, chosen, together(nodes.comm, find))

    def equations(self) -> list[Equation]:
        """One a node, the largest component first, which is to follow."""
        found = []
        for dofs, normal in zip(self._dofs.tolist(), self._normals, strict=True):
            order = np.argsort(-np.round(np.abs(normal), 6), kind="stable")
            found.append({dofs[k]: float(normal[k]) for k in order})
        return found

    def geometry(self) -> np.ndarray:
        """The normals."""
        return self._normals

    def marks(self) -> Equation:
        """The normals, whichever way they point."""
        marks: Equation = {}
        for dofs, normal in zip(self._dofs.tolist(), self._normals, strict=True):
            sign = np.sign(normal[np.argmax(np.abs(normal) > 0.5)])
            marks |= {dof: MARK + sign * component for dof, component in zip(dofs, normal, strict=True)}
        return marks


class _OnFacets(Link):
    """u · n = 0 at the nodes of boundary facets, with their normal for the mesh as it is."""

    def __init__(self, nodes: Nodes, leaf: Leaf, where: Callable[[np.ndarray], np.ndarray], number: int) -> None:
        mesh = nodes.mesh
        gdim, fdim = mesh.geometry.dim, mesh.topology.dim - 1
        mesh.topology.create_connectivity(fdim, mesh.topology.dim)

        def find() -> np.ndarray:
            return np.sort(dolfinx.mesh.locate_entities_boundary(mesh, fdim, lambda x: where(x[:gdim])))

        facets = together(nodes.comm, find)
        if not nodes.comm.allreduce(len(facets), op=MPI.SUM):
            raise ValueError(f"tie {number} marks no facet of the boundary; check its `where`, or give its normal")
        tags = dolfinx.mesh.meshtags(mesh, fdim, facets, np.ones(len(facets), dtype=np.int32))
        ds = ufl.ds(mesh, subdomain_data=tags, metadata={"quadrature_degree": 2})(1)
        self._nodes, self._leaf, self._number = nodes, leaf, number
        self._mean = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (gdim,))))
        self._area = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("Lagrange", 1)))
        test, weight = (ufl.TestFunction(f.function_space) for f in (self._mean, self._area))
        self._forms = [
            compile_form(form, nodes.comm) for form in (ufl.inner(ufl.FacetNormal(mesh), test) * ds, weight * ds)
        ]
        located = dolfinx.fem.locate_dofs_topological(leaf.space, fdim, facets)
        self._chosen = located[nodes.is_owned(leaf)[located]]

    def _now(self) -> _Sliding:
        for function, form in zip((self._mean, self._area), self._forms, strict=True):
            function.x.array[:] = 0.0
            dolfinx.fem.assemble_vector(function.x.array, form)
            function.x.scatter_reverse(dolfinx.la.InsertMode.add)
            function.x.scatter_forward()
        mean, area = self._mean.x.array.reshape(len(self._area.x.array), -1), self._area.x.array
        sizes, around = np.linalg.norm(mean, axis=1), area > 0.0
        edge = bool((sizes[around] < SMOOTH * area[around]).any())
        if agree(self._nodes.comm, "edge" if edge else None):
            raise ValueError(
                f"two faces meet at an edge or corner that tie {self._number} marks; give each its own Roller"
            )
        mean[around] /= sizes[around, None]
        at_nodes = dolfinx.fem.Function(self._leaf.space)
        at_nodes.interpolate(self._mean)
        at_nodes.x.scatter_forward()
        values = at_nodes.x.array.reshape(-1, mean.shape[1])[self._chosen]
        return _Sliding(self._nodes, self._leaf, self._chosen, lambda points: values, self._number)

    def equations(self) -> list[Equation]:
        """One a node."""
        return self._now().equations()

    def geometry(self) -> np.ndarray:
        """The normals."""
        return self._now().geometry()

    def marks(self) -> Equation:
        """The normals."""
        return self._now().marks()
