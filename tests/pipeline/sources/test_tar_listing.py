"""Tars are listed as their writers meant them, or refused; never other bytes, never without bounds."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError
from pipeline.records import Rejected
from pipeline.sources import tar_listing
from pipeline.sources.archives import open_tree
from pipeline.sources.spans import FileSpan
from pipeline.sources.tar_listing import NOT_IN_ONE_PIECE, tar_members
from tests.fuzz.source_files import sparse_tar_bytes, tar_bytes, with_tar_checksums

FORMATS = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)


def listed(path: Path) -> dict[str, tuple[int, int]]:
    with path.open("rb") as handle:
        members = dict(tar_members(handle, ""))
    return {name: (s.offset, s.length) for name, s in members.items() if isinstance(s, FileSpan)}


def as_tarfile_lists(path: Path) -> dict[str, tuple[int, int]]:
    with tarfile.open(path) as archive:
        return {m.name.removeprefix("./"): (m.offset_data, m.size) for m in archive if m.isfile()}


@pytest.mark.parametrize("layout", FORMATS)
def test_the_layouts_of_python_are_listed_as_python_does(layout: int, tmp_path: Path) -> None:
    long = "a" * 90 + "/" + "b" * 60 + "/"
    names = ["plain.png", "./dot.png", long + "1.png", "ünï.png"]
    names += [] if layout == tarfile.USTAR_FORMAT else [3 * long + "2.png", "c" * 300]
    with tarfile.open(tmp_path / "a.tar", "w", format=layout, pax_headers={"comment": "all"}) as archive:
        for number, name in enumerate(names):
            info = tarfile.TarInfo(name)
            info.size = 300 * number
            archive.addfile(info, io.BytesIO(bytes(info.size)))
        folder = tarfile.TarInfo("folder/")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
    assert listed(tmp_path / "a.tar") == as_tarfile_lists(tmp_path / "a.tar")
    assert len(listed(tmp_path / "a.tar")) == len(names)


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar command")
@pytest.mark.parametrize("layout", ["v7", "oldgnu", "gnu", "ustar", "posix"])
def test_the_layouts_of_gnu_tar_are_listed_as_python_does(layout: str, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    for name in ("1.png", "ü.png", "d" * 80):
        (tmp_path / "cat" / name).write_bytes(name.encode() * 50)
    (tmp_path / "cat" / "link").symlink_to("1.png")
    (tmp_path / "cat" / "twin").hardlink_to(tmp_path / "cat" / "1.png")
    command = ["tar", "-C", str(tmp_path), f"--format={layout}", "-cf", str(tmp_path / "a.tar"), "cat"]
    subprocess.run(command, check=True)
    assert listed(tmp_path / "a.tar") == as_tarfile_lists(tmp_path / "a.tar")


@pytest.mark.skipif(shutil.which("tar") is None, reason="there is no tar command")
@pytest.mark.parametrize("version", ["gnu", "posix --sparse-version=0.1", "posix --sparse-version=1.0"])
def test_a_sparse_member_is_named_and_never_read_as_other_bytes(version: str, tmp_path: Path) -> None:
    folder = tmp_path / "cat"
    folder.mkdir()
    with (folder / "holes.bmp").open("wb") as file:
        for place in range(0, 3_000_000, 100_000):  # more pieces than fit into one header
            file.seek(place)
            file.write(b"data")
        file.truncate(4_000_000)
    (folder / "z.png").write_bytes(b"whole")
    layout = f"--format={version}".split()
    subprocess.run(["tar", "-S", *layout, "-C", tmp_path, "-cf", tmp_path / "a.tar", "cat"], check=True)
    tree = open_tree(tmp_path / "a.tar")
    assert tree.rejected == (Rejected("cat/holes.bmp", NOT_IN_ONE_PIECE),)
    assert tree.read("cat/z.png") == b"whole"


def test_a_sparse_member_of_the_oldest_kind_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(sparse_tar_bytes())
    assert open_tree(tmp_path / "a.tar").rejected == (Rejected("cat/holes.png", NOT_IN_ONE_PIECE),)


def test_nothing_but_zeros_may_follow_the_end_of_a_tar(tmp_path: Path) -> None:
    one = tar_bytes(tarfile.USTAR_FORMAT)
    (tmp_path / "a.tar").write_bytes(one + bytes(1_500_000))
    assert len(open_tree(tmp_path / "a.tar").members) == 4
    for rest in (one, bytes(1_500_000) + b"x", b"x"):
        (tmp_path / "a.tar").write_bytes(one + rest)
        with pytest.raises(IntegrityError, match=r"goes on after its end at byte .*two archives in one file"):
            open_tree(tmp_path / "a.tar")


def test_a_header_that_became_zeros_is_damage_and_not_the_end(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(tarfile.USTAR_FORMAT))
    data[1024:1536] = bytes(512)  # of the second member
    (tmp_path / "a.tar").write_bytes(data)
    with pytest.raises(IntegrityError, match="goes on after its end at byte 1,536"):
        open_tree(tmp_path / "a.tar")


def number_field(size: int) -> bytes:
    return b"\x80" + size.to_bytes(11, "big")


@pytest.mark.parametrize(
    ("kind", "size", "problem"),
    [
        (b"0", 2**80, "ends within cat/1.png"),
        (b"0", 10**6, "ends within cat/1.png"),
        (b"L", 2**40, r"a header of 1,099,511,627,776 bytes \(limit"),
        (b"x", 2**40, r"a header of 1,099,511,627,776 bytes \(limit"),
        (b"x", 700, "a pax record has no end"),
    ],
)
def test_no_size_is_believed(kind: bytes, size: int, problem: str, tmp_path: Path) -> None:
    data = bytearray(tar_bytes(tarfile.USTAR_FORMAT))
    data[156:157], data[124:136] = kind, number_field(size)
    (tmp_path / "a.tar").write_bytes(with_tar_checksums(bytes(data)))
    with pytest.raises(IntegrityError, match=problem):
        open_tree(tmp_path / "a.tar")


def test_a_negative_size_does_not_lead_back(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(tarfile.USTAR_FORMAT))
    data[124:136] = struct.pack(">Bqxxx", 0xFF, -512)
    (tmp_path / "a.tar").write_bytes(with_tar_checksums(bytes(data)))
    with pytest.raises(IntegrityError, match="is no number of a tar header"):
        open_tree(tmp_path / "a.tar")


def test_names_and_members_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with tarfile.open(tmp_path / "long.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("n" * 5000))
    with pytest.raises(IntegrityError, match=r"a name of 5,000 characters \(limit 4,096\)"):
        open_tree(tmp_path / "long.tar")
    (tmp_path / "a.tar").write_bytes(tar_bytes(tarfile.USTAR_FORMAT))
    monkeypatch.setattr(tar_listing, "MEMBER_COUNT_LIMIT", 3)
    with pytest.raises(IntegrityError, match="more than 3 members"):
        open_tree(tmp_path / "a.tar")
