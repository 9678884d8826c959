"""One tar, complete or not at all, the same bytes every time."""

from __future__ import annotations

import errno
import hashlib
import tarfile
import zlib
from pathlib import Path

import pytest

from pipeline.build.writer import ShardWriter, member_header


def write(path: Path, samples: int = 3) -> None:
    with ShardWriter(path) as writer:
        for key in range(samples):
            writer.add(f"{key:09d}", [("cls", b"7"), ("jpg", b"x" * (500 + key))], "jpg")
        writer.commit()


def test_python_and_tar_read_what_was_written(tmp_path: Path) -> None:
    write(tmp_path / "a.tar")
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
        assert [member.name for member in members][:2] == ["000000000.cls", "000000000.jpg"]
        assert [member.size for member in members][1::2] == [500, 501, 502]
        for member in members:
            assert (member.mode, member.mtime, member.uid, member.gid) == (0o444, 0, 0, 0)
            assert member.type == tarfile.REGTYPE
    assert (tmp_path / "a.tar").stat().st_size % 10240 == 0


def test_a_header_is_the_one_that_tarfile_would_write() -> None:
    info = tarfile.TarInfo("000000012.json")
    info.size, info.mode = 12345, 0o444
    assert member_header("000000012.json", 12345) == info.tobuf(tarfile.USTAR_FORMAT)


def test_a_location_is_that_of_the_bytes_written(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        writer.add("k0", [("cls", b"1"), ("jpg", b"first")], "jpg")
        place = writer.add("k1", [("cls", b"1"), ("jpg", b"second"), ("json", b"{}")], "jpg")
        report = writer.commit()
    data = (tmp_path / "a.tar").read_bytes()
    assert data[place.offset : place.offset + place.length] == b"second"
    assert place.crc32 == zlib.crc32(b"second")
    assert report is not None
    assert report.sha256 == hashlib.sha256(data).hexdigest()
    assert (report.samples, report.bytes) == (2, len(data))


def test_a_writer_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "a.tar") as writer:
            writer.add("k0", [("jpg", b"first")], "jpg")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_another_file_is_not_the_tar_s(tmp_path: Path) -> None:
    def fail() -> None:
        with ShardWriter(tmp_path / "24" / "a.tar"), ShardWriter(tmp_path / "48" / "a.tar"):
            raise OSError(errno.EIO, "Input/output error", "photos/cat.jpg")

    with pytest.raises(OSError, match="photos/cat"):
        fail()


def test_a_shard_without_samples_has_no_file(tmp_path: Path) -> None:
    with ShardWriter(tmp_path / "a.tar") as writer:
        assert writer.commit() is None
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_other_readers_would_cut_is_refused() -> None:
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        member_header("k" * 97 + ".jpg", 1)
