"""Damage to datasets and journals is found: never silent, never endless, never a traceback."""

import hashlib
import re
import struct
import subprocess
import sys
import threading

import h5py
import numpy as np
import pytest
import toys

from benchmarks import damaged_datasets
from benchmarks.damaged_datasets import Trial, dataset, differing, write, write_unsealed
from sobofem.coupling import Dataset, Design, generate
from sobofem.coupling.dataset import guarded, hdf5, seal, unfinished


@pytest.fixture(scope="module")
def sealed(tmp_path_factory):
    """Bytes of a sound file."""
    return write(tmp_path_factory.mktemp("sealed"), "sealed").read_bytes()


# `python -m benchmarks damaged_datasets` tries thousands.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"),
    [
        *(("sealed", 16), ("sealed again", 12), ("journal", 15), ("without a seal", 2)),
        *(("sealed fields", 22), ("sealed fields again", 20), ("journal of fields", 9)),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("sealed", 48), ("sealed again", 32))),
        *(pytest.param(*case, marks=pytest.mark.slow) for case in (("journal", 45), ("without a seal", 4))),
    ],
)
def test_no_damage_is_silent_or_a_traceback(kind, count):
    first = {"without a seal": 18}.get(kind, 0)  # bytes are tried by the others
    found = [damaged_datasets.outcome(Trial(kind, number)) for number in range(first, first + count)]
    assert {word.partition(":")[0] for word in found} <= {"refused", "said", "unchanged"}, found
    assert found.count("unchanged") < count / 5


def test_every_flipped_byte_is_found_before_hdf5_sees_it(tmp_path, sealed, monkeypatch):
    monkeypatch.setattr(hdf5, "decoded", lambda file: pytest.fail("HDF5 was called"))
    path = tmp_path / "a.h5"
    for at in (*range(0, seal.LENGTH, 7), *np.random.default_rng(0).integers(seal.LENGTH, len(sealed), 100)):
        content = bytearray(sealed)
        content[at] ^= 0x10
        path.write_bytes(content)
        if content.startswith(sealed[:25]):  # else it is no sealed file
            with pytest.raises(ValueError, match=r"a\.h5 is damaged .*(its bytes do not give|bytes after)"):
                Dataset.open(path)


@pytest.mark.slow
def test_a_seal_that_is_gone_is_missed(tmp_path, sealed):
    """Without it the file may be opened by HDF5, but says that it should have one."""
    for content in (bytes(64) + sealed[64:], sealed[seal.LENGTH :]):
        (tmp_path / "a.h5").write_bytes(content)
        with pytest.raises(ValueError, match=r"its format is [23], which has a seal"):
            Dataset.open(tmp_path / "a.h5")


def test_other_programs_open_the_file_and_compute_its_checksum(tmp_path, sealed):
    (tmp_path / "a.h5").write_bytes(sealed)
    with h5py.File(tmp_path / "a.h5") as file:
        np.testing.assert_array_equal(file["y"][()], dataset().y)
        assert file.userblock_size == seal.LENGTH
    text = sealed[: seal.LENGTH].decode()
    assert f"{len(sealed) - seal.LENGTH} bytes follow" in text and text.endswith(" \n")
    assert hashlib.blake2b(sealed[seal.LENGTH :], digest_size=32).hexdigest() in text


@pytest.mark.slow
@pytest.mark.filterwarnings("default:.*no checksum of all:UserWarning")
def test_a_file_of_an_earlier_version_is_read_with_a_warning_and_gets_its_checksum_by_merging(tmp_path, here):
    old, new = tmp_path / "old.h5", tmp_path / "new.h5"
    write_unsealed(old, dataset())
    with pytest.warns(UserWarning, match=r"no checksum of all its bytes.*sobofem merge"):
        assert differing(Dataset.open(old), dataset()) == []
    code, said, _ = here("verify", old)
    assert code == 0 and "50 samples and 2 failures intact" in said and "sobofem merge" in said
    code, _, said = here("merge", old, "--out", new)
    assert code == 0 and said.startswith(f"warning: {old} has no checksum") and said.count("\n") == 1
    code, said, _ = here("verify", new)
    assert code == 0 and "merge" not in said
    assert differing(Dataset.open(new), dataset()) in ([], ["texts"])  # attempts are a campaign's own


