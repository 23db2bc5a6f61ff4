"""Optimization of expensive models: every answer certified by the model itself.

`minimize` finds an optimum of a model with few solves; each is kept, and guides the next search over the same model.
`search` finds the global optimum of a cheap one, and `certify` asks the expensive one what it is worth. `pareto` finds
trade-offs, certified on request.
"""

from sobofem.coupling.optimize.multistart import certify, judged_as, search, search_all
from sobofem.coupling.optimize.pareto import Front, pareto
from sobofem.coupling.optimize.predictors.base import Known, Prediction, Predictor
from sobofem.coupling.optimize.session import NoAnswer
from sobofem.coupling.optimize.solution import Optimum, Solution, Step
from sobofem.coupling.optimize.study import minimize
from sobofem.coupling.optimize.task import Task

__all__ = [
    "Front",
    "Known",
    "NoAnswer",
    "Optimum",
    "Prediction",
    "Predictor",
    "Solution",
    "Step",
    "Task",
    "certify",
    "judged_as",
    "minimize",
    "pareto",
    "search",
    "search_all",
]
