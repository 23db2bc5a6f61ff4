from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from sobofem.surrogate.online.reservoir import Reservoir, Stream


def put(reservoir, rows):
    """Samples that carry their row in x."""
    rows = np.asarray(rows)
    return reservoir.put(rows, x=rows[:, None] * [1.0, 10.0], y=-1.0 * rows[:, None])


def streamed(reservoir, count, *, batch, steps=1):
    """Put as many samples as there is room for, draw some batches, and so on; the rows of all batches."""
    seen, sent = [], 0
    while not reservoir.exhausted:
        new = min(reservoir.room, count - sent)
        put(reservoir, range(sent, sent + new))
        sent += new
        if sent == count:
            reservoir.close()
        for _ in range(steps):
            if reservoir.ready:
                seen.append(reservoir.draw(batch)["row"].tolist())
    return seen


def test_every_sample_is_seen_though_few_are_held():
    reservoir = Reservoir(20, 8, seed=1)
    batches = streamed(reservoir, 500, batch=6)
    assert {row for batch in batches for row in batch} == set(range(500))
    assert all(len(set(batch)) == len(batch) for batch in batches)
    assert reservoir.received == 500


def test_never_more_than_the_capacity_is_held_and_columns_stay_together():
    reservoir = Reservoir(16, 4, seed=2)
    sent = 0
    while sent < 300:
        new = min(reservoir.room, 7)
        put(reservoir, range(sent, sent + new))
        sent += new
        assert len(reservoir) <= 16
        batch = reservoir.draw(5)
        rows = batch["row"].double()
        assert torch.equal(batch["x"], torch.stack((rows, 10.0 * rows), dim=1))
        assert torch.equal(batch["y"][:, 0], -rows)


def test_only_seen_samples_are_replaced_and_a_put_beyond_the_room_is_refused():
    reservoir = Reservoir(10, 4)
    put(reservoir, range(10))
    assert reservoir.room == 0
    with pytest.raises(ValueError, match="1 new samples came, but there is room for 0"):
        put(reservoir, [10])
    seen = set(reservoir.draw(4)["row"].tolist())
    assert (reservoir.room, reservoir.unseen) == (4, 6)
    with pytest.raises(ValueError, match="5 new samples came, but there is room for 4"):
        put(reservoir, range(10, 15))
    assert put(reservoir, range(10, 13)) == 3
    held = set(reservoir.rows.tolist())
    assert set(range(10)) - held <= seen
    assert set(range(10, 13)) <= held
    assert len(reservoir) == 10


def test_nothing_is_drawn_before_the_watermark_unless_no_more_will_come():
    reservoir = Reservoir(10, 5)
    put(reservoir, range(4))
    assert not reservoir.ready
    with pytest.raises(ValueError, match=r"4 samples are here; batches begin with 5"):
        reservoir.draw(2)
    reservoir.close()
    assert reservoir.ready
    assert len(reservoir.draw(9)["row"]) == 4
    assert reservoir.exhausted


def test_a_known_sample_counts_once_even_after_it_was_replaced():
    reservoir = Reservoir(4, 1)
    assert put(reservoir, [3, 3, 4]) == 2
    reservoir.draw(4)
    assert put(reservoir, [5, 6, 7, 8]) == 4
    held = set(reservoir.rows.tolist())
    assert not held.issuperset({3, 4})
    assert put(reservoir, [3, 4, 8]) == 0
    assert set(reservoir.rows.tolist()) == held
    assert (reservoir.received, reservoir.knows(3), reservoir.knows(9)) == (6, True, False)
    reservoir.close()
    assert put(reservoir, [3]) == 0


def test_new_samples_are_drawn_within_a_few_batches_in_the_order_of_arrival():
    reservoir = Reservoir(200, 1, fresh=0.5, seed=3)
    put(reservoir, range(100))
    while reservoir.unseen:
        reservoir.draw(10)
    put(reservoir, range(100, 112))
    batches = [reservoir.draw(10)["row"].tolist() for _ in range(3)]
    new = [[row for row in batch if row >= 100] for batch in batches]
    assert new[0] == [100, 101, 102, 103, 104]
    assert new[1][:5] == [105, 106, 107, 108, 109]
    assert {110, 111} <= set(new[2])


def test_what_is_not_new_is_drawn_without_regard_to_age():
    reservoir = Reservoir(100, 1, seed=4)
    put(reservoir, range(50))
    reservoir.draw(50)
    put(reservoir, range(50, 100))
    while reservoir.unseen:
        reservoir.draw(20)
    counts = Counter(row for _ in range(2000) for row in reservoir.draw(20)["row"].tolist())
    early, late = (sum(counts[row] for row in rows) for rows in (range(50), range(50, 100)))
    # 40000 draws: the difference between halves has standard deviation below 200
    assert abs(early - late) < 800
    assert min(counts[row] for row in range(100)) > 300


