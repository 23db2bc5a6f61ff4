"""Whole fields of a solution with their exact derivatives: the unknown at its nodes, expressions as means over cells.

displacement = SolutionField(problem)
u, du = displacement.evaluate(x)                                # (M,), (M, n)
stress = CellField(problem, "von_mises")
s, ds = stress.evaluate(x, directions=V)                        # (M,), (M, k): no solve again, the state is there

prior = BilaplacianField(space, std=0.3, length=40.0)           # a random field for the inputs, on any mesh
m = prior.sample(16, seed=0)                                    # (16, nodes), in the order of OwnValues
map = FieldMap(loads, displacement)                             # a model from a nodal field to one, on one mesh

A field is one array, the same on every rank and for every number of ranks: its places are ordered by their coordinates
on the mesh before any shape changes, and move with it.
"""

from sobofem.fem.fields.bilaplacian import BilaplacianField
from sobofem.fem.fields.cell_field import CellField
from sobofem.fem.fields.field_map import FieldMap
from sobofem.fem.fields.nodal_forces import nodal_work
from sobofem.fem.fields.solution_field import SolutionField

__all__ = ["BilaplacianField", "CellField", "FieldMap", "SolutionField", "nodal_work"]
