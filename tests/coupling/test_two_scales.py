"""Cells as laws, and structures with learned laws certified by cells, against closed forms."""

from dataclasses import replace
from pathlib import Path

from mpi4py import MPI
from cells import LAMBDA, NeoHookeCell, neo_hooke_cell
import dolfinx
import numpy as np
import pytest
from scipy.optimize import root
from test_learned_energy import block, energy_and_stress
import torch
import ufl

from sobofem import fem, surrogate
from sobofem.coupling import Dataset, Design, generate, taylor_test
from sobofem.coupling.contract import Curved, Gentle
from sobofem.coupling.materials import CellEnergy, LearnedEnergy
from sobofem.coupling.models.fixed import Fixed
from sobofem.coupling.scales import TwoScaleSettings, judge, two_scales, visit
from sobofem.coupling.scales.samples import energy_samples
from sobofem.fem.influence import Influences
from sobofem.fem.materials.hyperelasticity import deformation_gradient, neo_hooke, triangular_stretch

X = [1.3, 0.2, 0.1]
RANGES = dict(zip(NeoHookeCell.parameters, NeoHookeCell().bounds.tolist(), strict=True))


class Energy(torch.nn.Module):
    """The cell's own energy, and a part of another one."""

    def __init__(self, wrong=0.0):
        super().__init__()
        self.wrong = wrong

    def forward(self, x):
        a, b, shear, m = x.T
        log = torch.log((1 + a) * (1 + b))
        one = m * (0.5 * ((1 + a) ** 2 + (1 + b) ** 2 + shear**2 - 2) - log + 0.5 * LAMBDA * log**2)
        return (one + self.wrong * m * (torch.sin(3 * a) + b + (a - b + 0.1 * shear) ** 2))[:, None]


def model(wrong=0.0):
    return surrogate.Surrogate.from_module(Energy(wrong), RANGES, ("energy",))


def structure(law, comm=MPI.COMM_SELF, **options):
    """A block in plane strain with a surrogate or a cell as its law."""
    kind = LearnedEnergy if isinstance(law, surrogate.Surrogate) else CellEnergy
    return block(
        lambda mesh: kind(law, mesh, triangular_stretch, quadrature_degree=2), 2, comm=comm, **options
    )  # fmt: skip


def solved(cell):
    def answers(z):
        found = [cell.evaluate(each) for each in z]
        return np.array([y[0] for y, _ in found]), np.array([slopes[0] for _, slopes in found])

    return answers


@pytest.mark.slow
def test_a_cell_at_each_point_is_its_closed_form_with_derivatives_and_newton_steps():
    nested = structure(NeoHookeCell())
    closed = block(lambda mesh: lambda F, m: neo_hooke(F, m, LAMBDA * m), 2)
    for one, other in zip(nested.evaluate(X), closed.evaluate(X), strict=True):
        assert one == pytest.approx(other, rel=1e-9, abs=1e-11)
    assert len(nested._equilibrium.residuals) == len(closed._equilibrium.residuals)


def layered(comm=MPI.COMM_SELF):
    """A cell of two neo-Hookean layers across y, as `composite_cell` is parameterized."""
    mesh = dolfinx.mesh.create_unit_square(comm, 1, 2, dolfinx.mesh.CellType.quadrilateral)
    space = dolfinx.fem.functionspace(mesh, ("Lagrange", 1, (2,)))
    u, x = dolfinx.fem.Function(space), ufl.SpatialCoordinate(mesh)
    a, b, shear, soft = (dolfinx.fem.Constant(mesh, value) for value in (0.1, 0.0, 0.1, 1.0))
    lower = dolfinx.fem.Function(dolfinx.fem.functionspace(mesh, ("DG", 0)))
    lower.interpolate(lambda x: np.where(x[1] < 0.5, 1.0, 0.0))
    m = soft * lower + STIFF * (1 - lower)
    F = deformation_gradient(u + ufl.dot(ufl.as_matrix(((a, shear), (0.0, b))), x))
    dx = ufl.dx(mesh, metadata={"quadrature_degree": 4})
    energy = neo_hooke(F, m, LAMBDA * m) * dx
    corner = dolfinx.fem.locate_dofs_geometrical(space, lambda x: np.isclose(x[0], 0.0) & np.isclose(x[1], 0.0))
    edges = np.eye(2)[:, :, None]
    return fem.Problem(
        energy,
        u,
        bcs=[dolfinx.fem.dirichletbc(np.zeros(2), corner, space)],
        ties=[fem.Periodic(lambda x, k=k: np.isclose(x[k], 1.0), lambda x, k=k: x - edges[k]) for k in (0, 1)],
        parameters=[
            fem.Scalar(name, constant, bounds)
            for (name, bounds), constant in zip(RANGES.items(), (a, b, shear, soft), strict=True)
        ],
        responses=[fem.Response("energy", energy)],
    )


