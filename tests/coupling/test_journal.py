from launching import python
import numpy as np
import pytest

from sobofem.coupling.dataset.journal import Header, JournalWriter, read_journal
from sobofem.coupling.dataset.records import Failure, Sample

HEADER = Header("f1", parameters=2, responses=3)
RNG = np.random.default_rng(0)


def records():
    return [
        Sample(0, RNG.normal(size=2), RNG.normal(size=3), RNG.normal(size=(3, 2)), 0.25),
        Failure(4, RNG.normal(size=2), "buckled: λ < 0 — no equilibrium", 0.4, 1.5),
        Sample(2, RNG.normal(size=2), RNG.normal(size=3), None, 0.5),
        Sample(9, RNG.normal(size=2), RNG.normal(size=3), RNG.normal(size=(3, 2)), 0.125),
        Sample(10, RNG.normal(size=2), RNG.normal(size=3), None, 0.125, negative_pivots=2),
        Sample(
            *(11, RNG.normal(size=2), RNG.normal(size=3), RNG.normal(size=(3, 2)), 0.125, 1),
            direction=RNG.normal(size=2),
            hessian_actions=RNG.normal(size=(3, 2)),
        ),
    ]


def write(path, items):
    """A journal, and its size after each record."""
    writer = JournalWriter(path, HEADER)
    sizes = [path.stat().st_size]
    for item in items:
        (writer.sample if isinstance(item, Sample) else writer.failure)(item)
        sizes.append(path.stat().st_size)
    writer.close()
    return sizes


