"""What holds for all tests: slow modules begin, names are forgotten, `pytest --shift-seeds N` shifts NumPy's seeds.

With shifted seeds the generators of all tests begin elsewhere, so that no test holds by luck of its seed.
"""

from pathlib import Path
import sys

import numpy as np
import pytest

HERE = str(Path(__file__).parent)
fresh = np.random.default_rng
REGISTRIES = {
    "surrogate.files.registry": lambda module: module._CLASSES.values(),
    "surrogate.networks.activations": lambda module: [module.ACTIVATIONS],
    "coupling.design": lambda module: [module.KINDS],
    "coupling.commands": lambda module: [module.COMMANDS],
}
"""Where parts of one's own are entered by name: dictionaries of modules of sobofem."""


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


@pytest.fixture(autouse=True)
def _parts_of_ones_own_are_forgotten():
    """What a test enters under a name, the next of the same process may enter anew."""
    before = {id(known): dict(known) for known in _registries()}
    yield
    for known in _registries():
        ours = {name: part for name, part in known.items() if _is_ours(part)}
        kept = ours | before.get(id(known), {})
        known.clear()
        known.update(kept)


def _registries():
    """Those of the modules that are imported already: to import the others would slow down every test."""
    loaded = {name: sys.modules.get(f"sobofem.{name}") for name in REGISTRIES}
    return [known for name, module in loaded.items() if module for known in REGISTRIES[name](module)]


def _is_ours(part):
    for function in ("function", "value_and_slope"):  # of a command, of an activation
        part = getattr(part, function, part)
    return part.__module__.split(".")[0] == "sobofem"
