"""Certified search and infill under the control of others, by the gest-api standard and libEnsemble itself."""

import subprocess
import sys

from launching import environment
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

pytest.importorskip("gest_api")
from gest_api.vocs import VOCS

from sobofem.coupling.optimize.generators import CertifiedSearch, Infill, derivatives


def valley(point):
    """Rosenbrock's function and a sum, with their derivatives."""
    a, b = point["a"], point["b"]
    slope = -400 * a * (b - a * a)
    found = {"f": (1 - a) ** 2 + 100 * (b - a * a) ** 2, "c": a + b, "d(c)/d(a)": 1.0, "d(c)/d(b)": 1.0}
    return found | {"d(f)/d(a)": slope - 2 * (1 - a), "d(f)/d(b)": 200 * (b - a * a)}


def described(kind="MINIMIZE", limit=("LESS_THAN", 1.5), **changes):
    variables = changes.pop("variables", {"a": [-2.0, 2.0], "b": [-1.0, 3.0]})
    vocs = VOCS(variables=variables, objectives={"f": kind}, constraints={"c": list(limit)}, **changes)
    vocs.observables = dict.fromkeys(derivatives(vocs), float)
    return vocs


def answered(points, answer=valley):
    return [point | answer(point) for point in points]


def best_on_the_line(total):
    """The optimum where a + b is at its limit, by a search along that."""
    a = minimize_scalar(lambda a: valley({"a": a, "b": total - a})["f"], bounds=(0.0, 1.0), method="bounded").x
    return np.array([a, total - a])


@pytest.mark.slow
@pytest.mark.parametrize("count", [None, pytest.param(1, marks=pytest.mark.slow), 3])
def test_a_search_finds_the_optimum_whoever_controls_it(count):
    search, points = CertifiedSearch(described()), 0
    while not search.finished:
        suggested = search.suggest(count)
        assert count is None or len(suggested) == count
        points += len(suggested)
        assert points < 60
        search.ingest(answered(suggested))
    assert search.solution.certified
    np.testing.assert_allclose(search.solution.x, best_on_the_line(1.5), atol=1e-5)
    assert search.suggest() == [] and len(search.suggest(2)) == 2  # the standard wants as many as are asked for


def test_a_maximum_is_searched_by_its_sign():
    search = CertifiedSearch(described("MAXIMIZE", ("BOUNDS", -1.0, 1.5), variables={"a": [0.0, 1.0], "b": [0.0, 1.0]}))
    while not search.finished:
        search.ingest(answered(search.suggest()))
    best = search.solution
    assert best.certified and valley(dict(zip("ab", best.x, strict=True)))["f"] == pytest.approx(-best.objective)
    assert -best.objective == pytest.approx(101.0) or -best.objective == pytest.approx(100.0, rel=0.1)


def test_points_that_nobody_proposed_are_learned_from():
    search = CertifiedSearch(described())
    near = best_on_the_line(1.5) + np.array([1e-4, -1e-4])
    search.ingest(answered([{"a": near[0], "b": near[1]}]))
    suggested = search.suggest()
    assert suggested[0]["a"] != 0.0 and abs(suggested[0]["a"] - near[0]) < 0.81  # within a first step, not the middle
    while not search.finished:
        search.ingest(answered(suggested))
        suggested = search.suggest()
    np.testing.assert_allclose(search.solution.x, best_on_the_line(1.5), atol=1e-5)


@pytest.mark.slow
def test_answers_come_one_by_one_in_any_order_and_some_without_numbers():
    def fragile(point):
        return valley(point) if point["b"] < 1.2 else dict.fromkeys(valley(point), float("nan"))

    search, points = CertifiedSearch(described()), 0
    while not search.finished and points < 90:
        suggested = search.suggest(3)
        points += 3
        for result in reversed(answered(suggested, fragile)):
            search.ingest([result])
    np.testing.assert_allclose(search.solution.x, best_on_the_line(1.5), atol=1e-5)


def test_constants_travel_along():
    search = CertifiedSearch(described(constants={"alpha": 0.5}))
    assert search.suggest()[0]["alpha"] == 0.5


@pytest.mark.parametrize(
    ("vocs", "message"),
    [
        (VOCS(variables={"a": [0.0, 1.0]}, objectives={"f": "MINIMIZE"}), r"d\(f\)/d\(a\)"),
        (described(variables={"a": {0.0, 1.0}, "b": [0.0, 1.0]}), "continuous"),
        (described("EXPLORE"), "explored"),
        (VOCS(variables={"a": [0.0, 1.0]}, objectives={"f": "MINIMIZE", "g": "MINIMIZE"}), "2 objectives"),
    ],
)
def test_what_no_search_can_do_is_refused(vocs, message):
    with pytest.raises(ValueError, match=message):
        CertifiedSearch(vocs)


@pytest.mark.slow
def test_infill_goes_where_samples_are_missing():
    vocs = VOCS(variables={"a": [-2.0, 2.0], "b": [-1.0, 3.0]}, objectives={"f": "EXPLORE"})
    generator = Infill(vocs, first=8)
    first = generator.suggest(32)
    generator.ingest(answered([point for point in first if point["a"] < 0.0]))
    suggested = generator.suggest(6)
    assert len(suggested) == 6 and np.mean([point["a"] > 0.0 for point in suggested]) > 0.6
    generator.ingest(answered(suggested))
    assert len(generator.data) == 6 + sum(point["a"] < 0.0 for point in first)


ENSEMBLE = """
import sys
sys.path.insert(0, sys.argv[1])
from test_generators import best_on_the_line, described, valley
import numpy as np
from gest_api.vocs import VOCS
from libensemble import Ensemble
from libensemble.alloc_funcs.start_only_persistent import only_persistent_gens
from libensemble.specs import AllocSpecs, ExitCriteria, GenSpecs, LibeSpecs, SimSpecs
from sobofem.coupling.optimize.generators import CertifiedSearch

if __name__ == "__main__":
    vocs = described()
    search = CertifiedSearch(vocs)
    ensemble = Ensemble(
        libE_specs=LibeSpecs(nworkers=2, comms="threads", gen_on_manager=True, disable_log_files=True),
        gen_specs=GenSpecs(generator=search, initial_batch_size=1, batch_size=1, vocs=vocs),
        sim_specs=SimSpecs(simulator=valley, vocs=vocs),
        alloc_specs=AllocSpecs(alloc_f=only_persistent_gens),
        exit_criteria=ExitCriteria(sim_max=14),
    )
    ensemble.run()
    assert search.solution.certified, search.solution.message
    np.testing.assert_allclose(search.solution.x, best_on_the_line(1.5), atol=1e-5)
"""


@pytest.mark.slow
def test_libensemble_runs_a_search_to_its_optimum(tmp_path):
    pytest.importorskip("libensemble")
    (tmp_path / "program.py").write_text(ENSEMBLE)
    line = [sys.executable, "program.py", __file__.rpartition("/")[0]]
    done = subprocess.run(
        line, cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
