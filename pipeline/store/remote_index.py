"""Open a URL: the manifest and the index of each dataset are downloaded into the cache and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.foreign_files import read_regular
from pipeline.index import Dataset, DatasetManifest
from pipeline.index.table import INDEX_BYTES
from pipeline.layout import DatasetLayout, remove_leftovers, write_atomically
from pipeline.settings import JSON_BYTES
from pipeline.store.cache_folders import CacheFolders, dataset_folder
from pipeline.store.fetch import RemoteFetcher, RemotePath
from pipeline.store.server_errors import RemoteFileMissing

INDEX_BASE_BYTES: Final = 2**24  # of a remote index: its texts and its schema
INDEX_ROW_BYTES: Final = 2**10  # of it for each sample; ten sizes take 250


@dataclass(frozen=True, slots=True)
class RemoteDataset:
    """A dataset whose shards stay where they are; its root is a folder of the cache."""

    dataset: Dataset
    origin: RemotePath


def default_cache() -> Path:
    """The folder that keeps downloaded bytes unless the user names another."""
    home = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(home) if home else Path.home() / ".cache") / "lite-shards" / "remote"


def open_remote(
    url: str, cache: Path, fetcher: RemoteFetcher, options: Mapping[str, Any]
) -> list[RemoteDataset]:
    """Open the dataset behind a URL, or all datasets of a folder there. Raises PipelineError."""
    origin = parse_url(url, options)
    single = _open_dataset(fetcher, origin, cache)
    if single:
        return [single]
    folders = fetcher.list_folders(origin)
    datasets = [opened for folder in folders if (opened := _open_dataset(fetcher, folder, cache))]
    if not datasets:
        raise SourceMissing(
            f"{origin} is neither a dataset (it has no dataset.json) nor a listing of folders that "
            "are; name one dataset, or give a list of URLs with one dataset each"
        )
    return datasets


def parse_url(url: str, options: Mapping[str, Any]) -> RemotePath:
    """The folder or file behind a URL. Raises UsageError."""
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(f"{url} needs fsspec: pip install -e '.[remote]'") from error
    try:
        if url.startswith(("http://", "https://")):
            options = _http_options(options)
        return RemotePath(*url_to_fs(url, **options))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be opened: {error}; pip install -e '.[remote]' brings http"
        ) from error


def _http_options(options: Mapping[str, Any]) -> Mapping[str, Any]:
    from pipeline.store.http_answers import open_session  # noqa: PLC0415  (an extra)

    headers = {"Accept-Encoding": "identity", **options.get("headers", {})}  # a compressed range is of no use
    return {"get_client": open_session, **options, "headers": headers}


def _open_dataset(fetcher: RemoteFetcher, origin: RemotePath, cache: Path) -> RemoteDataset | None:
    """Open the dataset in a folder, None if there is none. The index is downloaded when it has changed."""
    root = dataset_folder(cache, str(origin))
    layout = DatasetLayout(root)
    try:
        fetcher.read_file(
            origin.at(layout.manifest.name), lambda data: _manifest_fault(data, cache, layout), JSON_BYTES
        )
    except RemoteFileMissing:
        _refuse_unfinished(fetcher, origin)
        return None
    manifest = DatasetManifest.read(layout.manifest)
    if not _is_file_with(layout.index, manifest.index_sha256):
        data = fetcher.read_file(
            origin.at(layout.index.name),
            lambda data: "" if _sha256(data) == manifest.index_sha256 else "its sha256 is not the manifest's",
            min(INDEX_BYTES, INDEX_BASE_BYTES + INDEX_ROW_BYTES * manifest.samples),
        )
        write_atomically(layout.index, data)
    return RemoteDataset(Dataset.open(root), origin)


def _manifest_fault(data: bytes, cache: Path, layout: DatasetLayout) -> str:
    """Write the manifest into the cache and read it there. Returns what is wrong with it."""
    with closing(CacheFolders(cache)) as folders:
        folders.make(layout.root)
    remove_leftovers(layout.root)
    write_atomically(layout.manifest, data)
    try:
        DatasetManifest.read(layout.manifest)
    except IntegrityError as error:
        return str(error)
    return ""


def _is_file_with(path: Path, sha256: str) -> bool:
    """Whether this is a file with these contents: another build may have left it."""
    try:
        return _sha256(read_regular(path, INDEX_BYTES)) == sha256
    except OSError:
        return False


def _refuse_unfinished(fetcher: RemoteFetcher, origin: RemotePath) -> None:
    try:
        fetcher.list_folders(origin.at(".build"))
    except SourceMissing:
        return
    raise SourceMissing(
        f"{origin} is a build that has not finished (it has .build and no dataset.json); finish it, "
        "then copy dataset.json last"
    )


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
