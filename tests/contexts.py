"""What holds for a while in this process."""

from contextlib import contextmanager
import importlib
import sys

import numpy as np
import pytest

REGISTRIES = {
    "surrogate.files.registry": lambda module: module._CLASSES.values(),
    "surrogate.networks.layers": lambda module: [module.ACTIVATIONS],
    "coupling.design": lambda module: [module.KINDS],
    "coupling.commands": lambda module: [module.COMMANDS],
}
"""Where parts of one's own are entered by name: dictionaries of modules of sobofem."""


@contextmanager
def parts_forgotten():
    """Forget in the end what has been entered meanwhile by others than sobofem."""
    before, used = {id(known): dict(known) for known in _registries()}, list(_used())
    yield
    _used()[:] = used
    for known in _registries():
        ours = {name: part for name, part in known.items() if _is_ours(part)}
        kept = ours | before.get(id(known), {})
        known.clear()
        known.update(kept)


def _registries():
    """Those of the modules that are imported already: to import the others would slow down every test."""
    loaded = {name: sys.modules.get(f"sobofem.{name}") for name in REGISTRIES}
    return [known for name, module in loaded.items() if module for known in REGISTRIES[name](module)]


def _used():
    """Files that `sobofem --use` has run; it runs none of them twice."""
    loading = sys.modules.get("sobofem.coupling.models.loading")
    return loading.USED if loading else []


def _is_ours(part):
    for function in ("function", "value_and_slope"):  # of a command, of an activation
        part = getattr(part, function, part)
    return part.__module__.split(".")[0] == "sobofem"


@contextmanager
def labels_believed():
    """`fit` doubts wild labels alone: doubts, which have tests of their own, take most of its time on few samples."""
    module = importlib.import_module("sobofem.surrogate.selection.fit")
    find_doubts = module.find_doubts

    def find_gross(samples, *, seed, allows):
        return find_doubts(samples, seed=seed, allows=lambda seconds: False)

    def find_none(targets, scales=None):
        return np.zeros((targets.y.shape[1], targets.x.shape[1]), dtype=bool)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "find_doubts", find_gross)
        patch.setattr(module, "doubtful_slopes", find_none)
        yield patch
