"""What holds for all tests: slow modules begin, names are forgotten, `pytest --shift-seeds N` shifts NumPy's seeds.

With shifted seeds the generators of all tests begin elsewhere, so that no test holds by luck of its seed.
"""

import atexit
import gc
import importlib
import os
from pathlib import Path
import shutil
import sys
import tempfile

import contexts
import numpy as np
import pytest

HERE = str(Path(__file__).parent)
fresh = np.random.default_rng


def pytest_addoption(parser):
    parser.addoption("--shift-seeds", type=int, default=0, metavar="N", help="add N to the seeds of NumPy in tests")


def pytest_configure(config):
    compile_forms_quickly()
    shift = config.getoption("shift_seeds")

    def shifted(seed=None):
        # The library's own seeds are part of what it is: of digests, for example.
        ours = sys._getframe(1).f_code.co_filename.startswith(HERE)
        return fresh(seed + shift if ours and isinstance(seed, int) else seed)

    if shift:
        np.random.default_rng = shifted


def compile_forms_quickly():
    """Tests compile thousands of forms for a few elements each: to optimize those takes longer than to run them.

    Programs that tests start find the setting where DOLFINx looks for it. The demo runs what the compiler optimized.
    """
    settings = Path(tempfile.mkdtemp(prefix="sobofem-tests-"))
    atexit.register(shutil.rmtree, settings, ignore_errors=True)
    (settings / "dolfinx").mkdir()
    (settings / "dolfinx" / "dolfinx_jit_options.json").write_text('{"cffi_extra_compile_args": ["-O0", "-g0"]}')
    os.environ["XDG_CONFIG_HOME"] = str(settings)


def pytest_collection_modifyitems(items):
    """Modules with slow tests come first: what is left for the end is quick, and spreads evenly over the workers."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)  # a stable sort: tests of a module share its fixtures


def pytest_collection():
    """Nothing that is imported is garbage, and to look for some takes a sixth of the time."""
    gc.disable()


def pytest_collection_finish():
    """What all libraries and tests hold stays to the end: the garbage collector need not look through it each time."""
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def _parts_of_ones_own_are_forgotten():
    """What a test enters under a name, the next of the same process may enter anew."""
    with contexts.parts_forgotten():
        yield


@pytest.fixture
def labels_believed():
    """What `contexts.labels_believed` says, during a test."""
    with contexts.labels_believed() as patch:
        yield patch


@pytest.fixture
def labels_doubted(labels_believed):
    """For a test among those with `labels_believed` that is about all of `fit`."""
    labels_believed.undo()


@pytest.fixture
def undrawn(monkeypatch):
    """Pages without their figures, for tests that are not about pages: to draw takes longer than a small study."""
    page = importlib.import_module("sobofem.coupling.report.page")
    monkeypatch.setattr(page, "as_html", lambda figure, alt, prefix: "")


@pytest.fixture
def here(monkeypatch, capsys):
    """`sobofem` in this process, which has imported all that it needs: exit code, output and errors."""
    from sobofem.coupling.cli import main

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["sobofem", *map(str, arguments)])
        monkeypatch.setattr(sys, "excepthook", sys.excepthook)
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.delenv("SOBOFEM_DEBUG", raising=False)
        with pytest.raises(SystemExit) as end:
            main()
        return end.value.code, *capsys.readouterr()

    return run
