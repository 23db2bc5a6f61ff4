"""The page on learned laws shows what happens."""

from pathlib import Path
import re

import numpy as np
import pytest

from sobofem import fem
from sobofem.fem.materials.hyperelasticity import first_piola_kirchhoff, neo_hooke

PAGE = (Path(__file__).parents[2] / "docs" / "learned_laws.md").read_text()


@pytest.mark.slow
def test_laws_are_learned_and_put_back_as_the_page_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in re.findall(r"(?<!-->\n)```python\n(.*?)```", PAGE, re.DOTALL):
        exec(compile(block, "docs/learned_laws.md", "exec"), names)
    problem, modulus, pull = names["problem"], names["modulus"], names["pull"]
    rates = [row.rate for row in names["taylor_test"](problem).rows]
    assert min(rate for rate in rates if np.isfinite(rate)) >= 1.95
    assert names["outside"] == 0.0 and names["bed"].coefficients()

    def closed(F):
        return neo_hooke(F, modulus, names["LAMBDA"])

    u, F, dx, space = (names[name] for name in ("u", "F", "dx", "space"))
    held = names["dolfinx"].fem.dirichletbc(np.zeros(2), names["left"], space)
    pulled = names["dolfinx"].fem.dirichletbc(pull, names["along"], space.sub(0))
    true = fem.Problem(
        closed(F) * dx,
        u,
        bcs=[held, pulled],
        parameters=[fem.Scalar("mu", modulus, (0.6, 1.8)), fem.Scalar("pull", pull, (0.0, 0.4))],
        responses=[fem.Response("stress", first_piola_kirchhoff(closed, F)[0, 0] / 2 * dx)],
    )
    u.x.array[:] = 0.0
    stress, jacobian = true.evaluate([1.2, 0.3])
    assert names["stress"] == pytest.approx(stress, rel=0.01)
    assert names["jacobian"] == pytest.approx(jacobian, rel=0.03)
    loop = [0.004, 0.001, 0.007]
    assert names["metal"].follow([loop]).stress[0] == pytest.approx(names["stresses_of"](loop), rel=0.02)
    work, slope = names["plastic"].evaluate([0.02])
    assert work > 0.0 and slope > 0.0
