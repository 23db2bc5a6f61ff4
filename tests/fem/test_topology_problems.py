"""Problems of topology optimization: full plates are those of theory, sharper densities are blacker and whiter."""

import numpy as np
import pytest

from examples import topology_problems as problems
from sobofem.fem.fields import CellField


def full(problem, sharpness=4.0):
    return np.append(np.ones(len(problem.parameters) - 1), sharpness)


def test_a_full_console_bends_and_shears_as_theory_says():
    """Force 1 at the end of a length of 60, height 10, E 1, ν 0.3; the density of one stays one, however sharp."""
    console = problems.cantilever((60, 10))
    compliance, volume = console.evaluate(full(console), jacobian=False)[0]
    assert compliance == pytest.approx(60.0**3 / 3.0 / (10.0**3 / 12.0) + 1.2 * 60.0 * 2.6 / 10.0, rel=0.02)
    assert volume == pytest.approx(1.0)


def test_a_full_column_is_as_warm_as_theory_says():
    """Heat q of each area, carried off at the top of a height H and width W: ∫ q T = q² W H³ / 3."""
    column = problems.conductor((2, 20))
    assert column.evaluate(full(column), jacobian=False)[0][0] == pytest.approx(1e-4 * 2 * 20.0**3 / 3, rel=2e-3)


@pytest.mark.slow
def test_sharper_densities_are_blacker_and_whiter_and_go_to_paraview(tmp_path):
    console = problems.cantilever((20, 12))
    found = problems.sharpened(
        console, "compliance", {"volume": 0.4}, 0.4, sharpness=(1.0, 8.0), solves=60, out=tmp_path
    )
    grey = []
    for solution in found:
        material = CellField(console, "material").evaluate(solution.x, jacobian=False)[0]
        grey.append(np.mean(4.0 * material * (1.0 - material)))
        assert solution.optimum.feasible and solution.optimum.y[1] == pytest.approx(0.4, abs=1e-4)
    assert grey[1] < grey[0] and found[1].objective < found[0].objective
    assert {path.name for path in (tmp_path / "stage_0").glob("*.pvd")} >= {"solve_0010.pvd", "solve_0020.pvd"}


@pytest.mark.slow  # two more problems to compile, hundreds of solves
def test_an_inverter_inverts_and_a_bracket_keeps_its_stress():
    mechanism = problems.inverter((24, 12))
    (found,) = problems.sharpened(mechanism, "output", {"volume": 0.3}, 0.3, sharpness=(4.0,))
    output, given, _ = found.optimum.y
    assert found.optimum.feasible and output < -0.5 < 0.0 < given
    console = problems.bracket((20, 20))
    (found,) = problems.sharpened(console, "volume", {"stress": problems.LIMIT}, 1.0, sharpness=(4.0,))
    largest = CellField(console, "relaxed").evaluate(found.x, jacobian=False)[0].max()
    assert found.optimum.feasible and found.objective < 0.5 * console.evaluate(full(console), jacobian=False)[0][2]
    assert largest > found.optimum.y[1]  # a p-norm mean is less than the largest
