"""Searches on several ranks: all solve each point together, or groups solve several at once.

mpiexec -n 3 python -m pytest tests/mpi
"""

from pathlib import Path

from mpi4py import MPI
import numpy as np
import pytest

from sobofem.coupling import Dataset
from sobofem.coupling.models.fixed import Fixed
from sobofem.coupling.optimize import NoAnswer, Task, minimize
from sobofem.coupling.optimize.uncertain import Uncertainties
from sobofem.fem.library.plate_with_hole import plate_with_hole

WORLD = MPI.COMM_WORLD
TASK = Task(
    "mass",
    at_most={"stress_concentration": 2.1},
    fixed={"young": 70e3, "poisson": 0.33, "traction_x": 100.0, "traction_y": 60.0},
)
LIMITED = Task("weight", at_most={"stress": 1.0})


class Shaft:
    """In closed form; it notes where this rank evaluated it, and fails where it is wide."""

    parameters, responses = ("width", "height"), ("weight", "stress")
    bounds = np.array([[0.1, 2.0], [0.5, 3.0]])
    digest = "shaft"

    def __init__(self, widest=9.0):
        self.calls, self.widest = [], widest

    def evaluate(self, x, *, jacobian=True):
        w, h = x
        self.calls.append((w, h))
        if w > self.widest:
            raise TooWide(f"width {w:g}")
        y = np.array([w * h, 1 / (w * h**2)])
        return y, np.array([[h, w], [-1 / (w * h) ** 2, -2 / (w * h**3)]]) if jacobian else None


class TooWide(ArithmeticError):
    load_factor = 0.0

    @property
    def reason(self):
        return str(self)


@pytest.fixture
def folder(tmp_path):
    """One for all ranks."""
    return Path(WORLD.bcast(str(tmp_path)))


@pytest.mark.two_ranks
def test_a_distributed_model_stays_that_with_fixed_and_uncertain_inputs():
    """Each rank by itself would wait for the others for ever."""
    found = []
    for comm in (WORLD, MPI.COMM_SELF):
        rest = Fixed(plate_with_hole(comm), {**TASK.fixed, "radius_y": 20.0})
        found.append(minimize(rest, Task("mass", at_most={"stress_concentration": 2.6})))
        uncertain = Uncertainties({"traction_y": "normal:60,5"}, {}, deviations=1.0, samples=4)
        held = {"young": 70e3, "poisson": 0.33, "traction_x": 100.0, "radius_y": 20.0}
        task = Task("mass", at_most={"stress_concentration": 2.6}, fixed=held)
        found.append(minimize(uncertain.model(plate_with_hole(comm), task), uncertain.task(task)))
    for together, alone in zip(found[:2], found[2:], strict=True):
        assert together.certified and together.x == pytest.approx(alone.x, rel=1e-5)


@pytest.mark.two_ranks
def test_a_distributed_model_has_the_optimum_of_one_rank_on_every_rank():
    together, alone = minimize(plate_with_hole(WORLD), TASK), minimize(plate_with_hole(MPI.COMM_SELF), TASK)
    assert together.certified
    assert together.objective == pytest.approx(alone.objective, rel=1e-6)
    assert len({solution.tobytes() for solution in WORLD.allgather(together.x)}) == 1
    assert len(set(WORLD.allgather(together.solves))) == 1


def test_groups_solve_different_candidates_at_once():
    model = Shaft()
    solution = minimize(model, LIMITED, ranks_per_solve=1)
    calls = WORLD.allgather(model.calls)
    everywhere = [call for own in calls for call in own]
    assert solution.certified
    assert solution.objective == pytest.approx(1 / 3, rel=1e-6)
    assert len(everywhere) == len(set(everywhere)) == solution.solves == len(solution.archive)
    if WORLD.size > 1:
        assert max(len(own) for own in calls) < solution.solves


def test_all_ranks_form_one_group():
    made = []

    def factory(comm):
        made.append(comm.size)
        return Shaft()

    solution = minimize(factory, LIMITED, ranks_per_solve=WORLD.size)
    assert solution.certified
    assert made == [WORLD.size]


def test_failed_solves_of_a_group_are_known_to_all():
    solution = minimize(Shaft(widest=1.0), LIMITED, ranks_per_solve=1)
    assert solution.certified
    assert len(solution.archive.failures) == sum(bool(step.failure) for step in solution.path)
    with pytest.raises((NoAnswer, RuntimeError), match="no answer"):
        minimize(Shaft(widest=0.0), LIMITED, ranks_per_solve=1)


def test_one_dataset_holds_the_solves_of_all_groups(folder):
    path = folder / "shaft.h5"
    solution = minimize(Shaft(), LIMITED, ranks_per_solve=1, path=path)
    assert len(Dataset.open(path)) == solution.solves
    model = Shaft()
    again = minimize(model, LIMITED, ranks_per_solve=1, path=path)
    assert again.certified and again.solves == 0 and not model.calls
    WORLD.barrier()


def test_groups_go_on_from_where_they_were_and_solve_nothing_twice(folder):
    path, first, second = folder / "shaft.h5", Shaft(), Shaft()
    minimize(first, LIMITED, ranks_per_solve=1, path=path, solves=2 * WORLD.size)
    solution = minimize(second, LIMITED, ranks_per_solve=1, path=path)
    calls = [call for own in WORLD.allgather(first.calls + second.calls) for call in own]
    assert solution.certified
    assert len(calls) == len(set(calls)) == len(Dataset.open(path))
    WORLD.barrier()


@pytest.mark.slow
def test_discrete_values_are_searched_on_all_ranks_alike():
    solution = minimize(Shaft(), Task("weight", {"stress": 1.0}, discrete={"height": (1.0, 2.0)}), ranks_per_solve=1)
    assert solution.objective == pytest.approx(0.5, rel=1e-6)
    assert len(set(WORLD.allgather(solution.message))) == 1


class Rods:
    """Many rods of least give under a weight: their sizes go as the roots of the forces."""

    parameters, responses = tuple(f"x{k}" for k in range(250)), ("sag", "weight")
    bounds = np.tile([0.05, 2.0], (250, 1))
    digest = "rods"
    forces = 1.0 + np.cos(np.arange(250)) ** 2

    def evaluate(self, x, *, jacobian=True):
        y = np.array([self.forces @ (1.0 / x), x.mean()])
        return y, np.stack([-self.forces / x**2, np.full(250, 1 / 250)]) if jacobian else None


def test_groups_search_among_many_inputs_and_go_on_exactly(folder):
    task, roots = Task("sag", {"weight": 0.5}, {"weight": 0.5}), np.sqrt(Rods.forces)
    whole = minimize(Rods(), task, ranks_per_solve=1)
    assert whole.certified
    assert whole.x == pytest.approx(0.5 * roots / roots.mean(), rel=1e-4)
    minimize(Rods(), task, ranks_per_solve=1, path=folder / "rods.h5", solves=4)
    again = minimize(Rods(), task, ranks_per_solve=1, path=folder / "rods.h5")
    assert again.solves == whole.solves
    assert len({x.tobytes() for x in WORLD.allgather(again.x)} | {whole.x.tobytes()}) == 1
    assert len(Dataset.open(folder / "rods.h5")) <= 5
    WORLD.barrier()


@pytest.mark.two_ranks
def test_a_mistake_is_raised_on_every_rank():
    with pytest.raises((ValueError, RuntimeError), match="unknown response"):
        minimize(Shaft(), Task("wait"), ranks_per_solve=1)
