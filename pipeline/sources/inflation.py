"""Compressed archives have no offsets, so each is inflated, as one file, into the scratch folder.

The copy belongs to one archive: another archive of that name is inflated anew. Of several tasks with one
scratch folder, one inflates and the others wait and take its copy.
"""

from __future__ import annotations

import bz2
import gzip
import hashlib
import logging
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final, cast

from pipeline.constants import READ_BLOCK
from pipeline.errors import IntegrityError, UsageError, errors_about
from pipeline.layout import atomic_file, lock_file, make_folder, remove_leftovers, write_atomically
from pipeline.sources.spans import SCRATCH

GZIP_MAGIC: Final = b"\x1f\x8b"
DECOMPRESSORS: Final = {GZIP_MAGIC: gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
INFLATION_RATIO: Final = (
    200  # of an inflated archive to its file; those of images come to about 1, of lists to 20
)
INFLATION_FREE: Final = 1 << 30  # bytes that any archive may inflate to
SAMPLED_BYTES: Final = 1 << 16
"""At both ends of an archive; the checksums of its contents lie in the last ones."""

log = logging.getLogger(__name__)


def plain_file(path: Path, file: str, scratch: Path | None) -> tuple[Path, str]:
    """The file itself or, if it is compressed, its inflated copy; and the `file` of its spans."""
    with path.open("rb") as handle, errors_about(path):
        start = handle.read(6)
    opener = next((o for magic, o in DECOMPRESSORS.items() if start.startswith(magic)), None)
    if opener is None:
        return path, file
    if scratch is None:
        raise UsageError(f"{path} is compressed and there is no scratch folder to inflate it into")
    target = scratch / f"{path.name}.inflated"
    note = target.with_name(f"{target.name}.archive")
    make_folder(scratch)
    with hold_lock(target.with_name(f"{target.name}.lock"), f"{path} to be inflated"):
        fingerprint = archive_fingerprint(path)
        if not (target.exists() and note.exists() and note.read_bytes() == fingerprint):
            note.unlink(missing_ok=True)
            remove_leftovers(scratch)
            _inflate(path, target, cast("Any", opener))
            write_atomically(note, fingerprint)
    return target, SCRATCH + target.name


def archive_fingerprint(path: Path) -> bytes:
    """A hash of an archive's size and both of its ends; copies of one archive have the same."""
    with path.open("rb") as handle, errors_about(path):
        size = handle.seek(0, 2)
        handle.seek(0)
        ends = [handle.read(SAMPLED_BYTES)]
        handle.seek(max(0, size - SAMPLED_BYTES))
        ends.append(handle.read(SAMPLED_BYTES))
    return hashlib.sha256(b"%d " % size + b"".join(ends)).hexdigest().encode()


def _inflate(path: Path, target: Path, opener: Any) -> None:
    """Decompress a file; the copy appears when it is complete."""
    limit = INFLATION_FREE + INFLATION_RATIO * path.stat().st_size
    try:
        with opener(path, "rb") as source, atomic_file(target) as copy:
            while block := _read_block(source, path):
                if copy.tell() + len(block) > limit:
                    raise IntegrityError(
                        f"{path} inflates to more than {limit:,} bytes, {INFLATION_RATIO} times its size; it is no "
                        "archive of images, or unpack it by hand if it is"
                    )
                copy.write(block)
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, MemoryError) as error:
        raise IntegrityError(f"{path} is cut off or damaged ({error}); download it again") from error
    except OSError as error:
        if error.errno is None:  # bz2 reports damaged data this way
            raise IntegrityError(f"{path} is damaged ({error}); download it again") from error
        raise


def _read_block(source: IO[bytes], path: Path) -> bytes:
    with errors_about(path):
        return source.read(READ_BLOCK)


@contextmanager
def hold_lock(lock: Path, what: str = "") -> Iterator[None]:
    """Hold a lock file: other processes wait for it, and a killed one lets go of it.

    what: what a process waits for, for its log. Without locks on the file system nobody waits.
    """
    with lock.open("w") as handle:
        if lock_file(handle.fileno()) is False:
            import fcntl  # noqa: PLC0415 - Windows has none, and no such locks

            log.info("waiting for %s by another process, which holds %s", what, lock)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
