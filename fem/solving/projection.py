"""Matrices of ties: each degree of freedom as a combination of others."""

from __future__ import annotations

from collections.abc import Mapping

from petsc4py import PETSc

from sobofem.fem.solving.tie import Equation, Nodes


def weights_matrix(nodes: Nodes, rows: Mapping[int, Equation], others: float) -> PETSc.Mat:
    """Degrees of freedom, in global numbers, as weights of some; those without a row as so many times themselves."""
    sizes = (nodes.owned, None)
    matrix = PETSc.Mat().createAIJ((sizes, sizes), bsize=nodes.space.dofmap.index_map_bs, comm=nodes.comm)
    for number in range(nodes.start, nodes.start + nodes.owned):
        row = rows.get(number, {number: others} if others else {})
        for leader, weight in row.items():
            matrix.setValue(number, leader, weight)
    matrix.assemble()
    return matrix


def room_on_diagonal(nodes: Nodes) -> PETSc.Mat:
    """A matrix with room for one entry a row, in blocks as the tangent is, which multigrid coarsens as wholes."""
    sizes = (nodes.owned, None)
    matrix = PETSc.Mat().createAIJ((sizes, sizes), bsize=nodes.space.dofmap.index_map_bs, nnz=1, comm=nodes.comm)
    matrix.setOption(PETSc.Mat.Option.NEW_NONZERO_ALLOCATION_ERR, False)
    return matrix
