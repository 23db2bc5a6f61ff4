"""Certificates on all ranks are those of one; run serially these tests hold as well.

mpiexec -n 3 python -m pytest tests/mpi
"""

from dataclasses import replace
from pathlib import Path
import sys
import tempfile

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.coupling import Design, generate

sys.path.append(str(Path(__file__).parents[1] / "coupling"))
from cells import NeoHookeCell, neo_hooke_cell
from test_two_scales import QUICK, X, model, part, structure

from sobofem.coupling.scales import two_scales, visit
from sobofem.fem.influence import Influences

WORLD = MPI.COMM_WORLD


@pytest.fixture
def folder():
    path = WORLD.bcast(tempfile.mkdtemp() if WORLD.rank == 0 else None)
    yield Path(path)
    WORLD.barrier()


def by_strain(seen):
    """A state's points in an order of their own."""
    order = np.lexsort(np.round(seen.z, 8).T)
    return seen.z[order], seen.energy[order], seen.by_energy[:, order], seen.by_slope[:, order]


def test_influences_are_those_of_one_rank():
    together, alone = (structure(model(0.05), comm) for comm in (WORLD, MPI.COMM_SELF))
    found = [visit(problem, Influences(problem), np.array(X)) for problem in (together, alone)]
    for one, other in zip(*map(by_strain, found), strict=True):
        assert one == pytest.approx(other, rel=1e-7, abs=1e-11)
    assert found[0].at_rest == pytest.approx(found[1].at_rest, rel=1e-8)


def test_all_ranks_learn_one_law_and_agree_on_its_certificate(folder):
    data = generate(neo_hooke_cell, Design("sobol", 16, seed=1), folder / "cell.h5")
    found = two_scales(neo_hooke_cell, part, data, folder, replace(QUICK, rounds=1, states=1))
    everywhere = WORLD.allgather(found.record())
    assert all(each == everywhere[0] for each in everywhere)
    for certificate in found.rounds[-1]:
        exact = structure(NeoHookeCell(), counts=(2, 2)).evaluate(certificate.x)[0]
        assert (np.abs(certificate.corrected - exact) <= 3 * certificate.bars + 0.01 * np.abs(exact)).all()
