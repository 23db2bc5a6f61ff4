"""Every notebook of the examples runs from its first cell to its last, in the folder that it lies in."""

from pathlib import Path

import nbformat
import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
CHEAPER = {
    "calibration": {"starts=8": "starts=2", "draws=120, tune=60": "draws=60, tune=60"},
    "optimization": {"points=16, generations=40": "points=8, generations=10"},
    "uncertainty": {"SAMPLES = 2**12": "SAMPLES = 2**10", "samples=2**10": "samples=2**8"},
}
"""Smaller numbers for larger ones, by notebook."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")  # of the kernel's client
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path, monkeypatch):
    from nbclient import NotebookClient

    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    for cell in code:
        cell.outputs = []
    for large, small in CHEAPER[path.stem].items():
        assert any(large in cell.source for cell in code), large
        for cell in code:
            cell.source = cell.source.replace(large, small)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(EXAMPLES)}})
    client.execute()  # raises what a cell raises
    assert any(cell.outputs for cell in code)


def test_notebooks_are_small_enough_to_be_kept():
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        assert path.stat().st_size < 500_000, path
