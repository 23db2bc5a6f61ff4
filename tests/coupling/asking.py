"""A program for tests: a surrogate that is wrong in a known way is corrected by solves of a model, on any ranks.

python asking.py MODEL RANKS_PER_SOLVE FOLDER
"""

import json
from pathlib import Path
import sys

import numpy as np
from toys import Smooth

from sobofem.coupling.parallel.abort import install_abort_hook
from sobofem.coupling.solving.cached_model import cached_on_disk
from sobofem.coupling.uncertainty import failure_probability, inputs, propagate

UNCERTAIN = {"E": "normal:2e5,1e4", "t": "normal:1.3,0.05", "p": "normal:2,0.4"}
SOLVES = 16


class Swinging(Smooth):
    """A surrogate of `Smooth`: each response is off by a wave."""

    def evaluate(self, x, *, jacobian=True):
        y, dy = super().evaluate(x)
        wave = np.array([0.1, 0.2, 0.05])
        slopes = np.outer(wave * np.cos(3.0 * x[2]), [0.0, 0.0, 3.0])
        return y + wave * np.sin(3.0 * x[2]), dy + slopes if jacobian else None


def main(model, per_solve, folder):
    """Ask, and write down what comes out: estimates, and how many solves they took."""
    with cached_on_disk(model, folder / "solves", ranks_per_solve=int(per_solve)) as check:

        def study():
            given = inputs(Swinging(), UNCERTAIN)
            how = {"samples": 1024, "model": check, "solves": SOLVES}
            spread = propagate(Swinging(), given, **how)
            failure = failure_probability(Swinging(), given, "energy > 1.6", **how)
            numbers = {"spread": spread.record(), "failure": failure.record()}
            (folder / "found.json").write_text(json.dumps(numbers))
            print(json.dumps({"solves": check.solves, "failed": check.failed, "points": check.points}))

        check.run_on_root(study)


if __name__ == "__main__":
    install_abort_hook()
    main(*sys.argv[1:3], Path(sys.argv[3]))