STIFF = 10.0


def laminate(F, soft):
    """Energy and stress (2, 2) of two layers across y: F ± a ⊗ e_y with equal tractions P e_y."""

    def stress(F, m):
        J, inverse = np.linalg.det(F), np.linalg.inv(F)
        return m * (F - inverse.T + LAMBDA * np.log(J) * inverse.T)

    def energy(F, m):
        log = np.log(np.linalg.det(F))
        return m * (0.5 * (np.sum(F**2) - 2) - log + 0.5 * LAMBDA * log**2)

    def halves(jump):
        return F + np.outer(jump, [0.0, 1.0]), F - np.outer(jump, [0.0, 1.0])

    def imbalance(jump):
        lower, upper = halves(jump)
        return (stress(lower, soft) - stress(upper, STIFF))[:, 1]

    lower, upper = halves(root(imbalance, np.zeros(2), tol=1e-13).x)
    return (
        0.5 * (energy(lower, soft) + energy(upper, STIFF)),
        0.5 * (stress(lower, soft) + stress(upper, STIFF)),
    )


@pytest.mark.slow
def test_a_laminate_of_rubbers_has_its_closed_energy_and_stress_whatever_it_is_turned_by():
    cell, soft = layered(), 1.4
    for H in ([[0.15, 0.1], [0.0, -0.1]], [[-0.1, -0.2], [0.0, 0.2]]):
        F = np.eye(2) + H
        y, jacobian = cell.evaluate([H[0][0], H[1][1], H[0][1], soft])
        W, P = laminate(F, soft)
        assert y[0] == pytest.approx(W, rel=1e-9)
        assert jacobian[0, :3] == pytest.approx([P[0, 0], P[1, 1], P[0, 1]], rel=1e-8)
    # as a law, at a deformation with a rotation in it
    Q = np.array([[np.cos(0.4), -np.sin(0.4)], [np.sin(0.4), np.cos(0.4)]])
    energy, stress = energy_and_stress(
        lambda mesh: CellEnergy(cell, mesh, triangular_stretch, quadrature_degree=2), Q @ F, soft
    )
    assert energy == pytest.approx(W, rel=1e-9)
    assert stress[:4].reshape(2, 2) == pytest.approx(Q @ P, rel=1e-8)


@pytest.mark.slow
def test_derivatives_through_nested_cells_pass_a_taylor_test():
    report = taylor_test(structure(layered(), counts=(2, 1)), directions=1)
    assert report.passed, str(report)


@pytest.mark.slow
def test_influence_is_the_derivative_by_the_function():
    """Along the other part of the energy, by central differences."""
    step = 1e-4
    plus, minus = (structure(model(wrong)).evaluate(X)[0] for wrong in (step, -step))
    problem = structure(model())
    found = Influences(problem).at(X)
    change = np.zeros(2)
    for each in found:
        other = each.function.part.__class__(replace(each.function.part.energy, model=model(1.0)), *_rest(each))
        value, gradient = other.derivatives(each.z, 1) if each.z.shape[1] > 1 else (*other.derivatives(each.z, 0), 0.0)
        change += each.by_value @ (value - each.values)
        if each.z.shape[1] > 1:
            change += np.einsum("mkn,kn->m", each.by_gradient, gradient - each.gradients)
    assert change == pytest.approx((plus - minus) / (2 * step), rel=1e-6)


