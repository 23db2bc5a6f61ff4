"""Short examples of the gallery, small, against closed forms and against their own derivatives."""

import importlib.util
from pathlib import Path
import tomllib

from mpi4py import MPI
import numpy as np
import pytest
from scipy.special import ndtr

from sobofem.coupling.scales import TwoScaleSettings
from sobofem.fem.library.composite_cell import composite_cell
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.library.shallow_arch import shallow_arch

ROOT = Path(__file__).parents[1]
GALLERY = tomllib.loads((ROOT / "examples" / "gallery.toml").read_text())


def example(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def arch():
    return shallow_arch(MPI.COMM_SELF, cells=(12, 1))


def test_the_gallery_shows_every_example_with_a_picture_that_is_there():
    parts = {"demo_pictures.py"}  # of others
    there = {path.name for path in (ROOT / "examples").iterdir() if path.suffix in (".py", ".ipynb")}
    assert set(GALLERY) == there - parts
    assert len(GALLERY) >= 20
    for about in GALLERY.values():
        assert (ROOT / "docs" / "pictures" / about["picture"]).is_file()


@pytest.mark.slow
def test_the_slope_of_a_cell_s_stress_is_that_of_its_curve(tmp_path):
    module, problem = example("composite_cell"), composite_cell(MPI.COMM_SELF, cells=8)
    shears = np.array([0.099, 0.1, 0.101])
    stress, slope = module.curve(problem, shears, 0.3)
    assert slope[1] == pytest.approx((stress[2] - stress[0]) / 2e-3, rel=1e-5)
    assert module.draw(problem, tmp_path / "cell.png").is_file()


@pytest.mark.slow
def test_a_higher_arch_bears_more_and_an_imperfect_one_less(arch, tmp_path):
    module = example("snap_through")
    for name, sign in (("rise", 1.0), ("imperfection", -1.0)):
        loads, slopes = module.limit_loads(arch, name, np.linspace(*module.VARIED[name], 3))
        assert all(sign * np.diff(loads) > 0) and all(sign * slopes[1:] > 0)
    assert module.draw(arch, tmp_path / "arch.png", points=2).is_file()


@pytest.mark.slow
def test_the_remainder_falls_with_the_square_of_the_step(arch, tmp_path):
    module = example("derivative_check")
    change, rest = module.remainders(arch, np.array([1e-2, 2e-2]))
    assert np.log2(change[1] / change[0]) == pytest.approx(1.0, abs=0.2)
    assert np.log2(rest[1] / rest[0]) == pytest.approx(2.0, abs=0.1)
    assert module.draw(arch, tmp_path / "check.png", points=2).is_file()


@pytest.mark.slow
def test_the_best_hole_is_certified_and_at_its_limit(tmp_path):
    solution = example("shape_optimum").draw(plate_with_hole(MPI.COMM_SELF), tmp_path / "plate.png")
    assert solution.certified
    response = dict(zip(solution.optimum.responses, solution.optimum.y, strict=True))
    assert response["stress_concentration"] == pytest.approx(1.95, rel=1e-5)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:nothing of 'height' was learned")  # of values alone
@pytest.mark.usefixtures("labels_believed")
def test_slopes_are_worth_more_than_half_the_error(tmp_path):
    errors = example("slopes_pay").draw(tmp_path / "slopes.png", grid=11)
    assert errors["learned from values and slopes"] < 0.5 * errors["learned from values alone"]


@pytest.mark.slow
def test_a_linear_limit_of_normal_forces_has_its_closed_form(tmp_path):
    module = example("reliability")
    found = module.draw(tmp_path / "reliability.png")
    slopes = module.Cantilever.slopes[0]
    beta = (45000.0 - slopes @ (500.0, 1000.0)) / (100.0 * np.linalg.norm(slopes))
    assert found.interval[0] < ndtr(-beta) < found.interval[1]


@pytest.mark.slow
def test_trusses_of_a_front_have_the_best_height(tmp_path):
    """The product of volume and displacement is least at height one, whatever the area."""
    front = example("two_bar_front").draw(tmp_path / "front.png", points=8, generations=20)
    inner = front.x[front.x[:, 1] < 1.99]
    assert len(inner) >= 3
    np.testing.assert_allclose(inner[:, 0], 1.0, atol=2e-3)


@pytest.mark.slow
def test_a_learned_law_pulls_as_the_closed_form(tmp_path):
    stress, slopes = example("law_in_structure").draw(tmp_path / "law.png")
    np.testing.assert_allclose(stress[1], stress[0], rtol=0.02)
    np.testing.assert_allclose(slopes[1], slopes[0], rtol=0.05)


@pytest.mark.slow
def test_a_metal_learned_from_bars_bends_a_beam_as_the_closed_form(tmp_path):
    module = example("learned_plasticity")
    errors = module.draw(module.learn(), tmp_path / "metal.png")
    assert errors["stress"] < 1e-3 and errors["force"] < 1e-3 and errors["slope of the force"] < 0.02


@pytest.mark.slow
def test_a_law_of_a_cell_is_certified_in_a_structure(tmp_path):
    module = example("two_scales")
    settings = TwoScaleSettings(tolerance=0.2, states=1, points=6, rounds=2, iterations=150)
    found = module.learn(tmp_path, settings)
    assert found.certified and found.solves >= 4
    assert module.draw(found, tmp_path / "scales.png").is_file()
