"""Optimization of expensive models: every answer certified by the model itself.

`minimize` finds an optimum of a model with few solves; each is kept, and guides the next search over the same model.
`search` finds the global optimum of a cheap one, and `certify` asks the expensive one what it is worth. `pareto` finds
trade-offs, certified on request.
"""

from coupling.optimize.minimize import minimize
from coupling.optimize.multistart import certify, judged_as, search
from coupling.optimize.pareto import Front, pareto
from coupling.optimize.session import NoAnswer
from coupling.optimize.solution import Optimum, Solution, Step
from coupling.optimize.task import Task

__all__ = [
    "Front",
    "NoAnswer",
    "Optimum",
    "Solution",
    "Step",
    "Task",
    "certify",
    "judged_as",
    "minimize",
    "pareto",
    "search",
]
