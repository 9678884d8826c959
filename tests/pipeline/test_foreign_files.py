"""Foreign files are opened without waiting and read up to a limit."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.foreign_files import UnfitFileError, open_regular, read_regular


def test_a_regular_file_is_read_whole_up_to_its_limit(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 5) == b"12345"
    with pytest.raises(UnfitFileError, match="has 5 bytes, and 4 are the limit"):
        read_regular(tmp_path / "file", 4)
    with open_regular(tmp_path / "file") as file:
        assert file.read(2) == b"12"


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "zeros").symlink_to("/dev/zero")
    for name in ("pipe", "zeros", "."):
        with pytest.raises(UnfitFileError, match="is no regular file"):
            open_regular(tmp_path / name)
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing")
