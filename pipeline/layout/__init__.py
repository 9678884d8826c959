"""The file names of a built dataset, and writing a file completely or not at all, or line by line."""

from pipeline.layout.line_files import LineWriter
from pipeline.layout.names import DatasetLayout, key_text, npy_header, shard_number
from pipeline.layout.whole_files import (
    HOST_NAME,
    TEMPORARY_PREFIX,
    PartialFile,
    atomic_file,
    lock_file,
    make_folder,
    remove_leftovers,
    sync_folder,
    temporary_path,
    write_atomically,
)

__all__ = [
    "HOST_NAME",
    "TEMPORARY_PREFIX",
    "DatasetLayout",
    "LineWriter",
    "PartialFile",
    "atomic_file",
    "key_text",
    "lock_file",
    "make_folder",
    "npy_header",
    "remove_leftovers",
    "shard_number",
    "sync_folder",
    "temporary_path",
    "write_atomically",
]
