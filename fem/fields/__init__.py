"""Whole fields of a solution with their exact derivatives: the unknown at its nodes, expressions as means over cells.

displacement = SolutionField(problem)
u, du = displacement.evaluate(x)                                # (M,), (M, n)
stress = CellField(problem, "von_mises")
s, ds = stress.evaluate(x, directions=V)                        # (M,), (M, k): no solve again, the state is there

A field is one array, the same on every rank and for every number of ranks: its places are ordered by their coordinates
on the mesh before any shape changes, and move with it.
"""

from sobofem.fem.fields.cell_field import CellField
from sobofem.fem.fields.solution_field import SolutionField

__all__ = ["CellField", "SolutionField"]
