"""Archives are listed and read in place; nothing hostile or broken is followed or lost."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, SourceMissing
from pipeline.records import Rejected
from pipeline.sources.archives import MemberTree, is_litter, open_tree
from pipeline.sources.spans import SpanReader

FILES = {f"top/{name}/{i}.bin": os.urandom(700 * i) for name in ("a b", "ü") for i in range(4)}


def make_tar(path: Path, extra: Callable[[tarfile.TarFile], None] | None = None) -> Path:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, data in FILES.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        if extra:
            extra(archive)
    return path


def make_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for position, (name, data) in enumerate(FILES.items()):
            method = zipfile.ZIP_DEFLATED if position % 2 else zipfile.ZIP_STORED
            archive.writestr(name, data, method)
    return path


def make_folder(path: Path) -> Path:
    for name, data in FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


def compressed(opener: Callable[[bytes], bytes]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        path.write_bytes(opener(make_tar(path.with_suffix(".plain")).read_bytes()))
        return path

    return make


MAKERS: dict[str, Callable[[Path], Path]] = {
    "folder": make_folder,
    "a.tar": make_tar,
    "a.zip": make_zip,
    "a.tgz": compressed(gzip.compress),
    "a.tar.bz2": compressed(bz2.compress),
    "a.tar.xz": compressed(lzma.compress),
}


def contents(tree: MemberTree) -> dict[str, bytes]:
    with SpanReader(tree.root, tree.scratch) as reader:
        return {name: reader.read_span(span) for name, span in tree.members.items()}


@pytest.mark.parametrize("kind", MAKERS)
def test_folders_and_archives_are_the_same_tree(kind: str, tmp_path: Path) -> None:
    tree = open_tree(MAKERS[kind](tmp_path / kind), scratch=tmp_path / "scratch")
    assert contents(tree) == FILES
    assert list(tree.members) == sorted(FILES)
    assert tree.read("top/ü/1.bin") == FILES["top/ü/1.bin"]
    assert [name for name, _ in tree.under("top/a b")] == ["0.bin", "1.bin", "2.bin", "3.bin"]


def test_spans_are_relative_to_the_root_that_was_named(tmp_path: Path) -> None:
    make_tar(tmp_path / "a.tar")
    tree = open_tree(tmp_path / "a.tar", root=tmp_path)
    assert {span.file for span in tree.members.values()} == {"a.tar"}
    assert contents(tree) == FILES


def test_what_file_managers_leave_behind_is_litter_and_nothing_else_is() -> None:
    litter = [".DS_Store", "a/Thumbs.db", "a/desktop.ini", "._b.jpg", "__MACOSX", "__MACOSX/a/b.jpg"]
    assert [name for name in litter if not is_litter(name)] == []
    assert not any(map(is_litter, ["b.jpg", "a/.b.jpg", "a/thumbs.db.jpg", "DS_Store/b.jpg"]))


def test_an_archive_is_inflated_once_and_not_half(tmp_path: Path) -> None:
    archive = MAKERS["a.tgz"](tmp_path / "a.tgz")
    open_tree(archive, scratch=tmp_path / "scratch")
    inode = (tmp_path / "scratch" / "a.tgz.inflated").stat().st_ino
    open_tree(archive, scratch=tmp_path / "scratch")
    assert [f.name for f in (tmp_path / "scratch").iterdir() if not f.name.startswith("a.tgz.inflated")] == []
    assert (tmp_path / "scratch" / "a.tgz.inflated").stat().st_ino == inode


@pytest.mark.parametrize("kind", ["a.tar", "a.zip", "a.tgz", "a.tar.bz2", "a.tar.xz"])
def test_a_cut_off_archive_is_an_error_and_not_a_short_dataset(kind: str, tmp_path: Path) -> None:
    archive = MAKERS[kind](tmp_path / kind)
    data = archive.read_bytes()
    end = len(data.rstrip(b"\0")) if kind == "a.tar" else len(data)
    for length in [*random.Random(0).sample(range(1, end), 12), end - 1]:
        archive.write_bytes(data[:length])
        with pytest.raises(IntegrityError, match="download it again"):
            open_tree(archive, scratch=tmp_path / f"scratch-{length}")
        assert [f for f in tmp_path.glob("scratch-*/*") if f.suffix != ".lock"] == []


def test_a_damaged_tar_header_is_an_error_and_not_the_end(tmp_path: Path) -> None:
    archive = make_tar(tmp_path / "a.tar")
    data = bytearray(archive.read_bytes())
    third = open_tree(archive).members["top/a b/2.bin"].offset - 512
    data[third + 5] ^= 0x10
    archive.write_bytes(data)
    with pytest.raises(IntegrityError, match="damaged or cut off at byte"):
        open_tree(archive)


def test_flipped_bits_in_a_zip_never_give_other_bytes(tmp_path: Path) -> None:
    archive = make_zip(tmp_path / "a.zip")
    data = archive.read_bytes()
    draw = random.Random(1)
    for _ in range(150):
        flipped = bytearray(data)
        flipped[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
        archive.write_bytes(flipped)
        try:
            tree = open_tree(archive)
        except IntegrityError:
            continue
        with SpanReader(tree.root) as reader:
            for name, span in tree.members.items():
                try:
                    found = reader.read_span(span)
                except (IntegrityError, OSError):
                    continue
                assert found in FILES.values(), name


def test_hostile_members_are_reported_and_nothing_is_written_outside(tmp_path: Path) -> None:
    def hostile(archive: tarfile.TarFile) -> None:
        for name in ("../../escape", "/abs/olute", "top/../../up"):
            info = tarfile.TarInfo(name)
            info.size = 1
            archive.addfile(info, io.BytesIO(b"x"))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
            info = tarfile.TarInfo(f"special-{kind!r}")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)

    before = set(tmp_path.parent.iterdir())
    tree = open_tree(make_tar(tmp_path / "a.tar", hostile))
    assert contents(tree) == FILES
    assert len(tree.rejected) == 7
    assert {entry.reason for entry in tree.rejected} == {
        "absolute path, not followed",
        "path leaves the archive, not followed",
        "not a regular file (link or device), not followed",
    }
    assert set(tmp_path.parent.iterdir()) == before


def test_links_bombs_and_odd_methods_in_a_zip_are_reported(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fine", b"1")
        archive.writestr("../up", b"2")
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        archive.writestr("lzma", b"3" * 100, zipfile.ZIP_LZMA)
        archive.writestr("bomb", bytes(300 * 2**20), zipfile.ZIP_DEFLATED, 1)
    tree = open_tree(tmp_path / "a.zip")
    assert list(tree.members) == ["fine"]
    assert [entry.name for entry in tree.rejected] == ["../up", "link", "lzma", "bomb"]


def changed_entry(path: Path, place: int, value: bytes) -> Path:
    """The zip with other bytes in the first entry of its central directory."""
    data = bytearray(make_zip(path).read_bytes())
    start = data.index(b"PK\x01\x02") + place
    data[start : start + len(value)] = value
    path.write_bytes(data)
    return path


def test_a_member_of_a_zip_that_lies_outside_it_is_left_out(tmp_path: Path) -> None:
    tree = open_tree(changed_entry(tmp_path / "a.zip", 42, b"\xf0\xff\xff\x7f"))
    assert tree.rejected == (Rejected("top/a b/0.bin", "lies outside the archive; download it again"),)
    assert len(tree.members) == len(FILES) - 1


def test_a_zip_whose_members_lie_over_each_other_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="members lie over each other"):
        open_tree(changed_entry(tmp_path / "a.zip", 20, b"\xff\xff\xff\x0f"))


def test_a_pipe_in_place_of_an_archive_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(SourceMissing, match="is needed and is not a file or folder"):
        open_tree(tmp_path / "a.tar")


def test_a_wrong_or_missing_archive_is_named(tmp_path: Path) -> None:
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    (tmp_path / "page.tar").write_text("<html>not found</html>" * 100)
    (tmp_path / "empty.tar").touch()
    for name in ("page.zip", "page.tar", "empty.tar"):
        with pytest.raises(IntegrityError, match=rf"{name} is not a whole archive"):
            open_tree(tmp_path / name)
    with pytest.raises(SourceMissing, match="is needed and is not there"):
        open_tree(tmp_path / "absent.tar")
    with pytest.raises(SourceMissing, match=r"has no list\.txt; is it the archive"):
        open_tree(make_tar(tmp_path / "a.tar")).read("list.txt")


def test_members_with_one_name_are_reported_and_not_dropped(tmp_path: Path) -> None:
    def twice(archive: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("top/ü/1.bin")
        archive.addfile(info)

    tree = open_tree(make_tar(tmp_path / "a.tar", twice))
    assert tree.rejected == (Rejected("top/ü/1.bin", "a second member of this name"),)
    assert contents(tree) == FILES
