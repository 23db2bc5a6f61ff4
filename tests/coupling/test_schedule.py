"""Who computes what, by the schedule alone: no messages, no models."""

import numpy as np
import pytest

from sobofem.coupling.solving.schedule import ATTEMPTS, MAX_CHUNK_ROWS, Schedule, predicted_cost

RNG = np.random.default_rng(0)


def rows_in_blocks(rows, sizes):
    """Hands rows out as claims do: in blocks, then nothing."""
    blocks = np.split(np.asarray(rows), np.cumsum(sizes)[:-1]) if len(sizes) else []

    def more(least):
        return blocks.pop(0) if blocks else np.zeros(0, np.int64)

    return more


def emptied(schedule):
    chunks = []
    while rows := schedule.take():
        chunks.append(rows)
        for row in rows:
            schedule.settle([row], [1.0])
    assert schedule.finished
    return chunks


@pytest.mark.parametrize("groups", [1, 2, 7, 500])
@pytest.mark.parametrize("N", [1, 5, 64, 3000])
def test_every_row_goes_out_once_in_chunks_that_shrink(groups, N):
    points = RNG.uniform(size=(N, 2))
    chunks = emptied(Schedule(points, groups, rows_in_blocks(np.arange(N), [N])))
    assert sorted(row for chunk in chunks for row in chunk) == list(range(N))
    sizes = [len(chunk) for chunk in chunks]
    assert sizes == sorted(sizes, reverse=True) and sizes[-1] == 1 and max(sizes) <= MAX_CHUNK_ROWS
    assert max(sizes) <= max(1, N / (4 * groups)), "one group took more than its share"


def test_rows_go_out_in_the_order_of_the_design_but_for_the_last():
    points = RNG.uniform(size=(200, 2))
    schedule = Schedule(points, 4, rows_in_blocks(np.arange(200), [100, 50, 30, 20]))
    order = [row for chunk in emptied(schedule) for row in chunk]
    assert order[:184] == list(range(184))


def test_of_the_last_rows_the_dearest_come_first_and_a_busy_group_gets_the_cheapest():
    points = RNG.uniform(size=(200, 3))
    cost = np.exp(3.0 * points[:, 1])
    schedule = Schedule(points, 4, rows_in_blocks(np.arange(200), [200]))
    taken = 0
    while taken < 184:
        rows = schedule.take(1)
        taken += len(rows)
        for row in rows:
            schedule.settle([row], [cost[row]])
    (cheapest,) = schedule.take(1, cheap=True)
    rest = [schedule.take()[0] for _ in range(15)]
    assert cost[cheapest] == cost[184:].min()
    assert list(cost[rest]) == sorted(cost[rest], reverse=True)


@pytest.mark.parametrize("n", [1, 3, 60])
def test_costs_are_told_from_those_of_others(n):
    known, points = RNG.uniform(size=(400, n)) * 1e6, RNG.uniform(size=(200, n)) * 1e6
    cost = np.exp(2.0 * ((known[:, 0] * 1e-6 - 0.3) ** 2) + known[:, -1] * 1e-6)
    truth = np.exp(2.0 * ((points[:, 0] * 1e-6 - 0.3) ** 2) + points[:, -1] * 1e-6)
    guess = predicted_cost(known, cost, points)
    assert np.corrcoef(guess, truth)[0, 1] > 0.9


def test_costs_of_few_or_equal_samples_make_no_difference():
    points = RNG.uniform(size=(5, 2))
    assert (predicted_cost(points, [1.0] * 5, points) == 1.0).all()
    same = predicted_cost(np.zeros((50, 2)), np.zeros(50), np.zeros((5, 2)))
    assert np.isfinite(same).all() and np.ptp(same) == 0.0


def test_suspects_come_last_and_those_of_two_deaths_one_by_one():
    attempts = {3: 1, 5: ATTEMPTS - 1, 6: ATTEMPTS - 1}
    schedule = Schedule(RNG.uniform(size=(8, 2)), 2, rows_in_blocks([0, 1, 2, 4, 7, 3, 5, 6], [8]), attempts)
    first = [schedule.take()[0] for _ in range(5)]
    assert sorted(first) == [0, 1, 2, 4, 7]
    assert schedule.take() == [3] and schedule.take() == [5]
    assert schedule.take() == [] and not schedule.finished
    schedule.settle([3], [1.0])
    assert schedule.take() == []
    schedule.settle([5], [1.0])
    assert schedule.take() == [6] and schedule.finished


def test_an_input_that_did_not_vary_yet_tells_nothing():
    known = np.column_stack([RNG.uniform(size=50), np.full(50, 3.0)])
    cost = predicted_cost(known, np.exp(known[:, 0]), np.array([[0.2, 1e6], [0.8, -1e6]]))
    assert cost[0] < cost[1] < 10.0
