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
from sobofem.fem.solving.rigid_motions import Leaf, points_of
from sobofem.fem.solving.tie import Equation, Link, Nodes, Tie

SMOOTH = 0.9
"""Size of the mean of unit normals around a vertex below which two faces meet there: at some 50° for two facets."""

STEP = 1e-2
"""Motion of nodes, over the size of the smallest cell, by which areas are differentiated: no cell is turned over."""

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

    def __post_init__(self) -> None:
        if self.normal is None or callable(self.normal):
            return
        try:
            normal = np.asarray(self.normal, dtype=float)
        except (TypeError, ValueError):
            normal = np.zeros(0)
        if normal.ndim != 1 or not np.isfinite(normal).all() or not normal.any():
            raise ValueError(
                f"normal of a roller is {self.normal!r}; expected a vector of finite numbers other than zeros, or a "
                "function of points"
            )

    def check_moved(self, nodes: Nodes, number: int, velocity: np.ndarray) -> str | None:
        """Normals that are a function of points have unknown derivatives; see `Tie`."""
        if not callable(self.normal) or not self.changes(nodes, number, velocity):
            return None
        return (
            f"turns the normals of tie {number}, which are a function of points, with unknown derivatives; give none, "
            "so that they are those of the facets, or let the velocity vanish there"
        )

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
        return np.tile(np.asarray(self.normal, dtype=float), (len(points), 1))


class _Sliding(Link):
    """u · n = 0 at nodes whose normals are given, as they are at these nodes when it is made."""

    def __init__(
        self,
        nodes: Nodes,
        leaf: Leaf,
        chosen: np.ndarray,
        normals: Callable[[np.ndarray], np.ndarray],
        number: int,
    ) -> None:
        self._nodes, self._leaf, self._chosen = nodes, leaf, chosen
        self._given, self._number = normals, number
        self._dofs, self._normals = self._gathered()

    def _gathered(self) -> tuple[np.ndarray, np.ndarray]:
        """Degrees of freedom and unit normals of all ranks' nodes, where these are now. Collective."""

        def find() -> np.ndarray:
            points = points_of(self._leaf.space)[self._chosen]
            found = self._given(points)
            sizes = np.linalg.norm(found, axis=-1, keepdims=True) if found.shape == points.shape else np.zeros(1)
            if not (np.isfinite(sizes).all() and (sizes > 0.0).all()):
                raise ValueError(
                    f"normal of tie {self._number} gives {found.shape[::-1]}; expected {points.shape[::-1]} finite "
                    "numbers, none of them a vector of zeros"
                )
            return np.asarray(found / sizes)

        return self._nodes.gathered(self._leaf, self._chosen, together(self._nodes.comm, find))

    def equations(self) -> list[Equation]:
        """One a node, the largest component first, which is to follow."""
        found = []
        for dofs, normal in zip(self._dofs.tolist(), self._normals, strict=True):
            order = np.argsort(-np.round(np.abs(normal), 6), kind="stable")
            found.append({dofs[k]: float(normal[k]) for k in order})
        return found

    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """None: what is given stays."""
        return self.along(np.zeros_like(self._normals))

    def along(self, vectors: np.ndarray) -> list[Equation]:
        """Equations with other vectors (nodes, gdim) instead of the normals."""
        return [
            dict(zip(dofs, vector.tolist(), strict=True))
            for dofs, vector in zip(self._dofs.tolist(), vectors, strict=True)
        ]

    def geometry(self) -> np.ndarray:
        """The normals."""
        return self._gathered()[1]

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

    def _areas(self) -> np.ndarray:
        """Integrals (vertices, gdim + 1) of normal and 1, weighted for each vertex, on the mesh as it is."""
        for function, form in zip((self._mean, self._area), self._forms, strict=True):
            function.x.array[:] = 0.0
            dolfinx.fem.assemble_vector(function.x.array, form)
            function.x.scatter_reverse(dolfinx.la.InsertMode.add)
            function.x.scatter_forward()
        area = self._area.x.array
        return np.concatenate([self._mean.x.array.reshape(len(area), -1), area[:, None]], axis=1)

    def _unit(self, areas: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Normals (vertices, gdim), what they were divided by (vertices, 1), and at which vertices there are any."""
        mean, area = areas[:, :-1].copy(), areas[:, -1]
        sizes, around = np.linalg.norm(mean, axis=1), area > 0.0
        edge = bool((sizes[around] < SMOOTH * area[around]).any())
        if agree(self._nodes.comm, "edge" if edge else None):
            raise ValueError(
                f"two faces meet at an edge or corner that tie {self._number} marks; give each its own Roller"
            )
        mean[around] /= sizes[around, None]
        return mean, sizes[:, None], around

    def _at_nodes(self, vectors: np.ndarray) -> np.ndarray:
        """Vectors (vertices, gdim) at the nodes that follow."""
        self._mean.x.array[:] = vectors.ravel()
        at_nodes = dolfinx.fem.Function(self._leaf.space)
        at_nodes.interpolate(self._mean)
        at_nodes.x.scatter_forward()
        return np.asarray(at_nodes.x.array.reshape(-1, vectors.shape[1])[self._chosen])

    def _now(self) -> _Sliding:
        values = self._at_nodes(self._unit(self._areas())[0])
        return _Sliding(self._nodes, self._leaf, self._chosen, lambda points: values, self._number)

    def slopes(self, velocity: np.ndarray) -> list[Equation]:
        """By differences of areas times normals, which are exact: these are quadratic in the places of nodes."""
        mesh = self._nodes.mesh
        cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        sizes = float(mesh.h(mesh.topology.dim, cells).min(initial=np.inf)), -float(np.abs(velocity).max(initial=0.0))
        smallest, fastest = (self._nodes.comm.allreduce(size, op=MPI.MIN) for size in sizes)
        step = STEP * smallest / max(-fastest, np.finfo(float).tiny)
        ahead, behind = (self._nodes.moved(sign * step * velocity, self._areas) for sign in (1.0, -1.0))
        normals, lengths, around = self._unit(self._areas())
        turning = (ahead - behind)[:, :-1] / (2 * step)
        turning -= normals * (normals * turning).sum(axis=1, keepdims=True)
        turning[around] /= lengths[around]
        own = self._at_nodes(normals), self._at_nodes(np.where(around[:, None], turning, 0.0))
        sliding = _Sliding(self._nodes, self._leaf, self._chosen, lambda points: own[0], self._number)
        _, turned = self._nodes.gathered(self._leaf, self._chosen, own[1] / np.linalg.norm(own[0], axis=1)[:, None])
        return sliding.along(turned)

    def equations(self) -> list[Equation]:
        """One a node."""
        return self._now().equations()

    def geometry(self) -> np.ndarray:
        """The normals."""
        return self._now().geometry()

    def marks(self) -> Equation:
        """The normals."""
        return self._now().marks()
