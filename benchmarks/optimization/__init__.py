"""Optimization whose answers the model certifies, against its rivals: solves of the finite-element model, all counted.

A solve is the values and the Jacobian of all responses at one point. Everybody starts at the same point, and the same
judge says when a point is optimal, by the model: `sobofem.coupling.optimize.Optimum`, with slopes at the start as the
usual ones. Rivals are stopped as soon as they are there; ours have to notice for themselves, and all their solves
count.

    python -m benchmarks.optimization --pictures docs/pictures
"""

from rich.console import Group

from benchmarks.optimization.results import Results
from benchmarks.optimization.study import chosen, entrants, study
from benchmarks.optimization.tables import alone, ends, failures, families, objectives
from benchmarks.tasks import folder

FILE = "optimization.jsonl"


def shown(results: Results) -> Group:
    """All tables, and what failed."""
    return Group(alone(results), families(results), objectives(results), ends(results), failures(results))


def table() -> Group:
    """All of it, run as far as it is missing."""
    problems, arms = chosen(None), entrants(None)
    for _, _, found in study(problems, arms, folder() / FILE):
        results = found
    return shown({(p.name, a.name): results[p.name, a.name] for p in problems for a in arms})
