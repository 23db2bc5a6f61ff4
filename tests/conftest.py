"""What holds for all tests: slow modules begin, and `pytest --shift-seeds N` shifts the seeds of NumPy.

With shifted seeds the generators of all tests begin elsewhere, so that no test holds by luck of its seed.
"""

from pathlib import Path
import sys

import numpy as np

HERE = str(Path(__file__).parent)
fresh = np.random.default_rng


def pytest_addoption(parser):
    parser.addoption("--shift-seeds", type=int, default=0, metavar="N", help="add N to the seeds of NumPy in tests")


def pytest_configure(config):
    shift = config.getoption("shift_seeds")

    def shifted(seed=None):
        # The library's own seeds are part of what it is: of digests, for example.
        ours = sys._getframe(1).f_code.co_filename.startswith(HERE)
        return fresh(seed + shift if ours and isinstance(seed, int) else seed)

    if shift:
        np.random.default_rng = shifted


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first: what is left for the end is quick, and spreads evenly over the workers."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # a stable sort: tests of a module share its fixtures
