"""The protocol of derivative-informed operators on a coarse mesh: errors, floors, what derivatives are worth."""

import numpy as np
import pytest

from benchmarks import derivative_informed, derivative_network, square_data
from benchmarks.derivative_informed import Bases, errors, floor


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("square")
    made = square_data.solved(folder, cells=12, train=64, test=12)
    again = square_data.solved(folder, cells=12, train=64, test=12)
    assert np.array_equal(made.slopes, again.slopes) and (made.mass != again.mass).nnz == 0
    return made


def test_bases_are_what_they_are_said_to_be(data):
    for modes in (data.modes, data.published):
        assert modes.T @ (data.mass @ modes) == pytest.approx(np.eye(modes.shape[1]), abs=1e-9)
    for encoder, lift in ((data.encoder, data.active), (data.principal_encoder, data.principal)):
        assert encoder @ lift == pytest.approx(np.eye(len(encoder)), abs=1e-7)
        assert np.var(data.x @ encoder[:16].T, axis=0) == pytest.approx(np.ones(16), abs=0.6)


def test_errors_are_those_of_whole_fields_and_whole_jacobians(data):
    from mpi4py import MPI

    from sobofem.fem.fields import SolutionField
    from sobofem.fem.library.hyperelastic_square import hyperelastic_square

    field = SolutionField(hyperelastic_square(MPI.COMM_SELF, cells=(12, 12)))
    bases, rng = Bases(20, 6), np.random.default_rng(0)
    modes, encoder = bases.modes(data), bases.encoder(data)
    c = rng.standard_normal((len(data.truth), 20)) * 1e-2
    slopes = rng.standard_normal((len(data.truth), 20, 6)) * 1e-2
    expected = []
    for m, coefficients, slope in zip(data.unseen, c, slopes, strict=True):
        u, D = field.evaluate(m, directions=data.drawn)
        off, H1 = u - modes @ coefficients, field.consistent_mass + field.stiffness
        ratios = [np.sqrt(off @ W @ off / (u @ W @ u)) for W in (field.consistent_mass, H1)]
        expected.append((*ratios, np.linalg.norm(D - modes @ slope @ encoder @ data.drawn) / np.linalg.norm(D)))
    assert errors(data, bases, c, slopes) == pytest.approx(np.mean(expected, axis=0), rel=1e-6)


def test_derivatives_make_better_bases_on_both_sides(data):
    published, derivatives = floor(data, Bases(64, 16, published=True)), floor(data, Bases(64, 16))
    assert all(ours < theirs for ours, theirs in zip(derivatives, published, strict=True))
    assert floor(data, Bases(64, 16))[2] < 0.9 * floor(data, Bases(64, 16, principal=True))[2]
    assert floor(data, Bases(96, 64))[2] < 0.6 * floor(data, Bases(96, 16))[2]


def test_derivative_labels_help_the_published_network_and_ours_more(data):
    count = 16
    theirs = [
        derivative_informed.published(data, count, 1, derivatives=derivatives, steps=400)[0]
        for derivatives in (True, False)
    ]
    assert theirs[0].L2 < 0.8 * theirs[1].L2 and theirs[0].jacobian < 0.8 * theirs[1].jacobian
    ours = derivative_informed.toolkit(data, count, 0, derivatives=True)
    assert ours.L2 < theirs[0].L2 and ours.H1 < theirs[0].H1 and ours.jacobian < theirs[0].jacobian
    assert ours.L2 < 0.2 and ours.H1 < 0.4 and ours.jacobian < 0.4


def test_slopes_of_the_published_network_are_derivatives_of_its_values():
    rng = np.random.default_rng(1)
    z, rows = rng.standard_normal((12, 3)), rng.standard_normal((4, 3))
    y, slopes = np.sin(z @ rows.T), np.cos(z @ rows.T)[:, :, None] * rows
    (predict,) = derivative_network.train(z, y, slopes, seeds=1, steps=50)
    step = 1e-5 * np.eye(3)[1]
    difference = (predict(z + step)[0] - predict(z - step)[0]) / 2e-5
    assert predict(z)[1][:, :, 1] == pytest.approx(difference, abs=1e-7)