def assert_same(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert type(a) is type(b) and vars(a).keys() == vars(b).keys()
        for name, value in vars(b).items():
            np.testing.assert_array_equal(getattr(a, name), value)


def test_records_come_back_bit_for_bit(tmp_path):
    items = records()
    write(tmp_path / "j", items)
    journal = read_journal(tmp_path / "j")
    assert journal.header == HEADER and journal.damage == ""
    assert_same(journal.records, items)


@pytest.mark.slow
def test_cutting_at_any_byte_keeps_every_whole_record_before_it(tmp_path):
    items = records()
    sizes = write(tmp_path / "j", items)
    data = (tmp_path / "j").read_bytes()
    for length in range(len(data)):
        (tmp_path / "cut").write_bytes(data[:length])
        journal = read_journal(tmp_path / "cut")
        whole = sum(size <= length for size in sizes[1:])
        assert_same(journal.records, items[:whole])
        assert (journal.damage == "") == (length in (0, sizes[0] // 2, *sizes))


def test_a_flipped_byte_costs_one_record_and_is_named(tmp_path):
    items = records()
    sizes = write(tmp_path / "j", items)
    data = bytearray((tmp_path / "j").read_bytes())
    for position in range(sizes[1], sizes[2]):
        damaged = data.copy()
        damaged[position] ^= 0x40
        (tmp_path / "flipped").write_bytes(damaged)
        journal = read_journal(tmp_path / "flipped")
        assert_same(journal.records, items[:1] + items[2:])
        assert f"at byte {sizes[1]} of {len(data)}" in journal.damage


def test_a_row_without_an_answer_is_an_attempt(tmp_path):
    writer = JournalWriter(tmp_path / "j", HEADER)
    writer.attempt(0)
    writer.sample(records()[0])
    writer.attempt(7)
    writer.close()
    assert read_journal(tmp_path / "j").attempts == (7,)


def test_a_header_is_there_twice_since_nothing_can_be_read_without(tmp_path):
    items = records()
    sizes = write(tmp_path / "j", items)
    data = bytearray((tmp_path / "j").read_bytes())
    data[20] ^= 1
    (tmp_path / "j").write_bytes(data)
    journal = read_journal(tmp_path / "j")
    assert_same(journal.records, items)
    assert "at byte 0" in journal.damage
    data[sizes[0] // 2 + 20] ^= 1
    (tmp_path / "j").write_bytes(data)
    journal = read_journal(tmp_path / "j")
    assert journal.records == () and "no header" in journal.damage


def with_attempts(path):
    """A journal as a group writes it: an attempt before each record. Bytes where records begin."""
    writer = JournalWriter(path, HEADER)
    starts = []
    for row in range(12):
        starts.append(path.stat().st_size)
        writer.attempt(row)
        starts.append(path.stat().st_size)
        if row == 4:
            writer.failure(Failure(row, RNG.normal(size=2), "buckled", 0.4, 1.5))
        else:
            dy = RNG.normal(size=(3, 2)) if row != 8 else None
            writer.sample(
                Sample(row, RNG.normal(size=2), RNG.normal(size=3), dy, 0.25 * row, row % 3 if row < 7 else None)
            )
    writer.attempt(99)
    writer.close()
    return starts


def as_samples(journal):
    """The samples of a journal by row, of records and of columns."""
    records = [record for record in journal.records if isinstance(record, Sample)]
    found = {record.row: (record.x, record.y, record.jacobian, record.seconds) for record in records}
    for columns in journal.columns:
        raw = np.empty((len(columns.rows), columns.length), np.uint8)
        columns.read(np.arange(len(raw)), raw)
        arrays = raw.view(columns.layout)[:, 0]
        for k, row in enumerate(columns.rows.tolist()):
            dy = arrays["jacobian"][k] if "jacobian" in columns.layout.names else None
            found[row] = (arrays["x"][k], arrays["y"][k], dy, columns.seconds[k])
    return found


def test_columns_hold_what_records_do_wherever_a_journal_is_damaged_or_cut_off(tmp_path):
    starts = with_attempts(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    damaged = [whole, *(whole[:end] for end in range(0, len(whole), 101))]
    for at in range(starts[0], len(whole), 11):
        damaged.append(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    for content in damaged:
        (tmp_path / "d").write_bytes(content)
        records = read_journal(tmp_path / "d")
        columns = read_journal(tmp_path / "d", in_columns=True)
        assert (columns.damage, columns.attempts) == (records.damage, records.attempts)
        assert sorted(columns.answered) == sorted(records.answered)
        plain = [record for record in records.records if isinstance(record, Sample)]
        found = as_samples(columns)
        assert found.keys() == {record.row for record in plain}
        for record in plain:
            for a, b in zip(found[record.row], (record.x, record.y, record.jacobian, record.seconds), strict=True):
                np.testing.assert_array_equal(a, b)
    (tmp_path / "d").write_bytes(whole)
    assert sum(len(each.rows) for each in read_journal(tmp_path / "d", in_columns=True).columns) == 11


def test_a_journal_is_never_written_over(tmp_path):
    write(tmp_path / "j", records())
    with pytest.raises(FileExistsError):
        JournalWriter(tmp_path / "j", HEADER)


def test_a_full_disk_is_reported_and_leaves_whole_records(tmp_path):
    code = """
import resource, sys
import numpy as np
from pathlib import Path
from sobofem.coupling.dataset.journal import Header, JournalWriter
from sobofem.coupling.dataset.records import Sample
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # what a quota does: a part of the record still fits
writer = JournalWriter(Path(sys.argv[1]), Header("f1", 2, 3))
try:
    for row in range(100):
        writer.sample(Sample(row, np.zeros(2), np.ones(3), None, 0.0))
except OSError as error:
    print(error)
writer.close()
"""
    said = python(code, tmp_path / "j")
    assert "could not append to the journal; everything before is safe" in said.stdout, said.stderr
    journal = read_journal(tmp_path / "j")
    assert journal.damage == "" and [record.row for record in journal.records] == list(range(len(journal.records)))
    assert 8 < len(journal.records) < 20


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("sobofem.coupling.dataset.journal.VERSION", 6)
    write(tmp_path / "j", [])
    monkeypatch.undo()
    with pytest.raises(ValueError, match="journal format 6, this sobofem reads 5"):
        read_journal(tmp_path / "j")


@pytest.mark.parametrize("payload", [b"", b"x" * 7, b"x" * 24, b"x" * 200])
@pytest.mark.parametrize("kind", [0, 1, 2, 3, 4, 200])
def test_a_record_that_its_header_does_not_allow_is_named_and_passed_over(tmp_path, kind, payload):
    """Of another program perhaps, or a later version: its own checksum fits."""
    writer = JournalWriter(tmp_path / "j", HEADER)
    writer._append(kind, payload)
    items = records()
    for item in items:
        (writer.sample if isinstance(item, Sample) else writer.failure)(item)
    writer.close()
    journal = read_journal(tmp_path / "j")
    assert_same([record for record in journal.records if record.row < 100], items)
    assert "at byte" in journal.damage or kind in (0, 2)
