"""Fields of finite-element problems, reduced and learned: the example, and Jacobians that never were large."""

import importlib.util
from pathlib import Path
import re

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.fem.fields import CellField, SolutionField
from sobofem.fem.library.plate_with_hole import plate_with_hole
from sobofem.fem.library.random_block import random_block
from sobofem.surrogate import LBFGS
from sobofem.surrogate.reduction import FieldSamples, active_subspace, reduced_basis
from sobofem.surrogate.selection import field as choice

ROOT = Path(__file__).parents[1]
EXAMPLE, PAGE = ROOT / "examples" / "fields.py", ROOT / "docs" / "fields.md"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("fields", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_coefficients_and_coordinates_are_differentiated_without_the_large_jacobian():
    """What the two reductions make of a Jacobian (M, n) equals r adjoint or k tangent back-substitutions."""
    problem = random_block(MPI.COMM_SELF, cells=(4, 4), modes=6)
    field = SolutionField(problem)
    x = np.random.default_rng(0).uniform(-2.0, 2.0, (6, 6))
    fields, slopes = zip(*map(field.evaluate, x), strict=True)
    data = FieldSamples(x, np.array(fields), slopes, problem.parameters, problem.bounds, field.name)
    basis = reduced_basis(data, rank=4, mass=field.mass)
    coefficients = basis.reduce(data)
    subspace = active_subspace(coefficients, dimension=3, importance=np.ones(4))
    adjoint = field.vjp(x[2], basis.dual.T)
    assert np.abs(adjoint - coefficients.jacobian[2]).max() < 1e-8 * np.abs(adjoint).max()
    tangent = basis.dual.T @ field.evaluate(x[2], directions=subspace.lift)[1]
    reduced = subspace.reduce(coefficients)
    assert reduced.jacobian.shape == (6, 4, 3)
    assert np.abs(tangent - reduced.jacobian[2]).max() < 1e-8 * np.abs(tangent).max()


@pytest.mark.slow
def test_a_field_for_input_is_learned_in_one_call_as_the_page_shows(monkeypatch):
    """On fewer nodes and samples, and trained in fewer steps."""
    for name, steps in (("QUICK", 5), ("LONG", 60)):
        monkeypatch.setattr(choice, name, (LBFGS(steps),))
    block = next(
        text for text in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL) if "fit_field(" in text
    )
    names = {}
    exec(compile(block.replace("(8, 8)", "(4, 4)").replace("sample(16", "sample(10"), "docs/fields.md", "exec"), names)
    field, unseen = names["displacement"], names["prior"].sample(3, seed=5)
    truth = np.stack([field.evaluate(m, jacobian=False)[0] for m in unseen])
    off = names["model"].predict(unseen, extrapolate=True)[0] - truth
    assert (np.linalg.norm(off, axis=1) / np.linalg.norm(truth, axis=1)).max() < 0.5
    assert "coordinates" in names["model"].provenance["choice"]["taken"]


@pytest.mark.slow
def test_a_few_solves_teach_the_stress_field_of_plates_never_solved(example, tmp_path):
    problem = plate_with_hole(MPI.COMM_SELF)
    stress = CellField(problem, "von_mises")
    data, unseen = (example.sample(problem, stress, count, seed) for count, seed in ((24, 1), (32, 2)))
    study = example.learn(data, unseen, stress.mass, tolerance=0.03, iterations=300)
    assert study.basis_error.values < 0.03
    assert study.error < 0.08
    assert study.slope_error < 0.2
    assert example.draw(stress, study.model, tmp_path / "field.png").stat().st_size > 20_000
