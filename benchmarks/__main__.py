"""Run the benchmarks, all but the longest or by name, and print their tables.

python -m benchmarks jacobian_cost
"""

from __future__ import annotations

import argparse
import importlib

from rich.console import Console
from rich.table import Table

from benchmarks import page

NAMES = (
    "jacobian_cost",
    "nonlinear_jacobian",
    "plasticity_jacobian",
    "against_rebuilding",
    "against_dolfinx_adjoint",
    "memory",
    "training_step",
    "generate_overhead",
    "written_samples",
    "scheduler_simulation",
    "reduction_cost",
    "derivative_informed",
    "nodal_loads",
    "learned_laws",
    "two_scales",
    "protocol",
)
LONG = (
    "forward_solve",
    "ensemble_efficiency",
    "ensemble_memory",
    "folding",
    "online_training",
    "active_sampling",
    "ensemble_training",
    "optimizers",
    "field_weights",
    "many_inputs",
    "weighting_study",
    "optimization",
    "warm_starts",
    "topology",
    "calibration",
    "uncertainty_check",
    "damaged_datasets",
    "members",
    "intervals",
)
"""Minutes each: run by name alone."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"which: {', '.join(NAMES)} (the default), {', '.join(LONG)}"
    )
    parser.add_argument("--keep", action="store_true", help="put what is measured into docs/benchmarks.md")
    arguments = parser.parse_args()
    names = arguments.names or NAMES
    unknown = [name for name in names if name not in NAMES + LONG]
    if unknown:
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(NAMES + LONG)}")
    console = Console(width=110)
    for name in names:
        table = importlib.import_module(f"benchmarks.{name}").table()
        console.print(table)
        if arguments.keep and isinstance(table, Table):
            page.Figures.of(name, table).save()
            page.write()


if __name__ == "__main__":
    main()
