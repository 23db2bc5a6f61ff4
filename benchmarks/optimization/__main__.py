"""Command line of the comparison: what is missing is run, then tables are printed and pictures drawn.

python -m benchmarks.optimization --problems plate block --methods minimize SLSQP
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from benchmarks.optimization import FILE, shown
from benchmarks.optimization.methods import ARMS
from benchmarks.optimization.pictures import convergence, totals
from benchmarks.optimization.problems import PROBLEMS
from benchmarks.optimization.study import chosen, entrants, study
from benchmarks.tasks import folder
from sobofem.coupling.display import display


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.optimization", description=__doc__.splitlines()[0])
    parser.add_argument("--problems", nargs="+", choices=tuple(PROBLEMS), metavar="NAME", help=", ".join(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=tuple(ARMS), metavar="NAME", help="; ".join(ARMS))
    parser.add_argument("--again", action="store_true", help="run also what there are results of")
    parser.add_argument("--results", type=Path, help=f"file of results, continued (default: {FILE} in the data folder)")
    parser.add_argument("--pictures", type=Path, help="folder to draw into")
    options = parser.parse_args()
    path = options.results or folder() / FILE
    problems, arms = chosen(options.problems), entrants(options.methods)
    with display() as update:
        for done, count, found in study(problems, arms, path, again=options.again):
            results = found
            update(done, count, "problems by methods")
    wanted = {(p.name, a.name): results[p.name, a.name] for p in problems for a in arms}
    Console(width=190).print(shown(wanted))
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
        print(convergence(wanted, options.pictures / "optimization_convergence.png"))
        print(totals(wanted, options.pictures / "optimization_families.png"))


if __name__ == "__main__":
    main()
