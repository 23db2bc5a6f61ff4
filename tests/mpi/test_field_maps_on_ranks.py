"""Maps between fields, distributed over all ranks: the same mesh, order and numbers as on one.

mpiexec -n 2 python -m pytest tests/mpi/test_field_maps_on_ranks.py
"""

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.coupling import Dataset, generate
from sobofem.coupling.design.own import OwnDesign
from sobofem.fem.library.l_shape import l_shape
from sobofem.fem.library.loaded_beam import loaded_beam
from sobofem.fem.library.strip_with_hole import strip_with_hole

WORLD = MPI.COMM_WORLD


def small_beam(comm):
    return loaded_beam(comm, cells=(4, 2, 2))


@pytest.mark.parametrize("build", [l_shape, strip_with_hole, small_beam])
def test_all_ranks_together_agree_with_one_alone_on_mesh_order_and_products(build):
    together, alone = build(WORLD), build(MPI.COMM_SELF)
    ours, theirs = together.on_mesh, alone.on_mesh
    np.testing.assert_allclose(ours.mesh.points, theirs.mesh.points, atol=1e-12)
    np.testing.assert_array_equal(ours.mesh.cells, theirs.mesh.cells)
    np.testing.assert_array_equal(ours.inputs, theirs.inputs)
    x = together.sample(6, 5)[4]
    V, W = together.sample(4, 6)[:2], np.random.default_rng(7).normal(size=(2, len(together.responses)))
    pairs = [
        (together.evaluate(x, jacobian=False)[0], alone.evaluate(x, jacobian=False)[0]),
        (together.jvp(x, V), alone.jvp(x, V)),
        (together.vjp(x, W), alone.vjp(x, W)),
    ]
    for found, expected in pairs:
        assert np.abs(found - expected).max() < 1e-8 * np.abs(expected).max()


@pytest.fixture
def shared(tmp_path_factory):
    return WORLD.bcast(tmp_path_factory.mktemp("fields") if not WORLD.rank else None)


@pytest.mark.parametrize("together", [False, True])
def test_ensembles_of_fields_are_the_same_on_any_number_of_ranks(shared, together):
    ranks = min(2, WORLD.size) if together else 1  # of three, one hands out the work alone
    data = generate(l_shape, OwnDesign(8, 3), shared / "a.h5", directions=2, weights=1, ranks_per_solve=ranks)
    assert len(data) == 8 and data.of_fields
    if not WORLD.rank:
        generate(l_shape, OwnDesign(8, 3), shared / "b.h5", directions=2, weights=1, comm=MPI.COMM_SELF)
        found, expected = Dataset.open(shared / "a.h5"), Dataset.open(shared / "b.h5")
        np.testing.assert_array_equal(found.jvp_directions, expected.jvp_directions)
        for name in ("y", "jvp", "vjp"):
            scale = np.abs(getattr(expected, name)).max()
            np.testing.assert_allclose(getattr(found, name), getattr(expected, name), atol=1e-8 * scale)
    WORLD.barrier()