def _rest(each):
    part = each.function.part
    return (part.rest, part.factors) if hasattr(part, "factors") else (part.rest,)


@pytest.mark.slow
def test_cells_at_all_points_give_the_responses_to_second_order_in_the_law_s_error():
    true, left = structure(NeoHookeCell()).evaluate(X)[0], []
    for wrong in (0.02, 0.01):
        problem = structure(model(wrong))
        seen = visit(problem, Influences(problem), np.array(X))
        count = len(seen.z)
        found = judge(seen, np.arange(count), np.full(count, 1 / count), solved(NeoHookeCell()))
        assert np.abs(seen.y / true - 1).max() > 0.5 * wrong
        left.append(np.abs(found.corrected - true))
    assert (left[0] / left[1]).min() > 3.0
    assert (left[1] / np.abs(true)).max() < 2e-3


@pytest.mark.slow
def test_intervals_of_points_drawn_hold_the_sum_over_all_points():
    problem = structure(model(0.02))
    seen, cell = visit(problem, Influences(problem), np.array(X)), solved(NeoHookeCell())
    count = len(seen.z)
    everything = judge(seen, np.arange(count), np.full(count, 1 / count), cell).correction
    probabilities = seen.probabilities(np.ones_like(seen.slope))
    assert probabilities.sum() == pytest.approx(1.0) and probabilities.min() >= 0.2 / count
    rng = np.random.default_rng(3)
    held, corrections = 0, []
    for _ in range(60):
        found = judge(seen, rng.choice(count, 12, p=probabilities), probabilities, cell)
        held += (np.abs(found.correction - everything) <= found.bars).all()
        corrections.append(found.correction)
    assert held >= 50
    spread = np.std(corrections, axis=0) / np.sqrt(len(corrections))
    assert (np.abs(np.mean(corrections, axis=0) - everything) <= 4 * spread).all()
    assert found.stress_error == pytest.approx(0.03, abs=0.025)


def test_tangents_are_read_off_the_stresses():
    x = np.random.default_rng(0).uniform(*NeoHookeCell().bounds.T, (6, 4))
    found = [NeoHookeCell().evaluate(each) for each in x]
    data = surrogate.Samples(
        x, [y for y, _ in found], [slopes for _, slopes in found], NeoHookeCell.parameters, NeoHookeCell.responses
    )
    learned = energy_samples(data)
    assert learned.responses == ("energy",) and (learned.directions[:, 3] == 0.0).all()
    for at, v, action in zip(x, learned.directions, learned.hessian_actions, strict=True):
        assert action[0] == pytest.approx(NeoHookeCell().hvp(at, [1, 0, 0, 0], v), rel=1e-12)
    with pytest.raises(ValueError, match="no response 'work' in the samples; there are energy"):
        energy_samples(data, "work")
    with pytest.raises(ValueError, match="no Jacobian, which is the stress"):
        energy_samples(replace(data, jacobian=None))


def part(law, comm=MPI.COMM_SELF):
    """The block, with the modulus as its parameter."""
    return structure(law, comm, counts=(2, 2))


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    path = tmp_path_factory.mktemp("cell") / "cell.h5"
    return generate(neo_hooke_cell, Design("sobol", 32, seed=1), path), path


QUICK = TwoScaleSettings(tolerance=0.03, states=1, points=8, rounds=3, width=12, depth=2, iterations=250)