@pytest.mark.slow
def test_a_bit_that_has_hdf5_loop_for_ever_is_an_error_in_time(tmp_path, monkeypatch):
    """An empty text in HDF5's heap whose claimed length leads into zeros, which HDF5 walks through without an end."""
    path = tmp_path / "a.h5"
    write_unsealed(path, dataset())
    content = bytearray(path.read_bytes())
    at = content.index(b"GCOL") + 16
    while length := struct.unpack_from("<Q", content, at + 8)[0]:
        at += 16 + -(-length // 8) * 8
    content[at + 9] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr(guarded, "SECONDS", 0.2)
    with pytest.raises(ValueError, match="reading it did not end"):
        Dataset.open(path)


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("import os; os.kill(os.getpid(), 11)", "crashed the HDF5 library with SIGSEGV"),
        ("import os; os.abort()", "crashed the HDF5 library with SIGABRT"),
        ("raise RuntimeError", "reading it failed"),
    ],
)
def test_a_crash_of_hdf5_is_an_error(tmp_path, monkeypatch, end, message):
    run = subprocess.run
    monkeypatch.setattr(guarded.subprocess, "run", lambda line, **how: run([sys.executable, "-c", end], **how))
    write_unsealed(tmp_path / "a.h5", dataset())
    with pytest.raises(ValueError, match=message):
        Dataset.open(tmp_path / "a.h5")


def test_a_claim_of_a_quadrillion_rows_is_not_believed(tmp_path):
    path = tmp_path / "a.h5"
    write_unsealed(path, dataset())
    with h5py.File(path, "r+") as file:
        del file["design"]
        file.create_dataset("design", (10**15, 3), "<f8", chunks=(1000, 3), fletcher32=True)
    with pytest.raises(ValueError, match=r"design claims shape \(1000000000000000, 3\), which is more than the file"):
        Dataset.open(path)


@pytest.mark.slow
def test_a_reader_meets_no_false_alarm_while_the_file_is_replaced(tmp_path):
    path, data, stop = tmp_path / "a.h5", dataset(), threading.Event()
    data.save(path)

    def write_on():
        parts = [data.head(30), data]
        while not stop.is_set():
            parts[0].save(path)
            parts.reverse()

    writer = threading.Thread(target=write_on)
    writer.start()
    try:
        sizes = {len(Dataset.open(path)) for _ in range(100)}
    finally:
        stop.set()
        writer.join()
    assert sizes <= {30, 50}


COMMANDS = [
    ("info",),
    ("status",),
    ("train", "--out", "s"),
    ("infill", "--points", 2, "--out", "p.csv"),
    ("merge", "--out", "m.h5"),
    ("generate",),
]


@pytest.mark.parametrize("line", COMMANDS, ids=lambda line: line[0])
@pytest.mark.parametrize("flip", [600, -1])
def test_every_command_says_in_one_line_that_its_dataset_is_damaged(tmp_path, monkeypatch, here, line, flip):
    if line[0] in ("train", "infill"):
        pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    generate(toys.smooth, Design("sobol", 8, 3), "a.h5")
    content = bytearray((tmp_path / "a.h5").read_bytes())
    content[flip] ^= 4
    (tmp_path / "a.h5").write_bytes(content)
    command, *options = line
    arguments = (f"{toys.__file__}:smooth", "--samples", 8, "--seed", 3, "--out", "a.h5")
    code, _, said = here(command, *(arguments if command == "generate" else ("a.h5", *options)))
    assert code == 2
    assert said.count("\n") == 1 and re.match(r"error: \S*a\.h5 is damaged or cut off", said)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.h5"]
    code, said, _ = here("verify", "a.h5")
    assert code == 1 and said.count("\n") == 1


def test_the_damage_of_a_journal_is_named_by_every_command_and_its_rows_are_computed_again(tmp_path, here):
    path = write(tmp_path, "journal")
    (journal,) = unfinished.files(path)
    content = bytearray(journal.read_bytes())
    content[len(content) // 2] ^= 1
    journal.write_bytes(content)
    for command, code in (("info", 0), ("status", 0), ("verify", 1)):
        found, said, _ = here(command, path)
        assert found == code and "at byte" in said and "checksum does not fit" in said
    assert len(Dataset.open(path)) == 49
