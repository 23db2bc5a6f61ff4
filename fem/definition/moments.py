"""Fingerprints of what is spread over a mesh and its ranks: sums that don't depend on who holds what.

They are rounded to six digits of the size of what they sum, so that the order of summation does not show.
"""

from __future__ import annotations

from typing import Any

from mpi4py import MPI
import dolfinx
import numpy as np

WAVES = 12
"""Waves with which values are correlated: what moments can't tell apart, such as cos 2πx and cos 4πx, these can."""


MIDDLE = 1e-12
"""Distance from the middle, over the mesh's size, that is round-off: of a single node there it would be a share of one,
of a sign that differs from rank to rank."""


class Moments:
    """Sums over all ranks, as text, of values at points of a mesh. Collective, as are all methods.

    Args:
        mesh: The mesh.

    Attributes:
        frame: The mesh's middle and size, in which positions are taken: a part may be small, or far from the origin.
    """

    def __init__(self, mesh: dolfinx.mesh.Mesh) -> None:
        self._mesh, self._comm = mesh, mesh.comm
        x = mesh.geometry.x
        corners = np.stack([x.min(axis=0, initial=np.inf), -x.max(axis=0, initial=-np.inf)])
        self._comm.Allreduce(MPI.IN_PLACE, corners, op=MPI.MIN)
        low, high = corners * [[1.0], [-1.0]]
        self._middle, self._size = (low + high) / 2, float((high - low).max())
        self.frame = " ".join(f"{value:.9g}" for value in [*low, *high])
        self._known: dict[int, tuple[Any, np.ndarray]] = {}
        rng = np.random.default_rng(0)
        self._waves = rng.normal(size=(3, WAVES)) * np.geomspace(2.0, 60.0, WAVES)
        self._phases = rng.uniform(0.0, 2 * np.pi, WAVES)

    def relative(self, points: np.ndarray) -> np.ndarray:
        """Points (k, 3) seen from the mesh's middle, in units of its size; zero where they are so but for round-off."""
        places = (points - self._middle) / self._size
        return np.where(np.abs(places) <= MIDDLE, 0.0, places)

    def __call__(self, points: np.ndarray, values: np.ndarray) -> str:
        """Of values (k, c) at points (k, 3)."""
        return self._summed(self._weights(points), values)

    def _weights(self, points: np.ndarray) -> np.ndarray:
        """With what values at points are multiplied: one, places, and waves."""
        places = self.relative(points)
        return np.hstack([np.ones((len(places), 1)), places, np.cos(places @ self._waves + self._phases)])

    def _summed(self, weights: np.ndarray, values: np.ndarray) -> str:
        values = self._without_dust(values)
        factors = np.hstack([weights, values])
        terms, sizes = values.T @ factors, np.abs(values).T @ np.abs(factors)
        sums = np.concatenate([terms.ravel(), sizes.ravel(), [float(len(values))]])
        sums = self._comm.allreduce(sums, op=MPI.SUM) if self._comm.size > 1 else sums
        count = terms.size
        size = np.where(sums[count : 2 * count] > 0.0, sums[count : 2 * count], 1.0)
        shares = np.round(sums[:count] / size, 6) + 0.0
        return " ".join([f"{share:.6f}" for share in shares] + [f"{s:.6e}" for s in size] + [f"{sums[-1]:.0f}"])

    def of_nodes(self, values: np.ndarray) -> str:
        """Of values (owned, c) at the mesh's own nodes."""
        return self(self._mesh.geometry.x[: len(values)], values)

    def of_function(self, function: dolfinx.fem.Function) -> str:
        """Of a function: of its parts, if it is mixed; of its values where its coefficients are something else."""
        return " ".join(self._of_part(part, as_values=True) for part in parts_of(function))

    def of_marks(self, function: dolfinx.fem.Function) -> str:
        """Of numbers at degrees of freedom, which mean no values: the signs of basis functions don't matter."""
        return " ".join(self._of_part(part, as_values=False) for part in parts_of(function))

    def _of_part(self, part: dolfinx.fem.Function, *, as_values: bool) -> str:
        space, element = part.function_space, part.function_space.ufl_element()
        located = element.has_custom_quadrature or space.element.interpolation_ident
        if not located and as_values:
            degree = element.embedded_superdegree
            nodal = dolfinx.fem.functionspace(self._mesh, ("DG", max(degree, 1), space.value_shape))
            values = dolfinx.fem.Function(nodal)
            values.interpolate(part)
            return self._of_part(values, as_values=True)
        block = space.dofmap.index_map_bs
        owned = part.x.array[: space.dofmap.index_map.size_local * block].reshape(-1, block)
        if id(space) not in self._known:  # a field may have a thousand basis functions on one
            points = space.tabulate_dof_coordinates()[: len(owned)] if located else self._seats(space)
            self._known[id(space)] = space, self._weights(points)
        return self._summed(self._known[id(space)][1], owned)

    def _seats(self, space: dolfinx.fem.FunctionSpace) -> np.ndarray:
        """A place for each owned degree of freedom: the mean of the midpoints of the cells that share it."""
        mesh = self._mesh
        cells = np.arange(mesh.topology.index_map(mesh.topology.dim).size_local, dtype=np.int32)
        middles = dolfinx.mesh.compute_midpoints(mesh, mesh.topology.dim, cells)
        total = dolfinx.la.vector(space.dofmap.index_map, 4)
        sums = total.array.reshape(-1, 4)
        entries = np.hstack([middles, np.ones((len(cells), 1))])
        for dofs in space.dofmap.list[: len(cells)].T:
            np.add.at(sums, dofs, entries)
        total.scatter_reverse(dolfinx.la.InsertMode.add)
        owned = sums[: space.dofmap.index_map.size_local]
        return owned[:, :3] / owned[:, 3:]

    def _without_dust(self, values: np.ndarray) -> np.ndarray:
        """The values with zeros where they are zero but for round-off."""
        largest = self._comm.allreduce(float(np.abs(values).max(initial=0.0)), op=MPI.MAX)
        return np.where(np.abs(values) <= 1e-9 * largest, 0.0, values)


def parts_of(function: dolfinx.fem.Function) -> list[dolfinx.fem.Function]:
    """A function of a mixed space as functions of its parts."""
    space = function.function_space
    if space.num_sub_spaces and space.dofmap.index_map_bs == 1:
        return [piece for k in range(space.num_sub_spaces) for piece in parts_of(function.sub(k).collapse())]
    return [function]
