"""Reading places in files: few of them open, and every byte that was promised."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pipeline.errors import IntegrityError, UsageError
from pipeline.sources.spans import SCRATCH, FileSpan, SpanReader


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
