"""Foreign source files under test: one file in one folder, written again for each input, listed, read and planned."""

from __future__ import annotations

import atexit
import io
import shutil
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Final

import pyarrow as pa

from pipeline.build.plan_columns import PLAN_SCHEMA, item_columns, items_from
from pipeline.errors import PipelineError
from pipeline.records import Item, Rejected
from pipeline.sources.archives import MemberTree, open_tree
from pipeline.sources.folder import FolderSource
from pipeline.sources.spans import MEMBER_LIMIT, SpanReader

MEMBERS: Final = {
    "cat/1.png": b"first",
    "cat/2.png": b"x" * 600,
    "dog/ü.png": b"",
    "dog/" + "y" * 90: b"last",
}
MOST_READ: Final = 50  # members that are read of one archive


@cache
def source_folder() -> Path:
    """The folder of this process's files; it goes with the process."""
    folder = tempfile.mkdtemp(prefix="fuzz-source-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def written(name: str, data: bytes) -> Path:
    """The file of that name with these bytes."""
    path = source_folder() / name
    path.write_bytes(data)
    return path


def tar_bytes(layout: int) -> bytes:
    """A tar of few members and a link in one of tarfile's layouts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for name, data in MEMBERS.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("cat/link")
        link.type, link.linkname = tarfile.SYMTYPE, "1.png"
        archive.addfile(link)
    return buffer.getvalue()


def sparse_tar_bytes() -> bytes:
    """A tar with a member in GNU's first sparse layout: one block of a map, one of data."""
    header = tarfile.TarInfo("cat/holes.png")
    header.type, header.size = tarfile.GNUTYPE_SPARSE, 512
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[386:410] = b"%011o\0%011o\0" % (4096, 512)
    block[148:156] = b"%06o\0 " % (sum(block) - sum(block[148:156]) + 8 * 32)
    return bytes(block) + b"d" * 512 + bytes(1024)


def zip_bytes(method: int) -> bytes:
    """A zip of few members."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in MEMBERS.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def with_tar_checksums(data: bytes) -> bytes:
    """The same blocks, each that looks like a header with the checksum that it should have."""
    blocks = bytearray(data)
    for start in range(0, len(blocks) - 511, 512):
        block = blocks[start : start + 512]
        if block[257:262] == b"ustar":
            total = sum(block) - sum(block[148:156]) + 8 * ord(" ")
            blocks[start + 148 : start + 156] = struct.pack("8s", b"%06o\0 " % total)
    return bytes(blocks)


def look_at_archive(path: Path) -> None:
    """List an archive, read its first members and plan them: accepted, or refused in one of our sentences."""
    try:
        tree = open_tree(path, scratch=source_folder() / "scratch")
    except PipelineError:
        return
    _read_members(tree)
    try:
        survey = FolderSource(root=path, scratch=source_folder() / "scratch").survey()
    except PipelineError:
        assert not any("/" in name.strip("./") for name in tree.members)  # no folder, so no class
        return
    assert all(record.name for record in survey.classes)
    look_at_items(survey.items)


def _read_members(tree: MemberTree) -> None:
    with SpanReader(tree.root, tree.scratch) as reader:
        for span in list(tree.members.values())[:MOST_READ]:
            size = reader.path(span.file).stat().st_size
            assert 0 <= span.offset <= span.offset + span.length <= size
            try:
                assert len(reader.read_span(span)) <= MEMBER_LIMIT
            except PipelineError:
                assert span.packing == "zip"  # whose members have checksums; all others can be read


def look_at_items(entries: Iterable[Item | Rejected]) -> None:
    """Put what a source lists into a plan's columns, which give it back or say what they cannot hold."""
    listed = list(entries)
    for entry in listed:
        if isinstance(entry, Rejected):
            "".join(entry.printable()).encode()
    items = [entry for entry in listed if isinstance(entry, Item)]
    try:
        table = pa.Table.from_batches([item_columns(items)] if items else [], PLAN_SCHEMA)
    except PipelineError:
        return
    assert [item.file for item in items_from(table)] == [item.file for item in items]
