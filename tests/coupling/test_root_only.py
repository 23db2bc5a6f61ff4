"""A value that rank 0 alone holds."""

import pytest

from sobofem.coupling.parallel.world import RootOnly, Serial, on_root_only


def test_rank_0_reads_and_replaces_what_it_made():
    held = on_root_only(Serial(), lambda: [1])
    held.value.append(2)
    assert held.value == [1, 2]
    held.value = [3]
    assert held.value == [3]


def test_another_rank_can_not_read_it():
    with pytest.raises(RuntimeError, match="held by rank 0 alone; read it within `on_root`"):
        _ = RootOnly().value
