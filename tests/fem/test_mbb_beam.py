"""The beam whose material may lie anywhere: full it is a beam of theory, optimal it is a truss."""

from mpi4py import MPI
import numpy as np
import pytest

from examples import topology
from sobofem.fem.library.mbb_beam import mbb_beam


def test_a_full_beam_bends_and_shears_as_theory_says():
    """Half a simply supported beam, its cells locked a little in bending: force 1, length 60, height 10, E 1, ν 0.3."""
    beam = mbb_beam(MPI.COMM_SELF, cells=(60, 10))
    (compliance, volume), _ = beam.evaluate(np.ones(600), jacobian=False)
    bending, shear = 60.0**3 / (3.0 * 10.0**3 / 12.0), 1.2 * 60.0 * 2.6 / 10.0
    assert compliance == pytest.approx(bending + shear, rel=0.02) and volume == pytest.approx(1.0)


@pytest.mark.slow
def test_the_stiffest_beam_of_half_the_material_is_certified_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["topology.py", "--out", str(tmp_path), "--cells", "24", "10"])
    topology.main()
    said = capsys.readouterr().out
    assert said.startswith("240 densities") and "to first order, optimal" in said
    assert (tmp_path / "topology.png").stat().st_size > 10_000
    beam = mbb_beam(MPI.COMM_SELF, cells=(24, 10))
    found = topology.stiffest(beam, 0.5, 300)
    even = beam.evaluate(np.full(240, 0.5), jacobian=False)[0][0]
    assert found.certified and found.optimum.y[0] < 0.4 * even