def test_replacement_does_not_spare_the_early_ones():
    """In a long stream what is held is mostly recent: each round replaces seen samples whatever their age."""
    reservoir = Reservoir(50, 1, seed=5)
    for start in range(0, 1000, 25):
        put(reservoir, range(start, start + 25))
        while reservoir.unseen:
            reservoir.draw(25)
    assert int((reservoir.rows < 500).sum()) < 5


def test_the_same_seed_draws_the_same_and_another_seed_otherwise():
    first, again, other = (streamed(Reservoir(20, 8, seed=seed), 100, batch=6) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_a_restored_reservoir_goes_on_as_the_first_would_have():
    first = Reservoir(20, 8, seed=1)
    put(first, range(20))
    for _ in range(3):
        first.draw(6)
    again = Reservoir(20, 8, seed=9)
    again.restore(first.state())
    for start in (20, 25):
        for reservoir in (first, again):
            put(reservoir, range(start, start + 5))
        ours, theirs = first.draw(6), again.draw(6)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(first.rows, again.rows)
    assert torch.equal(first.draws, again.draws)


def test_a_state_that_does_not_fit_is_refused():
    reservoir = Reservoir(20, 1)
    put(reservoir, range(8))
    with pytest.raises(ValueError, match="holds 8 samples, more than the capacity 5"):
        Reservoir(5, 1).restore(reservoir.state())
    with pytest.raises(ValueError, match="lacks draws, generator"):
        Reservoir(5, 1).restore({"known": torch.zeros(0), "closed": torch.tensor(False)})


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Reservoir(0), "capacity is 0; expected a whole number of at least 1"),
        (lambda: Reservoir(4, 5), "watermark is 5; expected at most the capacity 4"),
        (lambda: Reservoir(4, 0), "watermark is 0"),
        (lambda: Reservoir(4, fresh=0.0), "fresh is 0; expected a share"),
        (lambda: put(Reservoir(4), [0.5]), "rows have shape .* expected whole numbers"),
        (lambda: Reservoir(4).put([1, 2], x=[[1.0]]), r"x has shape \(1, 1\), expected one entry for each of 2 rows"),
        (lambda: Reservoir(4).put([1], arrival=[1.0]), "the reservoir's own"),
    ],
)
def test_wrong_input_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_columns_of_another_shape_than_before_are_refused():
    reservoir = Reservoir(4)
    put(reservoir, [1])
    with pytest.raises(ValueError, match=r"expected .*'x': .2,"):
        reservoir.put([2], x=[[1.0]], y=[[1.0]])
    with pytest.raises(ValueError, match="expected"):
        reservoir.put([2], x=[[1.0, 2.0]])
    with pytest.raises(ValueError, match="the batch size is 0"):
        reservoir.draw(0)


class Trickle:
    """A source that has one more sample at each other call, and waits when told to."""

    def __init__(self, count):
        self.count, self.sent, self.calls, self.waits = count, 0, 0, 0

    def __call__(self, room, wait):
        assert room > 0
        self.calls += 1
        self.waits += wait
        if self.sent == self.count:
            return None
        if not wait and self.calls % 2:
            return {}
        self.sent += 1
        return {"row": [self.sent], "x": [[float(self.sent)]], "jacobian": None}


def test_a_stream_ends_when_the_source_is_done_and_all_was_seen():
    source = Trickle(30)
    batches = list(DataLoader(Stream(source, Reservoir(12, 5, seed=1), 4), batch_size=None))
    assert {row for batch in batches for row in batch["row"].tolist()} == set(range(1, 31))
    assert source.waits == 5
    assert all(torch.equal(batch["x"][:, 0], batch["row"].double()) for batch in batches)


def test_a_slow_source_lets_training_go_on_and_a_short_one_gives_all_it_has():
    batches = list(Stream(Trickle(30), Reservoir(12, 5, seed=1), 4))
    assert len(batches) > 40
    short = list(Stream(Trickle(3), Reservoir(12, 5), 2))
    assert {row for batch in short for row in batch["row"].tolist()} == {1, 2, 3}
    assert list(Stream(Trickle(0), Reservoir(12, 5), 2)) == []


def test_a_stream_in_a_worker_process_is_refused():
    with pytest.raises(RuntimeError, match="give the DataLoader num_workers=0"):
        list(DataLoader(Stream(Trickle(3), Reservoir(12, 5), 2), batch_size=None, num_workers=1))
