import os

import pytest

from sobofem.surrogate.files import replace


def test_a_file_is_replaced_as_a_whole_with_the_rights_that_others_expect(tmp_path):
    path = tmp_path / "a.bin"
    replace(path, b"old and longer")
    replace(path, b"new")
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").write_text("x")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_what_can_t_be_written_is_named_and_leaves_nothing(tmp_path):
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(IsADirectoryError, match="can't be written") as caught:
        replace(folder, b"x")
    assert caught.value.filename == str(folder)
    with pytest.raises(FileNotFoundError, match="can't be written") as caught:
        replace(tmp_path / "none" / "a.bin", b"x")
    assert caught.value.filename == str(tmp_path / "none" / "a.bin")
    assert list(tmp_path.iterdir()) == [folder]


def test_a_full_disk_keeps_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.bin"
    replace(path, b"old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="can't be written: No space left on device"):
        replace(path, b"new")
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
