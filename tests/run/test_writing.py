"""Files are written in one step; a disk that does not take them is said in words."""

import errno
import os

import pytest

from robusttune.run import writing


def test_a_file_is_replaced_in_one_step(tmp_path, monkeypatch):
    path = tmp_path / "text"
    writing.write_text(path, "före\n")
    assert path.read_bytes() == "före\n".encode()

    def killed(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", killed)
    with pytest.raises(KeyboardInterrupt):
        writing.write_text(path, "efter\n")
    assert path.read_bytes() == "före\n".encode()


@pytest.mark.parametrize(
    ("code", "why"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")]
)
def test_a_disk_that_does_not_take_a_file_is_said_in_words_and_leaves_the_old_file(code, why, tmp_path, monkeypatch):
    path = tmp_path / "text"
    writing.write_text(path, "old")

    def full(_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        OSError, match=rf"text' cannot be written \({why}\): make room for it, or let the folder be"
    ) as raised:
        writing.write_text(path, "new")
    assert raised.value.errno == code
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == ["text"]


def test_signs_that_utf_8_lacks_are_written_as_escapes(tmp_path):
    writing.write_text(tmp_path / "names.txt", "a\udcffb ü")  # as os.listdir returns a name in another encoding
    assert (tmp_path / "names.txt").read_text(encoding="utf-8") == "a\\udcffb ü"


def test_a_folder_that_is_gone_is_said(tmp_path):
    with pytest.raises(
        OSError, match=rf"the folder '{tmp_path / 'gone'}' is not there: was it removed, or did the working"
    ):
        writing.write_text(tmp_path / "gone" / "text", "new")
