"""Open a URL: the manifest and the index of each dataset are downloaded into the cache and checked."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import IntegrityError, SourceMissing, UsageError
from pipeline.index import Dataset, DatasetManifest
from pipeline.layout import DatasetLayout, write_atomically
from pipeline.store.fetch import RemoteFetcher, RemoteFileMissing, RemotePath


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
    origin = _parse_url(url, options)
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


def _parse_url(url: str, options: Mapping[str, Any]) -> RemotePath:
    try:
        from fsspec.core import url_to_fs  # noqa: PLC0415  (an extra)
    except ImportError as error:
        raise UsageError(f"{url} needs fsspec: pip install -e '.[remote]'") from error
    if url.startswith(("http://", "https://")):  # a range of a compressed answer is of no use
        headers = {"Accept-Encoding": "identity", **options.get("headers", {})}
        options = {**options, "headers": headers}
    try:
        return RemotePath(*url_to_fs(url, **options))
    except (ImportError, ValueError) as error:
        raise UsageError(
            f"{url} cannot be opened: {error}; pip install -e '.[remote]' brings http"
        ) from error


def _open_dataset(fetcher: RemoteFetcher, origin: RemotePath, cache: Path) -> RemoteDataset | None:
    """Open the dataset in a folder, None if there is none. The index is downloaded when it has changed."""
    suffix = _sha256(str(origin).encode())[:16]
    root = cache / f"{origin.path.rstrip('/').rpartition('/')[2]}-{suffix}"
    layout = DatasetLayout(root)
    try:
        fetcher.read_file(origin.at(layout.manifest.name), lambda data: _manifest_fault(data, layout))
    except RemoteFileMissing:
        _refuse_unfinished(fetcher, origin)
        return None
    digest = DatasetManifest.read(layout.manifest).index_sha256
    if not layout.index.exists() or _sha256(layout.index.read_bytes()) != digest:
        data = fetcher.read_file(
            origin.at(layout.index.name),
            lambda data: "" if _sha256(data) == digest else "its sha256 is not the manifest's",
        )
        write_atomically(layout.index, data)
    return RemoteDataset(Dataset.open(root), origin)


def _manifest_fault(data: bytes, layout: DatasetLayout) -> str:
    """Write the manifest into the cache and read it there. Returns what is wrong with it."""
    layout.root.mkdir(parents=True, exist_ok=True)
    write_atomically(layout.manifest, data)
    try:
        DatasetManifest.read(layout.manifest)
    except IntegrityError as error:
        return str(error)
    return ""


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
