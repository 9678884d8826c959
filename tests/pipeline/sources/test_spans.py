"""Reading places in files: few of them open, and every byte that was promised, within limits."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, UsageError
from pipeline.records import Item, Rejected
from pipeline.sources.base import read_or_reject
from pipeline.sources.spans import MEMBER_LIMIT, SCRATCH, FileSpan, SpanReader, read_list


def test_a_reader_keeps_few_files_open(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / str(number)).write_bytes(b"%d" % number)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(list(Path("/proc/self/fd").iterdir())) + 40, limits[1]))
    try:
        with SpanReader(tmp_path) as reader:
            for number in [*range(200), *range(200)]:
                assert reader.read_span(FileSpan(str(number))) == b"%d" % number
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def test_a_file_that_shrank_is_a_reason(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with SpanReader(tmp_path) as reader, pytest.raises(IntegrityError, match="10 bytes expected"):
        reader.read_span(FileSpan("a", 0, 10))


def test_what_lies_in_scratch_needs_a_scratch_folder(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "a").write_bytes(b"kept")
    with SpanReader(tmp_path, tmp_path / "scratch") as reader:
        assert reader.read_span(FileSpan(f"{SCRATCH}a")) == b"kept"
    with SpanReader(tmp_path) as reader, pytest.raises(UsageError, match="was given none"):
        reader.read_span(FileSpan(f"{SCRATCH}a"))


def test_a_file_of_another_size_than_planned_ends_the_build_and_is_not_left_out(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    item = Item("a", 0, "", *FileSpan("a", 0, 4, "whole"))
    with SpanReader(tmp_path) as reader, pytest.raises(UsageError, match="has 5 bytes and had 4 when"):
        read_or_reject(item, reader.read)


@pytest.mark.parametrize("length", [-1, 2**30, MEMBER_LIMIT + 1])
def test_no_file_is_read_beyond_the_limit(length: int, tmp_path: Path) -> None:
    with (tmp_path / "video.png").open("wb") as file:
        file.truncate(2**30)
    with SpanReader(tmp_path) as reader, pytest.raises(IntegrityError, match="more than the limit of 268,"):
        reader.read_span(FileSpan("video.png", 0, length))
    with pytest.raises(IntegrityError, match="limit"):
        read_list(tmp_path / "video.png")


@pytest.mark.parametrize("offset", [6, 2**62, -1])
def test_no_memory_is_asked_for_what_the_file_does_not_have(offset: int, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    with SpanReader(tmp_path) as reader:
        found = read_or_reject(Item("a", 0, "", "a", offset, MEMBER_LIMIT), reader.read)
    assert isinstance(found, Rejected)


def test_a_pipe_or_folder_that_a_source_lists_is_a_reason_and_not_a_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    with SpanReader(tmp_path) as reader:
        for name in ("pipe", "folder"):
            reason = "cannot be read: not a regular file (folder, pipe or device)"
            assert read_or_reject(Item(name, 0, "", name), reader.read) == Rejected(name, reason)
    with pytest.raises(IntegrityError, match="is no regular file"):
        read_list(tmp_path / "pipe")
