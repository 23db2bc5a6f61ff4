"""The library's panel with a learned law: against closed forms, the cell at each point, and by the usual commands."""

from pathlib import Path
import re
import shlex

from mpi4py import MPI
import numpy as np
import pytest

from benchmarks import two_scales
from sobofem.coupling.library.composite_panel import composite_panel

PAGE = (Path(__file__).parents[2] / "docs" / "learned_laws.md").read_text()


@pytest.mark.slow
def test_the_force_is_the_slope_of_the_energy_and_the_share_its_closed_form():
    problem = composite_panel(MPI.COMM_SELF, cells=(2, 1))
    left, right = 0.25, 0.35
    y, jacobian = problem.evaluate([0.3, left, right])
    force, energy, share = (problem.responses.index(name) for name in ("force", "energy", "share"))
    assert jacobian[energy, 0] == pytest.approx(y[force], rel=1e-8)
    assert y[share] == pytest.approx(np.pi * (left**2 + left * right + right**2) / 3)
    assert problem.share_outside == 0.0


@pytest.mark.slow
def test_the_law_gives_what_a_cell_at_each_point_gives_with_as_many_newton_steps():
    (true, slopes, steps, _), (y, own, own_steps, _) = two_scales.rows((2, 1)).values()
    assert y == pytest.approx(true, rel=0.01)
    assert own == pytest.approx(slopes, rel=0.03, abs=0.03 * np.abs(slopes).max())
    assert own_steps == steps


@pytest.mark.slow
def test_it_is_checked_and_optimized_by_the_usual_commands(here, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, _ = here("check", "composite_panel")
    assert code == 0 and "Every derivative is right" in out
    (command,) = re.findall(r"```bash\nsobofem (optimize .*?)\n```", PAGE)
    code, out, _ = here(*shlex.split(command), "--predictors", "quasi-newton", "--out", "optimum.json")
    assert code == 0 and "Certified" in out and (tmp_path / "panel.h5").is_file()