@pytest.mark.slow
def test_a_structure_is_certified_rightly_and_a_second_call_solves_nothing(samples, tmp_path):
    doubtful = two_scales(NeoHookeCell(), part, samples[0], tmp_path, replace(QUICK, rounds=1, tolerance=1e-9))
    assert not doubtful.certified and "allow more rounds, or draw more points" in doubtful.warnings[0]
    found = two_scales(NeoHookeCell(), part, samples[0], tmp_path, QUICK)
    assert found.certified and not found.warnings
    true = part(NeoHookeCell())
    for certificate in found.rounds[-1]:
        exact = true.evaluate(certificate.x)[0]
        assert (np.abs(certificate.y / exact - 1) <= 1.2 * np.maximum(certificate.errors, 1e-3)).all()
    assert found.samples[0] == 32 and all(np.diff(found.samples) > 0)
    cell = NeoHookeCell()
    again = two_scales(cell, part, samples[0], tmp_path, QUICK)
    assert again.record() == found.record() and cell.solves == 0
    law = surrogate.load(tmp_path / "law.safetensors")
    assert part(law).evaluate(X)[0] == pytest.approx(part(found.law).evaluate(X)[0], rel=1e-12)


@pytest.mark.slow
def test_points_outside_are_counted_and_what_does_not_fit_together_is_said(samples, tmp_path):
    data, _ = samples
    narrow = surrogate.Surrogate.from_module(
        Energy(), RANGES | {"stretch_x": (-0.3, 0.2)}, ("energy",)
    )  # fmt: skip
    problem = structure(narrow)
    seen = visit(problem, Influences(problem), np.array(X))
    assert 0.0 < seen.outside.mean() < 1.0
    assert problem.share_outside == pytest.approx(seen.outside.mean())
    assert structure(NeoHookeCell()).share_outside is None
    assert (seen.probabilities(np.ones_like(seen.slope))[seen.outside] == 0.0).all()
    with pytest.raises(ValueError, match="samples has parameters"):
        two_scales(Fixed(NeoHookeCell(), {"modulus": 1.0}), part, data, tmp_path / "other", QUICK)
    with pytest.raises(ValueError, match="no external function, such as a learned law"):
        Influences(block(lambda mesh: lambda F, m: neo_hooke(F, m, LAMBDA * m), 2))


@pytest.mark.slow
def test_the_command_learns_certifies_and_goes_on(samples, tmp_path, here):
    _, path = samples
    own = Path(__file__)
    options = [
        f"--{name}={getattr(QUICK, name)}"
        for name in ("tolerance", "states", "points", "rounds", "width", "depth", "iterations")
    ]
    words = ["two-scales", f"{own.parent / 'cells.py'}:neo_hooke_cell", f"{own}:part", "--data", path]
    code, out, _ = here(*words, "--out", tmp_path / "law", *options)
    assert code == 0 and "cells were solved" in out and "law 1, of 32 samples" in out
    assert (tmp_path / "law" / "results.json").is_file() and (tmp_path / "law" / "law.safetensors").is_file()
    assert len(Dataset.open(path)) == 32


def test_a_cell_of_which_a_parameter_is_fixed_has_its_hessian():
    x, whole = np.array([0.1, -0.05, 0.2, 1.3]), NeoHookeCell()
    fixed = Fixed(whole, {"modulus": x[3]})
    assert isinstance(fixed, Curved) and not isinstance(fixed, Gentle)
    rows = np.random.default_rng(0).normal(size=(2, 3))
    weights, padded = [1.0, 0.0, 0.0, 0.0], np.hstack([rows, np.zeros((2, 1))])
    assert fixed.hvp(x[:3], weights, rows) == pytest.approx(whole.hvp(x, weights, padded)[:, :3], rel=1e-12)


def test_a_model_with_a_second_try_offers_it_where_a_parameter_is_fixed():
    class Patient(NeoHookeCell):
        def evaluate_gently(self, x, *, jacobian=True):
            return self.evaluate(x, jacobian=jacobian)

    fixed = Fixed(Patient(), {"modulus": 1.3})
    assert isinstance(fixed, Gentle)
    assert fixed.evaluate_gently([0.1, 0.0, 0.0])[0] == pytest.approx(fixed.evaluate([0.1, 0.0, 0.0])[0])
